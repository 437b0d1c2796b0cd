"""Plans: what a compiled module runs, when one is made, and when it is no longer right.

A module's plans lie in its :class:`PlanCache`, by the method, the form and shapes of the inputs
(without the batch size), the precision and the weight storage. A plan remembers every module below
its owner, whether it was in training mode, and every parameter and buffer, each with its version.
It is right as long as none of these versions has changed; see :mod:`oxidet.nn._changes` for how
that is known without looking at all of them in every call.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import F32, as_array, as_float32, integer, nchw, nhwc
from oxidet._precision import get_precision
from oxidet._weight_storage import get_weight_storage
from oxidet.nn import _changes, _error_layer
from oxidet.nn._nested import Form, NotPlainError, put_back, take_out
from oxidet.nn.report import PlanReport, ProfileReport
from oxidet.nn.symbol import Symbol, trace_error
from oxidet.nn.tensor import Tensor
from oxidet.nn.trace import Trace

if TYPE_CHECKING:
    from oxidet.nn.module import Module

Array = NDArray[Any]
Shape = tuple[int, ...]
Settings = tuple[str, str]

#: Plans that a module keeps, of which the least recently used gives way to a new one.
MOST_PLANS = 16

#: What :func:`run` returns if the call has to run eagerly.
NOT_PLANNED = object()

_eager: contextvars.ContextVar[bool] = contextvars.ContextVar("eager", default=False)
_uses = itertools.count()


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Run layer by layer inside a ``with`` block (of this thread), with plans for nothing.

    For looking at values inside a ``forward``, and for comparing.

    >>> import numpy as np
    >>> from oxidet import nn
    >>> model = nn.Linear(2, 1).eval()
    >>> model.compiled = True
    >>> with nn.eager():
    ...     model(np.ones((1, 2))).shape
    (1, 1)
    """
    token = _eager.set(True)
    try:
        yield
    finally:
        _eager.reset(token)


def enabled() -> bool:
    """Whether compiled modules run plans here; not inside :func:`eager`."""
    return not _eager.get()


class CompiledPlan:
    """A plan, the form of its results, and what it was made of.

    ``plan`` is None where a call has to run eagerly, which is worth remembering, too.
    """

    used: int
    checked: int

    __slots__ = ("_modules", "_owner", "_stored", "checked", "form", "order", "plan", "used")

    def __init__(self, owner: Module) -> None:
        self.checked = _changes.latest  # before the versions, see _changes
        self.used = next(_uses)
        self.plan: _core.Plan | None = None
        self.form: Form = ()
        # Which of the plan's outputs each leaf of the form is.
        self.order: tuple[int, ...] = ()
        # Not the owner itself: that holds the plan, and is to be freed without a cycle.
        self._owner = (owner._structure, owner.training)
        self._modules = [
            (module, module._structure, module.training)
            for module in owner.modules()
            if module is not owner
        ]
        self._stored = [(entry, entry._version) for _, entry, _ in owner._named_state()]

    def add(self, trace: Trace) -> None:
        """Depend also on what the trace met outside of the owner."""
        self._modules += [(module, *state) for module, state in trace.modules.items()]
        known = {entry for entry, _ in self._stored}
        self._stored += [item for item in trace.stored.items() if item[0] not in known]

    def is_eager(self) -> bool:
        """Whether a layer behaves as in training, which plans do not do."""
        return any(training and module._mode_matters for module, _, training in self._modules)

    def is_right(self, owner: Module) -> bool:
        """Whether nothing has changed that the plan depends on."""
        latest = _changes.latest
        if self.checked == latest:
            return True
        if self._owner != (owner._structure, owner.training):
            return False
        for module, structure, training in self._modules:
            if module._structure != structure or module.training != training:
                return False
        for entry, version in self._stored:
            if entry._version != version:
                return False
        self.checked = latest
        return True

    def run(self, arrays: list[F32]) -> Any:
        """The results for inputs as the plan takes them."""
        assert self.plan is not None
        outputs = self.plan.run(arrays)
        results = [nchw(output) if output.ndim == 4 else output for output in outputs]
        return put_back(self.form, iter([results[i] for i in self.order]))


