"""Layers against torch: outputs and all gradients, over tables of sizes and options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn
from oxidet.nn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional


def compare(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    *arrays: np.ndarray,
    tolerance: float = 1e-5,
) -> None:
    """Same arrays through both: the outputs, then every gradient under a random weighting."""
    tensors = [nn.Tensor(a, requires_grad=True) for a in arrays]
    references = [torch.tensor(a, requires_grad=True) for a in arrays]
    got, expected = ours(*tensors), theirs(*references)
    assert_close(got, expected.detach(), tolerance, "output")
    with nn.no_grad():
        plain = np.asarray(ours(*arrays))
    np.testing.assert_array_equal(plain, got.data, "arrays and tensors give the same")
    grad = np.random.default_rng(9).standard_normal(tuple(expected.shape)).astype(np.float32)
    got.backward(grad)
    expected.backward(torch.tensor(grad))
    for index, (a, b) in enumerate(zip(tensors, references, strict=True)):
        assert_close(a.grad, b.grad, tolerance, f"gradient of input {index}")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ids(case: Any) -> str:
    return str(case)


SHAPES = [(1, 1, 1, 1), (2, 3, 8, 9), (1, 17, 13, 7), (3, 64, 14, 14), (0, 3, 8, 8), (2, 1, 5, 30)]

SLIDING = [
    {"kernel_size": 1},
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": (1, 3), "stride": (3, 1), "padding": (0, 1)},
    {"kernel_size": (5, 2), "stride": (2, 4), "padding": (2, 1), "ceil_mode": True},
]
DILATED = [
    {"kernel_size": 3, "dilation": 2},
    {"kernel_size": 3, "dilation": 2, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": (2, 3), "dilation": (3, 1), "padding": (1, 1)},
]
COUNTED = [
    {},
    {"count_include_pad": False},
    {"divisor_override": 3},
    {"divisor_override": -2, "count_include_pad": False},
]


def fits(call: Callable[[], Any]) -> bool:
    """Whether torch accepts the case; what it refuses, we must refuse."""
    try:
        call()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("options", SLIDING + DILATED, ids=ids)
@pytest.mark.parametrize("shape", SHAPES, ids=ids)
def test_max_pool2d(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    x = random(*shape)
    if not fits(lambda: TF.max_pool2d(torch.tensor(x), **options)):
        with pytest.raises(ValueError, match="expected"):
            F.max_pool2d(x, **options)
        return
    compare(lambda x: F.max_pool2d(x, **options), lambda x: TF.max_pool2d(x, **options), x)
    _, indices = F.max_pool2d(x, **options, return_indices=True)
    _, expected = TF.max_pool2d(torch.tensor(x), **options, return_indices=True)
    np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("counted", COUNTED, ids=ids)
@pytest.mark.parametrize("options", SLIDING, ids=ids)
@pytest.mark.parametrize("shape", SHAPES, ids=ids)
def test_avg_pool2d(
    shape: tuple[int, ...], options: dict[str, Any], counted: dict[str, Any]
) -> None:
    x, options = random(*shape), options | counted
    if not fits(lambda: TF.avg_pool2d(torch.tensor(x), **options)):
        with pytest.raises(ValueError, match="expected"):
            F.avg_pool2d(x, **options)
        return
    compare(lambda x: F.avg_pool2d(x, **options), lambda x: TF.avg_pool2d(x, **options), x)


@pytest.mark.parametrize("size", [1, 2, 7, (6, 6), (1, 3), (None, 2), (20, None)], ids=ids)
@pytest.mark.parametrize("shape", SHAPES, ids=ids)
@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_adaptive_pooling(name: str, shape: tuple[int, ...], size: Any) -> None:
    ours, theirs = getattr(F, name), getattr(TF, name)
    compare(lambda x: ours(x, size), lambda x: theirs(x, size), random(*shape))


def test_max_pooling_of_ties_infinities_and_nan() -> None:
    """The place that receives the gradient is torch's, also where values do not decide."""
    rng = np.random.default_rng(0)
    values = np.array([0, 1, np.inf, -np.inf, np.nan], np.float32)
    for _ in range(20):
        x = rng.choice(values, (2, 3, 6, 7)).astype(np.float32)
        ours = F.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)
        theirs = TF.max_pool2d(torch.tensor(x), 3, 2, 1, ceil_mode=True, return_indices=True)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    "shape",
    [(2, 3, 8, 9), (1, 17, 5, 3), (3, 1, 1, 1), (3, 64, 30, 29), (6, 5), (4, 3, 7)],
    ids=ids,
)
def test_batch_norm(shape: tuple[int, ...], affine: bool, training: bool) -> None:
    channels = shape[1]
    start = random(channels, seed=5), np.abs(random(channels, seed=6)) + 0.1
    ours, theirs = [a.copy() for a in start], [torch.tensor(a) for a in start]
    arrays = [3 * random(*shape) + 1]
    if affine:
        arrays += [random(channels, seed=1), random(channels, seed=2)]

    # `compare` runs ours twice; the second run must see the same statistics.
    def run(x: Any, *affine: Any) -> Any:
        ours[:] = [a.copy() for a in start]
        return F.batch_norm(x, *ours, *affine, training=training, momentum=0.3, eps=1e-3)

    compare(
        run,
        lambda x, *wb: TF.batch_norm(x, *theirs, *wb, training=training, momentum=0.3, eps=1e-3),
        *arrays,
        tolerance=2e-5,
    )
    assert_close(ours[0], theirs[0], 1e-6, "running mean")
    assert_close(ours[1], theirs[1], 1e-6, "running variance")


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False, "eps": 0.1}], ids=ids
)
def test_batch_norm_module_over_several_steps(options: dict[str, Any]) -> None:
    ours, theirs = nn.BatchNorm2d(3, **options), torch.nn.BatchNorm2d(3, **options)
    for step in range(3):
        x = random(4, 3, 5, 6, seed=step) * (step + 1) + step
        assert_close(ours(x), theirs(torch.tensor(x)).detach(), 1e-5, f"step {step}")
    for key, value in theirs.state_dict().items():
        assert_close(ours.state_dict()[key], value, 1e-6, key)
    x = random(1, 3, 4, 4, seed=7)
    assert_close(ours.eval()(x), theirs.eval()(torch.tensor(x)).detach(), 1e-5)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})


