"""Caffe's ``.caffemodel``: the arrays of each layer, without Caffe or protobuf.

The file is one protobuf message. Such a message is a row of fields, each a number, a wire type and
a value; a value may be a message again, told apart by nothing but knowing the schema. Here only the
fields on the way to the arrays are followed (numbers as in ``caffe.proto``): the layers of the net,
in the older or the newer form, their names and their *blobs*, and of a blob shape and data.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from oxidet.weights._elements import count_bytes
from oxidet.weights._source import MAX_ENTRIES, Source, brief

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Field of the net that holds a layer: (field of its name, field of its blobs).
_LAYERS = {2: (4, 6), 100: (1, 7)}
_OLD_SHAPE, _DATA, _SHAPE, _DOUBLE_DATA, _DIMENSIONS = (1, 2, 3, 4), 5, 7, 8, 1


def load_caffemodel(
    path: str | os.PathLike[str], *, max_bytes: int | None = None
) -> OrderedDict[str, NDArray[np.float32]]:
    """Read the arrays in a Caffe model.

    Parameters
    ----------
    path
        The ``.caffemodel``.
    max_bytes
        As for :func:`load`.

    Returns
    -------
    ``"<layer>.<number>"`` to array, in the order of the file: ``"conv1_1.0"`` is the weight of that
    layer, ``"conv1_1.1"`` its bias. :func:`from_caffe` renames those of a VGG.

    Raises
    ------
    WeightFileError
        (a ValueError) The file is truncated, or none of Caffe's.
    OSError
        The file cannot be opened.
    """
    path = os.fspath(path)
    with open(path, "rb") as file:
        return read_caffemodel(Source(file, path, max_bytes))


def read_caffemodel(source: Source) -> OrderedDict[str, NDArray[np.float32]]:
    """As :func:`load_caffemodel`."""
    message = _Message(source, source.read_array(0, source.size, "the model"))
    state: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
    for number, value in message.fields():
        if number not in _LAYERS or not isinstance(value, _Message):
            continue
        name_field, blobs_field = _LAYERS[number]
        name, blobs = "", []
        for inner, content in value.fields():
            if inner == name_field and isinstance(content, _Message):
                name = content.text()
            elif inner == blobs_field and isinstance(content, _Message):
                blobs.append(content)
        for count, blob in enumerate(blobs):
            key = f"{name}.{count}"
            if key in state or len(state) >= MAX_ENTRIES:
                raise source.error(f"expected one layer of each name, got {brief(name)} again")
            state[key] = _read_blob(source, key, blob)
    if not state:
        raise source.error("expected a Caffe model, got no layer with weights")
    return state


def _read_blob(source: Source, key: str, blob: _Message) -> NDArray[np.float32]:
    old = {}
    sizes: list[int] | None = None
    data: NDArray[np.float32] | NDArray[np.float64] | None = None
    for number, value in blob.fields():
        if number in _OLD_SHAPE and isinstance(value, int):
            old[number] = value
        elif number == _SHAPE and isinstance(value, _Message):
            sizes = []
            for field, content in value.fields():
                if field == _DIMENSIONS:
                    sizes += [content] if isinstance(content, int) else content.varints()
        elif number in (_DATA, _DOUBLE_DATA):
            kind = "float32" if number == _DATA else "float64"
            if data is not None or not isinstance(value, _Message):
                raise source.error(f"expected the data of {key!r} in one piece, got several")
            data = value.numbers(key, kind)
    shape = tuple(sizes) if sizes is not None else tuple(old.get(n, 1) for n in _OLD_SHAPE)
    if data is None:
        raise source.error(f"expected data for {key!r}, got none")
    if count_bytes(source, key, data.dtype.name, shape) != data.nbytes:
        raise source.error(f"expected data of shape {shape} for {key!r}, got {data.size} numbers")
    return data.reshape(shape).astype(np.float32, copy=False)


class _Message:
    """A run of bytes, to be read as fields, text or numbers."""

    def __init__(self, source: Source, raw: NDArray[np.uint8]) -> None:
        self._source = source
        self._raw = raw

    def fields(self) -> Iterator[tuple[int, int | _Message]]:
        """Number and value of each; fixed-width values, which are of no interest, are left out."""
        at = 0
        while at < len(self._raw):
            tag, at = self._varint(at)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, at = self._varint(at)
                yield number, value
            elif wire == _BYTES:
                length, at = self._varint(at)
                self._check(at, length)
                yield number, _Message(self._source, self._raw[at : at + length])
                at += length
            elif wire in (_FIXED32, _FIXED64):
                length = 4 if wire == _FIXED32 else 8
                self._check(at, length)
                at += length
            else:
                raise self._source.error(f"expected a Caffe model, got a field of type {wire}")

    def varints(self) -> list[int]:
        """Integers without tags between them."""
        values, at = [], 0
        while at < len(self._raw):
            value, at = self._varint(at)
            values.append(value)
            if len(values) > 32:  # a shape; NumPy 1 has no more dimensions
                raise self._source.error("expected a shape in a Caffe model, got more numbers")
        return values

    def text(self) -> str:
        if len(self._raw) > 1000:
            raise self._source.error(f"expected the name of a layer, got {len(self._raw)} bytes")
        return bytes(self._raw).decode("utf-8", "backslashreplace")

    def numbers(self, key: str, kind: str) -> NDArray[np.float32] | NDArray[np.float64]:
        dtype = np.dtype(kind).newbyteorder("<")
        if len(self._raw) % dtype.itemsize:
            raise self._source.error(
                f"expected whole numbers of {dtype.itemsize} bytes for {key!r}"
            )
        self._source.spend(len(self._raw), f"{key!r}")
        return np.frombuffer(self._raw.tobytes(), dtype).astype(kind)

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            self._check(at, 1)
            byte = int(self._raw[at])
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self._source.error("expected a Caffe model, got a number of more than 64 bits")

    def _check(self, at: int, length: int) -> None:
        if length > len(self._raw) - at:
            raise self._source.error(
                f"expected {length} more bytes in a Caffe model, got {len(self._raw) - at} "
                "(truncated, or another kind of file)"
            )
