"""Intermediate values of a network: the right ones, by any way of running, and no more work."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import models, nn
from oxidet.models.feature_extraction import create_feature_extractor, node_names
from oxidet.nn import functional as F


class Block(nn.Module):
    """A convolution, and a sum with what went in; the activation is used twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        return self.relu(self.relu(self.conv(x)) + x)


class Net(nn.Module):
    """Two blocks and a branch for training alone."""

    compiled = True

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(4), Block(4)])
        self.aux = nn.Conv2d(4, 2, 1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        if self.training:
            self.aux(x)
        return self.fc(F.flatten(F.adaptive_avg_pool2d(self.drop(x), 1), 1))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


NAMES = [
    "blocks.0.conv", "blocks.0.relu", "blocks.0.add", "blocks.0.relu_1", "blocks.0",
    "blocks.1.conv", "blocks.1.relu", "blocks.1.add", "blocks.1.relu_1", "blocks.1",
    "drop", "adaptive_avg_pool2d", "flatten", "fc",
]  # fmt: skip


def by_hand(net: Net, x: np.ndarray) -> dict[str, np.ndarray]:
    values = []
    for block in net.blocks:
        conv = np.asarray(block.conv(x))
        relu = np.maximum(conv, 0)
        add = relu + x
        x = np.maximum(add, 0)
        values += [conv, relu, add, x, x]
    values += [x, x.mean((2, 3), keepdims=True), x.mean((2, 3)), np.asarray(net.fc(x.mean((2, 3))))]
    return dict(zip(NAMES, values, strict=True))


@pytest.mark.parametrize("how", ["plan", "eager", "tensor"])
def test_every_node_is_what_it_says(how: str) -> None:
    net, x = Net().eval(), images(2, 4, 6, 5)
    assert node_names(net, (1, 4, 6, 5)) == NAMES
    expected = by_hand(net, x)
    together = create_feature_extractor(net, NAMES)
    for nodes in ([name] for name in NAMES), [NAMES]:
        for wanted in nodes:
            extractor = together if len(wanted) > 1 else create_feature_extractor(net, wanted)
            if how == "plan":
                got = extractor(x)
            elif how == "eager":
                with nn.eager():
                    got = extractor(x)
            else:
                got = {k: v.numpy() for k, v in extractor(nn.Tensor(x)).items()}
            assert list(got) == wanted
            for name, value in got.items():
                assert isinstance(value, np.ndarray)
                assert_close(value, expected[name], 1e-5, f"{how} {name}")


def test_only_what_is_needed_runs() -> None:
    net = Net().eval()
    extractor = create_feature_extractor(net, {"blocks.0": "a"})
    steps = [row.name for row in extractor.plan((1, 4, 6, 5))]
    assert steps
    assert all(step.startswith("blocks.0.") for step in steps)
    called: list[str] = []
    for path, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            forward = module.forward
            object.__setattr__(
                module, "forward", lambda x, p=path, f=forward: (called.append(p), f(x))[1]
            )
    extractor.train()(images(1, 4, 6, 5))
    assert called == ["blocks.0.conv"]


def test_gradients_reach_the_layers_and_no_further() -> None:
    net, x = Net(), images(2, 4, 6, 5)
    extractor = create_feature_extractor(net, ["blocks.0"])
    result = extractor(x)["blocks.0"]
    assert isinstance(result, nn.Tensor)
    weights = images(*result.shape)
    result.backward(weights)
    got = net.blocks[0].conv.weight.grad
    net.zero_grad()
    net.blocks[0](nn.Tensor(x)).backward(weights)
    np.testing.assert_array_equal(got, net.blocks[0].conv.weight.grad)
    assert net.blocks[1].conv.weight.grad is None
    net.requires_grad_(False)
    assert isinstance(extractor(x)["blocks.0"], np.ndarray)  # nothing to record


def test_state_mode_and_copies() -> None:
    net = Net()
    extractor = create_feature_extractor(net, {"blocks.1": "out"})
    assert list(extractor.state_dict()) == list(net.state_dict())
    assert [n for n, _ in extractor.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert extractor.training
    extractor.eval()
    assert not extractor.training
    assert not net.blocks[0].relu.training
    x = images(1, 4, 6, 5)
    expected = extractor(x)["out"]
    for other in (
        copy.copy(extractor),
        copy.deepcopy(extractor),
        pickle.loads(pickle.dumps(extractor)),
    ):
        assert not other.training
        np.testing.assert_array_equal(other(x)["out"], expected)
    # The original's weights are the extractor's, in a plan that exists already.
    net.blocks[0].conv.weight = 2 * net.blocks[0].conv.weight.numpy()
    assert not np.allclose(extractor(x)["out"], expected)
    deep = copy.deepcopy(extractor)
    deep.blocks[0].conv.weight = 0 * net.blocks[0].conv.weight.numpy()
    assert not np.allclose(deep(x)["out"], extractor(x)["out"])
    # A layer replaced in the extractor is replaced in its forward.
    extractor.blocks[1].conv = nn.Conv2d(4, 4, 1)
    assert_close(extractor(x)["out"], by_hand(net, x)["blocks.1"])
    extractor.load_state_dict(net.state_dict())


def test_each_mode_may_have_its_nodes() -> None:
    net, x = Net(), images(1, 4, 6, 5)
    extractor = create_feature_extractor(
        net, train_return_nodes={"aux": "y"}, eval_return_nodes=["flatten"]
    )
    assert extractor(x)["y"].shape == (1, 2, 6, 5)
    assert extractor.eval()(x)["flatten"].shape == (1, 4)
    with pytest.raises(ValueError, match=r"nodes that run in evaluation mode, got 'aux'"):
        create_feature_extractor(net.eval(), ["aux"])(x)


def test_extractors_nest() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = create_feature_extractor(Net(), {"blocks.0": "map"})
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x)["map"])

    outer, x = Outer().eval(), images(1, 4, 6, 5)
    got = create_feature_extractor(outer, ["body.blocks.0.conv", "head"])(x)
    assert_close(got["head"], outer(x))
    assert_close(got["body.blocks.0.conv"], np.asarray(outer.body.blocks[0].conv(x)))