ACTIVATIONS = ["relu", "tanh", "sigmoid"]


@pytest.mark.parametrize("shape", [(1,), (), (0, 4), (5, 7), (2, 17, 9, 5), (70_000,)], ids=ids)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, shape: tuple[int, ...]) -> None:
    compare(getattr(F, name), getattr(torch, name), 3 * random(*shape))


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (0, 4), (128, 21), (2, 17, 9, 5)], ids=ids)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name: str, shape: tuple[int, ...], dim: int) -> None:
    ours, theirs = getattr(F, name), getattr(TF, name)
    compare(lambda x: ours(x, dim), lambda x: theirs(x, dim), 5 * random(*shape))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(1, 2), (256, 2), (128, 21), (3, 5, 4, 6), (2, 3, 7)], ids=ids)
def test_cross_entropy(
    shape: tuple[int, ...], smoothing: float, weighted: bool, reduction: str
) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    target[rng.random(target.shape) < 0.3] = -1
    target.flat[0] = 0
    weight = rng.uniform(0.1, 2, shape[1]).astype(np.float32) if weighted else None
    options = {"ignore_index": -1, "reduction": reduction, "label_smoothing": smoothing}
    compare(
        lambda x: F.cross_entropy(x, target, weight, **options),
        lambda x: TF.cross_entropy(
            x, torch.tensor(target), None if weight is None else torch.tensor(weight), **options
        ),
        5 * random(*shape),
    )
    del options["label_smoothing"]
    compare(
        lambda x: F.nll_loss(x, target, weight, **options),
        lambda x: TF.nll_loss(
            x, torch.tensor(target), None if weight is None else torch.tensor(weight), **options
        ),
        random(*shape),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(1,), (128, 84), (2, 3, 4, 5), (0, 4)], ids=ids)
def test_regression_losses(shape: tuple[int, ...], reduction: str) -> None:
    if 0 in shape and reduction == "mean":
        assert np.isnan(F.smooth_l1_loss(random(*shape), random(*shape)))
        return
    x, t = random(*shape), random(*shape, seed=1)
    for beta in (0.0, 1 / 9, 1.0, 2.5):
        options = {"reduction": reduction, "beta": beta}
        compare(
            lambda x, t, options=options: F.smooth_l1_loss(x, t, **options),
            lambda x, t, options=options: TF.smooth_l1_loss(x, t, **options),
            x,
            t,
        )
    compare(
        lambda x, t: F.mse_loss(x, t, reduction=reduction),
        lambda x, t: TF.mse_loss(x, t, reduction=reduction),
        x,
        t,
    )


