"""Symbols: what a compiled module's ``forward`` sees while it is traced.

A :class:`Symbol` stands for an activation of which the shape is known but for the batch size, and
the values not at all. Operations on it add nodes to a graph. Whatever would need a value raises a
:class:`TraceError` that names the line of the model.
"""

from __future__ import annotations

import contextvars
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

if TYPE_CHECKING:
    from oxidet.nn.trace import Trace

#: The trace that runs in this thread (or task), if any.
current_trace: contextvars.ContextVar[Trace | None] = contextvars.ContextVar("trace", default=None)

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MODELS = tuple(os.path.join(_PACKAGE, name) + os.sep for name in ("models", "simple_faster_rcnn"))
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep

ADVICE = "compute it outside of the compiled module, or set compiled = False on the module"


class TraceError(RuntimeError):
    """A compiled module's ``forward`` does what no plan can repeat.

    The message names the line and what to do: move it out of the compiled module, or set
    ``compiled = False`` on the module, which then runs eagerly.
    """


class _MissingAttribute(TraceError, AttributeError):
    """A TraceError that ``hasattr`` understands."""


def user_line() -> str:
    """The innermost line outside of oxidet's machinery and NumPy, in words."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        ours = path.startswith(_PACKAGE) and not path.startswith(_MODELS)
        if not ours and not path.startswith((_NUMPY, "<__array_function__")):
            break
        frame = frame.f_back
    code = frame.f_code
    return f"{code.co_filename}, line {frame.f_lineno}, in {code.co_name}"


def trace_error(what: str, advice: str = ADVICE, kind: type[TraceError] = TraceError) -> TraceError:
    """The error of doing ``what`` in a forward that is traced; one sentence with the line."""
    trace = current_trace.get()
    layer = trace.layer() if trace is not None else ""
    inside = f" (in layer {layer!r})" if layer else ""
    return kind(f"{user_line()}{inside}: {what}; {advice}")


def _needs_value(what: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise trace_error(f"{what} needs a value, and a plan is made before there are values")

    method.__doc__ = "Raises a TraceError: a plan is made before there are values."
    return method


def _needs_batch(what: str) -> Callable[..., NoReturn]:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise trace_error(
            f"{what} needs the batch size, which a plan leaves open; "
            "pass x.shape[0] on to reshape, view or flatten as it is, or use -1",
            "else " + ADVICE,
        )

    method.__doc__ = "Raises a TraceError: a plan leaves the batch size open."
    return method


_COMPARISONS = {"__lt__": "<", "__le__": "<=", "__gt__": ">", "__ge__": ">="}
_OPERATIONS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "truediv": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
}


class BatchSize:
    """The batch size of a symbol: good for ``x.view(x.shape[0], -1)``, and no number."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "N"

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        raise trace_error(
            "comparing x.shape[0] needs the batch size, which a plan leaves open", ADVICE
        )

    def __hash__(self) -> int:
        return id(self)


for _name in ("int", "float", "bool", "index", "len"):
    _what = "using x.shape[0] as a number" if _name == "index" else f"{_name}(x.shape[0])"
    setattr(BatchSize, f"__{_name}__", _needs_batch(_what))
for _name, _sign in _COMPARISONS.items():
    setattr(BatchSize, _name, _needs_batch(f"x.shape[0] {_sign} ..."))
for _name, _sign in _OPERATIONS.items():
    setattr(BatchSize, f"__{_name}__", _needs_batch(f"x.shape[0] {_sign} ..."))
    setattr(BatchSize, f"__r{_name}__", _needs_batch(f"... {_sign} x.shape[0]"))
setattr(BatchSize, "__neg__", _needs_batch("-x.shape[0]"))  # noqa: B010


class Symbol:
    """An activation while a module is traced: a shape and a dtype, and operators.

    Attributes
    ----------
    shape
        (N, C, H, W) or (N, F), where N is a :class:`BatchSize` and the rest are integers.
    """

    shape: tuple[Any, ...]

    __slots__ = ("_trace", "_value", "shape")

    def __init__(self, trace: Trace, value: int, shape: tuple[Any, ...]) -> None:
        self._trace = trace
        self._value = value
        self.shape = shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, as every activation of a plan."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of axis ``dim``."""
        return self.shape if dim is None else self.shape[dim]

    def __repr__(self) -> str:
        return f"Symbol(shape={self.shape}, dtype=float32)"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # protocols that are looked for, not asked for
            raise AttributeError(name)
        raise trace_error(f"a symbol has no attribute {name!r}", kind=_MissingAttribute)

    # Arithmetic of arrays with symbols is ours, see __array_ufunc__.
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        operator = {
            "add": "add_",
            "subtract": "sub_",
            "multiply": "mul_",
            "divide": "div_",
            "true_divide": "div_",
        }.get(ufunc.__name__)
        if method == "__call__" and operator is not None and not options:
            from oxidet.nn import _arithmetic

            return getattr(_arithmetic, operator)(*inputs)
        raise trace_error(f"numpy.{ufunc.__name__} needs values; use oxidet.nn.functional")

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function in (np.shape, np.ndim) and len(args) == 1:
            return self.shape if function is np.shape else self.ndim
        raise trace_error(f"numpy.{function.__name__} needs values; use oxidet.nn.functional")

    # --- completed by oxidet.nn._arithmetic, as Tensor is

    if TYPE_CHECKING:

        def __add__(self, other: Any) -> Symbol: ...
        def __radd__(self, other: Any) -> Symbol: ...
        def __sub__(self, other: Any) -> Symbol: ...
        def __rsub__(self, other: Any) -> Symbol: ...
        def __mul__(self, other: Any) -> Symbol: ...
        def __rmul__(self, other: Any) -> Symbol: ...
        def __truediv__(self, other: Any) -> Symbol: ...
        def __rtruediv__(self, other: Any) -> Symbol: ...
        def __neg__(self) -> Symbol: ...
        def __getitem__(self, index: Any) -> Symbol: ...
        def sum(
            self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False
        ) -> Symbol: ...
        def mean(
            self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False
        ) -> Symbol: ...
        def reshape(self, *shape: Any) -> Symbol: ...
        def view(self, *shape: Any) -> Symbol: ...
        def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Symbol: ...
        def permute(self, *dims: Any) -> Symbol: ...

    # --- what needs values

    def __iter__(self) -> Iterator[Any]:
        raise trace_error("iterating over a symbol needs the batch size, which a plan leaves open")

    def __hash__(self) -> int:
        return id(self)

    if TYPE_CHECKING:

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any: ...


for _name in ("bool", "float", "int", "index", "complex"):
    setattr(Symbol, f"__{_name}__", _needs_value(f"{_name}() of a symbol"))
for _name, _sign in {**_COMPARISONS, "__eq__": "==", "__ne__": "!="}.items():
    setattr(Symbol, _name, _needs_value(f"comparing a symbol ({_sign})"))
for _name in ("item", "tolist", "numpy", "any", "all", "argmax", "argmin", "max", "min"):
    setattr(Symbol, _name, _needs_value(f".{_name}() of a symbol"))
setattr(Symbol, "__len__", _needs_batch("len() of a symbol"))  # noqa: B010
setattr(Symbol, "numel", _needs_batch(".numel() of a symbol"))  # noqa: B010
setattr(  # noqa: B010
    Symbol, "__array__", _needs_value("turning a symbol into an array (np.asarray or a NumPy call)")
)
