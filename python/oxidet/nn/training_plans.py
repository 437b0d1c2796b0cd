"""Training plans: a compiled module in training runs as one operation on the tape.

The module is traced as for evaluation, with batch norms that use the batch and dropouts that drop;
the plan goes forward keeping what its way back needs, and its node on the tape has one output for
every array that ``forward`` returns. Weights are read in each call, so that an update of a trained
parameter leaves the plan right; those of frozen layers are packed once.

What cannot be traced runs layer by layer on the tape, which is always right.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet import _core, _random
from oxidet._arrays import F32, nchw, nhwc
from oxidet._precision import get_precision
from oxidet.nn import tape
from oxidet.nn._nested import Form, NotPlainError, put_back, take_out
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.symbol import Symbol, TraceError
from oxidet.nn.tensor import Stored, Tensor
from oxidet.nn.trace import Trace

if TYPE_CHECKING:
    from oxidet.nn.module import Module
    from oxidet.nn.normalization import BatchNorm2d

Array = NDArray[Any]
Shape = tuple[int, ...]

#: Plans that a module keeps, of which the least recently used gives way to a new one.
MOST_PLANS = 8

#: What :func:`run` returns if the call has to run layer by layer.
NOT_PLANNED = object()

_uses = itertools.count()


class _Role(NamedTuple):
    """How a constant of the graph is made of a parameter or buffer, and back."""

    stored: Stored
    kernel: bool
    """Whether it is a convolution's, (O, C / groups, kh, kw), which kernels read as
    (kh, kw, C / groups, O)."""

    def array(self) -> Array:
        """The values as the plan reads them."""
        values = self.stored._array
        if self.kernel:
            values = values.transpose(2, 3, 1, 0)
        return np.ascontiguousarray(values, np.float32)

    def new_gradient(self) -> Array:
        """Zeros to add the gradient to, as the plan writes them."""
        shape = self.stored.shape
        return np.zeros([shape[i] for i in (2, 3, 1, 0)] if self.kernel else shape, np.float32)

    def gradient(self, sums: Array) -> Array:
        """The gradient in the parameter's shape."""
        return sums.transpose(3, 2, 0, 1) if self.kernel else sums


class TrainingTrace(Trace):
    """A trace that knows batch norms by the batch, dropouts, and whose constants are trained."""

    drops: int

    def __init__(self, owner: Module) -> None:
        super().__init__(owner)
        self.builder: Any = _Builder(self)
        self.norms: list[tuple[BatchNorm2d, int]] = []
        self.norm_names: list[str] = []
        self.drops = 0
        self.by_serial: dict[int, Stored] = {}

    def constant(self, value: Any, argument: str) -> tuple[Any, tuple[int, int]]:
        found = super().constant(value, argument)
        if value is not None:
            self.by_serial[value.serial] = value
        return found

    def channels(self, value: Any, symbol: Any) -> tuple[Any, tuple[int, int]] | None:
        if isinstance(value, Stored) and value.requires_grad:
            raise TraceError("a parameter that is trained beside a symbol")
        return super().channels(value, symbol)

    def number(self, value: Any) -> float | None:
        if isinstance(value, Stored) and value.requires_grad:
            raise TraceError("a parameter that is trained as a number")
        return super().number(value)

    def batch_statistics(self, layer: BatchNorm2d, input: Symbol) -> Symbol:
        """Batch norm by the statistics of the batch, which move the layer's running ones."""
        x = self.value(input, "input")
        self.norms.append((layer, int(np.prod(input.shape[2:]))))
        self.norm_names.append(self.name("batch_norm"))
        return self._train_norm(x, None, layer, len(self.norms) - 1)

    def fixed_statistics(self, layer: BatchNorm2d, input: Symbol) -> Symbol | None:
        """Batch norm by running statistics whose weight or bias trains; None where neither does."""
        trained = [p for p in (layer.weight, layer.bias) if p is not None and p.requires_grad]
        if not trained:
            return None
        x, channels = self.value(input, "input"), layer.num_features
        mean, mean_key = self.vector(layer.running_mean, "running_mean", channels)
        var, var_key = self.vector(layer.running_var, "running_var", channels)
        return self._train_norm(x, ((mean, var), (mean_key, var_key)), layer, 0)

    def _train_norm(self, x: int, running: Any, layer: BatchNorm2d, number: int) -> Symbol:
        weight, weight_key = self.vector(layer.weight, "weight", layer.num_features)
        bias, bias_key = self.vector(layer.bias, "bias", layer.num_features)
        arrays, keys = running or (None, ())
        return self.symbol(
            self.builder.train_norm(
                x,
                arrays,
                weight,
                bias,
                layer.eps,
                number,
                self.name("batch_norm"),
                key=(*keys, weight_key, bias_key),
            )
        )

    def random_drop(self, input: Any, p: float, channels: bool) -> Symbol:
        """Dropout of elements or of whole channels, each pass with numbers of its own."""
        x, number = self.value(input, "input"), self.drops
        self.drops += 1
        return self.symbol(self.builder.random_drop(x, p, number, channels, self.name("dropout")))


