"""Recordings: the graph of a module as Python objects, before any pass has changed it.

A plan is made of the same graph, fused and ordered for speed; a :class:`Recording` keeps it as the
model wrote it, with the name of every layer and of every weight. ONNX export, summaries and
receptive fields read it.

Recording is tracing with another builder: one that hands every call on to the real one, which
checks arguments and computes shapes, and writes down what it was asked.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet.nn import _error_layer
from oxidet.nn._nested import Form, NotPlainError, put_back, take_out
from oxidet.nn.symbol import Symbol, trace_error
from oxidet.nn.tensor import Stored
from oxidet.nn.trace import Trace

if TYPE_CHECKING:
    from oxidet.nn.module import Module

Array = NDArray[Any]
Shape = tuple[int, ...]

# Arguments of the builder's methods that are values of the graph.
_VALUES = ("input", "inputs", "a", "b")


@dataclass(frozen=True)
class Constant:
    """An array that an operation reads besides its inputs.

    Attributes
    ----------
    key
        Its name in ``state_dict`` of the recorded module; None if it is not in there.
    array
        Its values in the shape they have there, read-only.
    """

    key: str | None
    array: Array


@dataclass(frozen=True)
class RecordedNode:
    """One operation. Values are numbered: a node reads earlier ones and computes one.

    Attributes
    ----------
    op
        ``"conv2d"``, ``"add"``, ...: a method of the graph builder.
    name
        As in plans: the layer, with the operation where a layer has parts. Not unique, as a layer
        may be called twice.
    layer
        Dotted path of the module that ran; empty for the recorded module itself.
    inputs, output
        Values.
    shape
        (C, H, W) or (F,) of the output.
    attributes
        The operation's other arguments by name. Convolutions have ``padding`` as (top, bottom,
        left, right); pairs are (rows, columns).
    constants
        Weights by the name of the argument: ``weight``, ``bias``, ``mean``, ``var``. Without those
        that are None.
    """

    op: str
    name: str
    layer: str
    inputs: tuple[int, ...]
    output: int
    shape: Shape
    attributes: Mapping[str, Any]
    constants: Mapping[str, Constant]

    def __repr__(self) -> str:
        inputs = ", ".join(f"%{value}" for value in self.inputs)
        given = [*self.constants, *(f"{k}={v!r}" for k, v in self.attributes.items())]
        text = f"%{self.output} = {self.op}({inputs}{'; ' if given else ''}{', '.join(given)})"
        return f"{text} {self.shape}  # {self.name}"


@dataclass(frozen=True)
class RecordedCall:
    """One call of a module.

    Attributes
    ----------
    path
        Dotted path; the class's name for a module that is not below the recorded one.
    module
        The module.
    depth
        0 for the recorded module, 1 for those that its ``forward`` calls, and so on.
    inputs, outputs
        The values that went in and came out, in order, out of tuples, lists and dicts. A module
        that computes nothing returns what it was given.
    nodes
        Which of the recording's nodes ran inside.
    """

    path: str
    module: Module
    depth: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: range

    def __repr__(self) -> str:
        inputs, outputs = (
            ", ".join(f"%{value}" for value in values) for values in (self.inputs, self.outputs)
        )
        return f"{self.path or '.'}: {type(self.module).__name__}({inputs}) -> {outputs}"


@dataclass(frozen=True)
class Recording:
    """What a module computes for inputs of some shapes; see :func:`record`.

    Attributes
    ----------
    name
        The module's class.
    inputs, outputs
        Values, in the order of ``forward``'s arguments and of the leaves of its result.
    nodes
        In the order in which they ran.
    calls
        Every call of a module, in the order in which they began; the first is that of the recorded
        module.
    shapes
        Of every value, without the batch.
    batch
        The batch size that ``record`` was given.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: tuple[RecordedNode, ...]
    calls: tuple[RecordedCall, ...]
    shapes: Mapping[int, Shape]
    batch: int
    _form: Form

    def structure(self, leaves: Iterable[Any]) -> Any:
        """``forward``'s result (an array, tuple, dict, ...) with these leaves in it."""
        return put_back(self._form, iter(leaves))

    def producer(self, value: int) -> RecordedNode | None:
        """The node that computes a value; None for an input."""
        return self._producers.get(value)

    def consumers(self, value: int) -> list[RecordedNode]:
        """The nodes that read a value."""
        return [node for node in self.nodes if value in node.inputs]

    @functools.cached_property
    def _producers(self) -> dict[int, RecordedNode]:
        return {node.output: node for node in self.nodes}

    def __repr__(self) -> str:
        head = ", ".join(f"%{value}: {self.shapes[value]}" for value in self.inputs)
        lines = [f"{self.name}({head})", *(f"  {node!r}" for node in self.nodes)]
        return "\n".join([*lines, "  return " + ", ".join(f"%{value}" for value in self.outputs)])