class PlanCache:
    """The plans of one module, and the packed weights that they share."""

    packed: _core.PackedWeights
    lock: threading.Lock

    def __init__(self) -> None:
        self.plans: dict[Any, CompiledPlan] = {}
        self.packed = _core.PackedWeights()
        self.lock = threading.Lock()
        _caches.add(self)

    def find(self, owner: Module, key: Any, make: Callable[[], CompiledPlan]) -> CompiledPlan:
        """The plan for a key, made if there is none or what it was made of has changed."""
        # Without the lock, so that no call waits for a plan of another shape that is being made.
        found = self.plans.get(key)
        if found is None or not found.is_right(owner):
            with self.lock:
                found = self.plans.get(key)
                if found is None or not found.is_right(owner):
                    # Others are probably wrong, too, and keep packed weights alive.
                    kept = {k: plan for k, plan in self.plans.items() if plan.is_right(owner)}
                    while len(kept) >= MOST_PLANS:
                        del kept[min(kept, key=lambda k: kept[k].used)]
                    # The wrong ones stay until the new one is made: most of their packed layers
                    # may be as they were, and then it shares them.
                    try:
                        found = make()
                        kept = {**kept, key: found}
                    finally:
                        self.plans = kept
        found.used = next(_uses)
        return found


_caches: weakref.WeakSet[PlanCache] = weakref.WeakSet()


def _after_fork() -> None:
    # A thread that held a lock does not exist in the child. While it made a plan it may also have
    # held the lock inside the packed weights, which is taken at no other time.
    for cache in _caches:
        if cache.lock.locked():
            cache.packed = _core.PackedWeights()
        # Whatever it says: a thread that has got the lock and waits for the GIL to go on with it
        # has not marked it as locked yet.
        cache.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def forget(module: Module) -> None:
    """Drop the plans of a module."""
    module.__dict__.pop("_plan_cache", None)


