"""Optimisers, schedules and gradient clipping against torch, step by step."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn, optim, weights
from oxidet.nn.utils import clip_grad_norm_, clip_grad_value_
from oxidet.optim import lr_scheduler as ours

torch = pytest.importorskip("torch")
theirs = torch.optim.lr_scheduler

SHAPES = [(8, 4, 3, 3), (16, 32), (16,), ()]
SETTINGS = [
    {"lr": 0.1, "momentum": m, "dampening": d, "weight_decay": w, "nesterov": n, "maximize": x}
    for m, d, w, n, x in itertools.product(
        (0, 0.9), (0, 0.5), (0, 5e-4), (False, True), (False, True)
    )
    if not (n and (m == 0 or d != 0))
]


def pair(seed: int = 0) -> tuple[list[nn.Parameter], list[Any]]:
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    return (
        [nn.Parameter(a) for a in arrays],
        [torch.nn.Parameter(torch.tensor(a)) for a in arrays],
    )


def set_gradients(mine: list[nn.Parameter], reference: list[Any], step: int) -> None:
    """A gradient that depends on the value, as of a loss |p|^4 plus noise; one is missing once."""
    rng = np.random.default_rng(step)
    for index, (parameter, other) in enumerate(zip(mine, reference, strict=True)):
        noise = rng.standard_normal(parameter.shape).astype(np.float32)
        skip = step == 3 and index == 1
        parameter.grad = None if skip else 0.1 * parameter.data + noise
        other.grad = None if skip else 0.1 * other.detach() + torch.tensor(noise)


def assert_same(mine: list[nn.Parameter], reference: list[Any], what: str) -> None:
    """Relative to the largest of all: a single number that happens to cross zero is no scale."""
    got = [parameter.data.reshape(-1) for parameter in mine]
    want = [other.detach().numpy().reshape(-1) for other in reference]
    assert_close(np.concatenate(got), np.concatenate(want), 1e-6, what)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_twenty_steps(settings: dict[str, Any]) -> None:
    mine, reference = pair()
    optimizer, other = optim.SGD(mine, **settings), torch.optim.SGD(reference, **settings)
    for step in range(20):
        set_gradients(mine, reference, step)
        optimizer.step()
        other.step()
        assert_same(mine, reference, f"step {step}")


ADAM = [
    {"lr": 0.03, "betas": b, "eps": e, "weight_decay": w, "amsgrad": a, "maximize": x}
    for b, e, w, a, x in itertools.product(
        ((0.9, 0.999), (0.5, 0.6)), (1e-8, 0.1), (0, 0.05), (False, True), (False, True)
    )
]
RMSPROP = [
    {"lr": 0.03, "alpha": d, "eps": e, "weight_decay": w, "momentum": m, "centered": c}
    for d, e, w, m, c in itertools.product(
        (0.99, 0.5), (1e-8, 1.0), (0, 0.05), (0, 0.9), (False, True)
    )
]
ADAPTIVE = [
    *(("Adam", settings) for settings in ADAM),
    *(("AdamW", settings) for settings in ADAM),
    *(("RMSprop", settings) for settings in RMSPROP),
    ("RMSprop", {"maximize": True}),
    *((name, {}) for name in ("Adam", "AdamW", "RMSprop")),
]


@pytest.mark.parametrize(("name", "settings"), ADAPTIVE, ids=str)
def test_twenty_adaptive_steps(name: str, settings: dict[str, Any]) -> None:
    mine, reference = pair()
    optimizer = getattr(optim, name)(mine, **settings)
    other = getattr(torch.optim, name)(reference, **settings)
    for step in range(20):
        set_gradients(mine, reference, step)
        optimizer.step()
        other.step()
        assert_same(mine, reference, f"step {step}")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_of_tensorflow(momentum: float, centered: bool) -> None:
    """timm has TensorFlow's form too, but starts from a mean square of 1 as TensorFlow 1 did."""
    timm = pytest.importorskip("timm.optim")
    mine, reference = pair()
    settings = {"lr": 0.03, "alpha": 0.9, "eps": 1.0, "momentum": momentum, "centered": centered}
    optimizer = optim.RMSprop(mine, eps_inside=True, **settings)  # type: ignore[arg-type]
    other = timm.RMSpropTF(reference, lr_in_momentum=True, **settings)
    for step in range(20):
        if step == 10:
            optimizer.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.01
        set_gradients(mine, reference, 20 + step)
        if step == 0:  # let both start alike
            for parameter in mine:
                state = optimizer._state(parameter, "square_avg")
                state["square_avg"] = np.ones_like(parameter.data)
        optimizer.step()
        other.step()
        assert_same(mine, reference, f"step {step}")


