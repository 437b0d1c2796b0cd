"""npz: round trips with oxidet and NumPy, and archives that lie."""

from __future__ import annotations

import io
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from oxidet import weights

STATE = {
    "layer/0.weight": np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 4),
    "counter": np.array(7, np.int64),
    "flag": np.array([True, False]),
    "empty": np.zeros((0, 5), np.float32),
    "ünïcode": np.arange(3, dtype=np.uint8),
    "double": np.array([0.1, np.nan, -np.inf]),
}


def assert_states_equal(got, expected) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def npy(descr: str = "<f4", shape: str = "(2,)", order: str = "False", data: bytes = bytes(8),
        version: int = 1, header: str | None = None) -> bytes:  # fmt: skip
    if header is None:
        header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"
    text = header.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def npz(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def load(tmp_path: Path, data: bytes, **options):
    path = tmp_path / "file.npz"
    path.write_bytes(data)
    return weights.load(path, **options)


def test_round_trip_in_order(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    weights.save(path, STATE)
    assert_states_equal(weights.load(path), STATE)
    assert_states_equal(weights.load_checkpoint(path), STATE)


def test_numpy_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    weights.save(tmp_path / "ours.npz", STATE)
    with np.load(tmp_path / "ours.npz") as file:
        assert_states_equal({name: file[name] for name in file.files}, STATE)
    for writer in (np.savez, np.savez_compressed):
        writer(tmp_path / "theirs.npz", **STATE)
        assert_states_equal(weights.load(tmp_path / "theirs.npz"), STATE)
    np.savez(tmp_path / "none.npz")
    assert weights.load(tmp_path / "none.npz") == {}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">i8", "<u2", ">c8", "|b1", "|i1"])
def test_orders_and_types_of_other_writers(tmp_path: Path, order: str, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype).copy(order=order)
    np.savez(tmp_path / "w.npz", x=array)
    got = weights.load(tmp_path / "w.npz")["x"]
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype.newbyteorder("=")
    assert got.flags.c_contiguous


def test_headers_of_other_writers(tmp_path: Path) -> None:
    data = np.arange(2, dtype=np.float32).tobytes()
    headers = [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }   ",
        "{'shape':(2L,),'fortran_order':False,'descr':'<f4'}",
        '{"fortran_order": False, "descr": "<f4", "shape": (2,)}',
    ]
    for version in (1, 2, 3):
        for header in headers:
            entry = npy(header=header, data=data, version=version)
            got = load(tmp_path, npz({"x.npy": entry}))["x"]
            np.testing.assert_array_equal(got, np.array([0, 1], np.float32), strict=True)


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    weights.save(tmp_path / "a.npz", STATE, metadata={"b": "1", "a": "2"})
    time.sleep(0.01)
    permuted = {
        name: np.asfortranarray(array) if array.ndim else array for name, array in STATE.items()
    }
    weights.save(tmp_path / "b.npz", permuted, metadata={"a": "2", "b": "1"})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def patched(data: bytes, record: bytes, offset: int, form: str, value: int) -> bytes:
    """``data`` with a field overwritten in the first ZIP record of that signature."""
    changed = bytearray(data)
    struct.pack_into(form, changed, changed.index(record) + offset, value)
    return bytes(changed)


