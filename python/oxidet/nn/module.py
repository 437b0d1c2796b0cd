"""Module: a network or a part of one, with torch's way of naming what is inside it."""

from __future__ import annotations

import contextvars
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_array
from oxidet.nn import _changes, _error_layer, plans, tape, training_plans
from oxidet.nn._repr import assemble
from oxidet.nn.report import PlanReport, ProfileReport
from oxidet.nn.symbol import current_trace
from oxidet.nn.tensor import Buffer, Parameter, Stored, Tensor
from oxidet.nn.watching import current_watcher

Self = TypeVar("Self", bound="Module")
Method = TypeVar("Method", bound=Callable[..., Any])

# Whether a module is being called, whose mode then decides what is recorded.
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("inside", default=False)


class StateDictError(ValueError, RuntimeError):
    """A state_dict does not fit a module. A RuntimeError too, as code written for torch expects."""


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(strict=False)`` did not find, and what it found no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


class Module:
    """Base class of layers and networks.

    Attributes of type :class:`Parameter`, :class:`Buffer` and :class:`Module` are registered in
    the order of assignment, which is the order of ``state_dict`` and of ``print``. Assigning an
    array to a registered parameter or buffer copies its values.

    Calling a module runs ``forward``. In evaluation mode, arrays in mean arrays out: nothing is
    recorded. In training mode, or with a :class:`Tensor` among the inputs, operations are recorded
    and tensors come out. The module that is called decides for all modules inside it, so a batch
    norm in evaluation mode inside a network in training still trains its weight.

    Attributes
    ----------
    training
        Whether the module is in training mode; see :meth:`train`.
    compiled
        Whether calls in evaluation mode with arrays run a plan. ``forward`` is then traced once
        for each shape of input (not for each batch size), and what it does to arrays becomes one
        fused program without Python between the layers. Inputs count as float32. Inside, inputs
        are :class:`~oxidet.nn.symbol.Symbol`; what needs a value raises
        :class:`~oxidet.nn.symbol.TraceError`. Plans follow every write to a parameter or buffer
        and every assignment to an attribute of a module. What they cannot see is a list, dict or
        array of the module that is changed in place, or a change to a class or a global
        variable: call :meth:`clear_plans` after one.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import nn
    >>> layer = nn.Linear(2, 1)
    >>> layer.weight = [[1.0, 2.0]]
    >>> layer.bias = [3.0]
    >>> layer.eval()(np.array([[4.0, 5.0]], np.float32))
    array([[17.]], dtype=float32)
    """

    training: bool
    compiled: bool = False
    # Whether `compiled` is about forward, rather than about methods marked by `compiled_method`.
    _plans_forward: ClassVar[bool] = True
    # Whether forward may depend on `training`; plans are for evaluation mode.
    _mode_matters: ClassVar[bool] = True
    # Changes with every assignment to an attribute. Never the same number twice in a process.
    _structure: int = 0
    # Keys (relative to the module) that a strict load may find missing.
    _optional_keys: frozenset[str] = frozenset()
    # Names of buffers that are no part of the state_dict. Replaced, never changed in place: shallow
    # copies share it.
    _unsaved: frozenset[str] = frozenset()

    def __init__(self) -> None:
        object.__setattr__(self, "training", True)
        object.__setattr__(self, "_parameters", OrderedDict())
        object.__setattr__(self, "_buffers", OrderedDict())
        object.__setattr__(self, "_modules", OrderedDict())

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Not inherited: a subclass may look at self.training.
        cls._mode_matters = vars(cls).get("_mode_matters", True)
        if any(hasattr(value, "_marked_as_compiled") for value in vars(cls).values()):
            cls._plans_forward = False

    def __getstate__(self) -> dict[str, Any]:
        caches = ("_plan_cache", "_training_plan_cache")
        return {name: value for name, value in self.__dict__.items() if name not in caches}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Of its own also in a shallow copy: an assignment to it tells the original's plans nothing.
        for table in ("_parameters", "_buffers", "_modules"):
            self.__dict__[table] = OrderedDict(state[table])

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Compute the module; every subclass defines this, with arguments of its own."""
        # No stub: the base has nothing to compute, and torch's raises this class too.
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        watcher = current_watcher.get()
        if watcher is not None:
            return watcher.call(self, self._trace_or_call, *inputs, **options)
        return self._trace_or_call(*inputs, **options)

    def _trace_or_call(self, *inputs: Any, **options: Any) -> Any:
        trace = current_trace.get()
        if trace is not None:
            return trace.call(self, inputs, options)
        return self._call("forward", self.forward, self._plans_forward, inputs, options)

    def _call(
        self,
        name: str,
        function: Callable[..., Any],
        boundary: bool,
        inputs: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Call a method, and say in which layer of this one a ValueError arose."""
        try:
            return self._plan_or_run(name, function, boundary, inputs, options)
        except ValueError as error:
            _error_layer.sign(error, self)
            if not _inside.get():
                _error_layer.name_layer(error, self)
            raise

    def _plan_or_run(
        self,
        name: str,
        function: Callable[..., Any],
        boundary: bool,
        inputs: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        """Call a method by its plan, if it is a boundary of plans and may have one, or eagerly."""
        inside = _inside.get()
        if boundary and self.compiled:
            if self.training:
                plans.forget(self)  # the weights are about to change; give back the packed ones
                if tape.is_grad_enabled() and plans.enabled() and current_watcher.get() is None:
                    result = training_plans.run(self, name, function, inputs, options)
                    if result is not training_plans.NOT_PLANNED:
                        return result
            elif not (inside and tape.is_grad_enabled()) and plans.enabled():
                result = plans.run(self, name, function, inputs, options)
                if result is not plans.NOT_PLANNED:
                    return result
        if inside:
            return function(*inputs, **options)
        record = self.training or _holds_tensor((inputs, options))
        token = _inside.set(True)
        try:
            with tape.set_grad_enabled(record and tape.is_grad_enabled()):
                return function(*inputs, **options)
        finally:
            _inside.reset(token)

    # --- plans

    def plan(self, *shapes: tuple[int, ...]) -> PlanReport:
        """What the plan for inputs of these shapes does: layer, algorithm, shapes, work, bytes.

        Parameters
        ----------
        shapes
            (N, C, H, W) or (N, F) of each input of ``forward``.

        Returns
        -------
        A report that prints as a table, is one in notebooks, and iterates over its rows, so
        ``pandas.DataFrame(report)`` is one too. The module is traced as in evaluation mode, also
        if it is not ``compiled``.

        Raises
        ------
        TraceError
            If ``forward`` does something that no plan can.

        Examples
        --------
        >>> from oxidet import nn
        >>> report = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).plan((1, 3, 8, 8))
        >>> [(row.name, row.fused, row.out_shape, row.macs) for row in report]
        [('0', ('relu',), (1, 8, 6, 6), 7776)]
        """
        return plans.describe(self, shapes)

    def profile(self, *inputs: Any, repeats: int = 20) -> ProfileReport:
        """How long each step of the plan for these inputs takes.

        Parameters
        ----------
        inputs
            Arrays as ``forward`` takes them.
        repeats
            How often the plan runs; the report gives medians.

        Returns
        -------
        A report like that of :meth:`plan`, with time, share of the whole, GFLOP/s and the fraction
        of what this machine multiplies at most (measured with all threads, out of the first-level
        cache).

        Raises
        ------
        TraceError
            If ``forward`` does something that no plan can.
        """
        return plans.profile(self, inputs, repeats)

    def clear_plans(self) -> None:
        """Forget the plans of this module and all below it, with their packed weights.

        The next call makes new ones. Needed only after a change that nobody could see: to a list,
        dict or array held by a module, in place, or to a class.
        """
        for module in self.modules():
            plans.forget(module)

    # --- registration

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if "_modules" not in tables:
            raise AttributeError(
                f"{type(self).__name__}: call super().__init__() before assigning {name!r}"
            )
        self._refuse_while_traced(name)
        if isinstance(value, Parameter):
            self._register("_parameters", name, value)
        elif isinstance(value, Buffer):
            self._register("_buffers", name, value)
        elif isinstance(value, Module):
            self._register("_modules", name, value)
        elif name in tables["_modules"]:
            if value is not None:
                raise TypeError(f"{name}: expected a Module or None, got {type(value).__name__}")
            tables["_modules"][name] = None
            self._changed()
        elif name in tables["_parameters"] or name in tables["_buffers"]:
            table = tables["_parameters" if name in tables["_parameters"] else "_buffers"]
            if value is None:
                table[name] = None
                self._changed()
            elif table[name] is None:
                raise TypeError(f"{name}: expected a Parameter (the slot is empty), got an array")
            else:
                _copy_into(table[name], value, name)
        else:
            object.__setattr__(self, name, value)
            self._changed()

    def _changed(self) -> None:
        """Tell plans that this module is not what it was; after the change."""
        self.__dict__["_structure"] = _changes.next_number()
        _changes.announce()

    def _refuse_while_traced(self, name: str) -> None:
        trace = current_trace.get()
        if trace is not None:
            trace.refuse_assignment(self, name)

    def _register(self, table: str, name: str, value: Any) -> None:
        self._refuse_while_traced(name)
        for other in ("_parameters", "_buffers", "_modules"):
            if other != table:
                self.__dict__[other].pop(name, None)
        self.__dict__.pop(name, None)
        self.__dict__[table][name] = value
        if table != "_buffers":
            self._mark_unsaved(name, False)
        self._changed()

    def _mark_unsaved(self, name: str, unsaved: bool) -> None:
        if unsaved != (name in self._unsaved):
            self.__dict__["_unsaved"] = self._unsaved ^ {name}

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            entries = self.__dict__.get(table)
            if entries is not None and name in entries:
                return entries[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        self._refuse_while_traced(name)
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                self._mark_unsaved(name, False)
                self._changed()
                return
        object.__delattr__(self, name)
        self._changed()

    def __dir__(self) -> list[str]:
        tables = (self._parameters, self._buffers, self._modules)
        return sorted({*super().__dir__(), *(name for table in tables for name in table)})

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter, or reserve an empty slot for one."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"param: expected a Parameter or None, got {type(param).__name__}")
        self._register("_parameters", name, param)

    def register_buffer(self, name: str, value: Any, persistent: bool = True) -> None:
        """Register an array that the module needs but does not train, or reserve an empty slot.

        One that is not ``persistent`` is left out of ``state_dict`` and not expected by
        ``load_state_dict``: a constant that the constructor can always make again. Assigning to
        the attribute keeps it so.

        >>> import numpy as np
        >>> from oxidet import nn
        >>> model = nn.Module()
        >>> model.register_buffer("mean", np.zeros(3), persistent=False)
        >>> list(model.state_dict()), [name for name, _ in model.named_buffers()]
        ([], ['mean'])
        """
        if not isinstance(persistent, (bool, np.bool_)):
            raise TypeError(f"persistent: expected True or False, got {persistent!r}")
        buffer = value if value is None or isinstance(value, Buffer) else Buffer(value)
        self._register("_buffers", name, buffer)
        self._mark_unsaved(name, not persistent)

    def add_module(self, name: str, module: Module | None) -> None:
        """Register a child under a name, which need not be a Python identifier."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module: expected a Module or None, got {type(module).__name__}")
        if not name or "." in name:
            raise ValueError(f"name: expected a name without dots, got {name!r}")
        self._register("_modules", name, module)

    # --- what is inside

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct children with their names."""
        for name, module in self._modules.items():
            if module is not None:
                yield name, module

    def children(self) -> Iterator[Module]:
        """Direct children."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, depth first, each once."""
        seen: set[int] = set()

        def walk(path: str, module: Module) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            seen.add(id(module))
            yield path, module
            for name, child in module.named_children():
                yield from walk(f"{path}.{name}" if path else name, child)

        return walk(prefix, self)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; the empty path is this module."""
        module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(f"{type(module).__name__} has no submodule {name!r}")
            module = child
        return module

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names, each once."""
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{path}.{name}" if path else name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """All parameters."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Buffer]]:
        """All buffers with their dotted names."""
        for path, module in self.named_modules(prefix):
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    yield f"{path}.{name}" if path else name, buffer

    def buffers(self) -> Iterator[Buffer]:
        """All buffers."""
        return (buffer for _, buffer in self.named_buffers())

    def apply(self: Self, function: Callable[[Module], None]) -> Self:
        """Call ``function`` on every module, children before parents."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # --- modes and gradients

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode (or evaluation mode) here and below."""
        set_mode(self.modules(), bool(mode))
        return self

    def eval(self: Self) -> Self:
        """Set evaluation mode here and below."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Train these parameters, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # --- state

    def _named_state(
        self, prefix: str = "", saved: bool = False
    ) -> Iterator[tuple[str, Stored, bool]]:
        """(key, entry, may be missing), in state_dict order: parameters, buffers, children.

        With ``saved`` only what state_dict holds, else all that the module computes with.
        """
        left_out = self._unsaved if saved else frozenset()
        for table in (self._parameters, self._buffers):
            for name, entry in table.items():
                if entry is not None and name not in left_out:
                    yield prefix + name, entry, name in self._optional_keys
        for name, child in self.named_children():
            yield from child._named_state(f"{prefix}{name}.", saved)

    def state_dict(self) -> OrderedDict[str, NDArray[Any]]:
        """Parameters and persistent buffers by dotted name, as read-only views of the live values.

        The order is torch's: in each module parameters, then buffers, then children.
        """
        return OrderedDict((key, entry.data) for key, entry, _ in self._named_state(saved=True))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy parameters and buffers from a mapping of names to arrays.

        With ``strict``, missing and unexpected keys are errors; a wrong shape always is. Nothing
        is written unless everything fits. ``num_batches_tracked`` may be missing, as in files
        older than that counter.

        Raises
        ------
        StateDictError
            A ValueError (and RuntimeError) that lists missing, unexpected and mismatched keys.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"state_dict: expected a mapping of names to arrays, got "
                f"{type(state_dict).__name__}"
            )
        for path, module in self.named_modules():
            state_dict = module._adapt_state_dict(state_dict, f"{path}." if path else "")
        missing: list[str] = []
        mismatched: list[str] = []
        writes: list[tuple[Stored, NDArray[Any]]] = []
        known: set[str] = set()
        for key, entry, optional in self._named_state(saved=True):
            known.add(key)
            if key not in state_dict:
                if not optional:
                    missing.append(key)
                continue
            value = state_dict[key]
            array = value.data if isinstance(value, Tensor) else as_array(value, key)
            if array.shape == entry.shape:
                writes.append((entry, array))
            else:
                mismatched.append(
                    f"size mismatch for {key}: copying a param with shape "
                    f"torch.Size({list(array.shape)}) from checkpoint, the shape in current model "
                    f"is torch.Size({list(entry.shape)})."
                )
        unexpected = [key for key in state_dict if key not in known]
        problems = []
        if strict and missing:
            problems.append(f"Missing key(s) in state_dict: {_name_some(missing)}. ")
        if strict and unexpected:
            problems.append(f"Unexpected key(s) in state_dict: {_name_some(unexpected)}. ")
        problems += mismatched[:6]
        if len(mismatched) > 6:
            problems.append(f"... and {len(mismatched) - 6} more size mismatches.")
        if problems:
            head = f"Error(s) in loading state_dict for {type(self).__name__}:"
            raise StateDictError("\n\t".join([head, *problems]))
        for entry, array in writes:
            entry.copy_(array)
        return IncompatibleKeys(missing, unexpected)

    def _adapt_state_dict(self, state_dict: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
        """Rename or drop keys of older files; a subclass whose names changed overrides this.

        ``prefix`` is what this module's keys begin with. The mapping given is not changed.
        """
        return state_dict

    # --- text

    def extra_repr(self) -> str:
        """The module's own arguments, for ``print``."""
        return ""

    def _child_texts(self) -> list[tuple[str, str]]:
        return [(name, repr(module)) for name, module in self._modules.items()]

    def __repr__(self) -> str:
        return assemble(type(self).__name__, self.extra_repr(), self._child_texts())

    def _repr_html_(self) -> str:
        from oxidet.visualize.html import module_html

        return module_html(self)


def compiled_method(method: Method) -> Method:
    """Mark a method, rather than ``forward``, as what a ``compiled`` module makes plans of.

    For modules of which a part can be traced: the marked methods are then the boundaries, and
    ``forward`` is ordinary Python that calls them. They take and return what a compiled
    ``forward`` may: arrays, tuples, lists and dicts.

    >>> import numpy as np
    >>> from oxidet import nn
    >>> class Ratio(nn.Module):
    ...     compiled = True
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = nn.Linear(2, 3)
    ...     @nn.compiled_method
    ...     def score(self, x):
    ...         return nn.functional.relu(self.layer(x))
    ...     def forward(self, x):
    ...         score = self.score(x)
    ...         return score / (1 + score.sum())
    >>> Ratio().eval()(np.zeros((4, 2))).shape
    (4, 3)
    """

    @functools.wraps(method)
    def call(self: Module, *inputs: Any, **options: Any) -> Any:
        if current_trace.get() is not None:
            return method(self, *inputs, **options)
        bound = functools.partial(method, self)
        return self._call(method.__qualname__, bound, True, inputs, options)

    call._marked_as_compiled = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def set_mode(modules: Iterable[Module], training: bool) -> None:
    """Put each of some modules, not what is below them, into a mode."""
    changed = False
    for module in modules:
        if module.training != training:
            module._refuse_while_traced("training")
            object.__setattr__(module, "training", training)
            changed = True
    if changed:
        _changes.announce()


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, Tensor) or (
        isinstance(value, (tuple, list)) and any(_holds_tensor(item) for item in value)
    )


def _copy_into(entry: Stored, value: Any, name: str) -> None:
    array = np.asarray(value.data if isinstance(value, Tensor) else as_array(value, name))
    if array.shape != entry.shape:
        raise ValueError(f"{name}: expected shape {entry.shape}, got {array.shape}")
    entry.copy_(array)


def _name_some(keys: list[str], limit: int = 12) -> str:
    shown = ", ".join(f'"{key}"' for key in keys[:limit])
    return shown if len(keys) <= limit else f"{shown} and {len(keys) - limit} more"
