"""Whole networks against torchvision: same weights and input, logits within 1e-4."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import assert_close
from oxidet import models, nn

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")


def twins(name: str):
    """torchvision's model with random weights and statistics, and ours with the same."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    ours = getattr(models, name)()
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", (224, 224)),
        ("resnet18", (97, 131)),
        ("resnet50", (224, 224)),
        ("vgg16", (224, 224)),
    ],
)
def test_logits(name: str, size: tuple[int, int]) -> None:
    ours, theirs = twins(name)
    x = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(x))
    assert_close(ours.eval()(x), expected, 1e-4)


def test_a_training_step_of_resnet18() -> None:
    ours, theirs = twins("resnet18")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 64, 64)).astype(np.float32)
    target = rng.integers(0, 1000, 4)
    loss = nn.functional.cross_entropy(ours.train()(x), target)
    loss.backward()
    expected = torch.nn.functional.cross_entropy(
        theirs.train()(torch.tensor(x)), torch.tensor(target)
    )
    expected.backward()
    assert_close(loss, expected.detach(), 1e-4)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        # Thousands of ReLUs that sit at 0 in one program and beside it in the other.
        assert_close(parameter.grad, gradients[name], 1e-3, name)
    state = theirs.state_dict()
    for name, buffer in ours.named_buffers():
        assert_close(buffer, state[name], 1e-4, name)


def test_text_in_the_form_of_the_installed_torch() -> None:
    theirs = str(torchvision.models.resnet50(weights=None))
    with nn.repr_style("torch2.13" if "bias=True, track" in theirs else "classic"):
        assert str(models.resnet50()) == theirs
