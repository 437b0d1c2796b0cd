"""The safetensors format: a JSON header with a place for every tensor, then their bytes.

Written in NumPy alone, because the format is small and its checks are the point of it. A file is
read only if its tensors tile the data exactly, without a hole, an overlap or a byte to spare.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from oxidet.weights._elements import count_bytes, decode
from oxidet.weights._source import MAX_ENTRIES, Source, WeightFileError, brief

MAX_HEADER = 100_000_000
METADATA = "__metadata__"

_KINDS = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}
_CODES = {kind: code for code, kind in _KINDS.items()}


def read_safetensors(source: Source) -> tuple[OrderedDict[str, NDArray[Any]], dict[str, str]]:
    """The tensors of a file, in the order of its header, and its metadata."""
    header, data_start = _read_header(source)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise source.error(f"expected {METADATA} to map text to text, got something else")
    if len(header) > MAX_ENTRIES:
        raise source.error(f"expected at most {MAX_ENTRIES} tensors, got {len(header)}")

    entries = {name: _parse_entry(source, name, entry) for name, entry in header.items()}
    expected_begin = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != expected_begin:
            raise source.error(
                f"expected tensor {name!r} to begin at byte {expected_begin} of the data, "
                f"where the one before it ends, got {begin}"
            )
        expected_begin = end
    if data_start + expected_begin != source.size:
        raise source.error(
            f"expected {expected_begin} bytes of tensors, got {source.size - data_start}"
        )

    state: OrderedDict[str, NDArray[Any]] = OrderedDict()
    for name, (kind, shape, begin, end) in entries.items():
        raw = source.read_array(data_start + begin, end - begin, f"tensor {name!r}")
        state[name] = decode(raw, kind).reshape(shape)
    return state, metadata


def _read_header(source: Source) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(source.read(0, 8, "header length"), "little")
    if length > MAX_HEADER:
        raise source.error(f"expected a header of at most {MAX_HEADER} bytes, got {length}")
    text = source.read(8, length, "header")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                raise source.error(
                    f"expected different names in the header, got {brief(name)} twice"
                )
            result[name] = value
        return result

    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
    except WeightFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise source.error(f"expected a header in JSON, got text with {error}") from None
    if not isinstance(header, dict):
        raise source.error(f"expected an object as the header, got {brief(header)}")
    return header, 8 + length


def _parse_entry(source: Source, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Kind, shape, begin and end of a tensor, checked against each other."""
    fields = ("dtype", "shape", "data_offsets")
    if not isinstance(entry, dict) or any(key not in entry for key in fields):
        raise source.error(
            f"expected dtype, shape and data_offsets of {name!r}, got {brief(entry)}"
        )
    code, shape, offsets = (entry[key] for key in fields)
    kind = _KINDS.get(code) if isinstance(code, str) else None
    if kind is None:
        known = ", ".join(_KINDS)
        raise source.error(f"expected a dtype among {known} for {name!r}, got {brief(code)}")
    if not _are_counts(shape):
        raise source.error(f"expected a list of sizes for {name!r}, got {shape!r:.60}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise source.error(f"expected data_offsets [begin, end] for {name!r}, got others")
    nbytes = count_bytes(source, name, kind, shape)
    if offsets[1] - offsets[0] != nbytes:
        raise source.error(
            f"expected {nbytes} bytes for {name!r} of dtype {code} and shape {shape}, "
            f"got data_offsets {offsets}"
        )
    return kind, tuple(shape), offsets[0], offsets[1]


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
        for value in values
    )


def write_safetensors(
    file: BinaryIO,
    state: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str],
    bfloat16: frozenset[str],
) -> None:
    """Write the tensors; those named in ``bfloat16`` are the 16 bits of one each.

    The header keeps the order of ``state``. The data begin with the widest elements, so that every
    tensor is aligned to its own.
    """
    begins, at = {}, 0
    laid_out = sorted(state, key=lambda name: -state[name].dtype.itemsize)
    for name in laid_out:
        begins[name] = at
        at += state[name].nbytes
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, array in state.items():
        kind = "bfloat16" if name in bfloat16 else array.dtype.name
        header[name] = {
            "dtype": _CODES[kind],
            "shape": list(array.shape),
            "data_offsets": [begins[name], begins[name] + array.nbytes],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"state_dict: expected names that fit a header of {MAX_HEADER} bytes, got {len(text)}"
        )
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in laid_out:
        array = state[name]
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        file.write(little.reshape(-1).view(np.uint8).data)
