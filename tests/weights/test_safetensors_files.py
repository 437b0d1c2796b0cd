"""safetensors: against the safetensors package in both directions, and headers that lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import weights

STATE = {
    "small": np.arange(3, dtype=np.uint8),
    "layer.0.weight": np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 4),
    "counter": np.array(7, np.int64),
    "flag": np.array([True, False, True]),
    "empty": np.zeros((0, 5), np.float32),
    "ünïcode \"quoted\"": np.arange(3, dtype=np.int16),
    "double": np.array([0.1, np.nan, -np.inf]),
}  # fmt: skip


def assert_states_equal(got, expected, *, ordered: bool = True) -> None:
    assert list(got) == list(expected) if ordered else set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def safetensors_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: int = 0, end: int = 8, dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def load(tmp_path: Path, data: bytes):
    path = tmp_path / "file.safetensors"
    path.write_bytes(data)
    return weights.load(path)


def test_round_trip_in_order(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.save(path, STATE)
    assert_states_equal(weights.load(path), STATE)
    weights.save(path, {})
    assert weights.load(path) == {}


def test_data_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.save(path, STATE)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    for name, array in STATE.items():
        assert header[name]["data_offsets"][0] % array.itemsize == 0, name


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    weights.save(tmp_path / "w.safetensors", STATE, metadata={"format": "pt"})
    got = package.load_file(tmp_path / "w.safetensors")
    assert_states_equal(got, STATE, ordered=False)


def test_we_read_what_the_package_writes(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    state = {**STATE, "half": np.array([1.5, -2], np.float16), "c": np.array([1 + 2j], "c8")}
    package.save_file(state, tmp_path / "w.safetensors", metadata={"format": "np"})
    got = weights.load(tmp_path / "w.safetensors")
    assert_states_equal(got, {**state, "half": state["half"].astype("f4")}, ordered=False)
    assert weights.load_metadata(tmp_path / "w.safetensors") == {"format": "np"}


def test_bfloat16_rounds_to_nearest_even(tmp_path: Path) -> None:
    # Bits to round off: below, at and above half a unit, over an even and an odd last bit; then a
    # carry into the exponent, overflow to infinity, and NaNs whose mantissa is all low bits.
    bits = [0x3F807FFF, 0x3F808000, 0x3F808001, 0x3F818000, 0x3FFFFFFF, 0x7F7FFFFF, 0x7F800001]
    expected = [0x3F800000, 0x3F800000, 0x3F810000, 0x3F820000, 0x40000000, 0x7F800000, 0x7FC00000]
    values = np.array(bits, np.uint32).view(np.float32)
    weights.save(tmp_path / "w.safetensors", {"x": values}, dtype="bfloat16")
    got = weights.load(tmp_path / "w.safetensors")["x"]
    np.testing.assert_array_equal(got.view(np.uint32), np.array(expected, np.uint32))


ONE = {"x": entry()}
REFUSALS = {
    "truncated data": (safetensors_file(ONE, bytes(7)), "8 bytes of tensors, got 7"),
    "trailing byte": (safetensors_file(ONE, bytes(9)), "8 bytes of tensors, got 9"),
    "truncated header": (safetensors_file(ONE, length=1000), "1000 bytes of header"),
    "huge header": (safetensors_file(ONE, length=(1 << 64) - 1), "at most 100000000 bytes"),
    "short header": (safetensors_file(ONE, bytes(8), length=20), "JSON"),
    "not UTF-8": (b"\x04" + bytes(7) + b"{\xff\xff}", "JSON"),
    "nested": (safetensors_file('{"a":' * 100_000), "JSON"),
    "long number": (safetensors_file('{"a":' + "1" * 10_000 + "}"), "JSON|dtype, shape"),
    "same name": (safetensors_file('{"x":%s,"x":%s}' % ((json.dumps(entry()),) * 2), bytes(8)),
                  "'x' twice"),
    "same field": (safetensors_file('{"x":{"dtype":"F32","dtype":"F32"}}'), "'dtype' twice"),
    "hole": (safetensors_file({"x": entry(), "y": entry(9, 17)}, bytes(17)), "begin at byte 8"),
    "overlap": (safetensors_file({"x": entry(), "y": entry(4, 12)}, bytes(12)), "begin at byte 8"),
    "start": (safetensors_file({"x": entry(1, 9)}, bytes(9)), "begin at byte 0"),
    "backwards": (safetensors_file({"x": entry(8, 0)}, bytes(8)), "data_offsets"),
    "negative": (safetensors_file({"x": entry(-8, 0)}, bytes(8)), "data_offsets"),
    "true": (safetensors_file({"x": entry(0, True, "U8", [1])}, bytes(1)), "data_offsets"),
    "three offsets": (safetensors_file({"x": {**entry(), "data_offsets": [0, 8, 8]}}), "offsets"),
    "wrong size": (safetensors_file({"x": entry(shape=[3])}, bytes(8)), "12 bytes for 'x'"),
    "shape text": (safetensors_file({"x": entry(shape="2")}, bytes(8)), "list of sizes"),
    "shape fraction": (safetensors_file({"x": entry(shape=[2.0])}, bytes(8)), "list of sizes"),
    "negative shape": (safetensors_file({"x": entry(shape=[-2])}, bytes(8)), "list of sizes"),
    "many dimensions": (safetensors_file({"x": entry(shape=[1] * 33)}), "at most 32 dimensions"),
    "empty and endless": (safetensors_file({"x": entry(0, 0, shape=[0, 1 << 61, 9])}), "memory"),
    "unknown dtype": (safetensors_file({"x": entry(dtype="F8_E4M3")}, bytes(8)), "got 'F8_E4M3'"),
    "dtype number": (safetensors_file({"x": entry(dtype=5)}, bytes(8)), "dtype among"),
    "entry missing": (safetensors_file({"x": {"dtype": "F32"}}), "dtype, shape and data_offsets"),
    "entry a list": (safetensors_file({"x": [1]}), "dtype, shape and data_offsets"),
    "metadata": (safetensors_file({"__metadata__": {"a": 1}}), "text to text"),
    "metadata a list": (safetensors_file({"__metadata__": []}), "text to text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(tmp_path: Path, case: str) -> None:
    data, message = REFUSALS[case]
    with pytest.raises(weights.WeightFileError, match=message) as caught:
        load(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "file.safetensors"))
    assert len(str(caught.value)) < 1000
