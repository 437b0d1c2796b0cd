"""torch's ``.pth`` and ``.pt`` files, without torch.

Both forms are a pickle of the saved object, in which each tensor is a view (offset, shape, strides)
of a *storage* that the pickle names but does not contain. The zip form (torch 1.6 and later) keeps
the pickle in ``data.pkl`` and each storage in an entry ``data/<key>``; the legacy form is one
stream of five pickles with the storages behind them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from oxidet.weights._elements import ITEMSIZE, count_bytes, decode, dtype_of
from oxidet.weights._pickle import PLAIN_GLOBALS, Constructor, Unpickler
from oxidet.weights._source import Source, brief
from oxidet.weights._zip import ZipReader

LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
_LEGACY_PROTOCOL = 1001

_STORAGE_KINDS = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}


class _StorageType:
    """``torch.FloatStorage`` and its kin; ``kind`` is None where the tensor itself names it."""

    def __init__(self, kind: str | None) -> None:
        self.kind = kind


class _Storage:
    """A run of elements that tensors are views of; read when the first of them is built.

    ``numel`` counts bytes where the type names no element.
    """

    def __init__(
        self,
        key: str,
        kind: str | None,
        numel: int,
        read: Callable[[], NDArray[np.uint8]],
        big_endian: bool = False,
    ) -> None:
        self.key = key
        self.kind = kind
        self.numel = numel
        self.read = read
        self.big_endian = big_endian
        self.start = 0
        self._decoded: dict[str, NDArray[Any]] = {}

    def part(self, start: int, numel: int) -> _Storage:
        """A storage inside this one, as very old files have them; the elements are shared."""
        part = _Storage(self.key, self.kind, numel, self.read, self.big_endian)
        part.start = start
        part._decoded = self._decoded
        return part

    def elements(self, kind: str) -> NDArray[Any]:
        """The whole storage as elements of ``kind``."""
        if kind not in self._decoded:
            raw = self.read()
            usable = len(raw) - len(raw) % ITEMSIZE[kind]
            self._decoded[kind] = decode(raw[:usable], kind, big_endian=self.big_endian)
        return self._decoded[kind]


def read_torch_zip(archive: ZipReader) -> Any:
    """The object saved in a zip-form file."""
    source = archive.source
    root = next(iter(archive.entries)).split("/", 1)[0]
    if f"{root}/constants.pkl" in archive.entries:
        raise source.error(
            "expected a state_dict, got a TorchScript program; "
            "save its state_dict() with torch.save instead"
        )

    def text_entry(name: str, default: str) -> str:
        if name not in archive.entries:
            return default
        return bytes(archive.read(name, strict_checksum=False)[:32]).decode("latin-1")

    if f"{root}/data.pkl" not in archive.entries:
        raise source.error(f"expected the entry {root}/data.pkl in a torch file, got none")
    byteorder = text_entry(f"{root}/byteorder", "little")
    if byteorder not in ("little", "big"):
        raise source.error(f"expected the byte order little or big, got {byteorder!r}")

    storages: dict[str, _Storage] = {}

    def storage_of(identifier: Any) -> _Storage:
        kind, key, numel = _parse_identifier(source, identifier, 5)
        entry = f"{root}/data/{key}"
        if entry not in archive.entries:
            raise source.error(f"expected the entry {entry} with a tensor's data, got none")
        nbytes = numel * ITEMSIZE[kind or "uint8"]
        if archive.entries[entry].size != nbytes:
            raise source.error(
                f"expected {nbytes} bytes in entry {entry}, got {archive.entries[entry].size}"
            )
        storage = storages.get(key)
        if storage is None:
            storage = _Storage(
                key,
                kind,
                numel,
                read=partial(archive.read, entry, strict_checksum=False),
                big_endian=byteorder == "big",
            )
            storages[key] = storage
        elif storage.kind != kind:
            raise source.error(f"expected one type of storage {key}, got {storage.kind} and {kind}")
        return storage

    program = archive.read(f"{root}/data.pkl", strict_checksum=False)
    pickled = Source(io.BytesIO(program.tobytes()), source.path)
    build = _TensorBuilder(source)
    return Unpickler(pickled, 0, build.allowed, storage_of).load()


def read_torch_legacy(source: Source) -> Any:
    """The object saved in a legacy file: magic, version, system, object, keys, storages.

    The object comes before the bytes of its tensors, and the bytes cannot be found before the
    object is understood. So its pickle runs twice: once to learn the storages and where it ends,
    then, with the storages at hand, to build the tensors.

    A big-endian machine wrote ``little_endian = False`` among the system's properties, but its
    storages in little-endian order like everyone's (torch's reader ignores the flag as well).
    """
    position = len(LEGACY_MAGIC)
    header = Unpickler(source, position, {})
    version = header.load()
    if version != _LEGACY_PROTOCOL:
        raise source.error(
            f"expected protocol {_LEGACY_PROTOCOL} of torch's legacy form, got {brief(version)}"
        )
    system = Unpickler(source, header.position, {})
    system.load()
    object_at = system.position

    roots: dict[str, _Storage] = {}

    def not_yet() -> NDArray[np.uint8]:
        raise AssertionError("a storage is read only after it was found")

    def storage_of(identifier: Any) -> _Storage:
        kind, key, numel = _parse_identifier(source, identifier, 6)
        root = roots.setdefault(key, _Storage(key, kind, numel, read=not_yet))
        if (root.kind, root.numel) != (kind, numel):
            raise source.error(f"expected one type and size of storage {key}, got two")
        view = identifier[5]
        if view is None:
            return root
        if (
            kind is None
            or not isinstance(view, tuple)
            or len(view) != 3
            or not all(map(_is_count, view[1:]))
        ):
            raise source.error(
                f"expected (key, offset, size) of a view of storage {key}, got {brief(view)}"
            )
        _, start, length = view
        if start + length > numel:
            raise source.error(
                f"expected a view inside the {numel} elements of storage {key}, "
                f"got {length} at {start}"
            )
        return root.part(start, length)

    first = Unpickler(source, object_at, _TensorBuilder(source, dry_run=True).allowed, storage_of)
    first.load()

    listing = Unpickler(source, first.position, {})
    keys = listing.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise source.error(f"expected a list of storage keys, got {brief(keys)}")
    if len(keys) != len(roots) or set(keys) != set(roots):
        raise source.error(
            f"expected the keys of the {len(roots)} storages in use, got {len(keys)} keys"
        )
    position = listing.position
    for key in keys:
        root = roots[key]
        count = int.from_bytes(source.read(position, 8, f"the size of storage {key}"), "little")
        if count != root.numel:
            raise source.error(f"expected {root.numel} elements in storage {key}, got {count}")
        nbytes = root.numel * ITEMSIZE[root.kind or "uint8"]
        what = f"storage {key}"
        source.check_range(position + 8, nbytes, what)
        root.read = partial(source.read_array, position + 8, nbytes, what)
        position += 8 + nbytes

    build = _TensorBuilder(source)
    return Unpickler(source, object_at, build.allowed, storage_of).load()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _parse_identifier(source: Source, identifier: Any, length: int) -> tuple[str | None, str, int]:
    """Kind, key and number of elements out of ('storage', type, key, location, numel[, view])."""
    if isinstance(identifier, tuple) and identifier[:1] == ("module",):
        name = getattr(identifier[1], "name", "?") if len(identifier) > 1 else "?"
        raise source.error(
            f"expected a state_dict, got a whole pickled module with its source ({name}); "
            "save its state_dict() with torch.save instead"
        )
    if (
        not isinstance(identifier, tuple)
        or len(identifier) != length
        or identifier[0] != "storage"
        or not isinstance(identifier[1], _StorageType)
        or not isinstance(identifier[2], str)
        or not _is_count(identifier[4])
    ):
        raise source.error(
            f"expected a tuple ('storage', type, key, location, numel), got {brief(identifier)}"
        )
    return identifier[1].kind, identifier[2], identifier[4]


class _TensorBuilder:
    """The globals that make tensors; with ``dry_run`` they check and make None."""

    def __init__(self, source: Source, *, dry_run: bool = False) -> None:
        self._source = source
        self._dry_run = dry_run
        self.allowed: dict[str, Any] = dict(PLAIN_GLOBALS)
        for name, kind in _STORAGE_KINDS.items():
            self.allowed[f"torch.{name}"] = _StorageType(kind)
        self.allowed["torch.storage.UntypedStorage"] = _StorageType(None)
        for kind in ITEMSIZE:  # as values, dtypes become their names
            self.allowed[f"torch.{kind}"] = f"torch.{kind}"
        functions: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v2": self._rebuild_tensor,
            "torch._utils._rebuild_tensor_v3": self._rebuild_tensor_v3,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch.Size": _size,
            "torch.device": _device,
        }
        for name, function in functions.items():
            self.allowed[name] = Constructor(name, function)

    def _rebuild_tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, *_flags: Any
    ) -> NDArray[Any] | None:
        if not isinstance(storage, _Storage) or storage.kind is None:
            raise ValueError(f"expected a typed storage, got {type(storage).__name__}")
        return self._view(storage, storage.kind, storage.numel, offset, size, stride)

    def _rebuild_tensor_v3(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        _requires_grad: Any,
        _hooks: Any,
        dtype: Any,
        *_metadata: Any,
    ) -> NDArray[Any] | None:
        kind = dtype.removeprefix("torch.") if isinstance(dtype, str) else ""
        if not isinstance(storage, _Storage) or storage.kind is not None or kind not in ITEMSIZE:
            raise ValueError(f"expected an untyped storage and a dtype, got {brief(dtype)}")
        numel = storage.numel // ITEMSIZE[kind]
        return self._view(storage, kind, numel, offset, size, stride)

    def _view(
        self, storage: _Storage, kind: str, numel: int, offset: Any, size: Any, stride: Any
    ) -> NDArray[Any] | None:
        """The tensor with these strides (in elements), C-contiguous.

        Where that is how it lies in the storage, the array shares its memory with other tensors
        of the storage, as in torch.
        """
        if (
            not isinstance(size, tuple)
            or not isinstance(stride, tuple)
            or len(size) != len(stride)
            or not all(map(_is_count, (offset, *size, *stride)))
        ):
            raise ValueError("expected an offset, sizes and as many strides, each at least 0")
        nbytes = count_bytes(self._source, f"storage {storage.key}", kind, size)
        empty = 0 in size
        last = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if not empty and offset + last >= numel:
            raise ValueError(
                f"expected a tensor inside the {numel} elements of storage {storage.key}, "
                f"got shape {size} with strides {stride} from element {offset}"
            )
        if self._dry_run:
            return None
        if empty:
            return np.empty(size, dtype_of(kind))
        flat = storage.elements(kind)[storage.start + offset :]
        if _is_contiguous(size, stride):
            return flat[: last + 1].reshape(size)
        self._source.spend(nbytes, f"a tensor of shape {size}")
        strides = tuple(step * flat.itemsize for step in stride)
        return as_strided(flat, size, strides).copy(order="C")


def _is_contiguous(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether elements follow each other as they lie; the stride of a size of 1 does not matter."""
    expected = 1
    for length, step in zip(reversed(size), reversed(stride), strict=True):
        if length != 1 and step != expected:
            return False
        expected *= length
    return True


def _rebuild_parameter(tensor: Any, *_flags: Any) -> Any:
    return tensor


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    if not isinstance(sizes, tuple):
        raise ValueError(f"expected a tuple of sizes, got {type(sizes).__name__}")
    return sizes


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not (index is None or _is_count(index)):
        raise ValueError(f"expected the name of a device, got {brief(kind)}")
    return kind if index is None else f"{kind}:{index}"
