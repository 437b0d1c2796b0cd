"""Arrays as the memory they lie in, for what treats all elements alike.

A convolution keeps its weights as (kh, kw, C, O) in memory, and their gradients and averages lie in
the same order: kernels take them as one axis of elements, whatever the order is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core

Array = NDArray[Any]

#: Elements from which on waking a second thread is worth while.
_THREADED = 1 << 15


def flat(array: Array) -> Array:
    """All elements of an array without gaps as one axis, in the order of its memory: a view."""
    view = array.ravel(order="K")
    if array.size and not np.may_share_memory(view, array):
        raise RuntimeError("this is a bug in oxidet: expected an array without gaps in memory")
    return view


def flat_like(arrays: Iterable[Array], models: Iterable[Array]) -> list[Array]:
    """The elements of arrays in the order in which those of their models lie in memory.

    No copy where both have the same order.
    """
    return [
        (array if _same_order(array, model) else _reordered(array, model)).ravel(order="K")
        for array, model in zip(arrays, models, strict=True)
    ]


def add_to(total: Array, value: Array) -> None:
    """``total += value``, on all threads where that is faster."""
    if total.size < _THREADED or not _same_order(total, value) or not _dense(total):
        np.add(total, value, out=total)
        return
    _core.add_arrays([flat(total)], [value.ravel(order="K")])


def _same_order(a: Array, b: Array) -> bool:
    if a.strides == b.strides:
        return True
    # The stride of an axis of length 1 means nothing.
    steps = zip(a.shape, a.strides, b.strides, strict=True)
    return all(x == y for length, x, y in steps if length > 1)


def _dense(array: Array) -> bool:
    expected = array.itemsize
    for step, length in sorted(zip(array.strides, array.shape, strict=True)):
        if length > 1:
            if step != expected:
                return False
            expected *= length
    return True


def _reordered(array: Array, model: Array) -> Array:
    copy = np.empty_like(model)
    copy[...] = array
    return copy
