"""Operators that move elements: axes, shapes, parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet.nn import _arithmetic
from oxidet.nn import functional as F
from oxidet.nn.symbol import Symbol, trace_error
from oxidet.onnx._folding import integers, slices, split_sizes
from oxidet.onnx._table import INT, INTS, operator
from oxidet.onnx._values import Order, UnorderedFlattenError, Value, axis_of, plain, whole

if TYPE_CHECKING:
    from oxidet.onnx._graph import Operation

Array = NDArray[Any]


@operator("Shape", start=0, end=INT)
def _shape(op: Operation, x: Value, *, start: int, end: int | None) -> Array:
    lengths = x.shape[start:end]
    if all(isinstance(n, int) for n in lengths):
        return np.array(lengths, np.int64)
    made = np.empty(len(lengths), object)
    made[:] = lengths
    return made


@operator("Transpose", perm=INTS)
def _transpose(op: Operation, x: Value, *, perm: Any) -> Value:
    order = tuple(reversed(range(len(x.axes)))) if perm is None else perm
    if sorted(order) != list(range(len(x.axes))):
        raise ValueError(f"perm: expected an order of {len(x.axes)} axes, got {perm}")
    return Value(x.data, tuple(x.axes[i] for i in order))


@operator("Squeeze")
def _squeeze(op: Operation, x: Value, axes: Any = None) -> Value:
    rank = len(x.axes)
    if axes is None:
        which = [i for i in range(1, rank) if x.shape[i] == 1]
    else:
        which = [axis_of(axis, rank) for axis in integers(axes)]
    if any(x.axes[i] == 0 or x.shape[i] != 1 for i in which):
        raise ValueError(f"axes: expected axes of length 1 behind the batch, got {axes}")
    return _named(Value(x.data, tuple(a for i, a in enumerate(x.axes) if i not in which)))


def _named(x: Value) -> Value:
    """A value of four or two axes keeps those that are dropped; others give them up."""
    return x if len(x.data.shape) == 4 else whole(plain(x))


@operator("Unsqueeze")
def _unsqueeze(op: Operation, x: Value, axes: Any) -> Value:
    rank = len(x.axes) + len(integers(axes))
    which = sorted(axis_of(axis, rank) for axis in integers(axes))
    lengths = list(x.shape)
    for axis in which:
        lengths.insert(axis, 1)
    return _regroup(op, x, tuple(lengths))


def _regroup(op: Operation, x: Value, lengths: tuple[Any, ...]) -> Value:
    """The same elements in another shape that begins with the batch."""
    known = x.shape
    if x.axes[0] == 0 and lengths[0] is not known[0] and lengths[0] != known[0]:
        return whole(_arithmetic.reshape(plain(x), lengths))
    long = [axis for axis, n in zip(x.axes[1:], known[1:], strict=True) if n != 1]
    if [n for n in lengths[1:] if n != 1] == [x.data.shape[axis] for axis in long]:
        # Only axes of length 1 come and go, if the activation has enough of them.
        short = [axis for axis in range(1, len(x.data.shape)) if axis not in long]
        if len(lengths) - 1 - len(long) <= len(short):
            coming = iter(_in_place(lengths, long, short))
            return Value(x.data, (0, *coming))
    if len(lengths) == 2 and long == sorted(long):
        return whole(F.flatten(x.data, 1))
    if len(lengths) == 2 and x.axes[0] == 0 and (op.keeps_order or isinstance(x.data, Symbol)):
        if not op.keeps_order:
            error = trace_error(f"flattening in another order of axes, {x.axes}")
            raise UnorderedFlattenError(str(error), op)
        dropped = (axis for axis in range(1, len(x.data.shape)) if axis not in x.axes)
        order = Order(x.data.shape[1:], tuple(axis - 1 for axis in (*x.axes[1:], *dropped)))
        return Value(F.flatten(x.data, 1), (0, 1), order)
    return whole(_arithmetic.reshape(plain(x), lengths))


def _in_place(lengths: tuple[Any, ...], long: list[int], short: list[int]) -> list[int]:
    """An axis for each length behind the batch: the long ones in order, short ones between."""
    needed = len(lengths) - 1 - len(long)
    rank = len(long) + len(short)
    # With all axes in use, each in its natural place if that is free.
    natural = list(range(1, rank + 1))
    if len(lengths) - 1 == rank:
        expected = [axis for axis, n in zip(natural, lengths[1:], strict=True) if n != 1]
        if expected == long:
            return natural
    longs, shorts = iter(long), iter(short[:needed])
    return [next(longs) if n != 1 else next(shorts) for n in lengths[1:]]


@operator("Flatten", axis=1)
def _flatten(op: Operation, x: Value, *, axis: int) -> Value:
    if axis_of(axis, len(x.axes) + 1) != 1:
        raise ValueError(f"axis: expected 1, which keeps the batch apart, got {axis}")
    return _regroup(op, x, (x.shape[0], math.prod(x.shape[1:])))


@operator("Reshape", allowzero=0)
def _reshape(op: Operation, x: Value, shape: Array, *, allowzero: int) -> Value:
    known = x.shape
    lengths = [
        known[i] if isinstance(n, (int, np.integer)) and n == 0 and not allowzero else n
        for i, n in enumerate(shape.reshape(-1).tolist())
    ]
    count = math.prod(known[1:])
    rest = lengths[1:]
    if -1 in [n for n in rest if isinstance(n, int)] and x.axes[0] == 0:
        others = -math.prod(rest)
        if others > 0 and count % others == 0:
            rest[rest.index(-1)] = count // others
    if x.axes[0] == 0 and all(isinstance(n, int) for n in rest) and math.prod(rest) == count:
        # Whatever the file says about the batch: it may have been written for one image.
        return _regroup(op, x, (known[0], *rest))
    return whole(_arithmetic.reshape(plain(x), tuple(lengths)))


@operator("Concat", axis=1)
def _concat(op: Operation, *values: Any, axis: int) -> Value:
    if not all(isinstance(value, Value) for value in values):
        raise ValueError("inputs: expected activations alone, got constants among them")
    first = values[0]
    if any(v.axes != first.axes or len(v.data.shape) != len(first.data.shape) for v in values):
        values = tuple(whole(plain(value)) for value in values)
        first = values[0]
    at = first.axes[axis_of(axis, len(first.axes))]
    return Value(F.cat([value.data for value in values], at), first.axes)


@operator("Slice")
def _slice(
    op: Operation, x: Value, starts: Any, ends: Any, axes: Any = None, steps: Any = None
) -> Value:
    parts = slices(len(x.axes), x.shape, starts, ends, axes, steps)
    return Value(_take(x, parts), x.axes)


def _take(x: Value, parts: Sequence[slice]) -> Any:
    """Slices of the file's axes, taken of the activation."""
    ours = [slice(None)] * len(x.data.shape)
    for axis, part in zip(x.axes, parts, strict=True):
        ours[axis] = part
    while len(ours) > 2 and ours[-1] == slice(None):
        ours.pop()
    if all(part == slice(None) for part in ours):
        return x.data
    return _arithmetic.getitem_(x.data, index=tuple(ours))