def test_groups_of_simple_faster_rcnn() -> None:
    """Biases at twice the rate without decay; every rate cut to a tenth on the way."""
    mine, reference = pair()

    def groups(params: list[Any]) -> list[dict[str, Any]]:
        return [
            {"params": [p], "lr": 2e-3, "weight_decay": 0}
            if len(p.shape) < 2
            else {"params": [p], "lr": 1e-3, "weight_decay": 5e-4}
            for p in params
        ]

    optimizer = optim.SGD(groups(mine), momentum=0.9)
    other = torch.optim.SGD(groups(reference), momentum=0.9)
    for step in range(20):
        if step == 10:
            for group in (*optimizer.param_groups, *other.param_groups):
                group["lr"] *= 0.1
        set_gradients(mine, reference, step)
        optimizer.step()
        other.step()
        assert_same(mine, reference, f"step {step}")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"momentum": 0.9, "weight_decay": 5e-4}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {"betas": (0.8, 0.9)}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
    ],
)
def test_continues_a_state_of_torch(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    mine, reference = pair()
    other = getattr(torch.optim, name)(reference, lr=0.1, **settings)
    for step in range(5):
        set_gradients(mine, reference, step)
        other.step()
    torch.save({"optimizer": other.state_dict()}, tmp_path / "c.pth")
    optimizer = getattr(optim, name)(mine, lr=1.0)
    optimizer.load_state_dict(weights.load_checkpoint(tmp_path / "c.pth")["optimizer"])
    for parameter, value in zip(mine, reference, strict=True):
        parameter.copy_(value.detach().numpy())
    for step in range(5, 10):
        set_gradients(mine, reference, step)
        optimizer.step()
        other.step()
    assert_same(mine, reference, "ten steps")


SCHEDULES = {
    "step": lambda m, o: m.StepLR(o, 5),
    "step gamma": lambda m, o: m.StepLR(o, 3, 0.7),
    "multistep": lambda m, o: m.MultiStepLR(o, [4, 9, 9, 20], 0.3),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 17, 0.001),
    "cosine, several periods": lambda m, o: m.CosineAnnealingLR(o, 6, 0.05),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.9),
    "polynomial": lambda m, o: m.PolynomialLR(o, 17),
    "polynomial, squared": lambda m, o: m.PolynomialLR(o, 40, 2.0),
    "linear": lambda m, o: m.LinearLR(o, total_iters=7),
    "linear down": lambda m, o: m.LinearLR(o, 1.0, 0.1, 12),
    "warm-up, then steps": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.01, total_iters=6), m.MultiStepLR(o, [5, 11])], [6]
    ),
    "warm-up, then cosine": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=4), m.CosineAnnealingLR(o, 26)], [4]
    ),
    "a function": lambda m, o: m.LambdaLR(o, lambda step: 0.9**step / (1 + step)),
    "one cycle": lambda m, o: m.OneCycleLR(o, 0.3, 30, cycle_momentum=False),
    "one cycle, two rates, linear": lambda m, o: m.OneCycleLR(
        o,
        [0.1, 0.4],
        None,
        4,
        10,
        0.55,
        "linear",
        cycle_momentum=False,
        div_factor=10,
        final_div_factor=50,
    ),
    "three in a row": lambda m, o: m.SequentialLR(
        o, [m.StepLR(o, 2), m.CosineAnnealingLR(o, 5), m.LinearLR(o, 0.5)], [5, 12]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_schedules(name: str) -> None:
    mine, reference = pair()
    optimizer = optim.SGD([{"params": mine[:2]}, {"params": mine[2:], "lr": 0.2}], lr=0.1)
    other = torch.optim.SGD([{"params": reference[:2]}, {"params": reference[2:], "lr": 0.2}], 0.1)
    schedule, expected = SCHEDULES[name](ours, optimizer), SCHEDULES[name](theirs, other)
    for step in range(30):
        got = [group["lr"] for group in optimizer.param_groups]
        want = [group["lr"] for group in other.param_groups]
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12, err_msg=f"step {step}")
        other.step()
        schedule.step()
        expected.step()


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_cycle_moves_the_momentum(kind: str) -> None:
    mine, reference = pair()
    settings = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(optim, kind)(mine, lr=0.1, **settings)
    other = getattr(torch.optim, kind)(reference, lr=0.1, **settings)
    options = {"total_steps": 23, "pct_start": 0.4, "base_momentum": 0.8, "max_momentum": 0.97}
    schedule = ours.OneCycleLR(optimizer, 0.1, **options)
    expected = theirs.OneCycleLR(other, 0.1, **options)
    for step in range(23):
        [got], [want] = optimizer.param_groups, other.param_groups
        for name in ("lr", "momentum" if kind == "SGD" else "betas"):
            np.testing.assert_allclose(got[name], want[name], rtol=1e-9, err_msg=f"step {step}")
        other.step()
        if step < 22:
            schedule.step()
            expected.step()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mode": "max", "patience": 0},
        {"factor": 0.5, "patience": 2, "threshold": 0.3, "cooldown": 3},
        {"patience": 1, "threshold": 0.2, "threshold_mode": "abs", "min_lr": 0.03},
        {"mode": "max", "patience": 1, "threshold_mode": "abs", "threshold": 0.5, "eps": 0.02},
    ],
    ids=str,
)
def test_plateau(settings: dict[str, Any]) -> None:
    mine, reference = pair()
    optimizer = optim.SGD([{"params": mine[:2]}, {"params": mine[2:], "lr": 0.2}], lr=0.1)
    other = torch.optim.SGD([{"params": reference[:2]}, {"params": reference[2:], "lr": 0.2}], 0.1)
    schedule = ours.ReduceLROnPlateau(optimizer, **settings)
    expected = theirs.ReduceLROnPlateau(other, **settings)
    rng = np.random.default_rng(0)
    for step, value in enumerate(rng.normal(size=60).cumsum()):
        schedule.step(float(value))
        expected.step(float(value))
        got = [group["lr"] for group in optimizer.param_groups]
        want = [group["lr"] for group in other.param_groups]
        np.testing.assert_allclose(got, want, rtol=1e-12, err_msg=f"step {step}")


