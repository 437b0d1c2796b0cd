"""Files as torchvision and timm publish them, with other numbers, load into our networks.

They differ from what ``torch.save`` writes today: older ones are not zip files and lack the
counters of batch norm, DenseNet's have old keys, GoogLeNet's and Inception v3's auxiliary heads.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import models, nn, weights
from oxidet.transforms import ImageClassification
from oxidet.weights._published import PublishedWeights, find_published

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

QUICK = ("resnet18", "densenet121", "googlenet", "inception_v3")
CASES = [
    pytest.param(entry, marks=[] if entry.model in QUICK else pytest.mark.slow, id=entry.name)
    for entry in weights.list_published()
    if not entry.detects
]


def theirs(entry: PublishedWeights) -> OrderedDict[str, Any]:
    """A state_dict of the publisher's network with random numbers."""
    with torch.device("meta"):
        if entry.url.startswith("https://huggingface.co"):
            timm = pytest.importorskip("timm")
            model = timm.create_model(entry.model)
        elif entry.model in ("googlenet", "inception_v3"):
            model = getattr(torchvision.models, entry.model)(aux_logits=True, init_weights=False)
        else:
            model = getattr(torchvision.models, entry.model)()
    generator = torch.Generator().manual_seed(0)
    return OrderedDict(
        (key, torch.rand(value.shape, generator=generator) if value.ndim else torch.tensor(3))
        for key, value in model.state_dict().items()
    )


def published_layout(entry: PublishedWeights, state: OrderedDict[str, Any]) -> Any:
    """The keys in the file."""
    if entry.model.startswith("densenet"):
        old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])")
        state = OrderedDict((old.sub(r"\1.\2", key), value) for key, value in state.items())
    if entry.version == "IMAGENET1K_V1" and entry.model != "googlenet":
        state = OrderedDict((key, v) for key, v in state.items() if not key.endswith("_tracked"))
    return state


def write(entry: PublishedWeights, state: OrderedDict[str, Any], path: Path) -> None:
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(dict(state), path)
    else:
        new = entry.version == "IMAGENET1K_V2" or entry.model == "googlenet"
        torch.save(state, path, _use_new_zipfile_serialization=new)


@pytest.mark.parametrize("entry", CASES)
def test_a_published_file(entry: PublishedWeights, tmp_path: Path) -> None:
    state = theirs(entry)
    path = tmp_path / entry.file
    write(entry, published_layout(entry, state), path)
    ours = models.get_model(entry.model, weights=path)
    path.unlink()  # pytest would keep gigabytes
    mine = ours.state_dict()
    counters = {key for key in mine if key.endswith("_tracked")}
    heads = {key for key in state if key.startswith("aux")}  # GoogLeNet's, which go
    assert set(mine) == set(state) - heads
    for key in mine.keys() - counters:
        np.testing.assert_array_equal(mine[key], state[key].numpy(), err_msg=key)
    assert ours.preprocess == ImageClassification(**entry.recipe)
    assert (ours.class_names is not None) == entry.classifies
    if entry.model in ("googlenet", "inception_v3"):
        assert ours.transform_input is True


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("aux_logits", [False, True])
def test_auxiliary_heads(name: str, aux_logits: bool, tmp_path: Path) -> None:
    state = theirs(find_published(name))
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "net.pth")
    ours = models.get_model(name, aux_logits=aux_logits, init_weights=False)
    report = weights.load_into(ours, tmp_path / "net.pth")
    heads = [key for key in state if key.lower().startswith("aux")]
    assert report.dropped == ([] if aux_logits else heads)
    for key, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, state[key].numpy(), err_msg=key)
    layers = {"googlenet": "aux1.fc2|aux2.fc2|fc", "inception_v3": "AuxLogits.fc|fc"}[name]
    other = models.get_model(name, aux_logits=aux_logits, init_weights=False, num_classes=7)
    with pytest.raises(nn.StateDictError, match=r"expected 7 classes in fc .* got 1000"):
        weights.load_into(other, tmp_path / "net.pth")
    report = weights.load_into(other, tmp_path / "net.pth", new_classifier=True)
    fresh = layers.split("|") if aux_logits else ["fc"]
    assert report.kept == [f"{layer}.{kind}" for layer in fresh for kind in ("weight", "bias")]


@pytest.mark.parametrize("zip_form", [False, True])
def test_a_checkpoint_of_somebodys_training(zip_form: bool, tmp_path: Path) -> None:
    state = theirs(find_published("resnet18"))
    content = {
        "epoch": 90,
        "arch": "resnet18",
        "state_dict": OrderedDict((f"module.{key}", value) for key, value in state.items()),
        "best_acc1": torch.tensor(69.76),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{}]},
    }
    path = tmp_path / "model_best.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=zip_form)
    ours = models.resnet18(weights=path)
    for key, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, state[key].numpy(), err_msg=key)


def test_another_network_is_named() -> None:
    state = theirs(find_published("resnet50"))
    model = models.resnet18()
    before = {key: np.array(value) for key, value in model.state_dict().items()}
    with pytest.raises(nn.StateDictError) as caught:
        weights.load_into(model, {key: value.numpy() for key, value in state.items()})
    assert len(str(caught.value).split("\n")) <= 10
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