def bomb() -> bytes:
    """1 MB that inflates to 1 GB, honestly declared."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(1 << 20)
    packed = b"".join([packer.compress(block) for _ in range(1024)]) + packer.flush()
    name, size = b"x.npy", 1024 << 20
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(packed), size, len(name), 0)
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(packed), size,
                          len(name), 0, 0, 0, 0, 0, 0)  # fmt: skip
    body = local + name + packed
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central) + len(name), len(body), 0)
    return body + central + name + end


GOOD = npz({"x.npy": npy()})
DEFLATED = npz({"x.npy": npy(shape="(2000,)", data=bytes(8000))}, zipfile.ZIP_DEFLATED)
CENTRAL, END = b"PK\1\2", b"PK\5\6"

REFUSALS = {
    "truncated": (GOOD[:-30], "ZIP end record"),
    "half": (GOOD[: len(GOOD) // 2], "ZIP end record"),
    "objects": (npz({"x.npy": npy("|O")}), "'x', got Python objects"),
    "structure": (npz({"x.npy": npy(header="{'descr': [('a', '<f4')], 'fortran_order': False, "
                                    "'shape': (1,)}")}), "npy header"),
    "text": (npz({"x.npy": npy("<U2")}), "dtype <U2"),
    "void": (npz({"x.npy": npy("<V2")}), "dtype <V2"),
    "header of code": (npz({"x.npy": npy(header="__import__('os').system('touch pwned')")}),
                       "npy header"),
    "header twice": (npz({"x.npy": npy(header="{'descr': '<f4', 'descr': '<f4', 'shape': (2,)}")}),
                     "npy header"),
    "long header": (npz({"x.npy": npy(header=" " * 20_000)}), "at most 10000 bytes"),
    "header past the end": (npz({"x.npy": b"\x93NUMPY\x01\x00\xff\x00abc"}), "at most 3 bytes"),
    "no npy": (npz({"x.npy": b"hello, I am not an array"}), "npy form"),
    "tiny npy": (npz({"x.npy": b"\x93NUMPY"}), "npy form"),
    "version 9": (npz({"x.npy": npy(version=9)}), "version 1, 2 or 3"),
    "negative shape": (npz({"x.npy": npy(shape="(-2,)")}), "npy header"),
    "too large shape": (npz({"x.npy": npy(shape="(4611686018427387904,)")}), "shape for 'x'"),
    "shape past memory": (npz({"x.npy": npy(shape="(99999999999, 99999999999, 0)")}), "in memory"),
    "33 dimensions": (npz({"x.npy": npy(shape=f"({'1,' * 33})")}), "at most 32 dimensions"),
    "too few bytes": (npz({"x.npy": npy(shape="(3,)")}), "12 bytes for 'x'"),
    "too many bytes": (npz({"x.npy": npy(shape="(1,)")}), "4 bytes for 'x'"),
    "other entry": (npz({"readme.txt": b"hi"}), "'readme.txt'"),
    "metadata": (npz({"__metadata__.npy": npy("|u1", "(3,)", data=b"[1]")}), "text to text"),
    "metadata not JSON": (npz({"__metadata__.npy": npy("|u1", "(3,)", data=b"{1]")}), "JSON"),
    "checksum": (patched(GOOD, CENTRAL, 16, "<I", 1), "checksum 0x00000001"),
    "encrypted": (patched(GOOD, CENTRAL, 8, "<H", 1), "encrypted"),
    "bzip2": (patched(GOOD, CENTRAL, 10, "<H", 12), "method 12"),
    "size above stored size": (patched(GOOD, CENTRAL, 24, "<I", 1 << 30), "got a size of"),
    "stored past the end": (
        patched(patched(GOOD, CENTRAL, 24, "<I", 1 << 30), CENTRAL, 20, "<I", 1 << 30),
        "1073741824 bytes of ZIP entry 'x.npy' at",
    ),
    "ZIP64 size missing": (patched(GOOD, CENTRAL, 24, "<I", 0xFFFFFFFF), "ZIP64 sizes"),
    "offset past the end": (patched(GOOD, CENTRAL, 42, "<I", 1 << 20), "ZIP header of 'x.npy'"),
    "offset elsewhere": (patched(GOOD, CENTRAL, 42, "<I", 3), "ZIP header before"),
    "name past the directory": (patched(GOOD, CENTRAL, 28, "<H", 60_000), "part of one"),
    "name not in UTF-8": (
        patched(npz({"ü.npy": npy()}), CENTRAL, 46, "<H", 0xFFFF), "UTF-8 name"
    ),
    "directory past the end": (patched(GOOD, END, 16, "<I", 1 << 20), "ZIP directory"),
    "directory elsewhere": (patched(GOOD, END, 16, "<I", 2), "record of the ZIP directory"),
    "too many entries": (patched(GOOD, END, 10, "<H", 9), "ZIP directory, got its end"),
    "deflated to more": (patched(DEFLATED, CENTRAL, 24, "<I", 100), "100 bytes .* got more"),
    "deflated to less": (
        patched(DEFLATED, CENTRAL, 24, "<I", 9000), r"9000 bytes .* got \d+ and the end"
    ),
    "impossible expansion": (patched(DEFLATED, CENTRAL, 24, "<I", 1 << 30), "got a size of"),
    "not deflated": (patched(DEFLATED, b"x.npy", 5, "<Q", (1 << 64) - 1), "deflated data"),
    "bomb": (bomb(), "at most .* bytes from a file of"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, message = REFUSALS[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(weights.WeightFileError, match=message) as caught:
        load(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "file.npz"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.npz"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_a_name_twice(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", npy())
        archive.writestr("x.npy", npy(data=b"\1" * 8))
    with pytest.raises(weights.WeightFileError, match=r"'x\.npy' twice"):
        load(tmp_path, stream.getvalue())


def test_refuses_entries_without_number(tmp_path: Path) -> None:
    """A ZIP64 end record that announces more entries than any network has tensors."""
    at = GOOD.index(END)
    offset, size = GOOD.index(CENTRAL), at - GOOD.index(CENTRAL)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 40, 1 << 40, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    with pytest.raises(weights.WeightFileError, match="at most 131072 entries"):
        load(tmp_path, GOOD[:at] + end64 + locator + GOOD[at:])


def test_a_header_cannot_take_long(tmp_path: Path) -> None:
    """Texts on which a careless pattern backtracks without end are refused at once."""
    for header in ("{" + " " * 9_000, "{'shape': (" + "1," * 4_000, "{'descr': '" + "'" * 9_000):
        with pytest.raises(weights.WeightFileError, match="npy header"):
            load(tmp_path, npz({f"{i}.npy": npy(header=header) for i in range(100)}))
