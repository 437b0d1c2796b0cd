"""Summaries: totals that are known, rows that add up, text that fits, HTML that is well formed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import oxidet
from html_pages import Page
from known_networks import KNOWN, NAMES, blank
from oxidet import models, nn
from oxidet.models.feature_extraction import create_feature_extractor
from oxidet.nn import functional as F


@pytest.mark.parametrize("name", NAMES)
def test_totals_and_receptive_fields_of_the_zoo(name: str) -> None:
    known, model = KNOWN[name], blank(name)
    table = oxidet.summary(
        model, (1, 3 if known.side > 32 or "nin" in name else 1, known.side, known.side)
    )
    assert (table.parameters, table.macs) == (known.parameters, known.macs)
    assert (table.unused > 0) == (name in ("googlenet", "googlenet_paper", "inception_v3"))
    shallow = oxidet.summary(model, table.input_shapes[0], depth=1)
    assert (shallow.parameters, shallow.macs) == (known.parameters, known.macs)
    assert max(map(len, str(table).splitlines())) <= 100
    got = {}
    for layer in known.fields:
        seen = oxidet.receptive_field(model, layer, table.input_shapes[0])
        assert seen.size[0] == seen.size[1]
        assert seen.stride[0] == seen.stride[1]
        got[layer] = (seen.size[0], seen.stride[0])
    assert got == known.fields


class Net(nn.Module):
    """A shared layer, an operation with a parameter of its own, a layer for training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), nn.ReLU(), nn.Dropout())
        self.own = nn.Parameter(np.zeros((4, 4, 1, 1), np.float32))
        self.aux = nn.Linear(4, 2)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        x = F.conv2d(self.norm(self.body(x)), self.own)
        return F.relu(self.norm(x)) + 1.0


def test_rows() -> None:
    net = Net()
    net.aux.requires_grad_(False)
    table = oxidet.summary(net, (2, 3, 6, 8))
    assert [(row.layer, row.type, row.parameters, row.macs) for row in table] == [
        ("body.0", "Conv2d", 88, 2 * 48 * 84),
        ("body.1", "ReLU", 0, 0),
        ("body.2", "Dropout", 0, 0),
        ("norm", "BatchNorm2d", 8, 0),
        ("conv2d", "conv2d", 16, 2 * 48 * 16),
        ("norm", "BatchNorm2d", 0, 0),
        ("relu", "relu", 0, 0),
        ("add", "add", 0, 0),
    ]
    assert all(row.output_shape == (2, 4, 6, 8) for row in table)
    assert all(row.output_bytes == 4 * 2 * 4 * 6 * 8 for row in table)
    assert all(row.receptive_field.size == (1, 7) for row in table)
    assert (table.parameters, table.trainable, table.unused) == (122, 112, 10)
    assert table.state_bytes == 4 * (122 + 8) + 8  # with running statistics and their counter
    assert table.output_bytes == 8 * 1536
    assert net.training
    assert "(10 in layers that run in training alone)" in str(table)
    assert "(10 frozen)" in str(table)
    shallow = oxidet.summary(net, (2, 3, 6, 8), depth=1)
    assert [row.layer for row in shallow] == ["body", "norm", "conv2d", "norm", "relu", "add"]
    assert shallow["body"].parameters == 88
    assert shallow["body"].type == "Sequential"
    with pytest.raises(KeyError, match="elsewhere"):
        shallow["elsewhere"]


class Pool(nn.Module):
    """Operations, and no modules, inside."""

    def forward(self, x: Any) -> Any:
        return F.flatten(F.relu(F.adaptive_avg_pool2d(F.cat([x, x], 1), 1)), 1)


def test_operations_of_a_module_without_others() -> None:
    table = oxidet.summary(nn.Sequential(nn.Conv2d(3, 4, 1), Pool()), (1, 3, 4, 4))
    names = ["0", "1.cat", "1.adaptive_avg_pool2d", "1.relu", "1.flatten"]
    assert [row.layer for row in table] == names


