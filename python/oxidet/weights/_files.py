"""Loading and saving weight files: which format a file is in, and where in it the weights are."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_array
from oxidet._atomic import atomic_write
from oxidet.weights._elements import to_bfloat16
from oxidet.weights._npz import read_npz, write_npz
from oxidet.weights._safetensors import METADATA, read_safetensors, write_safetensors
from oxidet.weights._source import Source, WeightFileError, brief
from oxidet.weights._torch import LEGACY_MAGIC, read_torch_legacy, read_torch_zip
from oxidet.weights._zip import ZipReader

StateDict = OrderedDict[str, NDArray[Any]]

#: Where checkpoints keep their weights, in the order in which :func:`load` looks.
WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network", "weights", "params")

#: What wrappers around a network put before every key: DataParallel, and torch.compile.
PREFIXES = ("module.", "_orig_mod.")


def load(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    strip_prefix: bool = True,
    max_bytes: int | None = None,
) -> StateDict:
    """Read the weights in a file: ``.npz``, ``.safetensors``, or torch's ``.pth`` and ``.pt``.

    The format is recognised by the content, whatever the name. torch's files, zip form and legacy
    form, are read without torch, and only data is read: whatever would run code is refused by
    name. Every length in the file is checked before it is used.

    A checkpoint that holds more than weights, such as simple-faster-rcnn's with ``model``,
    ``config`` and ``other_info``, gives its weights: the first of the keys ``model``,
    ``state_dict``, ``model_state_dict``, ``net``, ``network``, ``weights``, ``params`` whose value
    is a dict of arrays. :func:`load_checkpoint` gives all of it.

    float16 and bfloat16 come back as float32, in which oxidet computes; other types as they are.
    Arrays that share memory in a torch file (tied weights, slices) share it here.

    Parameters
    ----------
    path
        The file.
    key
        The entry of a checkpoint that holds the weights, where the list above does not find
        them or finds the wrong ones (``"model_ema"``).
    strip_prefix
        Drop ``module.`` (DataParallel) and ``_orig_mod.`` (torch.compile) where every
        key begins with it.
    max_bytes
        What the arrays may take together; by default 64 times the size of the file
        plus 256 MiB, against small files that unpack to huge ones.

    Returns
    -------
    Names to arrays, in the order of the file.

    Raises
    ------
    WeightFileError
        (a ValueError) The file is truncated, malformed, of another format, or
        holds something that is not read. The message names file, expectation and finding.
    OSError
        The file cannot be opened.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "small.npz")
    >>> save(path, {"weight": np.ones((2, 3), np.float32)}, dtype="float16")
    >>> {name: (array.dtype.name, array.shape) for name, array in load(path).items()}
    {'weight': ('float32', (2, 3))}
    """
    return read_weights(path, key=key, strip_prefix=strip_prefix, max_bytes=max_bytes)[0]


def read_weights(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    strip_prefix: bool = True,
    max_bytes: int | None = None,
) -> tuple[StateDict, dict[str, str]]:
    """What :func:`load` and :func:`load_metadata` give, of a file that is read once."""
    content, metadata, source_path = read_file(path, max_bytes)
    return weights_of(content, source_path, key, strip_prefix), metadata


def weights_of(
    content: Any, path: str, key: str | None = None, strip_prefix: bool = True
) -> StateDict:
    """The weights in the content of a file, as :func:`load` returns them."""
    state = find_state(content, key, path)
    if strip_prefix:
        state = strip_prefixes(state)
    return OrderedDict((name, _widen(array)) for name, array in state.items())


def load_checkpoint(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Any:
    """Read everything in a file, as nested as it was saved.

    For a torch checkpoint: dicts, lists, tuples, sets, text, numbers, NumPy scalars, and arrays for
    tensors. Formats and limits are those of :func:`load`. Types stay as they are, except that
    bfloat16 becomes float32, and torch's dtypes and devices become their names. A
    ``collections.Counter`` becomes a dict.

    Raises
    ------
    WeightFileError
        As for :func:`load`.
    """
    return read_file(path, max_bytes)[0]


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the text that :func:`save` was given as ``metadata``; empty where there is none.

    Raises
    ------
    WeightFileError
        As for :func:`load`.
    """
    return read_file(path, None)[1]


