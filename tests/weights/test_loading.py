"""Weights into a network: what people's files hold besides the right keys, and what is wrong."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import nn, weights
from oxidet.models.classifier import Classifier
from oxidet.transforms import ImageClassification
from oxidet.weights import WeightFileError, load_into
from oxidet.weights._loading import classifier_layers
from torch_writer import (
    Tensor,
    ZipFile,
    glob,
    legacy_file,
    ordered_dict,
    pickled,
    sequence,
    simple_legacy,
    simple_zip,
    text,
)


class Net(Classifier):
    """Two stages, a classifier, and an auxiliary head where wanted."""

    def __init__(self, num_classes: int = 5, aux_logits: bool = False) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.aux1 = (
            nn.Sequential(nn.Linear(4, 3), nn.Linear(3, num_classes)) if aux_logits else None
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x: Any) -> Any:
        return self.fc(nn.functional.flatten(self.pool(self.stage2(self.stage1(x))), 1))


def trained(**options: Any) -> OrderedDict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    state = Net(**options).state_dict()
    return OrderedDict(
        (key, np.array(7) if array.ndim == 0 else rng.random(array.shape, np.float32))
        for key, array in state.items()
    )


def assert_loaded(model: nn.Module, expected: Any) -> None:
    state = model.state_dict()
    for key, array in expected.items():
        np.testing.assert_array_equal(state[key], array, err_msg=key)


def snapshot(model: nn.Module) -> tuple[Any, ...]:
    state = {key: np.array(array) for key, array in model.state_dict().items()}
    return state, model.preprocess, model.class_names


def assert_refused(model: nn.Module, source: Any, message: str, **options: Any) -> None:
    """An error of one kind, and a model that is as it was."""
    state, preprocess, names = snapshot(model)
    with pytest.raises(ValueError, match=message) as caught:
        load_into(model, source, **options)
    assert len(str(caught.value).split("\n")) <= 10
    assert_loaded(model, state)
    assert (model.preprocess, model.class_names) == (preprocess, names)


# --- what loads


@pytest.mark.parametrize("write", [simple_zip, simple_legacy])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module."])
def test_torch_files_with_prefixes(tmp_path: Path, write: Any, prefix: str) -> None:
    state = trained()
    floats = {f"{prefix}{k}": v for k, v in state.items() if v.dtype == np.float32}
    (tmp_path / "net.pth").write_bytes(write(floats))  # without the counters of batch norm
    model = Net()
    report = load_into(model, tmp_path / "net.pth")
    assert_loaded(model, {k: v for k, v in state.items() if v.dtype == np.float32})
    assert (report.dropped, report.kept, len(report.loaded)) == ([], [], 14)
    assert str(report) == "loaded 14 tensors"
    assert model.stage1[1].num_batches_tracked.data == 0


def test_a_mapping_and_a_wrapped_one() -> None:
    state = trained()
    for given in (state, {"epoch": 3, "state_dict": state, "optimizer": {}}):
        model = Net()
        load_into(model, given)
        assert_loaded(model, state)
    model = Net()
    load_into(model, {"a": dict(trained(num_classes=2)), "ema": dict(state)}, key="ema")
    assert_loaded(model, state)


def test_lists_and_tensors_count_as_arrays() -> None:
    state, model = trained(), Net()
    lists = {k: v.tolist() if k.endswith("bias") else nn.Tensor(v) for k, v in state.items()}
    load_into(model, lists)
    assert_loaded(model, state)


def test_auxiliary_heads_are_dropped_where_the_model_has_none() -> None:
    state, model = trained(aux_logits=True), Net()
    report = load_into(model, state)
    assert_loaded(model, {k: v for k, v in state.items() if not k.startswith("aux")})
    assert report.dropped == [f"aux1.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")]
    assert str(report) == "loaded 16 tensors; dropped aux1"
    model = Net(aux_logits=True)
    assert load_into(model, state).dropped == []
    assert_loaded(model, state)


def test_missing_auxiliary_heads_are_named() -> None:
    model = Net(aux_logits=True)
    assert_refused(model, trained(), r"heads of this Net \(aux1\).*aux_logits=False")
    report = load_into(model, trained(), ignore="aux1")
    assert str(report) == "loaded 16 tensors; left as they were: aux1"


def test_another_number_of_classes() -> None:
    state, model = trained(num_classes=9, aux_logits=True), Net(aux_logits=True)
    message = (
        r"expected 5 classes in fc \(fc.weight of shape \(5, 6\)\), got 9: build the network with "
        r"num_classes=9, or leave its own fc as it is with new_classifier=True"
    )
    assert_refused(model, state, message)
    own = {k: np.array(v) for k, v in model.state_dict().items()}
    fresh = ["aux1.1.weight", "aux1.1.bias", "fc.weight", "fc.bias"]
    report = load_into(model, state, new_classifier=True)
    assert report.kept == fresh
    assert sorted(report.dropped) == sorted(fresh)
    assert_loaded(model, {k: own[k] if k in fresh else v for k, v in state.items()})


@pytest.mark.parametrize("shape", [(5, 7), (), (5, 6, 1)])
def test_a_classifier_that_differs_in_more_than_classes(shape: tuple[int, ...]) -> None:
    state = trained()
    state["fc.weight"] = np.zeros(shape, np.float32)
    assert_refused(Net(), state, "size mismatch for fc.weight")


def test_new_classifier_also_where_the_number_is_the_same_or_the_layer_missing() -> None:
    state = trained()
    for given in (state, {k: v for k, v in state.items() if not k.startswith("fc.")}):
        model = Net()
        own = np.array(model.fc.weight.data)
        assert load_into(model, given, new_classifier=True).kept == ["fc.weight", "fc.bias"]
        np.testing.assert_array_equal(model.fc.weight.data, own)


def test_classifier_layers() -> None:
    assert classifier_layers(Net()) == ["fc"]
    assert classifier_layers(Net(aux_logits=True)) == ["aux1.1", "fc"]
    assert classifier_layers(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())) == ["0"]
    assert classifier_layers(nn.ReLU()) == []


@pytest.mark.parametrize("ignore", ["stage2", ["stage2.*"], ("stage2.0", "stage2.1.*")])
def test_parts_are_ignored(ignore: Any) -> None:
    state, model = trained(), Net()
    state["stage2.0.weight"] = np.zeros((1, 1))  # of no consequence
    own = np.array(model.stage2[0].weight.data)
    report = load_into(model, state, ignore=ignore)
    assert all(name.startswith("stage2") for name in report.kept)
    assert len(report.kept) == 7
    np.testing.assert_array_equal(model.stage2[0].weight.data, own)
    assert_loaded(model, {k: v for k, v in state.items() if not k.startswith("stage2")})


def test_a_pattern_that_matches_nothing_is_a_typing_error() -> None:
    assert_refused(Net(), trained(), "ignore: .*'classifier'", ignore=["fc", "classifier"])


# --- recipes and names


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_recipe_and_names_go_through_a_file(tmp_path: Path, ending: str) -> None:
    first = Net()
    first.preprocess = ImageClassification(32, mean=(3, 2, 1), std=1, channels="BGR", scale=1)
    first.class_names = ("a", "b", "ç", "d", "e")
    path = tmp_path / f"net.{ending}"
    weights.save_from(first, path)
    model = Net()
    load_into(model, path)
    assert_loaded(model, first.state_dict())
    assert model.preprocess == first.preprocess
    assert model.class_names == first.class_names
    for classes in (5, 7):  # new classes have other names, images are the same
        other = Net(classes)
        load_into(other, path, new_classifier=True)
        assert other.preprocess == first.preprocess
        assert other.class_names is None


def test_a_network_that_is_no_classifier_goes_through_a_file(tmp_path: Path) -> None:
    first, second = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 3))
    weights.save_from(first, tmp_path / "w.npz")
    assert weights.load_metadata(tmp_path / "w.npz") == {}
    load_into(second, tmp_path / "w.npz")
    assert_loaded(second, first.state_dict())


@pytest.mark.parametrize(
    "metadata",
    [
        {"preprocess": "{"},
        {"preprocess": "[1]"},
        {"preprocess": '{"crop_size": -1}'},
        {"preprocess": '{"crop_size": 3, "shape": 1}'},
        {"class_names": "[1, 2]"},
        {"class_names": "7"},
        {"preprocess": '{"crop_size": 3, "scale": "x"}'},
        {"preprocess": '{"crop_size": 3, "scale": 0}'},
        {"preprocess": '{"crop_size": 3, "mean": NaN}'},
        {"class_names": "[" * 100_000},
    ],
)
def test_a_broken_recipe(tmp_path: Path, metadata: dict[str, str]) -> None:
    weights.save(tmp_path / "w.npz", trained(), metadata=metadata)
    assert_refused(Net(), tmp_path / "w.npz", "w.npz: expected a recipe and class names")


@pytest.mark.parametrize("names", ["abcde", [1, 2, 3, 4, 5]])
def test_names_that_are_no_text_are_not_written(tmp_path: Path, names: Any) -> None:
    model = Net()
    model.class_names = names
    with pytest.raises(TypeError, match=r"class_names: expected .*names"):
        weights.save_from(model, tmp_path / "w.npz")
    assert list(tmp_path.iterdir()) == []


def test_names_for_another_number_of_classes_are_left(tmp_path: Path) -> None:
    metadata = {"class_names": json.dumps(["a", "b"])}
    weights.save(tmp_path / "w.npz", trained(), metadata=metadata)
    model = Net()
    load_into(model, tmp_path / "w.npz")
    assert model.class_names is None


# --- what does not load


def test_another_network() -> None:
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 2)).state_dict()
    message = (
        r"expected those of this Net, got those of another network: 0 of its 16 keys fit \(it "
        r"begins with 'stage1.0.weight', 'stage1.0.bias', they with '0.weight', '0.bias'\)"
    )
    assert_refused(Net(), other, message)
    assert_refused(Net(), {}, "they with nothing")
    wide = {k: np.zeros([2 * n for n in v.shape]) for k, v in trained().items()}
    assert_refused(Net(), wide, "got those of another network: 2 of its 16")


def test_a_few_wrong_keys_are_listed_as_by_load_state_dict() -> None:
    state = trained()
    state["extra"] = state.pop("stage1.0.bias")
    state["stage2.0.weight"] = np.zeros((1, 2), np.float32)
    message = (
        r'in loading state_dict for Net:\n\tMissing.*"stage1.0.bias"\. \n\tUnexpected.*"extra"\. '
        r"\n\tsize mismatch for stage2.0.weight: .*\(\[1, 2\]\) from checkpoint"
    )
    assert_refused(Net(), state, message)


def test_long_lists_of_misfits_have_ten_lines() -> None:
    layers = {str(i): nn.Linear(2, 2) for i in range(90)}
    model = nn.Sequential(OrderedDict(layers))
    state = {k: np.array(v) for k, v in model.state_dict().items()}
    for i in range(20):
        state[f"{i}.weight"] = np.zeros((3, i + 1))
        del state[f"{i + 30}.bias"]
        state[f"x{i}"] = np.zeros(1)
    for load in (model.load_state_dict, lambda state: load_into(model, state)):
        with pytest.raises(nn.StateDictError) as caught:
            load(state)
        lines = str(caught.value).split("\n")
        assert len(lines) == 10
        assert max(map(len, lines)) < 300
        assert "and 8 more" in lines[1]
        assert lines[9] == "\t... and 14 more size mismatches."


class Nested:
    """Pickled bodies that are no state_dict, by what they are."""

    code = pickled(glob("os", "system") + sequence([text("touch hacked")]) + b"R")
    module = pickled(glob("mymodels", "Net") + b")R")


@pytest.mark.parametrize("body", [Nested.code, Nested.module])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, legacy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    data = legacy_file(body, {}) if legacy else ZipFile(body).to_bytes()
    path = tmp_path / "net.pth"
    path.write_bytes(data)
    assert_refused(Net(), path, "net.pth: .*(os.system|mymodels.Net)")
    assert os.listdir(tmp_path) == ["net.pth"]


@pytest.mark.parametrize("ending", ["pth", "npz", "safetensors"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_download(tmp_path: Path, ending: str, part: float) -> None:
    path = tmp_path / f"net.{ending}"
    if ending == "pth":
        path.write_bytes(simple_zip(trained()))
    else:
        weights.save(path, trained())
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(WeightFileError, match=rf"net.{ending}: "):
        weights.load(path)
    assert_refused(Net(), path, rf"net.{ending}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "an empty file"), (b"<!DOCTYPE html><html>", "a file that begins with b'<!DOCTYP'")],
)
def test_a_page_saved_in_place_of_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    assert_refused(Net(), tmp_path / "net.pth", message)


def test_the_ending_does_not_matter(tmp_path: Path) -> None:
    weights.save(tmp_path / "net.npz", trained())
    (tmp_path / "net.npz").rename(tmp_path / "net.pth")
    model = Net()
    load_into(model, tmp_path / "net.pth")
    assert_loaded(model, trained())


def test_a_missing_file_is_named() -> None:
    for given in ("nowhere/net.bin", Path("net"), "net.pth"):
        with pytest.raises(FileNotFoundError, match="net"):
            load_into(Net(), given)
    with pytest.raises(ValueError, match="expected a network with published weights"):
        load_into(Net(), "net")
    with pytest.raises(TypeError, match="weights: expected a path"):
        load_into(Net(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weights: expected a path, .* got nothing"):
        load_into(Net(), "")  # not a network's default weights
    with pytest.raises(TypeError, match="ignore: expected parts"):
        load_into(Net(), trained(), ignore=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weights: expected names of tensors, got 1"):
        load_into(Net(), {1: np.zeros(2)})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="model: expected a Module"):
        load_into(trained(), trained())  # type: ignore[arg-type]


LIMITED = """
import resource, sys
from oxidet import weights
from oxidet.models import lenet5
model = lenet5()
before = {k: v.copy() for k, v in model.state_dict().items()}
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (512 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        weights.load_into(model, path)
    except weights.WeightFileError as error:
        print(error)
    assert all((before[k] == v).all() for k, v in model.state_dict().items())
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - used
assert grown < 450 << 20, grown
"""


def deflated(beginning: bytes, megabytes: int) -> tuple[bytes, int]:
    """A deflate stream of some bytes and many zeros, and its unpacked length."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packer.compress(beginning) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + zeros * megabytes + packer.flush(), len(beginning) + 1_000_000 * megabytes


def npy(length: int) -> bytes:
    """The header of an array of so many bytes."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({length},), }}"
    return b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117).encode() + b"\n"


def zip_of(entries: list[tuple[str, bytes, int]]) -> bytes:
    """An archive of deflated entries that says of them what it is told to."""
    body, directory = b"", b""
    for name, data, size in entries:
        fields = (20, 0, 8, 0, 0, zlib.crc32(b""), len(data), size, len(name), 0)
        at = len(body)
        body += struct.pack("<I5H3I2H", 0x04034B50, *fields) + name.encode() + data
        directory += struct.pack("<I6H3I5H2I", 0x02014B50, 20, *fields, 0, 0, 0, 0, at)
        directory += name.encode()
    end = (0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return body + directory + struct.pack("<I4H2IH", 0x06054B50, *end)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_bombs_stay_small(tmp_path: Path) -> None:
    """Three megabytes each, that unpack to three gigabytes."""
    stream, size = deflated(npy(3_000_000_000), 3000)
    numel = 750_000_000
    tensor = Tensor("0", (numel,), (1,), numel=numel)
    pickle = pickled(ordered_dict({"features.0.weight": tensor.opcodes()}))
    bombs = {
        "one": [("w.npy", stream, size)],
        "lying": [("w.npy", stream, 100_000_000)],
        "many": [(f"{n}.npy", *deflated(npy(20_000_000), 20)) for n in range(150)],
        "torch": [
            ("a/data.pkl", *deflated(pickle, 0)),
            ("a/data/0", *deflated(b"", 3000)),
            ("a/version", *deflated(b"3", 0)),
        ],
    }
    for name, entries in bombs.items():
        (tmp_path / name).write_bytes(zip_of(entries))
        assert (tmp_path / name).stat().st_size < 3_500_000
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in bombs)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OXIDET_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    refused = result.stdout.splitlines()
    assert [line.split(":")[0] for line in refused] == [str(tmp_path / name) for name in bombs]