class _Builder:
    """A graph builder that remembers what each constant was made of."""

    def __init__(self, trace: TrainingTrace) -> None:
        self._trace = trace
        self.core = _core.GraphBuilder()
        self.roles: list[_Role | None] = []

    def __getattr__(self, op: str) -> Callable[..., Any]:
        method = getattr(self.core, op)

        def call(*args: Any, **options: Any) -> Any:
            keys = options.get("key") if op == "train_norm" else None
            if op == "train_norm":
                del options["key"]
            elif op in ("conv2d", "linear", "batch_norm"):
                keys = args[-2]
            value = method(*args, **options)
            if keys is not None:
                stored = [self._trace.by_serial[s] for s, v in keys if (s, v) != (0, 0)]
                self.roles += [
                    _Role(entry, op == "conv2d" and place == 0)
                    for place, entry in enumerate(stored)
                ]
            if op == "channelwise":
                # Computed from others, which nobody trains.
                self.roles += [None] * (len(self.core.constants()) - len(self.roles))
            return value

        return call


class _Plan:
    """A training plan of a module, and what a call needs besides."""

    def __init__(self, owner: Module) -> None:
        self.plan: _core.TrainingPlan | None = None
        self.used = next(_uses)
        self.form: Form = ()
        self.order: tuple[int, ...] = ()
        self.roles: list[_Role | None] = []
        self.fixed: list[Array] = []
        self.trained: dict[int, _Role] = {}
        # Of each output, the constants and inputs that get a gradient from it.
        self.reached: list[tuple[list[int], list[int]]] = []
        self.norms: list[tuple[BatchNorm2d, int]] = []
        self.drops = 0
        self._modules = [(m, m._structure, m.training) for m in owner.modules()]
        self._frozen: list[tuple[Stored, int]] = []
        self._learning: list[Stored] = []

    def depend(self, trace: TrainingTrace) -> None:
        """Depend also on modules outside of the owner, on the values of what is not trained, and
        on what is trained."""
        self._modules += [(module, *state) for module, state in trace.modules.items()]
        self._frozen = [
            (entry, version) for entry, version in trace.stored.items() if not entry.requires_grad
        ]
        # Those of the owner are in the plan's key, others only here.
        self._learning = [entry for entry in trace.stored if entry.requires_grad]

    def is_right(self) -> bool:
        """Whether nothing has changed that the plan depends on."""
        return (
            all(m._structure == s and m.training == t for m, s, t in self._modules)
            and all(e.version == version and not e.requires_grad for e, version in self._frozen)
            and all(entry.requires_grad for entry in self._learning)
        )

    def constants(self) -> list[Array]:
        """The graph's constants with the values of now."""
        return [
            fixed if role is None or not role.stored.requires_grad else role.array()
            for role, fixed in zip(self.roles, self.fixed, strict=True)
        ]


class TrainingPlanCache:
    """The training plans of one module."""

    packed: _core.PackedWeights

    def __init__(self) -> None:
        self.plans: dict[Any, _Plan] = {}
        self.packed = _core.PackedWeights()
        _caches.add(self)


_caches: weakref.WeakSet[TrainingPlanCache] = weakref.WeakSet()


def _after_fork() -> None:
    # A thread that made a plan may have held the lock inside the packed weights, and does not exist
    # in the child. What plans have packed stays theirs.
    for cache in _caches:
        cache.packed = _core.PackedWeights()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class StepTime(NamedTuple):
    """A step of a training plan, and what it took in milliseconds."""

    name: str
    op: str
    fused: tuple[str, ...]
    forward: float
    backward: float


