"""Writes torch's two weight file forms byte by byte, so that tests can bend every one of them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def glob(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def sequence(items: Sequence[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(values: Sequence[int]) -> bytes:
    return sequence([integer(value) for value in values])


def ordered_dict(items: Mapping[str, bytes]) -> bytes:
    body = b"".join(text(key) + value for key, value in items.items())
    return glob("collections", "OrderedDict") + b")R(" + body + b"u"


def plain_dict(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


@dataclass
class Tensor:
    """A view of a storage, as the pickle describes it."""

    key: str
    size: Sequence[int]
    stride: Sequence[int]
    offset: int = 0
    numel: int = 0
    storage: str = "FloatStorage"
    view: bytes | None = None  # legacy: the view of a storage

    def opcodes(self, *, legacy: bool = False) -> bytes:
        identifier = [
            text("storage"),
            glob("torch", self.storage),
            text(self.key),
            text("cuda:0"),
            integer(self.numel),
        ]
        if legacy:
            identifier.append(self.view or b"N")
        arguments = [
            sequence(identifier) + b"Q",
            integer(self.offset),
            integers(self.size),
            integers(self.stride),
            b"\x89",
            glob("collections", "OrderedDict") + b")R",
        ]
        return glob("torch._utils", "_rebuild_tensor_v2") + sequence(arguments) + b"R"


def tensor_of(array: np.ndarray, key: str, storage: str = "FloatStorage") -> Tensor:
    strides = [step // array.itemsize for step in array.strides]
    return Tensor(key, array.shape, strides, numel=array.size, storage=storage)


@dataclass
class ZipFile:
    """A zip-form file out of a pickle and storages."""

    pickle: bytes
    storages: Mapping[str, bytes] = field(default_factory=dict)
    byteorder: str | None = None
    compression: int = zipfile.ZIP_STORED
    extra: Mapping[str, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", self.compression) as archive:
            archive.writestr("archive/data.pkl", self.pickle)
            if self.byteorder is not None:
                archive.writestr("archive/byteorder", self.byteorder)
            for key, data in self.storages.items():
                archive.writestr(f"archive/data/{key}", data)
            archive.writestr("archive/version", "3\n")
            for name, data in self.extra.items():
                archive.writestr(f"archive/{name}", data)
        return stream.getvalue()


def legacy_file(
    pickle: bytes, storages: Mapping[str, tuple[int, bytes]], little_endian: bool = True
) -> bytes:
    """A legacy file; a storage is its number of elements and its bytes."""
    system = plain_dict(
        {
            "protocol_version": integer(1001),
            "little_endian": b"\x88" if little_endian else b"\x89",
            "type_sizes": plain_dict({"short": integer(2), "int": integer(4), "long": integer(4)}),
        }
    )
    keys = b"](" + b"".join(text(key) for key in storages) + b"e"
    parts = [MAGIC, pickled(integer(1001)), pickled(system), pickle, pickled(keys)]
    for numel, data in storages.values():
        parts.append(struct.pack("<q", numel) + data)
    return b"".join(parts)


def simple_zip(arrays: Mapping[str, np.ndarray], **options: Any) -> bytes:
    """A zip-form file of float32 arrays."""
    tensors = {name: tensor_of(array, str(i)) for i, (name, array) in enumerate(arrays.items())}
    body = ordered_dict({name: tensor.opcodes() for name, tensor in tensors.items()})
    storages = {tensors[name].key: array.tobytes() for name, array in arrays.items()}
    return ZipFile(pickled(body), storages, **options).to_bytes()


def simple_legacy(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A legacy file of float32 arrays."""
    tensors = {name: tensor_of(array, f"9{i}") for i, (name, array) in enumerate(arrays.items())}
    body = ordered_dict({name: t.opcodes(legacy=True) for name, t in tensors.items()})
    storages = {tensors[name].key: (a.size, a.tobytes()) for name, a in arrays.items()}
    return legacy_file(pickled(body), storages)


def save(path: Any, content: Any, *, zip_form: bool = True) -> None:
    """Write nested dicts of float32 arrays and plain values, as torch.save does."""
    arrays: list[np.ndarray] = []

    def encoded(value: Any) -> bytes:
        if isinstance(value, Mapping):
            return plain_dict({key: encoded(item) for key, item in value.items()})
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value, np.float32)
            arrays.append(array)
            return tensor_of(array, str(len(arrays) - 1)).opcodes(legacy=not zip_form)
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        return text(value) if isinstance(value, str) else integer(value)

    pickle = pickled(encoded(content))
    named = {str(i): array for i, array in enumerate(arrays)}
    if zip_form:
        data = ZipFile(pickle, {key: a.tobytes() for key, a in named.items()}).to_bytes()
    else:
        data = legacy_file(pickle, {key: (a.size, a.tobytes()) for key, a in named.items()})
    with open(path, "wb") as file:
        file.write(data)
