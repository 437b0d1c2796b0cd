"""Activations while a file's graph runs.

An ONNX file may keep activations in any order of axes and drop those of length 1; a plan keeps
images as (N, C, H, W) and vectors as (N, F). A :class:`Value` bridges the two: it holds what a plan
knows, and says which of its axes the file's are. So a Transpose, Squeeze or Unsqueeze costs
nothing, and a graph in TensorFlow's layout runs in ours; what cannot be had that way is rearranged
for real, which works eagerly but not in a plan.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet.nn import _arithmetic
from oxidet.nn import functional as F
from oxidet.nn.symbol import TraceError, trace_error
from oxidet.nn.tensor import Stored

if TYPE_CHECKING:
    from oxidet.onnx._graph import Operation

Array = NDArray[Any]


class Order(NamedTuple):
    """How the file flattened an image: the shape of one, as ours, and the order of its axes."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def places(self) -> Array:
        """Where each element of the file's vector is in ours."""
        count = math.prod(self.shape)
        return np.arange(count).reshape(self.shape).transpose(self.axes).reshape(-1)


class UnorderedFlattenError(TraceError):
    """A plan cannot flatten an image in the file's order of axes."""

    def __init__(self, message: str, operation: Operation) -> None:
        super().__init__(message)
        self.operation = operation


class UnorderedProductError(TraceError):
    """A fully connected layer expects a vector in the file's order, and got one in ours."""

    def __init__(self, message: str, operation: Operation, order: Order | None) -> None:
        super().__init__(message)
        self.operation = operation
        self.order = order


class Value(NamedTuple):
    """An activation.

    ``data`` is an array, tensor or symbol; axis ``i`` of the file's tensor is axis ``axes[i]`` of
    it, and axes that are not named have length 1. A vector with an ``order`` is an image flattened
    in our order of axes, not the file's.
    """

    data: Any
    axes: tuple[int, ...]
    order: Order | None = None

    @property
    def shape(self) -> tuple[Any, ...]:
        """Shape of the file's tensor; the batch size may be a marker."""
        return tuple([self.data.shape[axis] for axis in self.axes])


def whole(data: Any) -> Value:
    """An activation whose axes are the file's."""
    return Value(data, tuple(range(len(data.shape))))


def plain(x: Value) -> Any:
    """The file's tensor itself."""
    data, axes, order = x
    if order is not None:
        raise trace_error("a vector that was flattened in our order, where the file needs its own")
    ndim = len(data.shape)
    if axes == tuple(range(ndim)):
        return data
    if ndim == 4 and axes == (0, 1):
        return F.flatten(data, 1)
    dropped = tuple(axis for axis in range(ndim) if axis not in axes)
    data = _arithmetic.permute(data, (*axes, *dropped))
    return _arithmetic.reshape(data, x.shape) if dropped else data


def image(x: Value) -> Any:
    """An activation as (N, C, H, W)."""
    data = plain(x)
    if len(data.shape) != 4:
        raise ValueError(f"input: expected 4 dimensions (N, C, H, W), got shape {x.shape}")
    return data


class Constant(NamedTuple):
    """A parameter or buffer that takes part in arithmetic.

    ``data`` is flat if only one of the axes of ``shape``, those of the file, is longer than 1.
    """

    data: Stored
    shape: tuple[int, ...]


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the start."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis: expected one of {rank} axes, got {axis}")
    return axis % rank
