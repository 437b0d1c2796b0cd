"""Export: files that onnx's checker accepts, and onnxruntime's results."""

from __future__ import annotations

import os
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import _core, nn
from oxidet.models import get_model, list_models
from oxidet.nn import functional as F

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_graphs import run_onnxruntime  # noqa: E402
from oxidet.onnx import export, load  # noqa: E402
from oxidet.onnx._writer import Writer  # noqa: E402

RNG = np.random.default_rng(0)


class Net(nn.Module):
    """A module around one function of its inputs, with a few layers to use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.norm.running_mean = RNG.standard_normal(6)
        self.norm.running_var = RNG.uniform(0.5, 2, 6)
        self.norm.bias = RNG.standard_normal(6)
        self.scale = nn.Parameter(RNG.uniform(0.5, 2, (6, 1, 1)))
        self.function = function
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv": lambda net, x: net.conv(x),
    "conv without bias": lambda net, x: F.conv2d(x, net.conv.weight, stride=2, padding=(0, 1)),
    "conv same": lambda net, x: F.conv2d(x, net.conv.weight, padding="same", dilation=2),
    "conv uneven": lambda net, x: F.conv2d(x, net.conv.weight, padding=((0, 2), (1, 0))),
    "batch norm": lambda net, x: net.norm(x),
    "batch norm without weights": lambda net, x: F.batch_norm(
        x, net.norm.running_mean, net.norm.running_var
    ),
    "relu": lambda net, x: F.relu(x),
    "tanh": lambda net, x: F.tanh(x),
    "sigmoid": lambda net, x: F.sigmoid(x),
    "clamp": lambda net, x: F.clamp(x, -0.5, 0.75),
    "clamp above": lambda net, x: F.clamp(x, max=0.5),
    "softmax": lambda net, x: F.softmax(x, 1),
    "log softmax": lambda net, x: F.log_softmax(x, 1),
    "dropout": lambda net, x: F.dropout(x, 0.5, net.training),
    "add": lambda net, x: F.relu(x) + F.tanh(x),
    "add itself": lambda net, x: x + x,
    "sub": lambda net, x: F.relu(x) - F.tanh(x),
    "numbers": lambda net, x: 2 * (1 - x) / 4.0 + 3 - 0.5,
    "cat": lambda net, x: F.cat([x, net.conv(x)], 1),
    "channels": lambda net, x: x[:, 1:4],
    "rows and columns": lambda net, x: x[:, :4, 1::3, 2:-2],
    "add to channels": lambda net, x: x + net.scale,
    "subtract channels from": lambda net, x: net.scale - x,
    "subtract from channels": lambda net, x: x - net.scale,
    "multiply channels": lambda net, x: x * net.scale,
    "divide channels": lambda net, x: x / net.scale,
    "pad": lambda net, x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "pad channels": lambda net, x: F.pad(x, (0, 0, 0, 0, 1, 2)),
    "pad with minus infinity": lambda net, x: F.max_pool2d(
        F.pad(x, (0, 1, 0, 1), value=-np.inf), 2
    ),
    "nearest": lambda net, x: F.interpolate(x, (13, 5)),
    "nearest by a factor": lambda net, x: F.interpolate(x, scale_factor=(2, 1.5)),
    "nearest of centres": lambda net, x: F.interpolate(x, (13, 5), mode="nearest-exact"),
    "bilinear": lambda net, x: F.interpolate(x, (13, 5), mode="bilinear"),
    "bilinear to one pixel": lambda net, x: F.interpolate(x, 1, mode="bilinear"),
    "bilinear by a factor": lambda net, x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "bilinear of corners": lambda net, x: F.interpolate(
        x, (13, 5), mode="bilinear", align_corners=True
    ),
    "response norm": lambda net, x: F.local_response_norm(x, 5, 0.5, 0.75, 2.0),
    "response norm of all": lambda net, x: F.local_response_norm(x, 15, 0.5, 0.6),
    "flatten": lambda net, x: F.flatten(x, 1),
    "the input": lambda net, x: x,
    "max pool": lambda net, x: F.max_pool2d(x, 3, 2, 1),
    "max pool ceil": lambda net, x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max pool ceil padded": lambda net, x: F.max_pool2d(x, 2, 2, 1, ceil_mode=True),
    "max pool dilated": lambda net, x: F.max_pool2d(x, 2, 1, 0, 3),
    "max pool dilated ceil": lambda net, x: F.max_pool2d(x, 2, 3, 1, 4, ceil_mode=True),
    "average pool": lambda net, x: F.avg_pool2d(x, 3, 2, 1),
    "average pool of the inside": lambda net, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average pool ceil": lambda net, x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
    "average pool ceil padded": lambda net, x: F.avg_pool2d(x, (3, 4), 2, (1, 2), True),
    "average pool ceil inside": lambda net, x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "average pool divided": lambda net, x: F.avg_pool2d(x, 3, 2, 1, True, divisor_override=5),
    "adaptive average": lambda net, x: F.adaptive_avg_pool2d(x, 1),
    "adaptive average even": lambda net, x: F.adaptive_avg_pool2d(x, (3, 4)),
    "adaptive average as it is": lambda net, x: F.adaptive_avg_pool2d(x, (9, 8)),
    "adaptive average uneven": lambda net, x: F.adaptive_avg_pool2d(x, (4, 3)),
    "adaptive average larger": lambda net, x: F.adaptive_avg_pool2d(x, (12, 16)),
    "adaptive maximum": lambda net, x: F.adaptive_max_pool2d(x, 1),
    "adaptive maximum even": lambda net, x: F.adaptive_max_pool2d(x, (3, 2)),
    "adaptive maximum uneven": lambda net, x: F.adaptive_max_pool2d(x, (4, 3)),
    "mean": lambda net, x: x.mean((2, 3)) if isinstance(x, nn.Symbol) else x.mean(axis=(2, 3)),
}


@pytest.mark.parametrize("opset", [13, 23])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str, opset: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    net = Net(OPERATIONS[name])
    for size in ((9, 8), (8, 11))[: 1 if "adaptive" in name else 2]:
        export(net, path, (1, 6, *size), opset_version=opset)
        onnx.checker.check_model(str(path), full_check=True)
        x = RNG.standard_normal((2, 6, *size)).astype(np.float32)
        with nn.eager():
            expected = net(x)
        assert_close(run_onnxruntime(path, x)[0], expected, 1e-5, str(size))
        if "uneven" not in name and "larger" not in name:
            assert_close(load(path)(x), expected, 1e-5, f"{size}, read again")


@pytest.mark.parametrize("size", [2, 4])
def test_an_even_response_norm(size: int, tmp_path: Path) -> None:
    """onnx has no operator for the channels that torch takes; what is written is no LRN."""
    path = tmp_path / "model.onnx"
    net = Net(lambda net, x: F.local_response_norm(x, size, 0.5, 0.75, 2.0))
    export(net, path, (1, 6, 4, 5))
    onnx.checker.check_model(str(path), full_check=True)
    x = RNG.standard_normal((2, 6, 4, 5)).astype(np.float32)
    assert_close(run_onnxruntime(path, x)[0], net(x), 1e-5)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_repeats(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    net = Net(lambda net, x: F.pad(x, (1, 2, 0, 3), mode))
    export(net, path, (1, 6, 4, 5), opset_version=19)
    x = RNG.standard_normal((2, 6, 4, 5)).astype(np.float32)
    assert_close(run_onnxruntime(path, x)[0], net(x))
    if mode == "circular":
        with pytest.raises(ValueError, match="opset_version: expected 19 or more for circular"):
            export(net, path, (1, 6, 4, 5))


def test_every_operation_of_a_graph_is_known() -> None:
    methods = {name for name in dir(_core.GraphBuilder) if not name.startswith("_")}
    training = {"train_norm", "random_drop", "compile_training", "constants"}
    assert set(Writer.converters) | {"input", "shape", "compile"} | training == methods


# --- names and shapes


def test_names_of_layers_and_weights(tmp_path: Path) -> None:
    model = get_model("resnet18", num_classes=5)
    export(model, tmp_path / "model.onnx", (1, 3, 64, 64))
    proto = onnx.load(tmp_path / "model.onnx")
    assert proto.producer_name == "oxidet"
    (imported,) = proto.opset_import
    assert (imported.domain, imported.version) == ("", 17)
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    found = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert set(found) == set(state)
    assert all(np.array_equal(found[key], state[key]) for key in state)
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    assert names[:4] == ["conv1", "bn1", "relu", "maxpool"]
    assert names[-3:] == ["avgpool", "flatten", "fc"]
    ops = {node.op_type for node in proto.graph.node}
    assert ops == {
        *("Conv", "BatchNormalization", "Relu", "MaxPool", "Add", "GlobalAveragePool"),
        *("Flatten", "Gemm"),
    }


def dims(value: Any) -> list[Any]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_inputs_outputs_and_batch(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    Pair = namedtuple("Pair", "boxes scores")

    def check(result: Callable[..., Any], names: list[str], **options: Any) -> Any:
        net = Net(lambda net, x, y: result(F.relu(x), y))
        export(net, path, [(2, 6, 4, 4), (2, 3)], **options)
        onnx.checker.check_model(str(path), full_check=True)
        x = RNG.standard_normal((2, 6, 4, 4)).astype(np.float32)
        y = RNG.standard_normal((2, 3)).astype(np.float32)
        expected = net(x, y)
        expected = list(expected.values()) if isinstance(expected, dict) else expected
        graph = onnx.load(path).graph
        assert [value.name for value in graph.output] == names
        for a, b in zip(run_onnxruntime(path, x, y), expected, strict=True):
            assert_close(a, b)
        return graph

    graph = check(lambda x, y: (x, y, x), ["output_0", "output_1", "output_2"])
    assert [value.name for value in graph.input] == ["input_0", "input_1"]
    assert [dims(value) for value in graph.input] == [["N", 6, 4, 4], ["N", 3]]
    check(lambda x, y: {"c4": x, "c5": y}, ["c4", "c5"])
    graph = check(Pair, ["boxes", "scores"], dynamic_batch=False)
    assert [dims(value) for value in graph.output] == [[2, 6, 4, 4], [2, 3]]
    graph = check(Pair, ["a", "b"], input_names=("image", "row"), output_names=["a", "b"])
    assert [value.name for value in graph.input] == ["image", "row"]


def test_weights_without_a_key_and_shared_ones(tmp_path: Path) -> None:
    loose = nn.Parameter(RNG.standard_normal((4, 4)).astype(np.float32))

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            x = F.linear(self.first(self.first(x)), loose)
            return F.linear(x, loose)

    net, path = Tied().eval(), tmp_path / "model.onnx"
    export(net, path, (1, 4))
    names = [t.name for t in onnx.load(path).graph.initializer]
    assert names == ["first.weight", "first.bias", "linear.weight"]
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    assert_close(run_onnxruntime(path, x)[0], net(x))


def test_the_mode_stays(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    net[2].eval()
    export(net, tmp_path / "model.onnx", (1, 3, 8, 8))
    assert [module.training for module in net.modules()] == [True, True, True, False]
    x = np.ones((1, 3, 8, 8), np.float32)
    assert_close(run_onnxruntime(tmp_path / "model.onnx", x)[0], net.eval()(x))


def test_a_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    class Looks(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if float(x) > 0 else -x

    with pytest.raises(nn.TraceError):
        export(Looks(), path, (1, 3))
    with pytest.raises(OSError, match="nowhere"):
        export(nn.ReLU(), tmp_path / "nowhere" / "model.onnx", (1, 3))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.onnx"]


ERRORS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no module": ({"model": abs}, TypeError, "model: expected a Module, got builtin"),
    "old version": ({"opset_version": 9}, ValueError, "opset_version: expected .* 13 .*, got 9"),
    "future version": ({"opset_version": 99}, ValueError, "opset_version: expected .*, got 99"),
    "version": ({"opset_version": "17"}, TypeError, "opset_version"),
    "shape": ({"shape": (1, 3, 8)}, ValueError, r"shapes\[0\]: expected \(N, C, H, W\)"),
    "no shape": ({"shape": None}, TypeError, r"shape: expected \(N, C, H, W\)"),
    "channels": ({"shape": (1, 5, 8, 8)}, ValueError, "channels"),
    "input names": ({"input_names": ["a", "b"]}, ValueError, "input_names: expected 1"),
    "a name": ({"input_names": "image"}, TypeError, "input_names: expected a list"),
    "input like a weight": ({"input_names": ["weight"]}, ValueError, "input_names: expected names"),
    "name of a weight": ({"output_names": ["weight"]}, ValueError, "names other than"),
    "name of the input": ({"output_names": ["input"]}, ValueError, "names other than"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, tmp_path: Path) -> None:
    changes, kind, message = ERRORS[name]
    given: dict[str, Any] = {"model": nn.Conv2d(3, 4, 3), "shape": (1, 3, 8, 8), **changes}
    with pytest.raises(kind, match=message):
        export(path=tmp_path / "model.onnx", **given)
    assert not os.listdir(tmp_path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'oxidet\[onnx\]'"):
        export(nn.ReLU(), tmp_path / "model.onnx", (1, 3))
    with pytest.raises(ImportError, match=r"pip install 'oxidet\[onnx\]'"):
        load(tmp_path / "model.onnx")


# --- the networks

#: The canonical sizes, where a network does not take a smaller one.
SHAPES = {
    "lenet": (1, 28, 28),
    "lenet5": (1, 32, 32),
    "alexnet": (3, 224, 224),
    "alexnet_2012": (3, 227, 227),
    "zfnet": (3, 224, 224),
    "zfnet_wide": (3, 224, 224),
    "nin": (3, 224, 224),
    "nin_cifar10": (3, 32, 32),
    "inception_v3": (3, 107, 107),
    "inception_v4": (3, 107, 107),
    "inception_resnet_v1": (3, 107, 107),
    "inception_resnet_v2": (3, 107, 107),
}
SMALL = (3, 64, 64)
QUICK = {"lenet", "lenet5", "nin_cifar10", "resnet20_cifar10", "googlenet"}
QUICK |= {"densenet121", "inception_v2"}


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in list_models()
    ],
)
def test_networks(name: str, tmp_path: Path) -> None:
    path, shape = tmp_path / "model.onnx", SHAPES.get(name, SMALL)
    if name.startswith("vgg"):
        shape = (3, 224, 224)  # their pooling to 7 x 7
    model = get_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = RNG.normal(0, 0.1, module.num_features)
            module.running_var = RNG.uniform(0.5, 2, module.num_features)
    model.eval()
    export(model, path, (1, *shape))
    onnx.checker.check_model(str(path), full_check=path.stat().st_size < 2**27)
    x = RNG.standard_normal((2, *shape)).astype(np.float32)
    (expected,) = run_onnxruntime(path, x)
    assert_close(model(x), expected, 1e-4)
    again = load(path)
    assert again.not_compiled is None
    assert_close(again(x), expected, 1e-4)
    result = model.load_state_dict(again.state_dict(), strict=False)
    assert not result.unexpected_keys
