"""Reading an ONNX file: from bytes that anyone may have written to plain Python data.

Nothing in a file is believed: declared sizes are compared with the data that is there before
anything is made of them, and data outside of the file is looked for in its own directory only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._extras import require

Array = NDArray[Any]

#: Versions of the operator set that can be read; before 7, arithmetic did not broadcast.
OPSETS = range(7, 29)


@dataclass(frozen=True)
class FileNode:
    """A node: its operator, what it reads and computes (by name), and its attributes.

    An input or output that is left out has an empty name.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.op} node {self.name!r}"


@dataclass(frozen=True)
class FileInput:
    """An input; lengths of axes that the file leaves open are None, ``shape`` if all are."""

    name: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class FileGraph:
    """What a file says. Constants of floating types are float32."""

    name: str
    opset: int
    nodes: tuple[FileNode, ...]
    inputs: tuple[FileInput, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]


def read_graph(path: str | os.PathLike[str]) -> FileGraph:
    """Read a file; see ``load`` for what can be wrong with one."""
    onnx = require("onnx", extra="onnx")
    errors = require("google.protobuf.message", extra="onnx")
    path = Path(os.fspath(path))
    try:
        proto = onnx.ModelProto.FromString(path.read_bytes())
    except (errors.DecodeError, RecursionError):
        raise ValueError(f"{path}: expected an ONNX file, got something else or a part") from None
    if not proto.graph.node and not proto.graph.output:
        raise ValueError(f"{path}: expected an ONNX file, got one without a graph")
    return _Reader(onnx, proto, path).graph()


class _Reader:
    def __init__(self, onnx: Any, proto: Any, path: Path) -> None:
        self._onnx = onnx
        self._proto = proto
        self._path = path

    def graph(self) -> FileGraph:
        graph = self._proto.graph
        versions = [item.version for item in self._proto.opset_import if _is_standard(item.domain)]
        if not versions:
            raise ValueError(
                f"{self._path}: expected a version of the ONNX operators, got none; the file may "
                "be cut off"
            )
        opset = max(versions)
        if opset not in OPSETS:
            raise ValueError(
                f"{self._path}: expected version {OPSETS[0]} to {OPSETS[-1]} of the ONNX "
                f"operators, got {opset}"
            )
        if graph.sparse_initializer:
            raise ValueError(f"{self._path}: expected dense initializers, got a sparse one")
        constants: dict[str, Array] = {}
        for tensor in graph.initializer:
            if not tensor.name or tensor.name in constants:
                raise ValueError(
                    f"{self._path}: expected initializers of different names, got {tensor.name!r}"
                )
            constants[tensor.name] = self._array(tensor, f"initializer {tensor.name!r}")
        return FileGraph(
            graph.name,
            opset,
            tuple(self._node(node, i) for i, node in enumerate(graph.node)),
            # Old files list initializers among the inputs.
            tuple(self._input(value) for value in graph.input if value.name not in constants),
            tuple(value.name for value in graph.output),
            constants,
        )

    def _node(self, node: Any, index: int) -> FileNode:
        op = node.op_type if _is_standard(node.domain) else f"{node.domain}.{node.op_type}"
        name = node.name or f"{node.op_type}_{index}"
        attributes = {
            item.name: self._attribute(item, f"{node.op_type} node {name!r}, {item.name}")
            for item in node.attribute
        }
        return FileNode(op, name, tuple(node.input), tuple(node.output), attributes)

    def _attribute(self, item: Any, where: str) -> Any:
        kinds = self._onnx.AttributeProto
        if item.type == kinds.INT:
            return int(item.i)
        if item.type == kinds.FLOAT:
            return float(item.f)
        if item.type == kinds.STRING:
            return item.s.decode("utf-8", "replace")
        if item.type == kinds.INTS:
            return tuple(int(i) for i in item.ints)
        if item.type == kinds.FLOATS:
            return tuple(float(f) for f in item.floats)
        if item.type == kinds.TENSOR:
            return self._array(item.t, where)
        return None  # a graph, strings, ...: no operator that is read has one

    def _input(self, value: Any) -> FileInput:
        kind = value.type.tensor_type
        floats = self._onnx.TensorProto
        if kind.elem_type not in (floats.FLOAT, floats.FLOAT16, floats.DOUBLE):
            raise ValueError(
                f"{self._path}: expected inputs of a floating type, got {value.name!r} of type "
                f"{floats.DataType.Name(kind.elem_type)}"
            )
        if not kind.HasField("shape"):
            return FileInput(value.name, None)
        lengths = (d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        shape = tuple(n if n is not None and n > 0 else None for n in lengths)
        return FileInput(value.name, shape)

    def _array(self, tensor: Any, where: str) -> Array:
        """The values of a tensor, whose declared shape has to be that of its data."""
        where = f"{self._path}: {where}"
        shape = tuple(tensor.dims)
        count = math.prod(shape)
        if any(n < 0 for n in shape):
            raise ValueError(f"{where}: expected a shape, got {shape}")
        kinds = self._onnx.TensorProto
        try:
            dtype = np.dtype(self._onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        except (KeyError, TypeError, ValueError):
            dtype = np.dtype(object)
        if dtype.kind not in "biuf" and tensor.data_type != kinds.BFLOAT16:
            name = kinds.DataType.Name(tensor.data_type) if tensor.data_type in range(17) else ""
            raise ValueError(f"{where}: expected numbers, got type {name or tensor.data_type}")
        if tensor.data_location == kinds.EXTERNAL:
            raw = self._external(tensor, count * dtype.itemsize, where)
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data
        else:
            raw = None
        if raw is None:
            try:
                array = self._onnx.numpy_helper.to_array(tensor)
            except (ValueError, TypeError, OverflowError):
                array = None
            if array is None or array.shape != shape:
                raise ValueError(f"{where}: expected {count} values for shape {shape}, got others")
        else:
            if len(raw) != count * dtype.itemsize:
                raise ValueError(
                    f"{where}: expected {count * dtype.itemsize} bytes for shape {shape}, got "
                    f"{len(raw)}"
                )
            # ONNX is little-endian.
            stored = dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype
            array = np.frombuffer(raw, stored).reshape(shape)
        if array.dtype.kind in "fV":
            return array.astype(np.float32, copy=False)
        return array.astype(dtype.newbyteorder("="), copy=False)

    def _external(self, tensor: Any, size: int, where: str) -> bytes:
        """The bytes of a tensor in another file, which has to lie beside this one."""
        entries = {item.key: item.value for item in tensor.external_data}
        location = entries.get("location", "")
        directory = self._path.parent.resolve()
        file = (directory / location).resolve()
        if not location or directory not in file.parents:
            raise ValueError(
                f"{where}: expected data in the directory of the file, got location {location!r}"
            )
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError:
            raise ValueError(f"{where}: expected numbers of bytes, got {entries}") from None
        if not file.is_file():
            raise ValueError(f"{where}: expected its data in {location!r}, which is no file there")
        present = file.stat().st_size
        if length != size or offset < 0 or offset + length > present:
            raise ValueError(
                f"{where}: expected {size} bytes, got bytes {offset} to {offset + length} of the "
                f"{present} in {location!r}"
            )
        with open(file, "rb") as opened:
            opened.seek(offset)
            return opened.read(length)


def _is_standard(domain: str) -> bool:
    return domain in ("", "ai.onnx")
