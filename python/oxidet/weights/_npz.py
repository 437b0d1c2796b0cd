"""NumPy's ``.npz``: a ZIP of ``<name>.npy`` entries, each a one-line header and the elements.

Files are read by our own parser, not by ``numpy.load``, for the sake of files that lie; what is
written is plain, and ``numpy.load`` reads it.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from oxidet.weights._elements import ITEMSIZE, count_bytes, decode
from oxidet.weights._source import Source, brief
from oxidet.weights._zip import ZipReader

METADATA = "__metadata__"
_MAX_HEADER = 10_000
# The header is a Python dict literal of three known items, in any order. Matching it needs no
# parser of Python, and no pattern here matches one text in two ways, so none is slow to fail.
_ITEM = r"""['"](?:descr|fortran_order|shape)['"]\s*:\s*(?:'[^']*'|"[^"]*"|\w+|\([\dL,\s]*\))"""
_HEADER = re.compile(rf"\{{\s*{_ITEM}\s*,\s*{_ITEM}\s*,\s*{_ITEM}\s*(?:,\s*)?\}}\s*")
_DESCR = re.compile(r"""['"]descr['"]\s*:\s*['"]([<>|=]?)([a-zA-Z]\d*)['"]""")
_ORDER = re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)\b""")
_SHAPE = re.compile(r"""['"]shape['"]\s*:\s*\(([\dL,\s]*)\)""")
_KINDS = {np.dtype(kind).str[1:]: kind for kind in ITEMSIZE if kind != "bfloat16"}


def read_npz(archive: ZipReader) -> tuple[OrderedDict[str, NDArray[Any]], dict[str, str]]:
    """The arrays of a file, in the order of its directory, and its metadata."""
    source = archive.source
    state: OrderedDict[str, NDArray[Any]] = OrderedDict()
    metadata: dict[str, str] = {}
    for entry in archive.entries:
        name = entry.removesuffix(".npy")
        if name == entry:
            raise source.error(f"expected .npy entries in an .npz file, got {entry!r}")
        array = _read_npy(source, name, archive.read(entry, strict_checksum=True))
        if name == METADATA:
            metadata = _parse_metadata(source, array)
        else:
            state[name] = array
    return state, metadata


def _read_npy(source: Source, name: str, data: NDArray[np.uint8]) -> NDArray[Any]:
    start = bytes(data[:12])
    if len(start) < 12 or not start.startswith(b"\x93NUMPY"):
        raise source.error(f"expected an array in npy form for {name!r}, got {start[:6]!r}")
    version = start[6]
    if version not in (1, 2, 3):
        raise source.error(f"expected npy version 1, 2 or 3 for {name!r}, got {version}")
    header_at = 10 if version == 1 else 12
    length = int.from_bytes(start[8:header_at], "little")
    if length > _MAX_HEADER or header_at + length > len(data):
        raise source.error(
            f"expected an npy header of at most {min(_MAX_HEADER, len(data) - header_at)} bytes "
            f"for {name!r}, got {length}"
        )
    header = bytes(data[header_at : header_at + length]).decode("latin-1")
    descr, order, shape = (pattern.findall(header) for pattern in (_DESCR, _ORDER, _SHAPE))
    if not _HEADER.fullmatch(header) or not len(descr) == len(order) == len(shape) == 1:
        raise source.error(
            f"expected an npy header with one dtype, order and shape for {name!r}, "
            f"got {brief(header.strip())}"
        )
    byteorder, code = descr[0]
    kind = _KINDS.get(code)
    if kind is None:
        came = "Python objects, which are a pickle" if code == "O" else f"dtype {byteorder}{code}"
        raise source.error(f"expected numbers for {name!r}, got {came}")
    sizes = [size.strip().removesuffix("L") for size in shape[0].split(",") if size.strip()]
    if not all(size.isdecimal() and len(size) < 19 for size in sizes):
        raise source.error(f"expected a shape for {name!r}, got {brief(shape[0])}")
    dimensions = tuple(map(int, sizes))
    nbytes = count_bytes(source, name, kind, dimensions)
    body = data[header_at + length :]
    if len(body) != nbytes:
        raise source.error(
            f"expected {nbytes} bytes for {name!r} of dtype {kind} and shape {dimensions}, "
            f"got {len(body)}"
        )
    if (header_at + length) % 16:
        body = body.copy()  # aligned, whatever the length of the header
    flat = decode(body, kind, big_endian=byteorder == ">")
    if order[0] == "True":
        return np.ascontiguousarray(flat.reshape(dimensions[::-1]).T)
    return flat.reshape(dimensions)


def _parse_metadata(source: Source, array: NDArray[Any]) -> dict[str, str]:
    try:
        metadata = json.loads(array.astype(np.uint8).tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise source.error(f"expected {METADATA} in JSON, got text with {error}") from None
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise source.error(f"expected {METADATA} to map text to text, got something else")
    return metadata


def write_npz(
    file: BinaryIO, state: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write the arrays in their order: stored, with a fixed date, so that equal states are equal
    files."""
    import zipfile  # a slow import, and reading does without

    arrays = dict(state)
    if metadata:
        text = json.dumps(dict(metadata), sort_keys=True).encode()
        arrays[METADATA] = np.frombuffer(text, np.uint8)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # the same bytes from every operating system
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=array.nbytes > 1 << 30) as entry:
                np.lib.format.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)
