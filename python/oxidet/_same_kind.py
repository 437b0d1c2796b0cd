"""The same kind out as in: torch tensors for callers that have torch, arrays for all others.

A function that takes and returns NumPy arrays becomes one for both by :func:`same_kind`. Tensors
share their memory with the arrays the function sees, and its results theirs with the tensors
handed back. torch is looked up among the modules already imported, never imported: who has no
tensor pays one dictionary look-up.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

# Types of most arguments, none of which is a tensor or holds one: one look-up instead of several
# instance checks.
_PLAIN = frozenset({np.ndarray, float, int, bool, str, type(None)})


def same_kind(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` on arrays, taking torch CPU tensors too and then returning tensors.

    Looks into lists, tuples and dicts, not into iterators. Python and NumPy numbers go with either
    kind. Raises TypeError for a tensor together with an array, and for one that NumPy cannot share
    (on another device, requiring grad, sparse, bfloat16), with the remedy.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()

    @functools.wraps(function)
    def either_kind(*args: P.args, **kwargs: P.kwargs) -> R:
        torch = sys.modules.get("torch")
        # Without the attribute torch is just being imported, by another thread.
        tensor = getattr(torch, "Tensor", None)
        if tensor is None or not (
            _holds(args, tensor) or (kwargs and _holds(kwargs.values(), tensor))
        ):
            return function(*args, **kwargs)
        arrays = [_to_array(value, _name(names, i), tensor) for i, value in enumerate(args)]
        keywords = {name: _to_array(value, name, tensor) for name, value in kwargs.items()}
        call: Callable[..., R] = function
        result: Any = _to_tensor(call(*arrays, **keywords), torch)
        return result

    return either_kind


def is_torch_tensor(value: Any) -> bool:
    """Whether it is a tensor of torch's; who holds one has imported torch."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def _holds(values: Iterable[Any], kind: type) -> bool:
    """Whether one of the values, or something in a container among them, is of that kind."""
    for value in values:
        if type(value) in _PLAIN:
            continue
        if isinstance(value, kind):
            return True
        if isinstance(value, dict):
            value = value.values()
        elif not isinstance(value, (list, tuple)):
            continue
        if _holds(value, kind):
            return True
    return False


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else f"argument {index}"


def _to_array(value: Any, argument: str, tensor: type) -> Any:
    """``value`` with arrays that share their memory in place of its tensors."""
    if isinstance(value, tensor):
        return shared_array(value, argument)
    if _is_array(value):
        raise TypeError(
            f"{argument}: expected a torch tensor as the other arguments are, got "
            f"{type(value).__name__}; convert one kind into the other first, with .numpy() or "
            "torch.from_numpy()"
        )
    return _each(value, lambda item: _to_array(item, argument, tensor))


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_recorded(value)


def _is_recorded(value: Any) -> bool:
    """Whether it is one of oxidet's own tensors; who holds one has imported them."""
    tensors = sys.modules.get("oxidet.nn.tensor")
    return tensors is not None and isinstance(value, tensors.Tensor)


def shared_array(tensor: Any, argument: str) -> Any:
    """The array that shares a torch tensor's memory; TypeError with the remedy if there is none."""
    if not tensor.is_cpu:
        raise TypeError(
            f"{argument}: expected a tensor on the CPU, got one on {tensor.device}; "
            "call .cpu() on it first"
        )
    if tensor.requires_grad:
        raise TypeError(
            f"{argument}: expected a tensor without a gradient, got one that requires grad, which "
            "oxidet cannot record; call .detach() on it first"
        )
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError):
        raise TypeError(
            f"{argument}: expected a dense tensor of a type that NumPy knows, got {tensor.dtype} "
            f"of layout {tensor.layout}; call .float() or .to_dense() on it first"
        ) from None


def _to_tensor(value: Any, torch: Any) -> Any:
    """``value`` with tensors in place of its arrays of numbers.

    A layer in training mode gives tensors of oxidet's, whose history no torch tensor can carry on.
    """
    if isinstance(value, np.generic):
        value = np.asarray(value)
    elif _is_recorded(value):
        value = value.numpy()
    if not isinstance(value, np.ndarray):
        return _each(value, lambda item: _to_tensor(item, torch))
    if value.dtype.kind not in "biufc":
        return value
    if not value.flags.writeable or any(stride < 0 for stride in value.strides):
        value = value.copy()  # torch has neither
    return torch.from_numpy(value)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A container of the changed items; anything else as it is."""
    if isinstance(value, dict):
        items = {key: change(item) for key, item in value.items()}
        return items if type(value) is dict else type(value)(items)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(change, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(change, value))
    return value
