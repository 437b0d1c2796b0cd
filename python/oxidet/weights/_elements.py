"""Kinds of tensor elements: their sizes, and their bytes turned into NumPy arrays.

A kind is named as NumPy names its dtype; bfloat16, which NumPy lacks, is read as float32. A
bfloat16 is the upper half of a float32, so widening is a shift and narrowing a rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oxidet.weights._source import Source

_MAX_DIMS = 32  # of an array in NumPy 1

#: Bytes per element of every kind that is read.
ITEMSIZE = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}


def count_bytes(source: Source, name: str, kind: str, shape: Sequence[int]) -> int:
    """What a tensor takes, whose shape NumPy must be able to express even where a size is 0."""
    if len(shape) > _MAX_DIMS:
        raise source.error(
            f"expected at most {_MAX_DIMS} dimensions for {name!r}, got {len(shape)}"
        )
    nbytes = ITEMSIZE[kind]
    for size in shape:
        nbytes *= max(size, 1)
    if nbytes >= 1 << 62:
        raise source.error(f"expected sizes that fit in memory for {name!r}, got {tuple(shape)}")
    return 0 if 0 in shape else nbytes


def decode(raw: NDArray[np.uint8], kind: str, *, big_endian: bool = False) -> NDArray[Any]:
    """The elements in the bytes ``raw``, a flat array whose length the item size divides."""
    if kind == "bool":
        return raw != 0  # any byte counts, where viewing one as a bool may not
    order: Literal["<", ">"] = ">" if big_endian else "<"
    if kind == "bfloat16":
        upper = raw.view(order + "u2").astype(np.uint32)
        upper <<= 16
        return upper.view(np.float32)
    elements = raw.view(np.dtype(kind).newbyteorder(order))
    return elements.astype(elements.dtype.newbyteorder("="), copy=False)


def dtype_of(kind: str) -> np.dtype[Any]:
    """The dtype of what :func:`decode` returns."""
    return np.dtype("float32" if kind == "bfloat16" else kind)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 rounded to the nearest bfloat16, ties to even, as its 16 bits."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    # Adding half a unit less one, plus the last kept bit, carries exactly when rounding goes up.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # The carry would turn some NaNs into infinity or zero: those become the quiet NaN.
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)