def times(owner: Module) -> list[StepTime]:
    """Where the last training step of a compiled module spent its time.

    For the plan that was used last of ``owner`` itself, step by step in the order forward; empty
    before a pass has gone both ways.

    >>> import numpy as np
    >>> from oxidet import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> model.compiled = True
    >>> model(np.ones((1, 3, 8, 8), np.float32)).sum().backward()
    >>> [(step.name, step.op, step.fused) for step in nn.training_plans.times(model)]
    [('0', 'conv2d', ('relu',))]
    """
    cache = owner.__dict__.get("_training_plan_cache")
    made = [] if cache is None else sorted(cache.plans.values(), key=lambda plan: -plan.used)
    for plan in [one.plan for one in made if one.plan is not None]:
        if seconds := plan.seconds():
            return [
                StepTime(name, op, tuple(fused), 1e3 * forward, 1e3 * backward)
                for (name, op, fused), (forward, backward) in zip(
                    plan.steps(), seconds, strict=True
                )
            ]
    return []


def run(
    owner: Module,
    name: str,
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    """Call a method in training by its plan; :data:`NOT_PLANNED` to run it layer by layer."""
    leaves: list[Any] = []
    try:
        form = take_out((inputs, options), _is_input, leaves)
    except NotPlainError:
        return NOT_PLANNED
    arrays = [leaf._array if isinstance(leaf, Tensor) else np.asarray(leaf) for leaf in leaves]
    if not arrays:
        return NOT_PLANNED
    batch = arrays[0].shape[:1]
    for array in arrays:
        wrong = array.ndim not in (2, 4) or array.shape[:1] != batch or 0 in array.shape
        if wrong or array.dtype.kind not in "fiub":
            return NOT_PLANNED
    wanted = tuple([isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves])
    trained = tuple([p.requires_grad for p in owner.parameters()])
    if not any(trained) and not any(wanted):
        return NOT_PLANNED
    shapes = tuple([array.shape[1:] for array in arrays])
    key = (name, form, shapes, wanted, trained, get_precision())
    plan = _find(owner, key, function, form, shapes, wanted)
    if plan.plan is None:
        return NOT_PLANNED
    if any(batch[0] * pixels == 1 for _, pixels in plan.norms):
        return NOT_PLANNED  # which raises the error of the layer
    given = [nhwc(a, "input") if a.ndim == 4 else _contiguous(a) for a in arrays]
    return _call(plan, leaves, given)


def _contiguous(array: Array) -> F32:
    return np.ascontiguousarray(array, np.float32)


def _is_input(value: Any) -> bool:
    return isinstance(value, (np.ndarray, Tensor)) or (
        not isinstance(value, (type, Symbol)) and hasattr(value, "__array__")
    )


def _find(
    owner: Module,
    key: Any,
    function: Callable[..., Any],
    form: Form,
    shapes: tuple[Shape, ...],
    wanted: tuple[bool, ...],
) -> _Plan:
    cache = owner.__dict__.get("_training_plan_cache")
    if cache is None:
        cache = owner.__dict__.setdefault("_training_plan_cache", TrainingPlanCache())
    plan: _Plan | None = cache.plans.get(key)
    if plan is None or not plan.is_right():
        plan = _make(owner, function, form, shapes, wanted, cache.packed)
        kept = {k: p for k, p in cache.plans.items() if p.is_right()}
        while len(kept) >= MOST_PLANS:
            del kept[min(kept, key=lambda k: kept[k].used)]
        cache.plans = {**kept, key: plan}
    plan.used = next(_uses)
    if plan.plan is not None and not plan.plan.memory_at_rest():
        _find_memory(plan.plan, cache)
    return plan


def _find_memory(plan: _core.TrainingPlan, cache: TrainingPlanCache) -> None:
    """Let a plan go on in the memory of the one before it, such as one for images of another
    size: memory for each size would be many times that of a step."""
    others = [made.plan for made in cache.plans.values() if made.plan not in (None, plan)]
    largest = max(others, key=lambda other: other.memory_at_rest(), default=None)
    if largest is not None:
        plan.take_memory(largest)


def _make(
    owner: Module,
    function: Callable[..., Any],
    form: Form,
    shapes: tuple[Shape, ...],
    wanted: tuple[bool, ...],
    packed: _core.PackedWeights,
) -> _Plan:
    made = _Plan(owner)
    trace = TrainingTrace(owner)
    symbols = [trace.input(shape) for shape in shapes]
    inputs, options = put_back(form, iter(symbols))
    leaves: list[Symbol] = []
    try:
        result = trace.run(function, inputs, options)
        made.form = take_out(result, lambda value: type(value) is Symbol, leaves)
    except (TraceError, NotPlainError):
        return made
    if not leaves:
        return made
    builder: _Builder = trace.builder
    outputs = list(dict.fromkeys(leaf._value for leaf in leaves))
    made.order = tuple([outputs.index(leaf._value) for leaf in leaves])
    made.depend(trace)
    made.roles, made.fixed = builder.roles, builder.core.constants()
    made.trained = {
        number: role
        for number, role in enumerate(made.roles)
        if role is not None and role.stored.requires_grad
    }
    made.norms, made.drops = trace.norms, trace.drops
    made.plan = builder.core.compile_training(
        outputs,
        [number in made.trained for number in range(len(made.roles))],
        list(wanted),
        get_precision(),
        packed,
    )
    made.reached = made.plan.reached()
    steps = [name for name, op, _ in made.plan.steps() if op == "batch_norm"]
    if Counter(trace.norm_names) - Counter(steps):
        made.plan = None  # a batch norm that no output depends on follows the batch nevertheless
    return made


def _call(plan: _Plan, leaves: list[Any], given: list[Array]) -> Any:
    assert plan.plan is not None
    constants = plan.constants()
    masks = [_random.default.next_mask() for _ in range(plan.drops)]
    outputs, kept, statistics = plan.plan.forward(given, constants, masks)
    for number, mean, var in statistics:
        layer, pixels = plan.norms[number]
        layer._track(np.asarray(mean, "f4"), np.asarray(var, "f4"), len(given[0]) * pixels)
    # One tensor may be several of the inputs and constants, and is one parent.
    places: dict[Tensor, int] = {}
    wanted = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves]
    into = [
        places.setdefault(leaf, len(places)) if is_wanted else None
        for leaf, is_wanted in zip(leaves, wanted, strict=True)
    ]
    trained = {n: places.setdefault(r.stored, len(places)) for n, r in plan.trained.items()}
    context = Context((True,) * len(places))
    context.plan, context.kept, context.constants, context.given = plan, kept, constants, given
    context.inputs, context.trained = into, trained
    node = tape.Node(plan_, context, tuple(places), outputs=len(outputs))
    tensors = [
        Tensor._from_node(nchw(array) if array.ndim == 4 else array, node, index)
        for index, array in enumerate(outputs)
    ]
    return put_back(plan.form, iter([tensors[i] for i in plan.order]))


