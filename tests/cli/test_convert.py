"""``oxidet convert``."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from oxidet import weights
from oxidet.models import lenet5
from oxidet.transforms import ImageClassification
from torch_writer import simple_zip


def lenet(**options):
    model = lenet5(**options)
    return model, {k: np.array(v, order="C") for k, v in model.state_dict().items()}


def test_a_torch_file(oxidet_command, tmp_path):
    _, state = lenet()
    source, target = tmp_path / "net.pth", tmp_path / "net.safetensors"
    source.write_bytes(simple_zip({f"module.{k}": v for k, v in state.items()}))
    code, out, err = oxidet_command("convert", source, target)
    assert (code, err) == (0, "")
    for text in (f"{source} (plain)", str(target), "tensors     10", "parameters  61,706"):
        assert text in out
    converted = weights.load(target)
    for key, array in state.items():
        np.testing.assert_array_equal(converted[key], array)
    assert weights.load_metadata(target) == {}
    assert sorted(os.listdir(tmp_path)) == ["net.pth", "net.safetensors"]


def test_half_width_and_a_network(oxidet_command, tmp_path):
    model, state = lenet(num_classes=3)
    model.class_names = ("a", "b", "c")
    weights.save_from(model, tmp_path / "net.npz")
    target = tmp_path / "half.npz"
    arguments = ("convert", tmp_path / "net.npz", target, "--dtype", "float16")
    code, out, _ = oxidet_command(*arguments, "--model", "lenet5")
    assert code == 0
    assert "lenet5: loaded 10 tensors" in out
    assert "classes     3" in out
    assert "preprocess  ImageClassification" in out
    assert target.stat().st_size < 0.6 * (tmp_path / "net.npz").stat().st_size
    assert lenet5(num_classes=3, weights=target).class_names == ("a", "b", "c")
    assert weights.load(target).keys() == state.keys()


def test_a_chainercv_file_is_recognised(oxidet_command, tmp_path):
    rng = np.random.default_rng(0)
    depths, state, channels = (2, 2, 3, 3, 3), {}, 3
    for stage, count in enumerate(depths, 1):
        for place in range(1, count + 1):
            path = f"conv{stage}_{place}/conv"
            state[f"{path}/W"] = rng.standard_normal((stage, channels, 3, 3), np.float32)
            state[f"{path}/b"] = np.zeros(stage, np.float32)
            channels = stage
    for name, shape in (("fc6", (4, 245)), ("fc7", (4, 4)), ("fc8", (10, 4))):
        state |= {f"{name}/W": np.ones(shape, np.float32), f"{name}/b": np.ones(shape[0])}
    np.savez(tmp_path / "vgg16.npz", **state)
    target = tmp_path / "converted.npz"
    code, out, _ = oxidet_command("convert", tmp_path / "vgg16.npz", target, "--channels", "BGR")
    assert code == 0
    assert "(chainercv)" in out
    assert "channels='BGR'" in out
    got = weights.load(target)
    expected = weights.from_chainercv(weights.load(tmp_path / "vgg16.npz"), channels="BGR")
    assert list(got) == list(expected.state_dict)
    for key, array in expected.state_dict.items():
        np.testing.assert_array_equal(got[key], array)
    recipe = json.loads(weights.load_metadata(target)["preprocess"])
    recipe = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.items()}
    assert ImageClassification(**recipe) == expected.preprocess


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net.pth", "out.pth"), "TARGET: expected a name ending in .npz or .safetensors"),
        (("missing.pth", "out.npz"), "missing.pth"),
        (("net.pth", "out.npz", "--model", "lenet6"), "got 'lenet6'"),
        (("net.pth", "out.npz", "--model", "resnet18"), "those of another network"),
        (("net.pth", "out.npz", "--from", "caffe"), "expected a VGG in Caffe's layout"),
        (("net.pth", "out.npz", "--normalized"), "together with chainercv or caffe"),
        (("net.pth", "out.npz", "--channels", "RGB"), "together with chainercv or caffe"),
        (("net.pth", "out.npz", "--dtype", "bfloat16"), "float16, float32 or None for .npz"),
        (("bad.pth", "out.npz"), "bad.pth: expected a weight file"),
        (("bad.caffemodel", "out.npz"), "bad.caffemodel: expected"),
        (("same.npz", "same.npz"), "TARGET: expected another file than SOURCE"),
        (("net.pth", "nowhere/out.npz"), "nowhere"),
    ],
)
def test_what_goes_wrong(oxidet_command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    _, state = lenet()
    (tmp_path / "net.pth").write_bytes(simple_zip(state))
    weights.save(tmp_path / "same.npz", state)
    for name in ("bad.pth", "bad.caffemodel"):
        (tmp_path / name).write_bytes(b"not a model")
    (tmp_path / "out.npz").write_bytes(b"precious")
    before = sorted(os.listdir(tmp_path))
    code, out, err = oxidet_command("convert", *arguments)
    assert code == (2 if err.endswith("(see oxidet convert --help)\n") else 1)
    assert (code == 2) == (message.startswith("TARGET") or "together" in message)
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "out.npz").read_bytes() == b"precious"