def test_losses_of_nothing_are_torchs() -> None:
    for labels, classes in (([], 3), ([-100, -100], 3)):
        x, target = random(len(labels), classes), np.array(labels, np.int64)
        for reduction in ("mean", "sum", "none"):
            ours, theirs = nn.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            loss = F.cross_entropy(ours, target, reduction=reduction)
            expected = TF.cross_entropy(theirs, torch.tensor(target), reduction=reduction)
            np.testing.assert_array_equal(loss, expected.detach())
            loss.sum().backward()
            expected.sum().backward()
            np.testing.assert_array_equal(ours.grad, theirs.grad)


def test_fused_layers_equal_torchs() -> None:
    conv, bn = nn.Conv2d(3, 8, 3, padding=1).eval(), nn.BatchNorm2d(8).eval()
    bn.running_mean, bn.running_var = random(8), np.abs(random(8, seed=1)) + 0.1
    bn.weight, bn.bias = random(8, seed=2), random(8, seed=3)
    reference = [torch.nn.Conv2d(3, 8, 3, padding=1).eval(), torch.nn.BatchNorm2d(8).eval()]
    for theirs, ours in zip(reference, (conv, bn), strict=True):
        theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    expected = torch.nn.utils.fuse_conv_bn_eval(*reference).state_dict()
    for key, value in nn.utils.fuse_conv_bn_eval(conv, bn).state_dict().items():
        assert_close(value, expected[key], 1e-6, key)


def test_what_residual_and_inception_networks_do_between_layers() -> None:
    """Scaled residuals, parameter-free shortcuts, slices of channels, affine maps of buffers."""
    x, y = random(2, 3, 7, 8), random(2, 3, 7, 8, seed=1)
    compare(lambda x, y: F.relu(x + 0.17 * y), lambda x, y: TF.relu(x + 0.17 * y), x, y)
    compare(
        lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)),
        lambda x: TF.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2)),
        x,
    )
    factor, summand = random(1, 3, 1, 1, seed=2), random(1, 3, 1, 1, seed=3)
    tensor, reference = nn.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got = tensor * nn.Buffer(factor) + nn.Buffer(summand)
    expected = reference * torch.tensor(factor) + torch.tensor(summand)
    assert_close(got, expected.detach())
    (got * got).sum().backward()
    (expected * expected).sum().backward()
    assert_close(tensor.grad, reference.grad)
    channels = [(0, 0.458, -0.03), (1, 0.448, -0.088), (2, 0.45, -0.188)]
    compare(
        lambda x: F.cat([x[:, c : c + 1] * f + o for c, f, o in channels], 1),
        lambda x: torch.cat([x[:, c : c + 1] * f + o for c, f, o in channels], 1),
        x,
    )


@pytest.mark.parametrize("size", [1, 2, 4, 5, 200])
@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.5, "beta": 0.6, "k": 2.0}, {"alpha": 1.0, "k": 0.5}], ids=ids
)
@pytest.mark.parametrize("shape", [(2, 7, 5, 6), (1, 96, 3, 3), (3, 1, 2, 2), (2, 5, 4)], ids=ids)
def test_local_response_norm(shape: tuple[int, ...], options: dict[str, Any], size: int) -> None:
    compare(
        lambda x: F.local_response_norm(x, size, **options),
        lambda x: TF.local_response_norm(x, size, **options),
        3 * random(*shape),
    )


PADS = [
    ((1, 2), "constant"),
    ((1, 0, 2, 3), "constant"),
    ((0, 1, 0, 1, 2, 3), "constant"),
    ((1,) * 8, "constant"),
    ((1, 2, 3, 4), "reflect"),
    ((5, 1, 2, 9), "replicate"),
    ((8, 1, 2, 7), "circular"),
]


@pytest.mark.parametrize("case", PADS, ids=ids)
def test_pad(case: tuple[tuple[int, ...], str]) -> None:
    pad, mode = case
    options = {"value": -0.5} if mode == "constant" else {}
    x = random(2, 3, 7, 8)
    compare(lambda x: F.pad(x, pad, mode, **options), lambda x: TF.pad(x, pad, mode, **options), x)


RESIZED: list[dict[str, Any]] = [
    {"size": (7, 3)},
    {"size": 11},
    {"size": 1},
    {"scale_factor": 2},
    {"scale_factor": 3.3},
    {"scale_factor": (0.3, 1.7)},
    {"scale_factor": 0.51, "recompute_scale_factor": True},
    {"scale_factor": 1.1},
    {"size": 5, "mode": "nearest-exact"},
    {"scale_factor": (1.9, 0.4), "mode": "nearest-exact"},
    {"size": (3, 2), "mode": "area"},
    {"scale_factor": 2, "mode": "area"},
]
BILINEAR: list[dict[str, Any]] = [
    {"size": (7, 3)},
    {"size": (1, 20)},
    {"scale_factor": 2},
    {"scale_factor": 3.3},
    {"scale_factor": (0.3, 1.7)},
    {"scale_factor": 1.1},
    {"scale_factor": 0.51, "recompute_scale_factor": True},
]
RESIZED += [
    {"mode": "bilinear", "align_corners": aligned} | case
    for case in BILINEAR
    for aligned in (None, False, True)
]