def test_rows_are_plain_and_make_a_data_frame() -> None:
    table = oxidet.summary(models.lenet5())
    assert json.loads(json.dumps(table.rows))[2] == {
        "layer": "features.2", "type": "AvgPool2d", "output_shape": [1, 6, 14, 14],
        "parameters": 0, "macs": 0, "output_bytes": 4704,
        "receptive_field_y": 6, "receptive_field_x": 6, "stride_y": 2, "stride_x": 2,
        "centre_y": 3.0, "centre_x": 3.0,
    }  # fmt: skip
    pytest.importorskip("pandas")
    frame = table.to_pandas()
    assert len(frame) == len(table)
    assert frame.macs.sum() == 416_520


def test_a_layer_alone() -> None:
    table = oxidet.summary(nn.Conv2d(3, 4, 3), (1, 3, 8, 8))
    assert [(row.layer, row.type, row.macs) for row in table] == [("", "Conv2d", 3888)]
    assert str(table).splitlines()[4].split() == [
        "Conv2d",
        "4x6x6",
        "112",
        "3.9",
        "k",
        "576",
        "B",
        "3",
        "1",
        "1.5",
    ]
    assert "Conv2d" in Page(table._repr_html_()).text


def test_networks_without_images() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    table = oxidet.summary(net, (1, 5))
    assert (table.parameters, table.macs) == (29, 24)
    assert table[0].receptive_field is None
    assert "field" not in str(table).splitlines()[-1]
    assert table.rows[0]["stride_y"] is None
    with pytest.raises(ValueError, match=r"^shapes: expected .* without convolutions, got None"):
        oxidet.summary(net)
    with pytest.raises(ValueError, match="layer: expected one that depends on an image, got '0'"):
        oxidet.receptive_field(net, "0", (1, 5))


def test_html_folds_and_has_the_sums() -> None:
    page = Page(oxidet.summary(blank("resnet18"))._repr_html_())
    assert page.tags["details"] == 4 + 8 + 3  # stages, blocks, projections
    assert page.unfolded == 0
    line = page.text.index("layer3 Sequential")
    sums = ["256x14x14", "2,099,712", "411 M", "201 kB", "211", "16", "0.5"]
    assert page.text[line + 1 : line + 8] == sums
    assert "11,689,512" in page.text


def test_shape_and_depth_are_checked() -> None:
    with pytest.raises(ValueError, match="depth"):
        oxidet.summary(models.lenet5(), depth=0)
    with pytest.raises(ValueError, match="x: expected shape"):
        oxidet.summary(models.lenet5(), (1, 1, 28, 28))
    with pytest.raises(TypeError, match="model: expected a Module, got int"):
        oxidet.summary(3)  # type: ignore[arg-type]
    assert oxidet.summary(models.lenet5()).input_shapes == ((1, 1, 32, 32),)


# --- receptive fields


def test_a_stride_in_the_first_convolution_sees_more() -> None:
    model = blank("resnet50", stride_1x1=True)
    sizes = [oxidet.receptive_field(model, f"layer{i}").size[0] for i in (1, 2, 3, 4)]
    assert sizes == [35, 99, 291, 483]
    assert oxidet.summary(model).macs == 3_857_973_248


def test_stacks_of_three_by_three() -> None:
    net = nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(3)))
    assert [oxidet.receptive_field(net, str(i)).size for i in range(3)] == [(3, 3), (5, 5), (7, 7)]


