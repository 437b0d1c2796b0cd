"""The module that an ONNX file becomes: its operators as layers, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from oxidet._arrays import as_float32
from oxidet.nn import _arithmetic
from oxidet.nn._repr import assemble
from oxidet.nn.module import Module, compiled_method
from oxidet.nn.symbol import Symbol, TraceError, current_trace, trace_error
from oxidet.nn.tensor import Tensor
from oxidet.onnx._folding import FOLDERS, FoldingError, fold
from oxidet.onnx._operators import OPERATORS
from oxidet.onnx._values import Constant, Order, Value, plain

#: Operators whose inputs may be activations in any place.
_OF_ANY = ("Add", "Sub", "Mul", "Div", "Sum", "Concat")
#: Operators to which the order of a vector's elements is nothing, or known.
_OF_ANY_ORDER = frozenset(
    [
        "Relu",
        "Sigmoid",
        "Tanh",
        "Neg",
        "Identity",
        "Clip",
        "LeakyRelu",
        "HardSigmoid",
        "HardSwish",
        "Cast",
        "Dropout",
        "Gemm",
        "MatMul",
    ]
)


class Scope(Module):
    """A part of a dotted name, which holds the parameters and operators whose names begin so."""

    _mode_matters = False


class Operation(Module):
    """One node of the file.

    Attributes
    ----------
    op
        The operator.
    options
        Its attributes.
    keeps_order
        Whether a flattening leaves an image's elements in our order, for a layer whose weights are
        in that order.
    order
        The order of the vectors that the weights are for, if not the file's.
    """

    # Batch norm and dropout alone look at the mode.
    _mode_matters = True

    def __init__(self, op: str, options: dict[str, Any], text: str) -> None:
        super().__init__()
        self.op = op
        self.options = options
        self.keeps_order = False
        self.order: Order | None = None
        self._text = text

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        """The outputs for inputs that are activations, parameters, or known values."""
        operator = OPERATORS[self.op]
        alike = self.op in _OF_ANY
        if not any(isinstance(x, Value) for x in inputs):
            if self.op in FOLDERS and not any(isinstance(x, (Tensor, Constant)) for x in inputs):
                try:
                    return tuple(fold(self.op, inputs, self.options))
                except FoldingError as error:
                    raise ValueError(f"{self.op}: expected {error}") from None
            raise ValueError(f"{self.op}: expected an activation among the inputs, got constants")
        if operator.run is None:
            raise ValueError(f"{self.op}: expected constants, got an activation")
        if not alike and not isinstance(inputs[0], Value):
            raise ValueError(f"{self.op}: expected an activation as the first input, got constants")
        if not alike and any(isinstance(x, Value) for x in inputs[1:]):
            raise ValueError(f"{self.op}: expected one activation, the rest constants, got more")
        if self.op not in _OF_ANY_ORDER and any(isinstance(x, Value) and x.order for x in inputs):
            raise trace_error(f"{self.op} of a vector that was flattened in our order")
        try:
            result = operator.run(self, *inputs, **self.options)
        except (TypeError, IndexError, OverflowError) as error:
            # Numbers of the file that no shape has, or more or fewer inputs than there are.
            raise ValueError(f"{self.op}: expected inputs that fit it: {error}") from error
        return tuple(result) if isinstance(result, list) else (result,)

    def __repr__(self) -> str:
        return assemble(self.op, self._text, self._child_texts())


@dataclass(frozen=True)
class Weight:
    """Where a step finds a parameter or buffer: an attribute of a module.

    ``shape`` is that of the constant in the file, for those that take part in arithmetic.
    """

    owner: Module
    name: str
    shape: tuple[int, ...] | None

    def get(self) -> Any:
        """What is there now."""
        stored = getattr(self.owner, self.name)
        return stored if self.shape is None else Constant(stored, self.shape)


@dataclass(frozen=True)
class Step:
    """One operation: what it reads (a name, a weight, or a known value), and what it computes.

    ``last`` are the names that nothing reads after it.
    """

    operation: Operation
    inputs: tuple[Any, ...]
    outputs: tuple[str, ...]
    last: tuple[str, ...]


def _given(item: Any, values: Mapping[str, Any]) -> Any:
    """What an input of a step is: a computed value, a weight, or something known."""
    if isinstance(item, str):
        return values[item]
    return item.get() if isinstance(item, Weight) else item


class ImportedGraph(Module):
    """A network read from an ONNX file; :func:`oxidet.onnx.load` makes them.

    Called with arrays in the order of the file's inputs, with the axes that the file gives them,
    it returns the output, or a tuple of the outputs. It runs as a plan and trains like any module:
    batch norm and dropout obey its mode. Parameters have the names of the file's initializers, in
    which characters other than letters, digits, ``_`` and ``.`` become ``_``.

    Attributes
    ----------
    input_names, output_names
        Names in the file.
    input_shapes
        Shapes in the file, with None for lengths that it leaves open.
    opset_version
        Version of the file's operators.
    channels_first
        Whether images are (N, C, H, W) here even if they are (N, H, W, C) in the file.
    not_compiled
        Why the graph runs layer by layer, without a plan; None if it has one.
    """

    input_names: tuple[str, ...]
    input_shapes: tuple[tuple[int | None, ...] | None, ...]
    output_names: tuple[str, ...]

    compiled: bool = True

    def __init__(
        self,
        input_names: Iterable[str],
        input_shapes: Iterable[tuple[int | None, ...] | None],
        input_axes: Iterable[tuple[int, ...] | None],
        output_names: Iterable[str],
        opset_version: int,
        channels_first: bool,
    ) -> None:
        super().__init__()
        self.input_names = tuple(input_names)
        self.input_shapes = tuple(input_shapes)
        self.output_names = tuple(output_names)
        self.opset_version = opset_version
        self.channels_first = channels_first
        self.not_compiled: str | None = None
        # For inputs in another order of axes than ours: which of ours each of theirs is.
        self._input_axes = tuple(input_axes)
        self._steps: tuple[Step, ...] = ()

    def forward(self, *inputs: Any) -> Any:
        """Arrays as the file's inputs are to arrays as its outputs are; see ``channels_first``."""
        if len(inputs) != len(self.input_names):
            raise ValueError(
                f"inputs: expected {len(self.input_names)} ({', '.join(self.input_names)}), got "
                f"{len(inputs)}"
            )
        ours = [self._to_ours(i, x) for i, x in enumerate(inputs)]
        try:
            outputs = self.run_graph(*ours)
        except TraceError as error:
            if current_trace.get() is not None or not self.compiled:
                raise
            # Known only now for a file that leaves the sizes of its inputs open.
            self.not_compiled = str(error)
            self.compiled = False
            outputs = self.run_graph(*ours)
        results = [
            data if self.channels_first and len(axes) == 4 else plain(Value(data, axes))
            for data, axes in outputs
        ]
        return results[0] if len(results) == 1 else tuple(results)

    def _to_ours(self, i: int, x: Any) -> Any:
        if not isinstance(x, (Symbol, Tensor)):
            x = as_float32(x, self.input_names[i])
        declared, axes = self.input_shapes[i], self._input_axes[i]
        if declared is not None and len(x.shape) != len(declared):
            form = tuple("any" if n is None else n for n in declared)
            raise ValueError(
                f"{self.input_names[i]}: expected {len(declared)} dimensions {form}, got shape "
                f"{tuple(x.shape)}"
            )
        if axes is None or self.channels_first:
            return x
        return _arithmetic.permute(x, sorted(range(len(axes)), key=lambda k: axes[k]))

    @compiled_method
    def run_graph(self, *inputs: Any) -> list[tuple[Any, tuple[int, ...]]]:
        """The outputs for inputs in our order of axes, each with the axes that the file gives it.

        This is what a plan is made of; ``forward`` rearranges what goes in and comes out.
        """
        values: dict[str, Any] = {}
        for name, axes, x in zip(self.input_names, self._input_axes, inputs, strict=True):
            values[name] = Value(x, tuple(range(len(x.shape))) if axes is None else axes)
        for step in self._steps:
            results = step.operation(*[_given(item, values) for item in step.inputs])
            values.update(zip(step.outputs, results, strict=False))
            for name in step.last:
                del values[name]
        outputs = []
        for name in self.output_names:
            value = values[name]
            if not isinstance(value, Value):
                raise ValueError(f"output {name!r}: expected an activation, got a constant")
            if value.order is not None:
                raise trace_error(f"the output {name!r} is a vector flattened in our order")
            outputs.append((value.data, value.axes))
        return outputs

    def extra_repr(self) -> str:
        """Inputs and outputs."""
        lines = []
        for name, shape, axes in zip(
            self.input_names, self.input_shapes, self._input_axes, strict=True
        ):
            if shape is not None and axes is not None and self.channels_first:
                shape = (shape[0], shape[3], *shape[1:3])
            text = "?" if shape is None else ", ".join("N" if n is None else str(n) for n in shape)
            lines.append(f"input {name}: ({text})")
        lines.append(f"output {', '.join(self.output_names)}")
        if self.not_compiled is not None:
            lines.append("runs without a plan")
        return "\n".join(lines)