@pytest.mark.parametrize("options", RESIZED, ids=ids)
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (1, 17, 4, 5), (1, 1, 30, 13)], ids=ids)
def test_interpolate(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    x = random(*shape)
    ours, theirs = (
        lambda x, f=f: f.interpolate(x, **options)  # type: ignore[misc]
        for f in (F, TF)
    )
    compare(ours, theirs, x)


def test_nearest_pixels_are_torchs_at_every_size() -> None:
    """Where a place falls just between two pixels, a rounding decides."""
    for size in (1, 2, 3, 7, 10, 13, 56, 224):
        x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
        for out in range(1, 100):
            for mode in ("nearest", "nearest-exact"):
                expected = TF.interpolate(torch.tensor(x), (1, out), mode=mode)
                np.testing.assert_array_equal(F.interpolate(x, (1, out), mode=mode), expected)
        for factor in np.linspace(0.1, 4, 79):
            for mode in ("nearest", "nearest-exact") if size * factor >= 1 else ():
                scale = (1, float(factor))
                expected = TF.interpolate(torch.tensor(x), scale_factor=scale, mode=mode)
                got = F.interpolate(x, scale_factor=scale, mode=mode)
                np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [0, (2, 1), "same", "valid"], ids=ids)
def test_padding_modes_of_convolutions(mode: str, padding: Any) -> None:
    ours = nn.Conv2d(4, 6, (3, 2), padding=padding, groups=2, padding_mode=mode)
    theirs = torch.nn.Conv2d(4, 6, (3, 2), padding=padding, groups=2, padding_mode=mode)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    compare(ours, theirs, random(2, 4, 6, 7))
    assert repr(ours) == repr(theirs)


TEXTS = [
    lambda nn: nn.LocalResponseNorm(5),
    lambda nn: nn.LocalResponseNorm(5, alpha=5e-4, k=2),
    lambda nn: nn.LocalResponseNorm(2, 1, 0.5, 2.0),
    lambda nn: nn.Dropout2d(0.2, inplace=True),
    lambda nn: nn.ZeroPad2d(1),
    lambda nn: nn.ZeroPad2d((1, 2, 3, 4)),
    lambda nn: nn.Upsample(scale_factor=2),
    lambda nn: nn.Upsample(scale_factor=(2, 1.5), mode="bilinear", align_corners=True),
    lambda nn: nn.Upsample((4, 5), mode="nearest-exact"),
    lambda nn: nn.Upsample(7),
    lambda nn: nn.MaxPool2d(3, stride=2, padding=1),
    lambda nn: nn.MaxPool2d((2, 3), padding=(1, 1), return_indices=True, ceil_mode=True),
    lambda nn: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    lambda nn: nn.AvgPool2d((2, 3)),
    lambda nn: nn.AdaptiveAvgPool2d((1, 1)),
    lambda nn: nn.AdaptiveAvgPool2d(1),
    lambda nn: nn.AdaptiveMaxPool2d((None, 3)),
    lambda nn: nn.BatchNorm2d(64),
    lambda nn: nn.BatchNorm2d(8, eps=0.001, momentum=None, affine=False),
    lambda nn: nn.BatchNorm2d(8, bias=False, track_running_stats=False),
    lambda nn: nn.ReLU(),
    lambda nn: nn.ReLU(inplace=True),
    lambda nn: nn.Tanh(),
    lambda nn: nn.Sigmoid(),
    lambda nn: nn.Softmax(dim=1),
    lambda nn: nn.LogSoftmax(dim=-1),
    lambda nn: nn.Dropout(),
    lambda nn: nn.Dropout(0.2, inplace=True),
    lambda nn: nn.Flatten(),
    lambda nn: nn.Flatten(0, 2),
    lambda nn: nn.Identity(3, unused=4),
    lambda nn: nn.CrossEntropyLoss(),
    lambda nn: nn.NLLLoss(),
    lambda nn: nn.SmoothL1Loss(),
    lambda nn: nn.MSELoss(),
]


def test_texts_are_torchs() -> None:
    with nn.repr_style("torch2.13"):
        pairs = [(repr(make(nn)), repr(make(torch.nn))) for make in TEXTS]
    assert [a for a, _ in pairs] == [b for _, b in pairs]
