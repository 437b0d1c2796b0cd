"""GoogLeNet: torchvision's, the paper's, and the block that the paper begins with."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from networks import (
    check_batches,
    check_size,
    check_state,
    check_text,
    layer_shapes,
    spread,
    thin,
    without_dropout,
)
from oxidet import models, nn
from oxidet.models.googlenet import GoogLeNetOutputs, PaperInceptionAux
from training import check_gradients_along, learn_digits


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_text_and_state_are_torchvisions() -> None:
    model = models.googlenet(init_weights=False)
    check_text(model, "6e59c54b1480dd3a", "d8f3979e53c49f5c")
    check_state(model, 364, 13_020_019, "9b990ac7b1269376")
    without_heads = models.googlenet(aux_logits=False, init_weights=False)
    check_text(without_heads, "5e29893302e6a7e9", "830b18875588e398")
    assert len(without_heads.state_dict()) == 344


def test_sizes() -> None:
    shape = (3, 224, 224)
    check_size(models.googlenet(), shape, 13_004_888, 1_498_376_192, 364)
    check_size(models.googlenet(aux_logits=False), shape, 6_624_904, 1_498_376_192, 344)
    check_size(models.googlenet_paper(), shape, 13_378_280, 1_582_671_872, 128)
    check_size(models.googlenet_paper(aux_logits=False), shape, 6_998_552, 1_582_671_872, 116)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
def test_the_blocks_have_the_sizes_of_the_table(name: str) -> None:
    with thin(8):
        model = getattr(models, name)(num_classes=10)
    layers = ["maxpool1", "maxpool2", "inception3b", "inception4a", "inception4d", "inception5b"]
    assert layer_shapes(model, (3, 224, 224), layers) == [
        (8, 56, 56),
        (24, 28, 28),
        (60, 28, 28),
        (64, 14, 14),
        (66, 14, 14),
        (128, 7, 7),
    ]


def test_in_training_the_later_head_comes_first() -> None:
    with thin(8):
        model = models.googlenet(num_classes=10)
    output = without_dropout(model).train()(images(2, 3, 64, 64))
    assert isinstance(output, GoogLeNetOutputs)
    assert output._fields == ("logits", "aux_logits2", "aux_logits1")
    assert [y.shape for y in output] == [(2, 10)] * 3
    output.aux_logits2.sum().backward()
    assert model.aux2.fc2.weight.grad is not None
    assert model.aux1.fc2.weight.grad is None
    assert model.eval()(images(2, 3, 64, 64)).shape == (2, 10)


def test_losses_of_the_heads_join_in_the_trunk() -> None:
    with thin(8):
        model = without_dropout(models.googlenet(num_classes=10)).train()
    gradients = []
    for chosen in ((0,), (1,), (2,), (0, 1, 2)):
        model.zero_grad()
        outputs = model(images(4, 3, 64, 64))
        sum(outputs[i].sum() for i in chosen).backward()
        grad = model.inception3a.branch1.conv.weight.grad
        gradients.append(np.array(grad, np.float64))
    assert_close(gradients[3], sum(gradients[:3]), 1e-4)


def test_the_papers_heads_take_means_of_5_x_5() -> None:
    x = np.arange(14.0, dtype=np.float32) + np.zeros((1, 1, 14, 14), np.float32)
    got = PaperInceptionAux(1, 10).pool(x)
    np.testing.assert_allclose(got[0, 0, 0], [2, 5, 8, 11])
    with thin(8):
        model = without_dropout(models.googlenet_paper(num_classes=10)).train()
        assert isinstance(model.inception4a.branch3[1].conv, nn.Conv2d)
    assert model.inception4a.branch3[1].conv.kernel_size == (5, 5)
    output = model(images(1, 3, 224, 224))
    assert [y.shape for y in output] == [(1, 10)] * 3


def test_the_normalisations_of_the_paper() -> None:
    with thin(8):
        model = models.googlenet_paper(num_classes=10)
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.LocalResponseNorm)]
    assert norms == ["maxpool1.1", "maxpool2.0"]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert list(model.state_dict())[:4] == [
        "conv1.conv.weight",
        "conv1.conv.bias",
        "conv2.conv.weight",
        "conv2.conv.bias",
    ]


def test_the_naive_block_passes_everything_on() -> None:
    block = models.NaiveInception(16, 4, 6, 2).eval()
    x = images(2, 16, 9, 7)
    output = block(x)
    assert output.shape == (2, 4 + 6 + 2 + 16, 9, 7)
    pooled = nn.functional.max_pool2d(x, 3, 1, 1)
    np.testing.assert_array_equal(np.asarray(output)[:, 12:], pooled)
    kernels = [b.conv.kernel_size[0] for b in (block.branch1, block.branch2, block.branch3)]
    assert kernels == [1, 3, 5]
    check_gradients_along(models.NaiveInception(3, 4, 6, 2), images(2, 3, 6, 6))


def test_initial_weights() -> None:
    with thin(2):
        model = models.googlenet(num_classes=10)
        paper = models.googlenet_paper(num_classes=10)
    for layer in (model.inception4e.branch2[1].conv, model.fc, model.aux1.fc1):
        assert abs(np.asarray(layer.weight).std() / 0.01 - 1) < 0.05
    weight = np.abs(np.asarray(paper.inception4e.branch2[1].conv.weight))
    assert 0.99 < weight.max() / (3 / (80 * 9)) ** 0.5 <= 1
    assert np.asarray(paper.conv1.conv.bias).tolist() == [np.float32(0.2)] * 32
    assert not np.asarray(paper.fc.bias).any()
    assert not np.asarray(paper.aux2.fc2.bias).any()


@pytest.mark.parametrize("name", ["googlenet", "googlenet_paper"])
def test_plan_and_gradients(name: str) -> None:
    with thin(16):
        model = spread(getattr(models, name)(num_classes=10, aux_logits=name == "googlenet"))
    check_batches(model, (3, 63, 70))
    check_gradients_along(model, images(2, 3, 33, 48), most=16)


def test_gradients_through_the_papers_heads() -> None:
    with thin(16):
        model = spread(models.googlenet_paper(num_classes=10))
    check_gradients_along(model, images(1, 3, 224, 224), most=12)


def test_the_papers_network_learns_the_digits() -> None:
    pytest.importorskip("sklearn")
    with thin(8):
        model = spread(models.googlenet_paper(num_classes=10, aux_logits=False))
    assert learn_digits(without_dropout(model), 48, steps=240, lr=0.001) > 0.5


@pytest.mark.parametrize("mode", [contextlib.nullcontext, nn.eager])
def test_too_small_an_image_is_refused_with_the_layer(mode: Any) -> None:
    with thin(8):
        model = models.googlenet(num_classes=10).eval()
    with mode():
        assert model(np.zeros((1, 3, 15, 15), np.float32)).shape == (1, 10)
    with mode(), pytest.raises(ValueError, match=r"layer \S+: input: expected at least one win"):
        model(np.zeros((1, 3, 8, 15), np.float32))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="blocks: expected three classes, got 1"):
        models.GoogLeNet(blocks=[nn.Conv2d])
