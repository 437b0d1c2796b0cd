"""Reading torch's files, from bytes written here: what torch writes, once wrote, or never would."""

from __future__ import annotations

import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from oxidet import weights
from torch_writer import (
    MAGIC,
    Tensor,
    ZipFile,
    glob,
    integer,
    integers,
    legacy_file,
    ordered_dict,
    pickled,
    plain_dict,
    sequence,
    simple_legacy,
    simple_zip,
    tensor_of,
    text,
)

ARRAYS = {
    "conv.weight": np.arange(36, dtype=np.float32).reshape(4, 3, 3, 1),
    "conv.bias": np.arange(4, dtype=np.float32) / 3,
    "scale": np.array(1.5, np.float32),
    "nothing": np.zeros((0, 3), np.float32),
}


def load(tmp_path: Path, data: bytes, **options):
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    return weights.load(path, **options)


def load_all(tmp_path: Path, data: bytes):
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    return weights.load_checkpoint(path)


def assert_states_equal(got, expected) -> None:
    assert isinstance(got, OrderedDict)
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("write", [simple_zip, simple_legacy])
def test_reads_a_plain_state_dict(tmp_path: Path, write) -> None:
    assert_states_equal(load(tmp_path, write(ARRAYS)), ARRAYS)


def test_reads_a_deflated_zip(tmp_path: Path) -> None:
    data = simple_zip(ARRAYS, compression=zipfile.ZIP_DEFLATED)
    assert_states_equal(load(tmp_path, data), ARRAYS)


ELEMENTS = [
    ("DoubleStorage", "f8"),
    ("FloatStorage", "f4"),
    ("LongStorage", "i8"),
    ("IntStorage", "i4"),
    ("ShortStorage", "i2"),
    ("CharStorage", "i1"),
    ("ByteStorage", "u1"),
    ("BoolStorage", "?"),
    ("ComplexFloatStorage", "c8"),
    ("ComplexDoubleStorage", "c16"),
]


@pytest.mark.parametrize(("storage", "code"), ELEMENTS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_every_element_type_in_both_byte_orders(
    tmp_path: Path, storage: str, code: str, order: str
) -> None:
    values = np.array([[0, 1, 2], [3, 100, 1]]).astype(code)
    tensor = tensor_of(values, "0", storage)
    body = ordered_dict({"x": tensor.opcodes()})
    stored = values.astype(values.dtype.newbyteorder(order)).tobytes()
    byteorder = "little" if order == "<" else "big"
    data = ZipFile(pickled(body), {"0": stored}, byteorder=byteorder).to_bytes()
    assert_states_equal(load(tmp_path, data), {"x": values})


@pytest.mark.parametrize("order", ["<", ">"])
def test_half_width_floats_become_float32(tmp_path: Path, order: str) -> None:
    half = np.array([1.0, -0.333, 65504, np.inf], np.float16)
    # 1, -2.5, 3.140625, +inf, NaN and the smallest subnormal, as the upper halves of float32.
    brain = np.array([0x3F80, 0xC020, 0x4049, 0x7F80, 0x7FC0, 0x0001], np.uint16)
    body = ordered_dict(
        {
            "half": tensor_of(half, "0", "HalfStorage").opcodes(),
            "brain": tensor_of(brain, "1", "BFloat16Storage").opcodes(),
        }
    )
    stored = {
        key: array.astype(array.dtype.newbyteorder(order)).tobytes()
        for key, array in (("0", half), ("1", brain))
    }
    byteorder = "little" if order == "<" else "big"
    state = load(tmp_path, ZipFile(pickled(body), stored, byteorder=byteorder).to_bytes())
    np.testing.assert_array_equal(state["half"], half.astype(np.float32), strict=True)
    expected = np.array([1, -2.5, 3.140625, np.inf, np.nan, 2.0**-133], np.float32)
    np.testing.assert_array_equal(state["brain"], expected, strict=True)


def test_tensors_share_a_storage_with_offsets_and_strides(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32)
    tensors = {
        "whole": (Tensor("0", (4, 6), (6, 1), numel=24), base.reshape(4, 6)),
        "transposed": (Tensor("0", (6, 4), (1, 6), numel=24), base.reshape(4, 6).T),
        "sliced": (Tensor("0", (3,), (2,), offset=5, numel=24), base[5:11:2]),
        "tied": (Tensor("0", (4, 6), (6, 1), numel=24), base.reshape(4, 6)),
        "channels_last": (
            Tensor("0", (2, 3, 2, 2), (12, 1, 6, 3), numel=24),
            base.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2),
        ),
        "expanded": (Tensor("0", (2, 3), (0, 0), offset=7, numel=24), np.full((2, 3), 7, "f4")),
        "last": (Tensor("0", (), (), offset=23, numel=24), np.array(23, "f4")),
        "size_one": (Tensor("0", (1, 4), (99, 1), offset=20, numel=24), base[None, 20:]),
    }
    body = pickled(ordered_dict({name: t.opcodes() for name, (t, _) in tensors.items()}))
    expected = {name: np.ascontiguousarray(a).reshape(a.shape) for name, (_, a) in tensors.items()}
    state = load(tmp_path, ZipFile(body, {"0": base.tobytes()}).to_bytes())
    assert_states_equal(state, expected)
    assert all(array.flags.c_contiguous for array in state.values())
    assert np.shares_memory(state["whole"], state["tied"])

    body = pickled(ordered_dict({n: t.opcodes(legacy=True) for n, (t, _) in tensors.items()}))
    state = load(tmp_path, legacy_file(body, {"0": (24, base.tobytes())}))
    assert_states_equal(state, expected)