@operator("Split", axis=0, num_outputs=INT)
def _split(op: Operation, x: Value, sizes: Any = None, *, axis: int, num_outputs: int) -> Any:
    at = axis_of(axis, len(x.axes))
    parts, start = [], 0
    for size in split_sizes(x.shape[at], sizes, num_outputs):
        chosen = [slice(None)] * len(x.axes)
        chosen[at] = slice(start, start + size)
        parts.append(Value(_take(x, chosen), x.axes))
        start += size
    return parts


@operator("Gather", axis=0)
def _gather(op: Operation, x: Value, indices: Array, *, axis: int) -> Value:
    at = axis_of(axis, len(x.axes))
    if indices.ndim > 1:
        raise ValueError(f"indices: expected a number or a list, got shape {indices.shape}")
    runs: list[list[int]] = []  # consecutive indices are one slice
    for index in integers(indices):
        place = axis_of(index, x.shape[at])
        if runs and runs[-1][1] == place:
            runs[-1][1] += 1
        else:
            runs.append([place, place + 1])
    parts = []
    for first, last in runs:
        chosen = [slice(None)] * len(x.axes)
        chosen[at] = slice(first, last)
        parts.append(_take(x, chosen))
    data = parts[0] if len(parts) == 1 else F.cat(parts, x.axes[at])
    if indices.ndim == 0:
        return _named(Value(data, x.axes[:at] + x.axes[at + 1 :]))
    return Value(data, x.axes)


@operator("Pad", mode="constant")
def _pad(
    op: Operation, x: Value, pads: Any, fill: Any = None, axes: Any = None, *, mode: str
) -> Value:
    if mode != "constant":
        raise ValueError(f"mode: expected constant, got {mode!r}")
    rank = len(x.axes)
    which = list(range(rank)) if axes is None else [axis_of(axis, rank) for axis in integers(axes)]
    amounts = integers(pads)
    if len(amounts) != 2 * len(which) or min(amounts, default=0) < 0:
        raise ValueError(f"pads: expected {2 * len(which)} numbers from 0 on, got {amounts}")
    ours = [(0, 0)] * len(x.data.shape)
    for axis, before, behind in zip(
        which, amounts[: len(which)], amounts[len(which) :], strict=True
    ):
        ours[x.axes[axis]] = (before, behind)
    if ours[0] != (0, 0):
        raise ValueError(f"pads: expected no padding of the batch, got {amounts}")
    while ours and ours[0] == (0, 0):
        ours.pop(0)
    value = 0.0 if fill is None else float(np.asarray(fill).item())
    flat = tuple(amount for sides in reversed(ours) for amount in sides)
    return Value(F.pad(x.data, flat, value=value) if flat else x.data, x.axes)