def dependence(net: nn.Module, side: int, row: int, column: int) -> tuple[float, ...]:
    """x1, y1, x2, y2 of the pixels whose derivative in one unit is not 0."""
    x = nn.Tensor(np.ones((1, 2, side, side), np.float32), requires_grad=True)
    out = net(x)
    seed = np.zeros(out.shape, np.float32)
    seed[0, :, row, column] = 1
    out.backward(seed)
    rows, columns = (np.flatnonzero(np.abs(x.grad).sum((0, 1)).any(axis)) for axis in (1, 0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


class Branches(nn.Module):
    """Windows that are neither square nor concentric."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(2, 2, (1, 7), stride=2, padding=(0, 3))
        self.even = nn.Conv2d(2, 2, 4, stride=2, padding=1)
        self.far = nn.Conv2d(2, 2, 3, dilation=(1, 2), padding=(1, 2))

    def forward(self, x: Any) -> Any:
        return self.far(F.cat([self.wide(x), self.even(x)], 1)[:, 1:3])


class Stages(nn.Module):
    """Residual stages behind a mean, as a maximum passes on the derivative of one pixel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 3, 1)
        net = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1])
        net.maxpool = nn.AvgPool2d(3, 2, 1)
        self.net = create_feature_extractor(net, ["layer2"]).drop_unused((1, 3, 48, 48))

    def forward(self, x: Any) -> Any:
        return self.net(self.mix(x))["layer2"]


class Cut(nn.Module):
    """A map without its first rows, of which every second column stays."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 2, 3, 4))
        self.first = nn.Conv2d(2, 2, 3)
        self.second = nn.Conv2d(2, 2, 3)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(self.pad(x))[:, :, 5:, 1::2])


@pytest.mark.parametrize(
    "net",
    [
        Branches(),
        Cut(),
        nn.Sequential(nn.Conv2d(2, 3, 5, padding=((0, 3), (1, 2))), nn.AvgPool2d(3, 2, 1)),
        nn.Sequential(nn.Conv2d(2, 3, 3, 2), nn.Conv2d(3, 3, (4, 1), (1, 3), dilation=2)),
        nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(4), nn.Conv2d(2, 1, 3)),
        Stages(),
    ],
    ids=["branches", "cut", "asymmetric", "dilated", "adaptive", "residual"],
)
def test_where_derivatives_are_not_zero(net: nn.Module) -> None:
    side = 48
    for parameter in net.parameters():
        parameter.copy_(np.abs(parameter.numpy()) + 0.1)  # no cancellation, nothing behind a ReLU
    seen = oxidet.receptive_field(net.eval(), None, (1, 2, side, side))
    shape = np.shape(net(np.zeros((1, 2, side, side), np.float32)))
    for row, column in ((shape[2] // 2, shape[3] // 2), (0, 0), (shape[2] - 1, shape[3] - 1)):
        expected = np.clip(seen.box(row, column), 0, side)
        assert dependence(net, side, row, column) == pytest.approx(expected), (row, column)


def test_the_size_that_a_network_is_made_for() -> None:
    network = models.alexnet_2012(num_classes=2)
    assert oxidet.receptive_field(network, "classifier.0").size == (355, 355)  # of 227 x 227


def test_resizing() -> None:
    net = nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3, padding=1))
    assert oxidet.receptive_field(net, "1", (1, 1, 16, 16)) == ((4, 4), (2, 2), (1, 1))
    assert oxidet.receptive_field(net, "2", (1, 1, 16, 16)) == ((8, 8), (2, 2), (1, 1))
    smooth = nn.Upsample(scale_factor=2, mode="bilinear")
    net = nn.Sequential(nn.AvgPool2d(4), smooth)
    assert oxidet.receptive_field(net, None, (1, 1, 16, 16)) == ((8, 8), (2, 2), (1, 1))


def test_the_shape_is_named_as_in_the_signature() -> None:
    model = models.lenet5()
    with pytest.raises(
        ValueError, match=r"^shapes: expected \(N, C, H, W\) or .*, got \(1, 2, 3\)$"
    ):
        oxidet.summary(model, (1, 2, 3))
    with pytest.raises(ValueError, match=r"^shape: expected \(N, C, H, W\) or .*, got 5$"):
        oxidet.receptive_field(model, shape=5)


def test_unknown_layer() -> None:
    with pytest.raises(
        ValueError, match=r"^layer: .*near: features.1, features.0.*got 'features.10'"
    ):
        oxidet.receptive_field(models.lenet5(), "features.10")
