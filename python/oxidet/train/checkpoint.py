"""Checkpoints: all that a training run is made of, in one file that is whole or not there.

The state is a tree of dicts and lists. Its arrays become entries of an ``.npz`` file, named by
their path in the tree ("model/head.score.weight"); everything else is JSON beside them. Python's
numbers survive JSON exactly, the 128-bit integers of random generators included, so what is loaded
is what was saved, to the bit. Nothing is ever pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import weights
from oxidet.weights._files import read_file

# What stands in the JSON tree for an array, and for a dict whose keys are not all text.
ARRAY, ITEMS = "__array__", "__items__"

FORMAT = 1
LAST = "last.npz"  # in the folder of a run


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """A checkpoint, or the last one of the run in a folder."""
    path = Path(path)
    return path / LAST if path.is_dir() else path


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a tree of dicts, lists, arrays, text, finite numbers, bools and None to ``path``.

    ``path`` ends in ``.npz``. Until the new file is complete on the disk, ``path`` is the previous
    one: a full disk (OSError) or a killed process leaves that intact. Tuples come back as lists.
    The keys of dicts are text or integers.

    Raises
    ------
    TypeError
        The tree holds something else. The message says where.
    ValueError
        A number is NaN or infinite (in arrays they are allowed).
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "last.npz")
    >>> save_checkpoint(path, {"epoch": 3, "model": {"weight": np.array([0.5, 1.5])}})
    >>> load_checkpoint(path)
    {'epoch': 3, 'model': {'weight': array([0.5, 1.5])}}
    """
    arrays: dict[str, NDArray[Any]] = {}
    tree = _encode(state, "", arrays)
    content = json.dumps({"format": FORMAT, "state": tree}, allow_nan=False)
    weights.save(path, arrays, metadata={"checkpoint": content})


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote.

    Raises
    ------
    ValueError
        The file is no checkpoint, damaged, or of a later version. The message names it.
    OSError
        The file cannot be opened.
    """
    # As it is, where load() would widen float16.
    arrays, metadata, _ = read_file(path)
    return decode_checkpoint(arrays, metadata, path)


def decode_checkpoint(
    arrays: Any, metadata: Mapping[str, str], path: str | os.PathLike[str]
) -> dict[str, Any]:
    """:func:`load_checkpoint` of a file that has been read."""
    text = metadata.get("checkpoint")
    if text is None:
        raise ValueError(f"{os.fspath(path)}: expected a training checkpoint, got weights alone")
    try:
        content = json.loads(text)
        version, tree = content["format"], content["state"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"{os.fspath(path)}: expected a training checkpoint, got none") from None
    if version != FORMAT:
        raise ValueError(f"{os.fspath(path)}: expected checkpoint format {FORMAT}, got {version}")
    try:
        state: dict[str, Any] = _decode(tree, arrays)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{os.fspath(path)}: expected a checkpoint whose parts fit together, got a damaged one"
        ) from None
    return state


def _encode(value: Any, path: str, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        while path in arrays:  # {"a": {"b": ...}, "a/b": ...}
            path += "'"
        arrays[path] = value
        return {ARRAY: path}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)):
                raise TypeError(f"{path}: expected text and integers as keys, got {key!r}")
        entries = [[key, _encode(value[key], _below(path, key), arrays)] for key in value]
        reserved = {ARRAY, ITEMS} & value.keys()
        plain = all(isinstance(key, str) for key in value) and not reserved
        return dict(entries) if plain else {ITEMS: entries}
    if isinstance(value, (list, tuple)):
        return [_encode(item, _below(path, i), arrays) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not np.isfinite(value):
            raise ValueError(f"{path}: expected a finite number, got {value}")
        return value
    raise TypeError(f"{path}: expected an array or a plain value, got {type(value).__name__}")


def _below(path: str, key: Any) -> str:
    return f"{path}/{key}" if path else str(key)


def _decode(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return arrays[value[ARRAY]]
        if value.keys() == {ITEMS}:
            return {key: _decode(item, arrays) for key, item in value[ITEMS]}
        return {key: _decode(item, arrays) for key, item in value.items()}
    return value