def run(
    owner: Module,
    name: str,
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Call a method by its plan; :data:`NOT_PLANNED` if these inputs have to run eagerly."""
    taken = _take_arrays(inputs, options)
    if taken is None:
        return NOT_PLANNED
    form, arrays = taken
    shapes = tuple([array.shape[1:] for array in arrays])
    found = _find(owner, name, function, form, shapes, _settings())
    if found.plan is None:
        return NOT_PLANNED
    return found.run([_to_plan(array) for array in arrays])


def describe(owner: Module, shapes: tuple[Shape, ...]) -> PlanReport:
    """See ``Module.plan``."""
    checked = check_shapes(shapes)
    # Strides of 0, so that a form is made without memory for an input.
    try:
        arrays = tuple([np.broadcast_to(np.float32(0), shape) for shape in checked])
    except ValueError:
        raise ValueError(f"shapes: expected arrays that can be addressed, got {checked}") from None
    plan, _, settings = _plan_for(owner, arrays)
    return PlanReport.of(plan, type(owner).__name__, checked, *settings)


def profile(owner: Module, inputs: tuple[Any, ...], repeats: int) -> ProfileReport:
    """See ``Module.profile``."""
    repeats = integer(repeats, "repeats", 1)
    if not inputs:
        raise ValueError("inputs: expected at least one array, got none")
    plan, arrays, settings = _plan_for(owner, inputs)
    seconds = plan.profile([_to_plan(array) for array in arrays], repeats)
    shapes = [array.shape for array in arrays]
    return ProfileReport.of_times(plan, type(owner).__name__, shapes, *settings, seconds)


def _plan_for(owner: Module, inputs: tuple[Any, ...]) -> tuple[_core.Plan, list[Array], Settings]:
    """The plan of a module's forward in evaluation mode, its arrays, and the settings."""
    from oxidet.nn.mode import evaluating

    taken = _take_arrays(inputs, {})
    if taken is None:
        raise TypeError(
            "inputs: expected arrays of shape (N, C, H, W) or (N, F) of one batch size, got "
            + ", ".join(f"{type(x).__name__} of shape {np.shape(x)}" for x in inputs)
        )
    form, arrays = taken
    shapes = tuple([array.shape[1:] for array in arrays])
    settings = _settings()
    try:
        with evaluating(owner):
            if owner.compiled and owner._plans_forward:
                found = _find(owner, "forward", owner.forward, form, shapes, settings)
            else:
                # Not kept: calls of the module would never use it.
                found = _make(owner, owner.forward, form, shapes, settings, _core.PackedWeights())
    except ValueError as error:
        _error_layer.name_layer(error, owner)
        raise
    assert found.plan is not None  # in evaluation mode, with inputs that plans take
    return found.plan, arrays, settings


def _settings() -> Settings:
    """Precision and weight storage in force."""
    return get_precision(), get_weight_storage()


def check_shapes(shapes: tuple[Shape, ...]) -> list[Shape]:
    """The shapes of a call's inputs, which are (N, C, H, W) or (N, F) with the same N."""
    if not shapes:
        raise ValueError("shapes: expected the shape of at least one input, got none")
    checked = [check_shape(shape, f"shapes[{i}]") for i, shape in enumerate(shapes)]
    batch = checked[0][0]
    for i, shape in enumerate(checked):
        if shape[0] != batch:
            raise ValueError(f"shapes[{i}]: expected a batch of {batch}, got {shape[0]}")
    return checked


def check_shape(shape: Any, argument: str) -> Shape:
    """The shape of one input, (N, C, H, W) or (N, F)."""
    if not isinstance(shape, (tuple, list)) or len(shape) not in (2, 4):
        raise ValueError(f"{argument}: expected (N, C, H, W) or (N, F), got {shape!r}")
    batch, *rest = shape
    return (
        integer(batch, argument, 0),
        *(integer(length, argument, 1) for length in rest),
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "__array__")


def _take_arrays(
    inputs: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Form, list[Array]] | None:
    """The arrays among the arguments of a call, and the form of the rest; None without a plan."""
    leaves: list[Any] = []
    try:
        form = take_out((inputs, options), _is_array, leaves)
    except NotPlainError:
        return None
    if not leaves or any(isinstance(leaf, Tensor) for leaf in leaves):
        return None
    arrays = [leaf if type(leaf) is np.ndarray else as_array(leaf, "input") for leaf in leaves]
    batch = arrays[0].shape[:1]
    for array in arrays:
        if array.ndim not in (2, 4) or array.shape[:1] != batch or 0 in array.shape[1:]:
            return None
    return form, arrays


def _to_plan(array: Array) -> F32:
    if array.ndim == 4:
        return nhwc(array, "input")
    return np.ascontiguousarray(as_float32(array, "input"))


def _find(
    owner: Module,
    name: str,
    function: Callable[..., Any],
    form: Form,
    shapes: tuple[Shape, ...],
    settings: Settings,
) -> CompiledPlan:
    cache = owner.__dict__.get("_plan_cache")
    if cache is None:
        # One step, so that two threads get the same one.
        cache = owner.__dict__.setdefault("_plan_cache", PlanCache())
    plan: CompiledPlan = cache.find(
        owner,
        (name, form, shapes, settings),
        lambda: _make(owner, function, form, shapes, settings, cache.packed),
    )
    return plan


def _make(
    owner: Module,
    function: Callable[..., Any],
    form: Form,
    shapes: tuple[Shape, ...],
    settings: Settings,
    packed: _core.PackedWeights,
) -> CompiledPlan:
    made = CompiledPlan(owner)
    if made.is_eager():
        return made
    trace = Trace(owner)
    symbols = [trace.input(shape) for shape in shapes]
    inputs, options = put_back(form, iter(symbols))
    result = trace.run(function, inputs, options)
    leaves: list[Symbol] = []
    try:
        made.form = take_out(result, lambda value: type(value) is Symbol, leaves)
    except NotPlainError as error:
        raise trace_error(
            f"{type(owner).__name__}.forward returns a {error}, and a plan returns what it "
            "computes from its inputs, in tuples, lists and dicts"
        ) from None
    if not leaves:
        raise trace_error(f"{type(owner).__name__}.forward returns nothing that it computes")
    outputs = list(dict.fromkeys(leaf._value for leaf in leaves))
    made.order = tuple([outputs.index(leaf._value) for leaf in leaves])
    made.add(trace)
    made.plan = trace.builder.compile(outputs, *settings, packed)
    return made
