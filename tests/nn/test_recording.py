"""Recordings: what a module computes, with the names of its layers and weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oxidet import models, nn
from oxidet.nn import functional as F
from oxidet.nn.recording import Constant, record


class Net(nn.Module):
    """Two inputs, two results, a layer called twice, one that does nothing, one outside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=((0, 1), (1, 0)), bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 4 * 4, 5))
        self.scale = nn.Parameter(np.float32(0.5))
        self.hidden = [nn.MaxPool2d(2)]

    def forward(self, x: Any, y: Any) -> Any:
        x = self.drop(self.act(self.norm(self.conv(x))))
        x = self.act(x - y * self.scale)
        return {"logits": self.head(self.hidden[0](x)), "parts": (F.cat([x, y], 1)[:, 4:], y)}


@pytest.mark.parametrize("compiled", [False, True])
def test_every_operation_and_weight_is_there(compiled: bool) -> None:
    net = Net().train()
    net.compiled = compiled
    recording = record(net, (2, 3, 16, 16), (2, 8, 8, 8))
    assert net.training
    assert net.drop.training
    assert recording.batch == 2
    assert recording.name == "Net"
    assert recording.inputs == (0, 1)
    rows = [(n.op, n.name, n.layer, n.inputs, n.output, n.shape) for n in recording.nodes]
    assert rows == [
        ("conv2d", "conv", "conv", (0,), 2, (8, 8, 8)),
        ("batch_norm", "norm", "norm", (2,), 3, (8, 8, 8)),
        ("activation", "act", "act", (3,), 4, (8, 8, 8)),
        ("scale", "mul", "", (1,), 5, (8, 8, 8)),
        ("scale", "neg", "", (5,), 6, (8, 8, 8)),
        ("add", "sub", "", (4, 6), 7, (8, 8, 8)),
        ("activation", "act", "act", (7,), 8, (8, 8, 8)),
        ("max_pool2d", "MaxPool2d", "MaxPool2d", (8,), 9, (8, 4, 4)),
        ("flatten", "head.0", "head.0", (9,), 10, (128,)),
        ("linear", "head.1", "head.1", (10,), 11, (5,)),
        ("concat", "cat", "", (8, 1), 12, (16, 8, 8)),
        ("channels", "channels", "", (12,), 13, (12, 8, 8)),
    ]
    assert recording.outputs == (11, 13, 1)
    assert recording.structure("abc") == {"logits": "a", "parts": ("b", "c")}
    assert recording.shapes == {0: (3, 16, 16), 1: (8, 8, 8), **{r[4]: r[5] for r in rows}}
    conv, norm = recording.nodes[:2]
    assert conv.attributes == {
        "stride": (2, 2),
        "padding": (0, 1, 1, 0),
        "dilation": (1, 1),
        "groups": 1,
    }
    assert recording.nodes[3].attributes == {"factor": 0.5, "offset": -0.0}
    assert norm.attributes == {"eps": 1e-5}
    state = net.state_dict()
    keys = {role: constant.key for role, constant in norm.constants.items()}
    assert keys == {
        "weight": "norm.weight",
        "bias": "norm.bias",
        "mean": "norm.running_mean",
        "var": "norm.running_var",
    }
    for node in recording.nodes:
        for constant in node.constants.values():
            assert constant.key is not None
            assert np.shares_memory(constant.array, state[constant.key])
            assert constant.array.shape == state[constant.key].shape
            assert not constant.array.flags.writeable
    assert list(conv.constants) == ["weight"]


def test_every_call_is_there() -> None:
    recording = record(Net(), (2, 3, 16, 16), (2, 8, 8, 8))
    calls = [
        (c.path, type(c.module).__name__, c.depth, c.inputs, c.outputs, c.nodes)
        for c in recording.calls
    ]
    assert calls == [
        ("", "Net", 0, (0, 1), (11, 13, 1), range(0, 12)),
        ("conv", "Conv2d", 1, (0,), (2,), range(0, 1)),
        ("norm", "BatchNorm2d", 1, (2,), (3,), range(1, 2)),
        ("act", "ReLU", 1, (3,), (4,), range(2, 3)),
        ("drop", "Dropout", 1, (4,), (4,), range(3, 3)),
        ("act", "ReLU", 1, (7,), (8,), range(6, 7)),
        ("MaxPool2d", "MaxPool2d", 1, (8,), (9,), range(7, 8)),
        ("head", "Sequential", 1, (9,), (11,), range(8, 10)),
        ("head.0", "Flatten", 2, (9,), (10,), range(8, 9)),
        ("head.1", "Linear", 2, (10,), (11,), range(9, 10)),
    ]


def test_the_graph_can_be_walked() -> None:
    recording = record(Net(), (1, 3, 16, 16), (1, 8, 8, 8))
    assert recording.producer(0) is None
    assert recording.producer(7) is recording.nodes[5]
    assert [node.name for node in recording.consumers(8)] == ["MaxPool2d", "cat"]
    assert "%7 = add(%4, %6) (8, 8, 8)  # sub" in repr(recording)
    assert repr(recording.calls[8]) == "head.0: Flatten(%9) -> %10"


def test_weights_outside_of_the_state() -> None:
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.outside = [nn.Parameter(np.ones((2, 3), np.float32))]

        def forward(self, x: Any) -> Any:
            return F.linear(x, self.outside[0])

    net = Loose()
    (node,) = record(net, (1, 3)).nodes
    assert node.constants["weight"].key is None
    assert np.array_equal(node.constants["weight"].array, net.outside[0].data)


def test_shared_weights_have_one_name() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3)
            self.second = nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, x: Any) -> Any:
            return self.second(self.first(x))

    nodes = record(Tied(), (1, 3)).nodes
    assert [n.constants["weight"].key for n in nodes] == ["first.weight"] * 2
    assert [n.constants["bias"].key for n in nodes] == ["first.bias", "second.bias"]


def test_every_weight_of_a_network_is_read_once() -> None:
    net = models.resnet18()
    recording = record(net, (1, 3, 32, 32))
    constants: list[Constant] = [c for n in recording.nodes for c in n.constants.values()]
    counters = {key for key in net.state_dict() if key.endswith("num_batches_tracked")}
    assert sorted(str(c.key) for c in constants) == sorted(set(net.state_dict()) - counters)
    # As the plan, which is of the same graph, says.
    assert recording.shapes[recording.outputs[0]] == net.plan((1, 3, 32, 32))[-1].out_shape[1:]


def test_errors() -> None:
    with pytest.raises(ValueError, match="shapes: expected the shape of at least one input"):
        record(nn.ReLU())
    with pytest.raises(ValueError, match=r"shapes\[1\]: expected a batch of 1, got 2"):
        record(Net(), (1, 3, 16, 16), (2, 8, 8, 8))
    with pytest.raises(ValueError, match="channels"):
        record(nn.Conv2d(3, 4, 1), (1, 2, 8, 8))

    with pytest.raises(ValueError, match=r"layer head\.1: "):
        record(Net(), (1, 3, 20, 16), (1, 8, 10, 8))

    class Looks(nn.Module):
        def forward(self, x: Any) -> Any:
            return float(x) if self.training else object()

    with pytest.raises(nn.TraceError, match=r"Looks\.forward returns a object"):
        record(Looks(), (1, 2))
