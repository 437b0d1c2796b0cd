"""An ONNX graph while it is written, node by node of a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet.nn.recording import RecordedNode, Recording

Array = NDArray[Any]


class Writer:
    """A graph while it is written."""

    converters: ClassVar[dict[str, Callable[[Writer, RecordedNode, str], None]]] = {}

    def __init__(self, onnx: Any, recording: Recording, opset: int, dynamic_batch: bool) -> None:
        self._onnx = onnx
        self._recording = recording
        self._batch: str | int = "N" if dynamic_batch else recording.batch
        self.opset = opset
        self._nodes: list[Any] = []
        self._initializers: dict[str, Array] = {}
        # By name, since a weight may be read twice, and by place for those without a name.
        self._anonymous: dict[int, str] = {}
        self._value_info: list[Any] = []
        self._used: set[str] = set()
        # The names of nodes that compute an output of the graph, which is not called as they are.
        self._labels: dict[str, str] = {}
        # The ONNX name of each value of the recording.
        self._values: dict[int, str] = {}

    def model(self, input_names: list[str], output_names: list[str]) -> Any:
        """The whole file."""
        helper, recording = self._onnx.helper, self._recording
        keys = {c.key for node in recording.nodes for c in node.constants.values() if c.key}
        for name in input_names:
            if name in keys:
                raise ValueError(f"input_names: expected names other than weights', got {name!r}")
        for name in output_names:
            if name in keys or name in input_names:
                raise ValueError(
                    f"output_names: expected names other than those of inputs and weights, "
                    f"got {name!r}"
                )
        self._used.update(keys, input_names, output_names)
        self._values.update(zip(recording.inputs, input_names, strict=True))
        # An output that a node computes has its name from the start; one that is an input, or
        # comes twice, is a copy.
        copies = []
        for value, name in zip(recording.outputs, output_names, strict=True):
            if value in self._values:
                copies.append((value, name))
            else:
                self._values[value] = name
        for node in recording.nodes:
            if node.output in self._values:
                self._labels[self._values[node.output]] = self.unique(node.name)
            else:
                self._values[node.output] = self.unique(node.name)
                self._value_info.append(self._value(self._values[node.output], node.shape))
            self._convert(node)
        for value, name in copies:
            self.node("Identity", [self._values[value]], name, name)
        graph = helper.make_graph(
            self._nodes,
            recording.name,
            [self._info(n, v) for n, v in zip(input_names, recording.inputs, strict=True)],
            [self._info(n, v) for n, v in zip(output_names, recording.outputs, strict=True)],
            [self._tensor(name, array) for name, array in self._initializers.items()],
            value_info=self._value_info,
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph,
            opset_imports=imports,
            ir_version=helper.find_min_ir_version_for(imports),
            producer_name="oxidet",
            producer_version=_core.__version__,
        )

    def _convert(self, node: RecordedNode) -> None:
        convert = self.converters.get(node.op)
        if convert is None:
            raise ValueError(
                f"model: expected operations that ONNX export knows, got {node.op!r} in "
                f"{node.name!r}"
            )
        convert(self, node, self._values[node.output])

    def _info(self, name: str, value: int) -> Any:
        return self._value(name, self._recording.shapes[value])

    def _value(self, name: str, shape: tuple[int, ...]) -> Any:
        kind = self._onnx.TensorProto.FLOAT
        return self._onnx.helper.make_tensor_value_info(name, kind, [self._batch, *shape])

    def _tensor(self, name: str, array: Array) -> Any:
        return self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)

    # --- what converters use

    def unique(self, name: str) -> str:
        """``name``, or with a number if something has that name."""
        candidate, count = name, 0
        while candidate in self._used:
            count += 1
            candidate = f"{name}_{count}"
        self._used.add(candidate)
        return candidate

    def input(self, node: RecordedNode, index: int = 0) -> str:
        """Name of an input of a node."""
        return self._values[node.inputs[index]]

    def shape(self, node: RecordedNode, index: int = 0) -> tuple[int, ...]:
        """Shape of an input of a node, without the batch."""
        return self._recording.shapes[node.inputs[index]]

    def weight(self, node: RecordedNode, role: str, shape: tuple[int, ...] | None = None) -> str:
        """Name of a weight of a node; ``shape`` is one that it is given in the file."""
        constant = node.constants[role]
        array = constant.array if shape is None else constant.array.reshape(shape)
        name = constant.key
        if name is None:
            place = constant.array.__array_interface__["data"][0]
            if place not in self._anonymous:
                self._anonymous[place] = self.unique(f"{node.name}.{role}")
            name = self._anonymous[place]
        if name in self._initializers and self._initializers[name].shape != array.shape:
            name = self.unique(name)
        self._initializers[name] = array
        return name

    def constant(self, name: str, array: Any) -> str:
        """Name of a new initializer."""
        name = self.unique(name)
        self._initializers[name] = np.asarray(array)
        return name

    def node(
        self, op: str, inputs: Sequence[str], output: str, name: str, **attributes: Any
    ) -> str:
        """Add a node; returns the name of its output."""
        name = self._labels.get(name, name)
        made = self._onnx.helper.make_node(op, list(inputs), [output], name=name, **attributes)
        self._nodes.append(made)
        return output

    def step(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node on the way to another; returns the name of its output."""
        name = self.unique(f"{name}.{op.lower()}")
        return self.node(op, inputs, name, name, **attributes)


Converter = Callable[[Writer, RecordedNode, str], None]


def converter(op: str) -> Callable[[Converter], Converter]:
    def register(convert: Converter) -> Converter:
        Writer.converters[op] = convert
        return convert

    return register
