"""What comes in from the outside: one place that checks and converts arrays and numbers.

Every message is one sentence that names the argument, what was expected and what came. A wrong
type is a TypeError, a wrong shape or value a ValueError. Kernels behind this border may assume
contiguous, native-endian arrays of the right type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def as_array(value: Any, argument: str) -> NDArray[Any]:
    """``value`` as an array of numbers (bool, integer or float), of any shape."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{argument}: expected an array of numbers, got {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{argument}: expected an array of numbers, "
            f"got {type(value).__name__} of dtype {array.dtype}"
        )
    return array


def as_float32(value: Any, argument: str, ndim: int | None = None, form: str = "") -> F32:
    """``value`` as a float32 array; ``form``, as in "(N, C, H, W)", names its axes in messages."""
    array = as_array(value, argument)
    if ndim is not None and array.ndim != ndim:
        named = f" {form}" if form else ""
        raise ValueError(f"{argument}: expected {ndim} dimensions{named}, got shape {array.shape}")
    return array.astype(np.float32, copy=False)


def nhwc(value: Any, argument: str) -> F32:
    """An NCHW-shaped array as C-contiguous (N, H, W, C) float32.

    An array that already lies channels-last in memory is not copied.
    """
    array = as_float32(value, argument, ndim=4, form="(N, C, H, W)")
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


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


def number(
    value: Any, argument: str, minimum: float | None = None, maximum: float | None = None
) -> float:
    """A real number, at least ``minimum`` (and at most ``maximum``); NaN lies in no range."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{argument}: expected a number, got {value!r}")
    if minimum is not None:
        expected = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        if not (value >= minimum and (maximum is None or value <= maximum)):
            raise ValueError(f"{argument}: expected a number {expected}, got {value!r}")
    return float(value)


def choice(value: Any, argument: str, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    if value not in choices:
        raise ValueError(f"{argument}: expected one of {choices}, got {value!r}")
    return str(value)


def axis(value: Any, argument: str, ndim: int) -> int:
    """One of ``ndim`` axes, counted from 0; a negative one counts from the end."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{argument}: expected an integer, got {value!r}")
    if not -ndim <= value < ndim:
        raise ValueError(f"{argument}: expected an axis of {ndim} dimensions, got {value}")
    return int(value) % ndim


def pair(value: Any, argument: str, minimum: int = 1) -> tuple[int, int]:
    """An integer or a pair of integers, as a pair; each at least ``minimum``."""
    values = (value, value) if isinstance(value, (int, np.integer)) else value
    if (
        not isinstance(values, (tuple, list))
        or len(values) != 2
        or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in values)
    ):
        raise TypeError(f"{argument}: expected an integer or a pair of integers, got {value!r}")
    if any(v < minimum for v in values):
        raise ValueError(f"{argument}: expected values of at least {minimum}, got {value!r}")
    return int(values[0]), int(values[1])


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of ``array`` that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view
