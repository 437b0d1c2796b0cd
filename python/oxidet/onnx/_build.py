"""From the nodes of a file to the operations of a module, and to names for its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet.nn.module import Module
from oxidet.nn.tensor import Buffer, Parameter, Stored
from oxidet.onnx._file import FileNode
from oxidet.onnx._graph import ImportedGraph, Operation, Scope, Step, Weight
from oxidet.onnx._operators import OPERATORS

Array = NDArray[Any]


@dataclass
class Plain:
    """What is left of a file: nodes that depend on an input, and the constants that they read.

    ``options`` are the attributes of a node by its first output; ``origins`` the initializers that
    computed constants are mostly made of.
    """

    nodes: list[FileNode]
    constants: dict[str, Array]
    options: Mapping[str, Mapping[str, Any]]
    origins: Mapping[str, str]
    outputs: tuple[str, ...]


class Builder:
    """Makes the operations of a module and puts its weights where their names say."""

    # What a name of ours cannot be: attributes of the modules that may hold it.
    _reserved = frozenset(
        {*dir(ImportedGraph), *dir(Operation)}
        | {"training", "op", "options", "order", "keeps_order", "opset_version", "not_compiled"}
        | {"input_names", "input_shapes", "output_names", "channels_first"}
    )

    def __init__(self, plain: Plain, model: ImportedGraph) -> None:
        self._plain = plain
        self._model = model
        self._weights: dict[tuple[str, str], Weight] = {}
        self._taken: set[str] = set()  # initializers that have given their name
        self._counts: dict[tuple[str, ...], int] = {}  # of operations that wanted a name
        self._makers = {output: node for node in plain.nodes for output in node.outputs}

    def steps(self) -> Iterator[Step]:
        """The operations in order, each registered in the module under a name."""
        plain = self._plain
        nodes = plain.nodes
        made = []
        for node in nodes:
            values = [name for name in node.inputs if name and name not in plain.constants]
            shown = [*values, *(f"{k}={v}" for k, v in node.attributes.items() if k != "coerce")]
            made.append(Operation(node.op, self._used(node), ", ".join(shown)))
        for node, operation in zip(nodes, made, strict=True):
            self._place(node, operation)
        last: dict[str, int] = {}
        for i, node in enumerate(nodes):
            last.update(dict.fromkeys((*node.inputs, *node.outputs), i))
        kept = {*plain.outputs, *plain.constants, ""}
        for i, (node, operation) in enumerate(zip(nodes, made, strict=True)):
            inputs = tuple([self._input(node, place) for place in range(len(node.inputs))])
            here = {*node.inputs, *node.outputs} - kept
            gone = tuple(sorted(name for name in here if last[name] == i))
            yield Step(operation, inputs, node.outputs, gone)

    def _used(self, node: FileNode) -> dict[str, Any]:
        """The attributes that an operation needs when it runs."""
        if node.op == "Gemm":
            if self._plain.options[node.outputs[0]]["transA"]:
                raise ValueError(f"{node}: expected transA=0, got 1")
            return {}
        options = self._plain.options[node.outputs[0]]
        if options.get("training_mode"):
            raise ValueError(f"{node}: expected a network in evaluation mode, got training_mode=1")
        return dict(options)

    # --- names

    def _parts(self, name: str) -> tuple[str, ...]:
        """A name of the file as a dotted path."""
        parts = [re.sub(r"\W", "_", part, flags=re.ASCII) or "_" for part in name.split(".")]
        return tuple(part + "_" if part in self._reserved else part for part in parts)

    def _base(self, name: str) -> str:
        """The initializer that a constant was made of, if it has not given its name to another."""
        origin = self._plain.origins.get(name, name)
        return origin if origin not in self._taken else name

    def _place(self, node: FileNode, operation: Operation) -> None:
        """Put an operation where its weights will be, or where its own name says."""
        weights = OPERATORS[node.op].weights
        parents = {
            self._parts(self._base(name))[:-1]
            for place, name in enumerate(node.inputs)
            if place in weights and name in self._plain.constants
        }
        if len(parents) == 1 and (path := parents.pop()) and self._free(path):
            self._put(path, operation)
            return
        name = node.name.strip("/.")
        path = self._parts(name.replace(".", "_") if "/" in name else name)
        wanted = path
        while not self._free(path):
            self._counts[wanted] = count = self._counts.get(wanted, 0) + 1
            path = (*wanted[:-1], f"{wanted[-1]}_{count}")
        self._put(path, operation)

    def _free(self, path: tuple[str, ...]) -> bool:
        module: Module | None = self._model
        for part in path:
            module = None if module is None else module._modules.get(part)
        return not isinstance(module, Operation)

    def _put(self, path: tuple[str, ...], operation: Operation) -> None:
        parent = self._scope(path[:-1])
        scope = parent._modules.get(path[-1])
        if scope is not None:
            for name, child in scope._modules.items():
                operation.add_module(name, child)
        parent.add_module(path[-1], operation)

    def _scope(self, path: tuple[str, ...]) -> Module:
        """The module at a path, made where there is none."""
        module: Module = self._model
        for part in path:
            child = module._modules.get(part)
            if child is None:
                child = Scope()
                module.add_module(part, child)
            module = child
        return module

    # --- weights

    def _input(self, node: FileNode, place: int) -> Any:
        """What a step reads: a name, a weight or a known value."""
        name = node.inputs[place]
        kind = OPERATORS[node.op].weights.get(place)
        if not name:
            return None
        if name not in self._plain.constants:
            if kind not in (None, "element"):
                raise ValueError(f"{node}: expected a constant as input {place}, got {name!r}")
            return name
        array = self._plain.constants[name]
        if kind is None or (kind == "element" and array.size == 1):
            return array
        options = self._plain.options[node.outputs[0]]
        # The same constant may be read in two ways.
        key = f"{kind} {[options.get(o) for o in ('alpha', 'beta', 'transB')]}"
        if (name, key) not in self._weights:
            self._weights[name, key] = self._store(node, place, name, kind, array, options)
        return self._weights[name, key]

    def _store(
        self,
        node: FileNode,
        place: int,
        name: str,
        kind: str,
        array: Array,
        options: Mapping[str, Any],
    ) -> Weight:
        """Register a constant as a parameter or buffer."""
        if array.dtype.kind != "f":
            array = array.astype(np.float32)
        shape = None
        if kind == "kernel":
            if array.ndim != 4:
                raise ValueError(
                    f"{node}: expected a convolution of images, weight (O, C, kh, kw), got shape "
                    f"{array.shape}"
                )
            # In memory as the kernels read it.
            array = np.ascontiguousarray(array.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
        elif kind == "linear":
            array = self._matrix(node, array, options)
        elif kind == "element":
            shape = array.shape
            if sum(n != 1 for n in shape) == 1:
                array = array.reshape(-1)
        elif node.op == "Gemm":
            matrix = self._matrix(node, self._plain.constants[node.inputs[1]], options)
            if array.size not in (1, matrix.shape[0]) or max(array.shape[:-1], default=1) != 1:
                raise ValueError(
                    f"{node}: expected one bias for each of {matrix.shape[0]} outputs, got shape "
                    f"{array.shape}"
                )
            array = np.broadcast_to(array.reshape(-1), matrix.shape[:1]) * np.float32(
                options["beta"]
            )
        elif array.ndim != 1:
            raise ValueError(
                f"{node}: expected input {place} to be a list, got shape {array.shape}"
            )
        trained = kind in ("kernel", "linear", "vector") or self._is_bias(node, place)
        base = self._base(name)
        self._taken.add(base)
        *parents, last = self._parts(base)
        owner = self._scope(tuple(parents))
        while last in owner._modules or last in owner._parameters or last in owner._buffers:
            last += "_"
        stored: Stored = Parameter(array) if trained else Buffer(array)
        setattr(owner, last, stored)
        return Weight(owner, last, shape)

    def _matrix(self, node: FileNode, array: Array, options: Mapping[str, Any]) -> Array:
        """The weight of a fully connected layer as (out, in)."""
        if array.ndim != 2:
            raise ValueError(f"{node}: expected a matrix as input 1, got shape {array.shape}")
        if not options.get("transB"):
            array = array.T
        factor = np.float32(options.get("alpha", 1.0))
        return np.ascontiguousarray(array if factor == 1 else array * factor)

    def _is_bias(self, node: FileNode, place: int) -> bool:
        """Whether a sum adds a constant to what a layer computes."""
        if node.op != "Add":
            return False
        maker = self._makers.get(node.inputs[1 - place])
        while maker is not None and maker.op == "Transpose":
            maker = self._makers.get(maker.inputs[0])
        return maker is not None and maker.op in ("Conv", "MatMul", "Gemm")