def test_clip_grad_value() -> None:
    mine, reference = pair()
    set_gradients(mine, reference, 3)  # one gradient is missing
    clip_grad_value_(mine, 0.5)
    torch.nn.utils.clip_grad_value_(reference, 0.5)
    for parameter, other in zip(mine, reference, strict=True):
        if other.grad is None:
            assert parameter.grad is None
        else:
            np.testing.assert_array_equal(parameter.grad, other.grad.numpy())


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e6])
def test_clip_grad_norm(norm_type: float, max_norm: float) -> None:
    mine, reference = pair()
    set_gradients(mine, reference, 3)  # one gradient is missing
    got = clip_grad_norm_(mine, max_norm, norm_type)
    want = torch.nn.utils.clip_grad_norm_(reference, max_norm, norm_type)
    assert got == pytest.approx(float(want), rel=1e-5)
    for parameter, other in zip(mine, reference, strict=True):
        if other.grad is None:
            assert parameter.grad is None
        else:
            assert_close(parameter.grad, other.grad.numpy(), 1e-5)


def test_clip_grad_norm_of_nothing_and_of_nan() -> None:
    mine, reference = pair()
    assert clip_grad_norm_(mine, 1.0) == float(torch.nn.utils.clip_grad_norm_(reference, 1.0)) == 0
    set_gradients(mine, reference, 0)
    mine[2].grad = np.full(16, np.nan, np.float32)
    with pytest.raises(ValueError, match="finite norm of their gradients, got nan"):
        clip_grad_norm_(mine, 1.0, error_if_nonfinite=True)
    assert np.isfinite(mine[0].grad).all()
    assert np.isnan(clip_grad_norm_(mine[0:3], 1.0))
    assert np.isnan(mine[0].grad).all()  # as torch: nothing of such a step survives
    with pytest.raises(ValueError, match="max_norm: expected a number of at least 0, got -1"):
        clip_grad_norm_(mine, -1)
