"""Import of what torch's two exporters write: logits within 1e-4 of torch's."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import models, nn

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
pytest.importorskip("onnx")

from oxidet.onnx import load  # noqa: E402


def network(name: str) -> Any:
    """torchvision's network with random weights and statistics."""
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(torchvision.models, name)(weights=None, num_classes=11, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    if hasattr(model, "transform_input"):
        model.transform_input = True
    return model.eval()


def export(model: Any, path: Path, shape: tuple[int, ...], opset: int, **options: Any) -> None:
    """torch's export, without its many words."""
    x = torch.zeros(2, *shape)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            torch.onnx.export(model, (x,), str(path), opset_version=opset, **options)
        finally:
            logging.disable(logging.NOTSET)


# Torchscript: with the batch open; for one size and batch; with nothing simplified and all sizes
# open. Dynamo: with the batch open, weights in a second file.
OPEN = {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
FIXED = {"dynamo": False}
RAW = {
    "dynamo": False,
    "input_names": ["x"],
    "dynamic_axes": {"x": {0: "batch", 2: "height", 3: "width"}},
    "do_constant_folding": False,
    "training": torch.onnx.TrainingMode.PRESERVE,
}


def dynamo() -> dict[str, Any]:
    return {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch", min=1)},)}


def check(name: str, options: dict[str, Any], opset: int, path: Path) -> Any:
    size = {"alexnet": 224, "vgg11_bn": 224, "inception_v3": 96}.get(name, 64)
    theirs = network(name)
    export(theirs, path, (3, size, size), opset, **options)
    ours = load(path)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = theirs(x).numpy()
    assert_close(ours(x.numpy()), expected, 1e-4)
    return ours


@pytest.mark.parametrize(
    ("name", "options", "opset"),
    [
        ("resnet18", FIXED, 9),
        ("resnet18", RAW, 16),
        ("googlenet", OPEN, 17),
        ("mobilenet_v2", OPEN, 11),
        ("squeezenet1_1", OPEN, 21),
    ],
)
def test_torchscript(name: str, options: dict[str, Any], opset: int, tmp_path: Path) -> None:
    assert check(name, options, opset, tmp_path / "model.onnx").not_compiled is None


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small"])
@pytest.mark.parametrize(("options", "opset"), [(OPEN, 17), (RAW, 14)])
def test_what_no_plan_can_do(
    name: str, options: dict[str, Any], opset: int, tmp_path: Path
) -> None:
    assert check(name, options, opset, tmp_path / "model.onnx").not_compiled is not None


class Small(torch.nn.Module):
    """A bit of everything, as the second exporter takes seconds for a network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, stride=2, padding="valid", bias=False)
        self.norm = torch.nn.BatchNorm2d(8)
        self.branch = torch.nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=4)
        self.average = torch.nn.AvgPool2d(3, 2, 1, ceil_mode=True)
        self.largest = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc = torch.nn.Linear(16 * 4 * 4, 10)
        self.head = torch.nn.Sequential(torch.nn.Linear(10, 5), torch.nn.Hardsigmoid())
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))

    def forward(self, x: Any) -> Any:
        x = torch.cat([x[:, 2:], x[:, :2]], 1) - self.mean
        x = torch.nn.functional.relu6(self.norm(self.conv(x)))
        x = x + torch.nn.functional.leaky_relu(self.branch(x), 0.1)
        x = torch.nn.functional.pad(x, (1, 0, 0, 1))
        x = torch.cat([self.average(x)[:, :, :4, :4], self.largest(x)[:, :, :4, :4]], 1)
        x = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        x = torch.nn.functional.interpolate(x, (4, 4), mode="bilinear", align_corners=False)
        logits = torch.tanh(self.fc(x.view(x.size(0), -1)))
        return logits.softmax(1), self.head(logits), x.mean((2, 3))


@pytest.mark.parametrize(
    ("by_dynamo", "opset"),
    [(False, 14), (False, 21), (True, 18), pytest.param(True, 21, marks=pytest.mark.slow)],
)
def test_a_bit_of_everything(by_dynamo: bool, opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = Small().eval()
    theirs.norm.running_mean.normal_(0, 0.1)
    theirs.norm.running_var.uniform_(0.5, 2)
    path = tmp_path / "model.onnx"
    export(theirs, path, (3, 17, 15), opset, **(dynamo() if by_dynamo else OPEN))
    ours = load(path)
    assert ours.not_compiled is None
    x = torch.randn(3, 3, 17, 15)
    with torch.no_grad():
        expected = theirs(x)
    for got, wanted in zip(ours(x.numpy()), expected, strict=True):
        assert_close(got, wanted.numpy(), 1e-5)


def test_names_are_those_of_the_network(tmp_path: Path) -> None:
    theirs = network("resnet18")
    export(theirs, tmp_path / "model.onnx", (3, 32, 32), 17, **RAW)
    twin = models.resnet18(num_classes=11)
    twin.load_state_dict(load(tmp_path / "model.onnx").state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad(), nn.evaluating(twin):
        assert_close(twin(x.numpy()), theirs(x).numpy(), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "vgg11_bn", "googlenet", "inception_v3", "resnet50", "resnext50_32x4d"),
        *("densenet121", "mobilenet_v2", "squeezenet1_1", "mnasnet0_5", "efficientnet_b0"),
    ],
)
@pytest.mark.parametrize("how", ["dynamo 18", "dynamo 20", "torchscript 9", "torchscript 21"])
def test_networks(name: str, how: str, tmp_path: Path) -> None:
    exporter, opset = how.split()
    options = dynamo() if exporter == "dynamo" else OPEN
    ours = check(name, options, int(opset), tmp_path / "model.onnx")
    assert (ours.not_compiled is None) == (name != "efficientnet_b0")


def test_training_as_torch(tmp_path: Path) -> None:
    """Gradients of one step of what was exported in training mode."""
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 36, 5),
    )
    path = tmp_path / "model.onnx"
    export(theirs.eval(), path, (3, 6, 6), 17, **RAW)
    ours = load(path).train()
    theirs.train()
    x, labels = torch.randn(8, 3, 6, 6), torch.arange(8) % 5
    torch.nn.functional.cross_entropy(theirs(x), labels).backward()
    nn.functional.cross_entropy(ours(x.numpy()), np.arange(8) % 5).backward()
    gradients = {key: parameter.grad for key, parameter in ours.named_parameters()}
    assert set(gradients) == {key for key, _ in theirs.named_parameters()}
    for key, parameter in theirs.named_parameters():
        assert_close(gradients[key], parameter.grad.numpy(), 1e-3, key)
    for key, buffer in theirs.named_buffers():
        if "num_batches" not in key:
            assert_close(ours.state_dict()[key], buffer.numpy(), 1e-5, key)
