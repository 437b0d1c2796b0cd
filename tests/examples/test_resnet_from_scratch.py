"""The ResNet that the example writes: the text of such a tutorial, and torchvision's weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from conftest import ROOT
from models.zoo_identity import parameters, text_of
from oxidet import models, nn, weights


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "resnet_from_scratch.py"
    spec = importlib.util.spec_from_file_location("resnet_from_scratch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# depth: lines, characters, SHA-256 of the text in the form of the torch of that time
TEXTS = {
    18: (89, 4800, "72f399a0f3b4b974"),
    34: (153, 8546, "e0e70f8e9fedf4e4"),
    50: (188, 11268, "7af5e579f784e678"),
    101: (358, 21974, "e136c795c0628b5e"),
    152: (528, 32668, "483a7b9ca0bce88e"),
}


@pytest.mark.parametrize("depth", TEXTS)
def test_the_text(example: ModuleType, depth: int) -> None:
    model = example.resnet(depth)
    assert text_of(model)[:3] == TEXTS[depth]
    assert parameters(model) == parameters(models.get_model(f"resnet{depth}"))


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvisions_weights_load(example: ModuleType, depth: int) -> None:
    theirs = models.get_model(f"resnet{depth}", num_classes=10).eval()
    ours = example.resnet(depth, num_classes=10).eval()
    assert not any(ours.load_state_dict(example.from_torchvision(theirs.state_dict())))
    assert set(example.to_torchvision(ours.state_dict())) == set(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    with nn.eager():
        np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_the_command(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "resnet18.npz"
    weights.save(path, models.resnet18().state_dict())
    example.main(["--depth", "18", "--weights", str(path)])
    printed = capsys.readouterr().out
    assert printed == f"{example.resnet(18)}\n<All keys matched successfully>\n"