def test_legacy_views_of_a_storage(tmp_path: Path) -> None:
    view = sequence([text("view"), integer(4), integer(3)])
    tensor = Tensor("0", (2,), (1,), offset=1, numel=10, view=view)
    body = pickled(ordered_dict({"x": tensor.opcodes(legacy=True)}))
    stored = np.arange(10, dtype=np.float32)
    state = load(tmp_path, legacy_file(body, {"0": (10, stored.tobytes())}))
    assert_states_equal(state, {"x": stored[5:7]})


def test_legacy_storages_are_little_endian_whoever_wrote_them(tmp_path: Path) -> None:
    """torch's writer swaps on big-endian machines, and its reader ignores the flag."""
    array = np.arange(3, dtype=np.float32)
    body = pickled(ordered_dict({"x": tensor_of(array, "0").opcodes(legacy=True)}))
    data = legacy_file(body, {"0": (3, array.tobytes())}, little_endian=False)
    assert_states_equal(load(tmp_path, data), {"x": array})


def test_python_2_strings(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    body = tensor_of(array, "0").opcodes()
    # Every BINUNICODE of the tensor as a SHORT_BINSTRING, and the key of the dict as a BINSTRING.
    for word in ("storage", "0", "cuda:0"):
        body = body.replace(text(word), b"U" + bytes([len(word)]) + word.encode())
    key = b"T" + struct.pack("<I", 6) + b"weight"
    body = glob("collections", "OrderedDict") + b")R(" + key + body + b"u"
    data = ZipFile(pickled(body), {"0": array.tobytes()}).to_bytes()
    assert_states_equal(load(tmp_path, data), {"weight": array})


def test_oldest_rebuild_and_parameters(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    identifier = [text("storage"), glob("torch", "FloatStorage"), text("0"), text("cpu"), b"K\x03"]
    old = [sequence(identifier) + b"Q", integer(0), integers([3]), integers([1])]
    oldest = glob("torch._utils", "_rebuild_tensor") + sequence(old) + b"R"
    parameter = sequence([oldest, b"\x88", glob("collections", "OrderedDict") + b")R"])
    parameter = glob("torch._utils", "_rebuild_parameter") + parameter + b"R"
    body = pickled(ordered_dict({"old": oldest, "parameter": parameter}))
    data = ZipFile(body, {"0": array.tobytes()}).to_bytes()
    assert_states_equal(load(tmp_path, data), {"old": array, "parameter": array})


def test_the_modules_metadata_is_ignored(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    metadata = plain_dict({"_metadata": ordered_dict({"": plain_dict({"version": integer(1)})})})
    body = ordered_dict({"x": tensor_of(array, "0").opcodes()}) + metadata + b"b"
    data = ZipFile(pickled(body), {"0": array.tobytes()}).to_bytes()
    assert_states_equal(load(tmp_path, data), {"x": array})


def numpy_scalar(code: str, data: bytes, module: str = "numpy.core.multiarray") -> bytes:
    state = sequence([integer(3), text("<"), *[b"N"] * 3, integer(-1), integer(-1), integer(0)])
    dtype = glob("numpy", "dtype") + sequence([text(code), b"\x89", b"\x88"]) + b"R" + state + b"b"
    encoded = glob("_codecs", "encode") + sequence([text(data.decode("latin-1")), text("latin1")])
    return glob(module, "scalar") + sequence([dtype, encoded + b"R"]) + b"R"


def test_checkpoint_of_simple_faster_rcnn(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    best = numpy_scalar("f8", struct.pack("<d", 0.712649824453))
    config = plain_dict({"lr": b"G" + struct.pack(">d", 1e-3), "use_adam": b"\x89", "load": b"N"})
    checkpoint = plain_dict(
        {
            "config": config,
            "model": ordered_dict({"extractor.0.weight": tensor_of(array, "0").opcodes()}),
            "other_info": plain_dict({"best_map": best}),
            "vis_info": plain_dict({"index": b"}", "vis_kw": b"}", "log_text": text("")}),
        }
    )
    data = ZipFile(pickled(checkpoint), {"0": array.tobytes()}).to_bytes()
    assert_states_equal(load(tmp_path, data), {"extractor.0.weight": array})
    content = load_all(tmp_path, data)
    assert content["config"] == {"lr": 1e-3, "use_adam": False, "load": None}
    best_map = content["other_info"]["best_map"]
    assert isinstance(best_map, np.float64)
    assert best_map == 0.712649824453


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize(
    ("code", "value"), [("f4", np.float32(0.1)), ("i8", np.int64(-5)), ("b1", np.bool_(True))]
)
def test_numpy_scalars(tmp_path: Path, module: str, code: str, value) -> None:
    scalar = numpy_scalar(code, value.tobytes(), module)
    content = load_all(tmp_path, ZipFile(pickled(plain_dict({"x": scalar}))).to_bytes())
    assert type(content["x"]) is type(value)
    assert content["x"] == value


def test_wrappers_and_prefixes(tmp_path: Path) -> None:
    array = np.arange(3, dtype=np.float32)
    tensor = tensor_of(array, "0").opcodes()

    def file(body: bytes) -> bytes:
        return ZipFile(pickled(body), {"0": array.tobytes()}).to_bytes()

    wrapped = file(plain_dict({"epoch": integer(3), "state_dict": ordered_dict({"w": tensor})}))
    assert_states_equal(load(tmp_path, wrapped), {"w": array})

    named = plain_dict({"model": text("resnet50"), "net": plain_dict({"w": tensor})})
    assert_states_equal(load(tmp_path, file(named)), {"w": array})

    other = file(plain_dict({"ema": ordered_dict({"w": tensor}), "step": integer(1)}))
    with pytest.raises(ValueError, match=r"'ema': OrderedDict, 'step': int"):
        load(tmp_path, other)
    assert_states_equal(load(tmp_path, other, key="ema"), {"w": array})
    with pytest.raises(ValueError, match="under 'step'"):
        load(tmp_path, other, key="step")

    parallel = file(ordered_dict({"module.a": tensor, "module.b.c": tensor}))
    assert list(load(tmp_path, parallel)) == ["a", "b.c"]
    assert list(load(tmp_path, parallel, strip_prefix=False)) == ["module.a", "module.b.c"]
    mixed = file(ordered_dict({"module.a": tensor, "b": tensor}))
    assert list(load(tmp_path, mixed)) == ["module.a", "b"]
    compiled = file(ordered_dict({"_orig_mod.module.a": tensor}))
    assert list(load(tmp_path, compiled)) == ["a"]


# --- refusals: (what is wrong, the file, what the message says)

SYSTEM = glob("os", "system") + sequence([text("touch pwned")]) + b"R"
X = tensor_of(np.arange(6, dtype=np.float32), "0")


def zip_of(body: bytes, storages: dict[str, bytes] | None = None, **options) -> bytes:
    stored = {"0": bytes(24)} if storages is None else storages
    return ZipFile(pickled(body), stored, **options).to_bytes()


def one(**changes) -> bytes:
    return ordered_dict({"x": Tensor(**{**vars(X), **changes}).opcodes()})


def legacy_one(numel: int = 6, data: bytes = bytes(24), **changes) -> bytes:
    tensor = Tensor(**{**vars(X), **changes})
    body = pickled(ordered_dict({"x": tensor.opcodes(legacy=True)}))
    return legacy_file(body, {"0": (numel, data)})


def nested(opcode: bytes, depth: int = 60) -> bytes:
    """A tuple of itself twice, ``depth`` times: 2**depth leaves for whoever walks it."""
    return b")" + b"".join(b"q\x00h\x00" + opcode for _ in range(depth))


REFUSALS = {
    "code": (zip_of(SYSTEM), "'os.system'"),
    "builtin": (zip_of(glob("__builtin__", "eval") + sequence([text("1")]) + b"R"), "eval"),
    "module class": (zip_of(glob("torchvision.models.resnet", "ResNet")), "resnet.ResNet"),
    "call of a value": (zip_of(text("f") + b")R"), "permitted function"),
    "call of a storage type": (zip_of(glob("torch", "FloatStorage") + b")R"), "permitted function"),
    "unknown opcode": (zip_of(b"P0\n"), "opcode"),
    "instance": (zip_of(b"(ios\nsystem\n"), "opcode"),
    "extension registry": (zip_of(b"\x82\x01"), "opcode"),
    "protocol 4": (ZipFile(b"\x80\x04}.").to_bytes(), "protocol 4"),
    "state on a list": (zip_of(b"]}b"), "state for an OrderedDict .*got one for list"),
    "empty stack": (zip_of(b"a"), "value on the stack"),
    "no mark": (zip_of(b"t"), "MARK"),
    "two objects": (zip_of(b"NN"), "one object"),
    "open mark": (zip_of(b"N("), "one object"),
    "unknown memo": (zip_of(b"h\x05"), "memo"),
    "odd items": (zip_of(b"}(Nu"), "pairs"),
    "items of a list": (zip_of(b"](NNu"), "dict to fill"),
    "tuple as key": (zip_of(b"}" + nested(b"\x86") + b"Ns"), "as a key .*got tuple"),
    "tuple in a set": (
        zip_of(glob("__builtin__", "set") + b"](" + nested(b"\x86") + b"e\x85R"),
        "as keys, got tuple",
    ),
    "text not in UTF-8": (zip_of(b"X\x02\0\0\0\xff\xfe"), "UTF-8"),
    "text past the end": (zip_of(b"X\xff\xff\xff\x7fa"), "2147483647 bytes of pickle"),
    "endless name": (zip_of(b"c" + b"a" * 600), "name of at most"),
    "no end": (ZipFile(b"\x80\x02}").to_bytes(), "1 bytes of pickle"),
    "nested device": (
        zip_of(glob("torch", "device") + nested(b"\x86") + b"\x85R"),
        "device, got an object of type tuple",
    ),
    "dtype of objects": (zip_of(numpy_scalar("O8", bytes(8))), "dtype of numbers, got 'O8'"),
    "short scalar": (zip_of(numpy_scalar("f8", b"abc")), "8 bytes, got 3"),
    "missing storage": (zip_of(one(), {}), "archive/data/0"),
    "short storage": (zip_of(one(), {"0": bytes(20)}), "24 bytes in entry archive/data/0, got 20"),
    "long storage": (zip_of(one(), {"0": bytes(28)}), "24 bytes in entry archive/data/0, got 28"),
    "huge storage": (zip_of(one(numel=1 << 60)), "4611686018427387904 bytes in entry"),
    "tensor past its storage": (zip_of(one(size=[7], stride=[1])), "inside the 6 elements"),
    "offset past its storage": (zip_of(one(offset=1)), "inside the 6 elements"),
    "stride past its storage": (zip_of(one(size=[2], stride=[6])), "inside the 6 elements"),
    "negative offset": (zip_of(one(offset=-1)), "at least 0"),
    "negative stride": (zip_of(one(size=[2], stride=[-1], offset=3)), "at least 0"),
    "strides missing": (zip_of(one(stride=[])), "as many strides"),
    "33 dimensions": (zip_of(one(size=[1] * 33, stride=[1] * 33)), "at most 32 dimensions"),
    "expanded without end": (zip_of(one(size=[1 << 40], stride=[0])), "at most .* bytes from"),
    "wider than memory": (zip_of(one(size=[1 << 62, 8], stride=[0, 0])), "fit in memory"),
    "empty and endless": (zip_of(one(size=[0, 1 << 62], stride=[1, 1])), "fit in memory"),
    "two types of one storage": (
        zip_of(
            ordered_dict(
                {"x": X.opcodes(), "y": Tensor("0", [6], [1], 0, 6, "IntStorage").opcodes()}
            )
        ),
        "one type of storage",
    ),
    "byte order": (zip_of(one(), byteorder="middle"), "'middle'"),
    "TorchScript": (zip_of(one(), extra={"constants.pkl": b""}), "TorchScript"),
    "not a dict": (zip_of(X.opcodes()), "dict of tensors, got an object of type ndarray"),
    "persistent identifier": (zip_of(text("a") + b"Q"), r"\('storage', type, key"),
    "quantised": (zip_of(glob("torch._utils", "_rebuild_qtensor")), "_rebuild_qtensor"),
    "legacy: code": (legacy_file(pickled(SYSTEM), {}), "'os.system'"),
    "legacy: whole module": (
        legacy_file(
            pickled(sequence([text("module"), text("Net"), text(""), text("")]) + b"Q"), {}
        ),
        "whole pickled module",
    ),
    "legacy: other count": (legacy_one(numel=7), "6 elements in storage 0, got 7"),
    "legacy: truncated": (legacy_one(data=bytes(23)), "24 bytes of storage 0"),
    "legacy: huge": (legacy_one(numel=1 << 60), "storage 0, got"),
    "legacy: past its storage": (legacy_one(offset=1), "inside the 6 elements"),
    "legacy: view past its storage": (
        legacy_one(view=sequence([text("v"), integer(5), integer(2)])),
        "inside the 6 elements of storage 0, got 2 at 5",
    ),
    "legacy: storage without data": (
        legacy_file(pickled(ordered_dict({"x": X.opcodes(legacy=True)})), {}),
        "keys of the 1 storages",
    ),
    "legacy: protocol": (MAGIC + pickled(integer(1002)), "protocol 1001"),
    "legacy: nothing": (MAGIC, "bytes of pickle"),
    "a pickle": (pickled(b"}"), "pickle that is not torch's"),
    "a tar": (b"sys_info".ljust(257, b"\0") + b"ustar  \0" + bytes(600), "tar"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "begins with"),
    "nothing": (b"", "empty file"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, message = REFUSALS[case]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(weights.WeightFileError, match=message) as caught:
        load(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "file.pth"))
    assert len(str(caught.value)) < 1000
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.pth"]


def test_byte_strings_cannot_be_multiplied(tmp_path: Path) -> None:
    """Encoding one long text from the memo again and again costs ten bytes of file each time."""
    long = text("a" * 200_000) + b"q\x00"
    again = glob("_codecs", "encode") + b"q\x01" + b"h\x00" + text("latin1") + b"q\x02\x86R"
    body = b"](" + long + again + b"h\x01h\x00h\x02\x86R" * 100_000 + b"e"
    with pytest.raises(weights.WeightFileError, match="byte strings"):
        load_all(tmp_path, ZipFile(pickled(body)).to_bytes())


def test_a_wrong_checksum_warns(tmp_path: Path) -> None:
    array = np.full(64, 0.123, np.float32)
    data = bytearray(simple_zip({"x": array}))
    at = data.index(array.tobytes())
    data[at] ^= 1
    with pytest.warns(UserWarning, match=r"checksum .* of ZIP entry 'archive/data/0'"):
        state = load(tmp_path, bytes(data))
    assert np.count_nonzero(state["x"] != array) == 1


def test_the_allowance_can_be_changed(tmp_path: Path) -> None:
    size = (256 << 20) + (1 << 20)  # more than the allowance of a small file
    body = ordered_dict({"x": Tensor("0", [size], [0], 0, 1, "ByteStorage").opcodes()})
    data = ZipFile(pickled(body), {"0": b"\7"}).to_bytes()
    with pytest.raises(weights.WeightFileError, match="max_bytes="):
        load(tmp_path, data)
    assert load(tmp_path, data, max_bytes=1 << 30)["x"].shape == (size,)
    with pytest.raises(weights.WeightFileError, match="at most 100 bytes"):
        load(tmp_path, simple_zip(ARRAYS), max_bytes=100)
