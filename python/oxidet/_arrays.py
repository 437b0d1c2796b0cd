"""What comes in from the outside: one place that checks and converts arrays and numbers.

Every message is one sentence that names the argument, what was expected and what came. A wrong
type is a TypeError, a wrong shape or value a ValueError. Kernels behind this border may assume
contiguous, native-endian arrays of the right type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core

F32 = NDArray[np.float32]
# What `pair` takes.
IntOrPair = int | tuple[int, int] | list[int]

# Largest extent, step or count that the kernels take.
INT32_MAX = 2**31 - 1
# With up to so many channels, as pictures have, NumPy interleaves planes one by one three times as
# fast as all at once, when its inner loop is over the channels.
FEW_CHANNELS = 4


def shown(value: Any) -> str:
    """``value`` in a message, of which it takes a line at most."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of thousands of digits
        return f"{type(value).__name__} too long to show"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def as_array(value: Any, argument: str) -> NDArray[Any]:
    """``value`` as an array of numbers (bool, integer or float), of any shape.

    In the processor's byte order. No copy where none is needed.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{argument}: expected an array of numbers, got {error}") from None
    if array.dtype == object and any(isinstance(row, (list, tuple)) for row in array.flat):
        # ragged, before NumPy 1.24
        raise ValueError(f"{argument}: expected an array of numbers, got rows of unequal length")
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{argument}: expected an array of numbers, "
            f"got {type(value).__name__} of dtype {array.dtype}"
        )
    if array.flags.aligned and array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="))


def as_float32(value: Any, argument: str, ndim: int | None = None, form: str = "") -> F32:
    """``value`` as a float32 array; ``form``, as in "(N, C, H, W)", names its axes in messages."""
    array = as_array(value, argument)
    if ndim is not None and array.ndim != ndim:
        named = f" {form}" if form else ""
        raise ValueError(f"{argument}: expected {ndim} dimensions{named}, got shape {array.shape}")
    if array.dtype == np.float32:
        return array
    with np.errstate(over="ignore"):  # infinite, as in torch
        return array.astype(np.float32)


def in_type_of(model: Any, result: Any) -> Any:
    """An array computed in float32 in the floating type of ``model``, as torch has it.

    float32 where ``model`` holds integers. A tensor on the tape stays float32.
    """
    dtype = np.asarray(model).dtype
    if dtype.kind != "f" or not isinstance(result, np.ndarray):
        return result
    with np.errstate(over="ignore"):  # infinite in half precision
        return result.astype(dtype.newbyteorder("="), copy=False)


def nhwc(value: Any, argument: str) -> F32:
    """An NCHW-shaped array as C-contiguous (N, H, W, C) float32.

    An array that already lies channels-last in memory is not copied.
    """
    array = as_float32(value, argument, ndim=4, form="(N, C, H, W)")
    channels_last = array.transpose(0, 2, 3, 1)
    if array.shape[1] > FEW_CHANNELS or channels_last.flags.c_contiguous:
        return np.ascontiguousarray(channels_last)
    result = np.empty(channels_last.shape, np.float32)
    for channel in range(array.shape[1]):
        result[..., channel] = array[:, channel]
    return result


def nchw(array: NDArray[Any]) -> NDArray[Any]:
    """The NCHW-shaped view of a channels-last (N, H, W, C) array."""
    return array.transpose(0, 3, 1, 2)


def to_memory(value: Any, argument: str) -> F32:
    """``value`` as float32 in the order the kernels keep it: contiguous (N, H, W, C) for four axes.

    Any other number of axes stays in C order. For kernels that treat all elements alike.
    """
    array = as_float32(value, argument)
    return nhwc(array, argument) if array.ndim == 4 else np.asarray(array, order="C")


def from_memory(array: NDArray[Any]) -> NDArray[Any]:
    """The inverse of :func:`to_memory`, as a view."""
    return nchw(array) if array.ndim == 4 else array


def vector(value: Any, argument: str, length: int) -> F32:
    """``value`` as a contiguous float32 array of shape ``(length,)``."""
    array = as_float32(value, argument)
    if array.shape != (length,):
        raise ValueError(f"{argument}: expected shape ({length},), got {array.shape}")
    return np.ascontiguousarray(array)


def extent(value: Any, argument: str) -> int:
    """How many there are along an axis: an integer from 1 to the largest that kernels take."""
    return integer(value, argument, 1, INT32_MAX)


def number(
    value: Any, argument: str, minimum: float | None = None, maximum: float | None = None
) -> float:
    """A real number, at least ``minimum`` (and at most ``maximum``); NaN lies in no range.

    An array without axes is one, too: what a torch tensor that holds a number comes in as.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{argument}: expected a number, got {shown(value)}")
    if not _in_range(value, minimum, maximum):
        range_ = _range(minimum, maximum)
        raise ValueError(f"{argument}: expected a number {range_}, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        got = shown(value)
        raise ValueError(f"{argument}: expected a number that a float holds, got {got}") from None


def threshold_number(value: Any, argument: str) -> float:
    """Any number but NaN."""
    result = number(value, argument)
    if math.isnan(result):
        raise ValueError(f"{argument}: expected a number, got nan")
    return result


def integer(
    value: Any, argument: str, minimum: int | None = None, maximum: int | None = None
) -> int:
    """An integer (a bool is none) between two bounds, which belong to the range."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{argument}: expected an integer, got {shown(value)}")
    if not _in_range(value, minimum, maximum):
        range_ = _range(minimum, maximum)
        raise ValueError(f"{argument}: expected an integer {range_}, got {shown(value)}")
    return int(value)


def _in_range(value: Any, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _range(minimum: float | None, maximum: float | None) -> str:
    if maximum is None:
        return f"of at least {minimum}"
    return f"of at most {maximum}" if minimum is None else f"from {minimum} to {maximum}"


def flag(value: Any, argument: str) -> bool:
    """What Python takes for true or false."""
    try:
        return bool(value)
    except (ValueError, RuntimeError):  # an array, or a tensor, of several
        raise TypeError(f"{argument}: expected True or False, got {shown(value)}") from None


def choice(value: Any, argument: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{argument}: expected one of {choices}, got {shown(value)}")
    return str(value)


def axis(value: Any, argument: str, ndim: int) -> int:
    """One of ``ndim`` axes, counted from 0; a negative one counts from the end."""
    index = integer(value, argument)
    if not -ndim <= index < ndim:
        raise ValueError(f"{argument}: expected an axis of {ndim} dimensions, got {shown(value)}")
    return index % ndim


def pair(value: Any, argument: str, minimum: int = 1) -> tuple[int, int]:
    """An integer or a pair of integers, as a pair; each at least ``minimum``."""
    values = (value, value) if isinstance(value, (int, np.integer)) else value
    if (
        not isinstance(values, (tuple, list))
        or len(values) != 2
        or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in values)
    ):
        raise TypeError(
            f"{argument}: expected an integer or a pair of integers, got {shown(value)}"
        )
    if any(v < minimum for v in values):
        raise ValueError(f"{argument}: expected values of at least {minimum}, got {shown(value)}")
    if any(v > INT32_MAX for v in values):
        raise ValueError(f"{argument}: expected values of at most {INT32_MAX}, got {shown(value)}")
    return int(values[0]), int(values[1])


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of ``array`` that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view


def real_pair(value: Any, argument: str) -> tuple[float, float]:
    """Two finite numbers, such as the (height, width) of an image."""
    values = as_array(value, argument)
    if values.shape != (2,) or not np.isfinite(values).all():
        raise ValueError(
            f"{argument}: expected two finite numbers (height, width), got {shown(value)}"
        )
    return float(values[0]), float(values[1])


def floats(**arguments: Any) -> list[NDArray[Any]]:
    """The arguments as C-contiguous arrays of one float type.

    float32 where NumPy's promotion of their types gives float32 or less, else float64; so integers
    alone become float64, as they do when NumPy divides them.
    """
    arrays = [as_array(value, name) for name, value in arguments.items()]
    promoted = np.result_type(*(a.dtype for a in arrays))
    wide = promoted.kind != "f" or promoted.itemsize > 4
    return [np.ascontiguousarray(a, np.float64 if wide else np.float32) for a in arrays]


def boxes(**arguments: Any) -> list[NDArray[Any]]:
    """The arguments as C-contiguous (R, 4) arrays of one float type, see :func:`floats`.

    An empty one-dimensional array, such as that of an empty list, is no boxes.
    """
    arrays = {name: box_shape(as_array(value, name), name) for name, value in arguments.items()}
    return floats(**arrays)


def is_double(array: NDArray[Any]) -> bool:
    """Whether it holds float64, in either byte order."""
    return array.dtype.kind == "f" and array.dtype.itemsize == 8


def box_shape(array: NDArray[Any], argument: str) -> NDArray[Any]:
    """``array`` if its shape is (R, 4); an empty one-dimensional one as (0, 4)."""
    if array.dtype == np.bool_:
        raise TypeError(f"{argument}: expected coordinates, got dtype bool")
    if array.shape == (0,):
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"{argument}: expected shape (R, 4), got {array.shape}")
    return array


def numbers(value: Any, argument: str, length: int) -> NDArray[Any]:
    """``value`` as an array of shape ``(length,)``, of whatever type it has."""
    array = as_array(value, argument)
    if array.shape != (length,):
        raise ValueError(f"{argument}: expected shape ({length},), got {array.shape}")
    return array


def labels(value: Any, argument: str, length: int) -> NDArray[Any]:
    """``value`` as an integer array of shape ``(length,)`` with nothing below 0."""
    array = numbers(value, argument, length)
    if array.size == 0:
        return array if array.dtype.kind in "iu" else array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{argument}: expected integers, got dtype {array.dtype}")
    if array.min() < 0:
        row = int(np.argmax(array < 0))
        raise ValueError(
            f"{argument}: expected labels of 0 or above, got {array[row]} in row {row}"
        )
    return array


def listed(value: Any, argument: str, items: str = "arrays") -> list[Any]:
    """``value``, such as an array for each image, model or class, as a list."""
    try:
        return list(value)
    except TypeError:
        got = type(value).__name__
        raise TypeError(f"{argument}: expected a list of {items}, got {got}") from None


def names(value: Any, argument: str, count: int | None = None) -> tuple[str, ...]:
    """A list of names, ``count`` of them, as a tuple.

    A single text is none, nor is what has no order or more than names: a set, a mapping.
    """
    if isinstance(value, (str, bytes, bytearray, set, frozenset, Mapping)):
        raise TypeError(f"{argument}: expected a list of names, got {shown(value)}")
    given = listed(value, argument, "names")
    for name in given:
        if name is None or isinstance(name, (bytes, bytearray)):
            raise TypeError(f"{argument}: expected names as text, got {shown(name)}")
    found = tuple([str(name) for name in given])
    if count is not None and len(found) != count:
        raise ValueError(f"{argument}: expected {count} names, got {len(found)}")
    return found


def optional_names(value: Any, argument: str) -> tuple[str, ...] | None:
    """:func:`names` of a list, which is thereby read once; None for None."""
    return None if value is None else names(value, argument)


def computed(result: NDArray[Any] | None) -> NDArray[Any]:
    """The result of a kernel that returns None for arrays in need of conversion, after that."""
    if result is None:
        raise RuntimeError("this is a bug in oxidet: a kernel refused arrays converted for it")
    return result


def kernel(name: str, array: NDArray[Any]) -> Callable[..., Any]:
    """The float32 or float64 form of a kernel, by the type of ``array``."""
    function: Callable[..., Any] = getattr(_core, f"{name}_f{8 * array.itemsize}")
    return function