class _Builder:
    """A graph builder that writes down every operation before it hands it on."""

    def __init__(self, trace: _RecordingTrace) -> None:
        self._trace = trace
        self._builder = _core.GraphBuilder()
        self.inputs: list[int] = []
        self.nodes: list[RecordedNode] = []
        self.shapes: dict[int, Shape] = {}

    def input(self, shape: Shape) -> int:
        value = self._builder.input(shape)
        self.inputs.append(value)
        self.shapes[value] = self._builder.shape(value)
        return value

    def shape(self, value: int) -> Shape:
        return self._builder.shape(value)

    def __getattr__(self, op: str) -> Callable[..., int]:
        method = getattr(self._builder, op)

        def record(*args: Any, **options: Any) -> int:
            given = _parameters(op).bind(*args, **options).arguments
            value: int = method(*args, **options)
            self.shapes[value] = shape = self._builder.shape(value)
            self.nodes.append(self._node(op, given, value, shape))
            return value

        return record

    def _node(self, op: str, given: dict[str, Any], value: int, shape: Shape) -> RecordedNode:
        inputs: list[int] = []
        for argument in _VALUES:
            if argument in given:
                values = given.pop(argument)
                inputs += values if argument == "inputs" else [values]
        name = given.pop("name")
        constants: dict[str, Constant] = {}
        if "key" in given:
            # One identity for each constant, in the order of the arguments; (0, 0) for None.
            serials = [
                serial for serial, version in given.pop("key") if (serial, version) != (0, 0)
            ]
            roles = [argument for argument, array in given.items() if _is_array(array)]
            for role, serial in zip(roles, serials, strict=True):
                constants[role] = self._trace.recorded_constant(serial)
            given = {k: v for k, v in given.items() if v is not None and not _is_array(v)}
        return RecordedNode(
            op, name, self._trace.layer(), tuple(inputs), value, shape, given, constants
        )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


@functools.cache
def _parameters(op: str) -> inspect.Signature:
    """The arguments of a builder's method, without itself."""
    signature = inspect.signature(getattr(_core.GraphBuilder, op))
    return signature.replace(parameters=list(signature.parameters.values())[1:])


class _RecordingTrace(Trace):
    """A trace that writes down operations and calls of modules."""

    def __init__(self, owner: Module) -> None:
        super().__init__(owner)
        self.recorder = _Builder(self)
        self.builder = cast(Any, self.recorder)
        self.calls: list[RecordedCall | None] = []
        self._by_serial: dict[int, Stored] = {}
        state = set(owner.state_dict())
        self._keys: dict[int, str] = {}
        for key, entry, _ in owner._named_state():
            if key in state:
                self._keys.setdefault(entry.serial, key)

    def constant(self, value: Any, argument: str) -> tuple[Any, tuple[int, int]]:
        found = super().constant(value, argument)
        if value is not None:
            self._by_serial[value.serial] = value
        return found

    def recorded_constant(self, serial: int) -> Constant:
        return Constant(self._keys.get(serial), self._by_serial[serial].data)

    def call(self, module: Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        place, first = len(self.calls), len(self.recorder.nodes)
        depth = len(self._running)
        self.calls.append(None)
        result = super().call(module, inputs, options)
        self.calls[place] = RecordedCall(
            self._paths[module],
            module,
            depth,
            _values((inputs, options)),
            _values(result),
            range(first, len(self.recorder.nodes)),
        )
        return result


def _values(given: Any) -> tuple[int, ...]:
    """The values of the symbols in a nest of tuples, lists and dicts."""
    if type(given) is Symbol:
        return (given._value,)
    if isinstance(given, dict):
        given = tuple(given.values())
    if isinstance(given, (tuple, list)):
        return tuple(value for item in given for value in _values(item))
    return ()


def node_macs(node: RecordedNode) -> int:
    """Multiplications with an addition of an operation on one image: those of a convolution or a
    fully connected layer, counted as direct sums; 0 of everything else."""
    if node.op not in ("conv2d", "linear"):
        return 0
    positions = int(np.prod(node.shape[1:], dtype=np.int64))
    return positions * node.constants["weight"].array.size


def record(model: Module, *shapes: tuple[int, ...], method: str = "forward") -> Recording:
    """Write down what a module computes, in evaluation mode, for inputs of these shapes.

    Parameters
    ----------
    model
        Any module whose ``forward`` could be compiled, whether or not it is. Its mode is put back.
    shapes
        (N, C, H, W) or (N, F) of each input of ``forward``.
    method
        What is called in place of ``forward``, such as one that ``compiled_method`` marks.

    Raises
    ------
    TraceError
        If ``forward`` does something that no graph can hold.
    ValueError
        If a shape is not one, or does not suit the model.

    Examples
    --------
    >>> from oxidet import nn
    >>> from oxidet.nn.recording import record
    >>> record(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (1, 4))
    Sequential(%0: (4,))
      %1 = linear(%0; weight, bias) (2,)  # 0
      %2 = activation(%1; kind='relu', low=0.0, high=inf) (2,)  # 1
      return %2
    >>> [node.constants["weight"].key for node in record(nn.Linear(4, 2), (1, 4)).nodes]
    ['weight']
    """
    from oxidet.nn import plans
    from oxidet.nn.mode import evaluating

    checked = plans.check_shapes(shapes)
    with evaluating(model):
        trace = _RecordingTrace(model)
        symbols = [trace.input(shape[1:]) for shape in checked]
        try:
            result = trace.run(getattr(model, method), tuple(symbols), {})
        except ValueError as error:
            _error_layer.name_layer(error, model)
            raise
    leaves: list[Symbol] = []
    try:
        form = take_out(result, lambda value: type(value) is Symbol, leaves)
    except NotPlainError as error:
        raise trace_error(
            f"{type(model).__name__}.{method} returns a {error}, and a recording knows what is "
            "computed from the inputs, in tuples, lists and dicts"
        ) from None
    recorder = trace.recorder
    outputs = tuple(leaf._value for leaf in leaves)
    whole = RecordedCall("", model, 0, tuple(recorder.inputs), outputs, range(len(recorder.nodes)))
    return Recording(
        type(model).__name__,
        tuple(recorder.inputs),
        outputs,
        tuple(recorder.nodes),
        (whole, *(call for call in trace.calls if call is not None)),
        recorder.shapes,
        checked[0][0],
        form,
    )
