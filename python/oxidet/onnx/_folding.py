"""Operators on known values, in NumPy: what a file computes of its own constants and of shapes.

Exporters write the shape arithmetic of a model as nodes. Nearly all of it disappears when a file
is loaded; what depends on the shape of the input runs once for each plan. There the batch size is
a marker without a value, so these arrays may be of type object.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Largest result of an operator that makes more of what it is given, in elements. Weights are in
#: the file, so what is computed beside them is small.
LARGEST = 1 << 24

FOLDERS: dict[str, Callable[..., Any]] = {}


class FoldingError(ValueError):
    """Constants do not fit an operator."""


def _folder(*ops: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for op in ops:
            FOLDERS[op] = function
        return function

    return register


def fold(op: str, inputs: Sequence[Array | None], options: dict[str, Any]) -> list[Array]:
    """The outputs of an operator for known inputs.

    Raises FoldingError if they do not fit, or the result would be absurdly large.
    """
    try:
        with np.errstate(all="ignore"):
            result = FOLDERS[op](*inputs, **options)
    except FoldingError:
        raise
    except (
        *(ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError),
        AttributeError,  # of None, an input that is missing
    ) as error:
        raise FoldingError(f"constants that do not fit: {error}") from None
    return [_array(item) for item in (result if isinstance(result, list) else [result])]


def _array(value: Any) -> Array:
    """A result as an array; one element of an array of objects is not one."""
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    made = np.empty((), object)
    made[()] = value
    return made


def _bounded(shape: Sequence[int], given: int = 0) -> tuple[int, ...]:
    """``shape``, if its elements are not too many, or no more than the ``given`` ones."""
    lengths = tuple(int(n) for n in shape)
    if any(n < 0 for n in lengths) or math.prod(lengths) > max(LARGEST, given):
        raise FoldingError(f"constants of at most {LARGEST} elements, got shape {lengths}")
    return lengths


def integers(array: Any) -> list[int]:
    """The elements of a list of axes, lengths or sizes."""
    return [int(n) for n in np.asarray(array).reshape(-1)]


@_folder("Identity", "Dropout")
def _identity(x: Array, *_: Any, **options: Any) -> Array:
    return x


@_folder("Constant")
def _constant(**options: Any) -> Array:
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) != 1:
        raise FoldingError(f"one value, got {sorted(given)}")
    ((name, value),) = given.items()
    if name == "value":
        return np.asarray(value)
    return np.asarray(value, np.float32 if "float" in name else np.int64)


@_folder("ConstantOfShape")
def _constant_of_shape(shape: Array, *, value: Array | None) -> Array:
    fill = np.zeros(1, np.float32) if value is None else value
    return np.full(_bounded(integers(shape)), fill.reshape(-1)[0], fill.dtype)


@_folder("Shape")
def _shape(x: Array, *, start: int, end: int | None) -> Array:
    return np.array(x.shape[start:end], np.int64)


@_folder("Size")
def _size(x: Array) -> Array:
    return np.array(x.size, np.int64)


@_folder("Cast")
def _cast(x: Array, *, to: int, saturate: int) -> Array:
    if x.dtype == object:
        return x
    # ONNX's numbers of types: 1 float, 10 float16, 11 double, 16 bfloat16, 9 bool.
    types: dict[int, Any] = dict.fromkeys((1, 10, 11, 16), np.float32)
    types.update({2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64})
    types[9] = np.bool_
    if to not in types:
        raise FoldingError(f"a cast to numbers, got type {to}")
    return x.astype(types[to])


@_folder("Gather")
def _gather(x: Array, indices: Array, *, axis: int) -> Array:
    _bounded([indices.size, x.size // max(x.shape[axis], 1)], x.size)
    return np.take(x, indices, axis=axis)


@_folder("Concat")
def _concat(*arrays: Array, axis: int) -> Array:
    _bounded([sum(array.size for array in arrays)])
    return np.concatenate(arrays, axis=axis)


@_folder("Slice")
def _slice(
    x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    return x[slices(x.ndim, x.shape, starts, ends, axes, steps)]


def slices(
    ndim: int,
    shape: Sequence[Any],
    starts: Any,
    ends: Any,
    axes: Any = None,
    steps: Any = None,
) -> tuple[slice, ...]:
    """ONNX's Slice as Python's, one for each axis; whole axes as ``slice(None)``."""
    first, last = integers(starts), integers(ends)
    which = list(range(len(first))) if axes is None else integers(axes)
    by = [1] * len(first) if steps is None else integers(steps)
    if not len(first) == len(last) == len(which) == len(by):
        raise FoldingError(f"as many starts as ends, axes and steps, got {first}, {last}")
    parts = [slice(None)] * ndim
    for axis, start, end, step in zip(which, first, last, by, strict=True):
        if not -ndim <= axis < ndim or step == 0:
            raise FoldingError(f"an axis of {ndim} and a step, got axis {axis}, step {step}")
        length = shape[axis]
        if not isinstance(length, int):  # the open batch size
            if (start, step) == (0, 1) and end >= 2**31 - 1:
                continue
            parts[axis] = slice(start, end, step)
            continue
        if step < 0 and end < -length:
            parts[axis] = slice(start, None, step)  # down to the first
        elif (start, step) != (0, 1) or end < length:
            parts[axis] = slice(start, end, step)
    return tuple(parts)


@_folder("Split")
def _split(x: Array, sizes: Any = None, *, axis: int, num_outputs: int) -> list[Array]:
    ends = np.cumsum(split_sizes(x.shape[axis], sizes, num_outputs))
    return list(np.split(x, ends[:-1], axis=axis))


def split_sizes(length: int, sizes: Any, count: int) -> list[int]:
    """The lengths of the parts of an axis; the last of equal ones may be shorter."""
    each = -(-length // count)
    parts = [each] * (count - 1) + [length - each * (count - 1)]
    parts = parts if sizes is None else integers(sizes)
    if len(parts) != count or sum(parts) != length or min(parts) < 0:
        raise FoldingError(f"{count} parts of {length}, got {parts}")
    return parts


@_folder("Squeeze")
def _squeeze(x: Array, axes: Any = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(integers(axes)))


@_folder("Unsqueeze")
def _unsqueeze(x: Array, axes: Any) -> Array:
    return np.expand_dims(x, tuple(integers(axes)))


@_folder("Transpose")
def _transpose(x: Array, *, perm: Sequence[int] | None) -> Array:
    return x.transpose(perm)


@_folder("Reshape")
def _reshape(x: Array, shape: Array, *, allowzero: int) -> Array:
    lengths = integers(shape)
    if not allowzero:
        lengths = [x.shape[i] if n == 0 else n for i, n in enumerate(lengths)]
    return x.reshape(lengths)


@_folder("Flatten")
def _flatten(x: Array, *, axis: int) -> Array:
    split = axis % x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:split]), -1)


@_folder("Expand")
def _expand(x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, _bounded(np.broadcast_shapes(x.shape, tuple(integers(shape)))))


@_folder("Range")
def _range(start: Array, limit: Array, delta: Array) -> Array:
    first, last, by = (array.reshape(-1)[0] for array in (start, limit, delta))
    _bounded([max(math.ceil((last - first) / by), 0)])
    return np.arange(first, last, by, dtype=start.dtype)


@_folder("Where")
def _where(condition: Array, a: Array, b: Array) -> Array:
    _bounded(np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition.astype(bool), a, b)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        # Integers are divided towards 0.
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
    return np.asarray(a / b)


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Array]:
    def compute(*arrays: Array, **options: Any) -> Array:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        _bounded(shape, max(array.size for array in arrays))
        return np.asarray(functools.reduce(function, arrays))

    return compute


_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": np.power,
    "Sum": np.add,
    "Min": np.minimum,
    "Max": np.maximum,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
}
for _op, _function in _BINARY.items():
    _folder(_op)(_arithmetic(_function))


def _elementwise(function: Callable[[Array], Any]) -> Callable[..., Array]:
    def compute(x: Array, **options: Any) -> Array:
        return np.asarray(function(x)).astype(x.dtype, copy=False)

    return compute


for _op, _single in {
    "Neg": np.negative,
    "Sqrt": np.sqrt,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Reciprocal": np.reciprocal,
    "Exp": np.exp,
    "Abs": np.abs,
}.items():
    _folder(_op)(_elementwise(_single))


@_folder("ReduceProd")
def _reduce_prod(x: Array, axes: Any = None, *, keepdims: int, noop_with_empty_axes: int) -> Array:
    which = None if axes is None else tuple(integers(axes))
    return np.asarray(np.prod(x, axis=which, keepdims=bool(keepdims)))
