"""Intermediate values against torchvision's feature extraction, in both modes."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import assert_close
from known_networks import blank
from oxidet import models
from oxidet.models.feature_extraction import create_feature_extractor, node_names

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
theirs = pytest.importorskip("torchvision.models.feature_extraction")

NODES = {
    "relu": "stem",
    "layer1.0.add": "sum",
    "layer2.1.relu_1": "c3",
    "layer3": "c4",
    "flatten": "v",
}


@pytest.fixture(scope="module")
def original() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    for module in model.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False  # it would overwrite the sum that is returned, too
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_resnet18(original: torch.nn.Module, training: bool) -> None:
    model = models.resnet18()
    model.load_state_dict({k: v.numpy() for k, v in original.state_dict().items()})
    extractor = create_feature_extractor(model, NODES).train(training)
    reference = theirs.create_feature_extractor(original, NODES).train(training)
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    before = {k: v.clone() for k, v in original.state_dict().items()}
    expected = reference(torch.from_numpy(x))
    original.load_state_dict(before)
    got = extractor(x)
    assert list(got) == list(expected)
    for name, value in got.items():
        assert_close(np.asarray(value), expected[name].detach().numpy(), 1e-4, name)


def test_names_of_nodes(original: torch.nn.Module) -> None:
    _, expected = theirs.get_graph_node_names(original)
    names = node_names(models.resnet18(), (1, 3, 64, 64))
    assert set(expected) - set(names) == {"x"}  # the input, which is not computed
    ours = [name for name in names if name in expected]
    modules = {name for name, module in original.named_modules() if len(list(module.children()))}
    assert set(names) - set(expected) == modules - {""}
    assert sorted(ours) == sorted(expected[1:])


@pytest.mark.parametrize(
    ("name", "side"), [("alexnet", 224), ("googlenet", 64), ("inception_v3", 75)]
)
def test_names_of_other_networks(name: str, side: int) -> None:
    options = {} if name == "alexnet" else {"init_weights": False}
    with torch.device("meta"):
        reference = torchvision.models.get_model(name, **options)
    _, expected = theirs.get_graph_node_names(reference)
    names = node_names(blank(name), (1, 3, side, side))
    assert set(expected) - set(names) == {"x"}