def save(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, Any],
    *,
    dtype: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write weights to a ``.npz`` or ``.safetensors`` file.

    The file appears complete or not at all: a full disk or a killed process leaves a previous file
    of that name intact. Equal arguments give equal files, byte for byte. ``numpy.load`` and the
    safetensors package read the result.

    Parameters
    ----------
    path
        The file; its ending chooses the format.
    state_dict
        Names to arrays of numbers.
    dtype
        Store floating-point arrays in this type: ``"float16"``, ``"float32"``, or, in
        safetensors, ``"bfloat16"``. Other arrays and ``None`` keep their type. :func:`load`
        widens the half-width types to float32 again.
    metadata
        Text to keep beside the weights, read by :func:`load_metadata`.

    Raises
    ------
    ValueError
        Another ending, an unknown dtype, or a finite value that float16 cannot hold.
    TypeError
        A name that is not text, or a value that is not an array of numbers.
    OSError
        The file cannot be written.
    """
    path = os.fspath(path)
    extension = os.path.splitext(path)[1].lower()
    if extension not in (".npz", ".safetensors"):
        raise ValueError(f"path: expected a name ending in .npz or .safetensors, got {path!r}")
    allowed = ("float16", "float32") + (("bfloat16",) if extension == ".safetensors" else ())
    if dtype is not None and dtype not in allowed:
        raise ValueError(
            f"dtype: expected one of {', '.join(allowed)} or None for {extension}, got {dtype!r}"
        )
    metadata = dict(metadata or {})
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise TypeError("metadata: expected text for every name, got another type")

    state, bfloat16 = {}, set()
    for name, value in state_dict.items():
        if not isinstance(name, str):
            raise TypeError(f"state_dict: expected text as names, got {name!r}")
        if not name or "\0" in name or name == METADATA or name.endswith("/"):
            raise ValueError(f"state_dict: expected the name of a tensor, got {name!r}")
        array = as_array(value, f"state_dict[{name!r}]")
        if array.dtype.itemsize > 8:
            raise TypeError(f"state_dict[{name!r}]: expected at most 64 bits, got {array.dtype}")
        if dtype is not None and array.dtype.kind == "f":
            array = _narrow(name, array, dtype)
            if dtype == "bfloat16":
                bfloat16.add(name)
        state[name] = array
    with atomic_write(path) as file:
        if extension == ".npz":
            write_npz(file, state, metadata)
        else:
            write_safetensors(file, state, metadata, frozenset(bfloat16))


def _narrow(name: str, array: NDArray[Any], dtype: str) -> NDArray[Any]:
    if dtype == "bfloat16":
        return to_bfloat16(array.astype(np.float32, copy=False))
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    if np.any(np.isinf(narrow) & np.isfinite(array)):
        largest = np.abs(array[np.isfinite(array)]).max()
        raise ValueError(
            f"state_dict[{name!r}]: expected values up to {np.finfo(dtype).max:g} for {dtype}, "
            f"got {largest:g}"
        )
    return narrow


def _widen(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def read_file(
    path: str | os.PathLike[str], max_bytes: int | None = None
) -> tuple[Any, dict[str, str], str]:
    """Content, metadata and the path for messages."""
    path = os.fspath(path)
    with open(path, "rb") as file:
        source = Source(file, path, max_bytes)
        head = source.read(0, min(source.size, 512), "the beginning")
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            archive = ZipReader(source)
            if any(name.endswith("/data.pkl") for name in archive.entries):
                return read_torch_zip(archive), {}, path
            return *read_npz(archive), path
        if head.startswith(LEGACY_MAGIC):
            return read_torch_legacy(source), {}, path
        if head[8:9] == b"{":
            return *read_safetensors(source), path
        raise source.error(
            "expected a weight file (.npz, .safetensors, or torch's .pth in zip or legacy form), "
            f"got {_describe(head)}"
        )


def _describe(head: bytes) -> str:
    """What a file of no known format may be instead."""
    if not head:
        return "an empty file"
    if head[257:262] == b"ustar":
        return "a tar, torch's form before 2017; load it in a torch of that time and save it again"
    if head.startswith(b"\x80"):
        return "a pickle that is not torch's"
    if head.startswith(b"\x93NUMPY"):
        return "a single NumPy array (.npy)"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file"
    return f"a file that begins with {head[:8]!r}"


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(array, np.ndarray) for name, array in value.items()
    )


def find_state(content: Any, key: str | None, path: str) -> StateDict:
    """The weights in what a file holds: all of it, or under one of :data:`WRAPPERS`."""
    if key is None and _is_state(content):
        return OrderedDict(content)
    if not isinstance(content, dict):
        raise WeightFileError(f"{path}: expected a dict of tensors, got {brief(content)}")
    for name in WRAPPERS if key is None else (key,):
        if _is_state(content.get(name)) and content[name]:
            return OrderedDict(content[name])
    listed = ", ".join(
        f"{brief(name)}: {type(value).__name__}" for name, value in list(content.items())[:20]
    )
    wanted = (
        f"a dict of tensors under {key!r}" if key else "a dict of tensors, or one that holds it"
    )
    raise WeightFileError(
        f"{path}: expected {wanted}, got a dict with {listed or 'nothing'} "
        "(key= names the entry, load_checkpoint reads all of it)"
    )


def strip_prefixes(state: StateDict) -> StateDict:
    """``state`` without the :data:`PREFIXES` that all of its keys share."""
    while prefix := next(
        (p for p in PREFIXES if state and all(name.startswith(p) for name in state)), None
    ):
        state = OrderedDict((name.removeprefix(prefix), array) for name, array in state.items())
    return state