def test_unused_layers_can_be_dropped() -> None:
    net, x = models.lenet5().eval(), images(1, 1, 32, 32)
    extractor = create_feature_extractor(net, {"features.3": "map"})
    expected = extractor(x)["map"]
    extractor.drop_unused((1, 1, 32, 32))
    keys = ["features.0.weight", "features.0.bias", "features.3.weight", "features.3.bias"]
    assert list(extractor.state_dict()) == keys
    np.testing.assert_array_equal(extractor(x)["map"], expected)
    assert len(net.state_dict()) == 10
    assert net.features[6] is not None
    assert extractor.features[6] is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((["fx"],), ValueError, r"nodes of this Net \(near: fc\), got 'fx'"),
        ((["blocks.0.conv.conv2d"],), ValueError, "got 'blocks.0.conv.conv2d'"),
        (([],), ValueError, "at least one node, got none"),
        (({"fc": "a", "flatten": "a"},), ValueError, "a different name for each"),
        (("fc",), TypeError, "several names, got the str 'fc'"),
        (({"fc": 1},), TypeError, "expected names, got 1"),
        ((), ValueError, "got neither"),
        ((["fc"], ["fc"], ["fc"]), ValueError, "got both"),
        ((None, ["fc"]), ValueError, "got one alone"),
    ],
)
def test_bad_nodes(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create_feature_extractor(Net(), *arguments)


def test_no_list_of_nodes() -> None:
    with pytest.raises(TypeError, match=r"^return_nodes: expected a list of names, got int$"):
        create_feature_extractor(nn.Identity(), 3)  # type: ignore[arg-type]


def test_bad_model() -> None:
    with pytest.raises(TypeError, match="model: expected a Module, got str"):
        create_feature_extractor("resnet18", ["fc"])  # type: ignore[arg-type]
