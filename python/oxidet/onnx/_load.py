"""Import: from an ONNX file to a module.

The file is checked first, all of it. Then what it computes of constants is computed, a product and
a sum become a fully connected layer, and the rest becomes one operation for each node.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from oxidet.nn import _error_layer
from oxidet.nn.mode import evaluating
from oxidet.nn.symbol import TraceError
from oxidet.nn.tensor import Stored
from oxidet.nn.trace import Trace
from oxidet.onnx._build import Builder, Plain
from oxidet.onnx._file import FileGraph, FileNode, read_graph
from oxidet.onnx._folding import FOLDERS, FoldingError, fold
from oxidet.onnx._graph import ImportedGraph, Operation, Weight
from oxidet.onnx._operators import OPERATORS
from oxidet.onnx._table import Optional_
from oxidet.onnx._values import Order, UnorderedFlattenError, UnorderedProductError

Array = NDArray[Any]


class UnsupportedOperatorError(ValueError):
    """A file has operators that oxidet does not know; the message names them and their nodes."""


def load(path: str | os.PathLike[str], *, channels_first: bool = False) -> ImportedGraph:
    """Read a convolutional network from an ONNX file.

    Parameters
    ----------
    path
        The file, with operators of version 7 to 28. Weights in other files, as torch's exporter
        writes them, have to lie in the same directory.
    channels_first
        Whether images go in and come out as (N, C, H, W) even if the file has them as
        (N, H, W, C), as TensorFlow's converters write it. It takes this for such a network to be
        part of another compiled one, and for ``plan``, summaries and export.

    Returns
    -------
    A module in evaluation mode. It runs as a plan; where a file does what no plan can (known when
    the file gives the sizes of its inputs), it runs layer by layer, and ``not_compiled`` says why.

    Raises
    ------
    ImportError
        Without the package onnx (``pip install 'oxidet[onnx]'``).
    UnsupportedOperatorError
        A ValueError that names the operators that are not known. Nothing has been built then.
    ValueError
        If the file is damaged, no ONNX file, or not a network on images.

    Examples
    --------
    >>> import numpy as np, oxidet
    >>> from oxidet.models import lenet5
    >>> oxidet.onnx.export(lenet5(), "lenet5.onnx", (1, 1, 32, 32))
    >>> model = oxidet.onnx.load("lenet5.onnx")
    >>> model(np.zeros((3, 1, 32, 32))).shape
    (3, 10)
    >>> list(model.state_dict())[:2]
    ['features.0.weight', 'features.0.bias']
    """
    graph = read_graph(path)
    _check(graph)
    loader = _Loader(graph)
    loader.fold()
    loader.join_products_and_sums()
    return loader.build(bool(channels_first))


def _check(graph: FileGraph) -> None:
    """Raise unless every operator and attribute is known, and every input was computed before."""
    unknown: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op not in OPERATORS and node.op != "Upsample":
            unknown.setdefault(node.op, []).append(node.name)
    if unknown:
        found = "; ".join(
            f"{op} ({', '.join(repr(name) for name in names[:3])}"
            f"{f' and {len(names) - 3} more' if len(names) > 3 else ''})"
            for op, names in list(unknown.items())[:8]
        )
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise UnsupportedOperatorError(
            f"unsupported operators: {found}{more}; supported are {', '.join(sorted(OPERATORS))}"
        )
    known = {value.name for value in graph.inputs} | set(graph.constants) | {""}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in known:
                raise ValueError(f"{node}: expected inputs computed before, got {name!r}")
        for name in node.outputs:
            if name and name in known:
                raise ValueError(f"{node}: expected a new name for an output, got {name!r}")
            known.add(name)
    for name in graph.outputs:
        if name not in known or not name:
            raise ValueError(f"outputs: expected values that are computed, got {name!r}")
    if not graph.outputs:
        raise ValueError("outputs: expected at least one, got none")


# Inputs that were attributes: up to which version, and their names in the order of the inputs.
_WERE_ATTRIBUTES = {
    "Clip": (10, ("min", "max")),
    "Dropout": (11, ("ratio",)),
    "Pad": (10, ("pads", "value")),
    "Slice": (9, ("starts", "ends", "axes")),
    "Split": (12, ("split",)),
    "Squeeze": (12, ("axes",)),
    "Unsqueeze": (12, ("axes",)),
    "ReduceMean": (17, ("axes",)),
    "ReduceProd": (17, ("axes",)),
}


class _Loader:
    def __init__(self, graph: FileGraph) -> None:
        self.graph = graph
        self.constants: dict[str, Array] = dict(graph.constants)
        # Constants that nodes have computed, with the initializer that most of each is.
        self.origins: dict[str, str] = {}
        self.options: dict[str, dict[str, Any]] = {}  # by the first output of a node
        self.nodes = [self._modern(node) for node in graph.nodes]
        for node in self.nodes:
            self.options[node.outputs[0]] = _options(node)

    # --- one way to say a thing

    def _modern(self, node: FileNode) -> FileNode:
        """A node as the newest version would have it."""
        opset, attributes = self.graph.opset, dict(node.attributes)
        inputs = list(node.inputs)
        last, names = _WERE_ATTRIBUTES.get(node.op, (0, ()))
        if opset <= last:
            for name in names:
                given = attributes.pop(name, None)
                inputs.append("" if given is None else self._add(node, name, given))
        op = node.op
        if op == "Upsample" or (op == "Resize" and opset < 11):
            scales = attributes.pop("scales", None)
            inputs[1:] = ["", inputs[1] if scales is None else self._add(node, "scales", scales)]
            attributes["coordinate_transformation_mode"] = "asymmetric"
            attributes["nearest_mode"] = "floor"
            op = "Resize"
        if node.op == "Split":
            attributes["num_outputs"] = len(node.outputs)
        if node.op in ("Softmax", "LogSoftmax") and opset < 13:
            attributes.setdefault("axis", 1)
            attributes["coerce"] = 1
        while inputs and not inputs[-1]:
            inputs.pop()
        if not node.outputs or not node.outputs[0]:
            raise ValueError(f"{node}: expected an output, got none")
        required = OPERATORS[op].required
        missing = [place for place in range(required) if not "".join(inputs[place : place + 1])]
        if missing:
            raise ValueError(f"{node}: expected {required} inputs, got none in place {missing[0]}")
        return replace(node, op=op, inputs=tuple(inputs), attributes=attributes)

    def _add(self, node: FileNode, name: str, value: Any) -> str:
        key = f"{node.outputs[0]}:{name}"
        while key in self.constants:
            key += "_"
        self.constants[key] = np.asarray(value, np.float32 if _is_float(value) else np.int64)
        return key

    # --- constants

    def fold(self) -> None:
        """Compute what depends on no input, and drop what no output depends on."""
        left = []
        for node in self.nodes:
            known = all(not name or name in self.constants for name in node.inputs)
            if not known or node.op not in FOLDERS:
                left.append(node)
                continue
            values = [self.constants[name] if name else None for name in node.inputs]
            try:
                results = fold(node.op, values, self.options[node.outputs[0]])
            except FoldingError as error:
                raise ValueError(f"{node}: expected {error}") from None
            self.constants.update(
                (name, result) for name, result in zip(node.outputs, results, strict=False) if name
            )
            if node.inputs and node.op in ("Identity", "Transpose", "Reshape", "Cast", "Unsqueeze"):
                first = node.inputs[0]
                self.origins[node.outputs[0]] = self.origins.get(first, first)
        needed = set(self.graph.outputs)
        for node in reversed(left):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
        self.nodes = [node for node in left if needed.intersection(node.outputs)]

    def _readers(self) -> dict[str, list[FileNode]]:
        readers: dict[str, list[FileNode]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return readers

    def join_products_and_sums(self) -> None:
        """Make a fully connected layer of a product with a matrix and a sum with a vector."""
        readers = self._readers()
        joined: dict[str, FileNode] = {}  # sums by their output
        gone: set[str] = set()
        for node in self.nodes:
            if node.op != "MatMul" or node.outputs[0] in self.graph.outputs:
                continue
            after = readers.get(node.outputs[0], [])
            matrix = self.constants.get(node.inputs[1])
            if len(after) != 1 or after[0].op != "Add" or matrix is None or matrix.ndim != 2:
                continue
            (other,) = [name for name in after[0].inputs if name != node.outputs[0]] or [""]
            vector = self.constants.get(other)
            if vector is None or vector.shape not in ((matrix.shape[1],), (1, matrix.shape[1])):
                continue
            layer = FileNode(
                "Gemm", node.name, (*node.inputs, other), after[0].outputs, {"transB": 0}
            )
            joined[after[0].outputs[0]] = layer
            gone.add(node.outputs[0])
            self.options[layer.outputs[0]] = _options(layer)
        self.nodes = [
            joined.get(node.outputs[0], node) for node in self.nodes if node.outputs[0] not in gone
        ]

    # --- the module

    def build(self, channels_first: bool) -> ImportedGraph:
        """The module, tried with the sizes that the file gives."""
        graph = self.graph
        for name in graph.outputs:
            if name in self.constants:
                raise ValueError(f"output {name!r}: expected an activation, got a constant")
        axes = [
            (0, 2, 3, 1) if shape is not None and len(shape) == 4 and self._is_last(name) else None
            for name, shape in ((value.name, value.shape) for value in graph.inputs)
        ]
        model = ImportedGraph(
            [value.name for value in graph.inputs],
            [value.shape for value in graph.inputs],
            axes,
            graph.outputs,
            graph.opset,
            channels_first,
        )
        plain = Plain(self.nodes, self.constants, self.options, self.origins, graph.outputs)
        model._steps = tuple(Builder(plain, model).steps())
        model.eval()
        shapes = [() if value.shape is None else value.shape[1:] for value in graph.inputs]
        if all(shape and None not in shape for shape in shapes):
            _try(model, cast("list[tuple[int, ...]]", shapes))
        return model

    def _is_last(self, name: str) -> bool:
        """Whether an input has its channels last: a Transpose puts them first before any layer."""
        readers = self._readers()
        names, seen, found = [name], {name}, False
        while names:
            for node in readers.get(names.pop(), []):
                if node.op == "Transpose":
                    if self.options[node.outputs[0]]["perm"] != (0, 3, 1, 2):
                        return False
                    found = True
                elif node.op in _OF_ELEMENTS:
                    if node.outputs[0] not in seen:
                        seen.add(node.outputs[0])
                        names.append(node.outputs[0])
                else:
                    return False
        return found


#: Operators that keep the axes of their input.
_OF_ELEMENTS = ("Add", "Sub", "Mul", "Div", "Identity", "Cast", "Pad", "Clip", "Relu", "Dropout")


def _try(model: ImportedGraph, shapes: list[tuple[int, ...]]) -> None:
    """Trace the graph for inputs of these shapes: does it fit together, and is there a plan?"""
    ours = []
    for shape, axes in zip(shapes, model._input_axes, strict=True):
        ours.append(shape if axes is None else (shape[2], *shape[:2]))  # channels were last
    if any(len(shape) not in (1, 3) for shape in ours):
        model.not_compiled = f"inputs of shapes {shapes}, where plans take images and vectors"
        model.compiled = False
        return
    changed: list[Operation] = []
    try:
        while True:
            try:
                _trace(model, ours)
                return
            except UnorderedFlattenError as error:
                error.operation.keeps_order = True
                changed.append(error.operation)
            except UnorderedProductError as error:
                if error.operation.order is not None or _weight_of(model, error.operation) is None:
                    raise
                _reorder(model, error.operation, error.order)
                changed.append(error.operation)
    except TraceError as error:
        for operation in changed:
            _reorder(model, operation, None)
            operation.keeps_order = False
        model.not_compiled = str(error)
        model.compiled = False


def _trace(model: ImportedGraph, shapes: list[tuple[int, ...]]) -> None:
    with evaluating(model):
        trace = Trace(model)
        try:
            symbols = tuple(trace.input(shape) for shape in shapes)
            trace.run(model.run_graph, symbols, {})
        except MemoryError as error:  # a size that the file declares
            raise ValueError(str(error)) from None
        except ValueError as error:
            _error_layer.name_layer(error, model)
            raise


def _weight_of(model: ImportedGraph, operation: Operation) -> Stored | None:
    """The weight of a fully connected layer, if no other layer has it."""
    readers = [
        (step.operation, step.inputs[1].get())
        for step in model._steps
        if len(step.inputs) > 1 and isinstance(step.inputs[1], Weight)
    ]
    (weight,) = [stored for reader, stored in readers if reader is operation]
    return weight if [stored for _, stored in readers].count(weight) == 1 else None


def _reorder(model: ImportedGraph, operation: Operation, order: Order | None) -> None:
    """Put a layer's weight in order for vectors of another order than now; None is the file's."""
    if operation.order == order:
        return
    weight = _weight_of(model, operation)
    assert weight is not None
    places = (operation.order or order).places()  # type: ignore[union-attr]
    changed = np.empty_like(weight.data)
    if order is None:
        changed[:] = weight.data[:, places]
    else:
        changed[:, places] = weight.data
    weight.copy_(changed)
    operation.order = order


def _is_float(value: Any) -> bool:
    first = value[0] if isinstance(value, tuple) and value else value
    return isinstance(first, float)


def _options(node: FileNode) -> dict[str, Any]:
    """The attributes of a node, of the right types, with the defaults of those not given."""
    known = OPERATORS[node.op].attributes
    options = {n: None if isinstance(d, Optional_) else d for n, d in known.items()}
    for name, value in node.attributes.items():
        if name not in known:
            raise ValueError(
                f"{node}: expected no attributes but {', '.join(known) or 'none'}, got {name!r}"
            )
        default = known[name]
        kind = default.kind if isinstance(default, Optional_) else type(default)
        element = default.element if isinstance(default, Optional_) else None
        fits = type(value) is kind or (kind is np.ndarray and isinstance(value, np.ndarray))
        if not fits or (element and not all(type(item) is element for item in value)):
            raise ValueError(
                f"{node}, attribute {name}: expected {kind.__name__}, got {type(value).__name__}"
            )
        options[name] = value
    return options