def _forward(ctx: Context, *arrays: Array) -> Array:
    raise RuntimeError("this is a bug in oxidet: plans are run by training_plans.run")


def _backward(ctx: Context, gradients: list[Array | None]) -> tuple[Array | None, ...]:
    plan: _Plan = ctx.plan
    given = [
        None if g is None else (nhwc(g, "grad") if g.ndim == 4 else _contiguous(g))
        for g in gradients
    ]
    # What is not upstream of any gradient gets none, rather than zeros that a step would decay by.
    reached = [plan.reached[i] for i, gradient in enumerate(gradients) if gradient is not None]
    inputs = {number for _, numbers in reached for number in numbers}
    constants = {number for numbers, _ in reached for number in numbers}
    into_inputs = [
        np.zeros(array.shape, np.float32) if place is not None and number in inputs else None
        for number, (place, array) in enumerate(zip(ctx.inputs, ctx.given, strict=True))
    ]
    sums: list[Array | None] = [None] * len(plan.roles)
    for number, role in plan.trained.items():
        if number in constants:
            sums[number] = role.new_gradient()
    ctx.kept.backward(ctx.given, ctx.constants, given, into_inputs, sums, ctx.keep)
    results: list[Any] = [None] * len(ctx.needs_input_grad)
    for place, array in zip(ctx.inputs, into_inputs, strict=True):
        if array is not None:
            _add(results, place, nchw(array) if array.ndim == 4 else array)
    for number, place in ctx.trained.items():
        array = sums[number]
        if array is not None:
            _add(results, place, plan.trained[number].gradient(array))
    return tuple(results)


def _add(results: list[Any], place: int, gradient: Array) -> None:
    """A parameter may be several constants of a graph."""
    results[place] = gradient if results[place] is None else results[place] + gradient


plan_: Primitive = Primitive(
    "plan",
    _forward,
    _backward,  # type: ignore[arg-type]
    fresh_gradients=True,
)
