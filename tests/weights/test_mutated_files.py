"""Damaged files: whatever happened to the bytes, the result is arrays or a ValueError."""

from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oxidet import weights
from torch_writer import MAGIC, simple_legacy, simple_zip

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "a.bias": np.ones(3, np.float32),
    "b": np.array(2.0, np.float32),
}


def saved(name: str, **options: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        weights.save(path, {**ARRAYS, "n": np.array(3)}, **options)
        return path.read_bytes()


def compressed_npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **ARRAYS)
    return stream.getvalue()


FILES = {
    "torch zip": simple_zip(ARRAYS),
    "torch zip, deflated": simple_zip(ARRAYS, compression=zipfile.ZIP_DEFLATED, byteorder="big"),
    "torch legacy": simple_legacy(ARRAYS),
    "npz": saved("w.npz", dtype="float16", metadata={"a": "b"}),
    "npz, deflated": compressed_npz(),
    "safetensors": saved("w.safetensors", dtype="bfloat16", metadata={"a": "b"}),
}

positions = st.floats(0, 1, exclude_max=True)  # a place in the file, as a fraction of it
changes = st.one_of(
    st.tuples(st.just("set"), positions, st.integers(0, 255)),
    st.tuples(st.just("flip"), positions, st.integers(0, 7)),
    st.tuples(st.just("delete"), positions, st.integers(1, 40)),
    st.tuples(st.just("repeat"), positions, st.integers(1, 40)),
    st.tuples(st.just("insert"), positions, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("cut"), positions, st.none()),
)


def apply(data: bytes, change: tuple[str, float, Any]) -> bytes:
    kind, position, value = change
    at = int(position * len(data))
    head, tail = data[:at], data[at:]
    if not tail:
        return head
    if kind == "set":
        return head + bytes([value]) + tail[1:]
    if kind == "flip":
        return head + bytes([tail[0] ^ 1 << value]) + tail[1:]
    if kind == "delete":
        return head + tail[value:]
    if kind == "repeat":
        return head + tail[:value] + tail
    if kind == "insert":
        return head + value + tail
    return head


def assert_reads_or_refuses(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*expected checksum")
        try:
            state = weights.load(path)
        except weights.WeightFileError as error:
            message = str(error)
            state = {}
        else:
            message = str(path)
    assert message.startswith(str(path))
    for name, array in state.items():
        assert isinstance(name, str)
        assert isinstance(array, np.ndarray)
        array.tobytes()  # every byte of it is there


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations=st.lists(changes, min_size=1, max_size=4))
@example(mutations=[("cut", 0.0, None)])
def test_mutated(kind: str, mutations: list[Any], tmp_path: Path) -> None:
    data = FILES[kind]
    for change in mutations:
        data = apply(data, change)
    assert_reads_or_refuses(tmp_path / "file", data)


@pytest.mark.parametrize("kind", FILES)
def test_truncated_anywhere(kind: str, tmp_path: Path) -> None:
    path, size = tmp_path / "file", len(FILES[kind])
    for length in (*range(0, size - 30, 7), *range(size - 30, size)):
        path.write_bytes(FILES[kind][:length])
        with pytest.raises(weights.WeightFileError):
            weights.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_every_byte_changed(kind: str, tmp_path: Path) -> None:
    data = FILES[kind]
    for at in range(len(data)):
        for value in (0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1, data[at] ^ 0x20):
            assert_reads_or_refuses(tmp_path / "file", data[:at] + bytes([value]) + data[at + 1 :])


BEGINNINGS = [b"PK\3\4", b"PK\5\6", MAGIC, b"\x09" + bytes(7) + b"{"]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(head=st.sampled_from(BEGINNINGS), tail=st.binary(max_size=200))
def test_noise_behind_a_known_beginning(head: bytes, tail: bytes, tmp_path: Path) -> None:
    assert_reads_or_refuses(tmp_path / "file", head + tail)
