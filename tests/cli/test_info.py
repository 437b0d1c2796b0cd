"""``oxidet info``."""

from __future__ import annotations

import json

import numpy as np
import pytest

import oxidet
from oxidet.models import LeNet5
from oxidet.models.detection import load_detector
from oxidet.weights import save


@pytest.mark.usefixtures("random_pretrained")
def test_versions_networks_and_shipped_weights(oxidet_command):
    oxidet.set_num_threads(3)
    code, out, err = oxidet_command("info", "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert content["versions"]["oxidet"] == oxidet.__version__
    assert content["versions"]["threads"] == "3"
    assert content["versions"]["numpy"] == np.__version__
    assert "faster_rcnn_small" in content["models"]
    assert content["shipped_weights"]["lenet5"]["bytes"] > 61706 * 2

    code, out, err = oxidet_command("info")
    assert (code, err) == (0, "")
    for value in (*content["versions"].values(), *content["models"], "--weights digits"):
        assert value in out


def test_a_detector_file(oxidet_command, random_detector):
    code, out, _ = oxidet_command("info", "--weights", random_detector, "--json")
    assert code == 0
    content = json.loads(out)
    assert (content["kind"], content["format"]) == ("detector", "npz")
    assert content["recipe"]["model"] == "faster_rcnn_small"
    assert content["recipe"]["class_names"] == list("0123456789")
    assert set(content["parts"]) == {"extractor", "rpn", "head"}
    detector = load_detector(random_detector)
    assert content["parameters"] == sum(p.numel() for p in detector.parameters())
    assert content["tensors"] == len(detector.state_dict())
    assert sum(part["parameters"] for part in content["parts"].values()) == content["parameters"]

    code, out, _ = oxidet_command("info", "--weights", random_detector)
    assert code == 0
    assert "faster_rcnn_small" in out
    assert f"{content['parameters']:,}" in out


def test_weights_alone(oxidet_command, tmp_path):
    state = LeNet5().state_dict()
    for name, form in (("lenet.npz", "npz"), ("lenet.safetensors", "safetensors")):
        save(tmp_path / name, state, metadata={"note": "by hand"})
        code, out, _ = oxidet_command("info", "--weights", tmp_path / name, "--json")
        assert code == 0
        content = json.loads(out)
        assert (content["kind"], content["format"]) == ("weights", form)
        assert (content["parameters"], content["tensors"]) == (61706, len(state))
        assert content["metadata"] == {"note": "by hand"}
        assert content["recipe"] is None


def test_a_checkpoint(oxidet_command, tmp_path):
    from oxidet.train import save_checkpoint

    state = {
        "position": {"epoch": 2, "iteration": 17},
        "model": {"head.weight": np.zeros((2, 3))},
        "optimizer": {"state": [np.zeros(3)]},
    }
    save_checkpoint(tmp_path / "last.npz", state)
    code, out, _ = oxidet_command("info", "--weights", tmp_path / "last.npz", "--json")
    assert code == 0
    content = json.loads(out)
    assert (content["kind"], content["position"]["iteration"]) == ("checkpoint", 17)
    assert content["parts"] == {
        "model/head": {"tensors": 1, "parameters": 6},
        "optimizer": {"tensors": 1, "parameters": 0},
    }
    code, out, _ = oxidet_command("info", "--weights", tmp_path / "last.npz")
    assert "checkpoint of a training run" in out

    code, _, err = oxidet_command("detect", "a.png", "--weights", tmp_path / "last.npz")
    assert code == 1
    assert "got the checkpoint of a run" in err


def test_torch_files(oxidet_command, tmp_path):
    torch = pytest.importorskip("torch")
    state = {"layer.weight": torch.zeros(2, 3), "layer.bias": torch.zeros(2)}
    for name, form, zipped in (
        ("new.pth", "torch (zip)", True),
        ("old.pth", "torch (legacy)", False),
    ):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
        code, out, _ = oxidet_command("info", "--weights", tmp_path / name, "--json")
        assert code == 0
        assert json.loads(out)["format"] == form


def test_what_is_no_weight_file(oxidet_command, tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("no weights")
    code, out, err = oxidet_command("info", "--weights", path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {path}: expected a weight file")
    assert err.count("\n") == 1
