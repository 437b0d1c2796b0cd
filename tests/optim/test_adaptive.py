"""Adam, AdamW and RMSprop: formulas, groups, and states that continue to the same bits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optim.gradients import parameters, run, set_gradients
from oxidet import nn, optim
from oxidet.nn.utils import clip_filter_rms_, clip_grad_value_
from oxidet.train import load_checkpoint, save_checkpoint

CASES: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1, "betas": (0.5, 0.7), "maximize": True}),
    ("AdamW", {"weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "eps": 1.0, "eps_inside": True, "maximize": True}),
]


def test_golden_values() -> None:
    """p = 1, constant gradient 2, lr 0.1."""
    for name, settings, expected in [
        ("Adam", {}, [0.9, 0.8]),
        ("Adam", {"weight_decay": 0.5}, [0.9, 0.800058]),
        ("AdamW", {"weight_decay": 0.5}, [0.85, 0.7075]),
        ("RMSprop", {"alpha": 0.75}, [0.8, 0.648814]),
        ("RMSprop", {"alpha": 0.75, "eps": 3, "eps_inside": True}, [0.9, 0.808234]),
        ("RMSprop", {"alpha": 0.75, "eps": 3, "eps_inside": True, "momentum": 0.5},
         [0.9, 0.758234]),
    ]:  # fmt: skip
        parameter = nn.Parameter([1.0])
        optimizer = getattr(optim, name)([parameter], lr=0.1, **settings)
        got = []
        for _ in range(2):
            parameter.grad = [2.0]
            optimizer.step()
            got.append(float(parameter.data[0]))
        assert got == pytest.approx(expected, abs=2e-6), (name, settings)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam_in_float64(name: str) -> None:
    params = parameters()
    expected = [p.data.astype(np.float64) for p in params]
    first, second = ([np.zeros_like(e) for e in expected] for _ in range(2))
    optimizer = getattr(optim, name)(params, lr=0.05, weight_decay=0.1)
    for step in range(1, 9):
        set_gradients(params, step)
        for i, parameter in enumerate(params):
            g = parameter.grad.astype(np.float64)
            if name == "Adam":
                g = g + 0.1 * expected[i]
            else:
                expected[i] = expected[i] * (1 - 0.05 * 0.1)
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g * g
            mean, square = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
            expected[i] = expected[i] - 0.05 * mean / (np.sqrt(square) + 1e-8)
        optimizer.step()
    for parameter, value in zip(params, expected, strict=True):
        np.testing.assert_allclose(parameter.data, value, rtol=0, atol=3e-6)


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_resumes_to_the_same_bits_from_a_checkpoint(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    params = parameters()
    optimizer = getattr(optim, name)(params, lr=0.05, **settings)
    run(params, optimizer, range(5))
    save_checkpoint(tmp_path / "c.npz", {"optimizer": optimizer.state_dict()})
    values = [p.data.copy() for p in params]
    run(params, optimizer, range(5, 10))

    others = parameters(seed=9)
    for parameter, value in zip(others, values, strict=True):
        parameter.copy_(value)
    resumed = getattr(optim, name)(others, lr=7.0)
    resumed.load_state_dict(load_checkpoint(tmp_path / "c.npz")["optimizer"])
    assert resumed.param_groups[0] == {**optimizer.param_groups[0], "params": others}
    run(others, resumed, range(5, 10))
    for parameter, other in zip(params, others, strict=True):
        assert parameter.data.tobytes() == other.data.tobytes()
        assert parameter.data.strides == other.data.strides
    for mine, theirs in zip(optimizer.state.values(), resumed.state.values(), strict=True):
        assert mine.keys() == theirs.keys()
        assert mine["step"] == theirs["step"] == 10


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_parameters_without_a_gradient_are_left_alone(name: str, settings: dict[str, Any]) -> None:
    params = parameters()
    before = params[1].data.copy()
    optimizer = getattr(optim, name)(
        [{"params": params[:2]}, {"params": params[2:], "lr": 0.0}], lr=0.1, **settings
    )
    last = params[2].data.copy()
    set_gradients(params, 0)
    params[1].grad = None
    optimizer.step()
    np.testing.assert_array_equal(params[1].data, before)
    np.testing.assert_array_equal(params[2].data, last)
    assert params[1] not in optimizer.state
    assert [p.version for p in params] == [1, 0, 1]
    optimizer.param_groups[0]["lr"] = np.float64(0.01)  # as a caller's own arithmetic leaves it
    optimizer.step()
    assert params[0].data.dtype == np.float32


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop"])
def test_trains(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3)).astype(np.float32)
    target = x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + 0.25
    layer = nn.Linear(3, 1)
    optimizer = getattr(optim, name)(layer.parameters(), lr=0.05)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        difference = layer(nn.Tensor(x)) - target
        (difference * difference).mean().backward()
        optimizer.step()
    np.testing.assert_allclose(layer.weight.data, [[1.0, -2.0, 0.5]], atol=0.01)
    assert f"{name} (" in repr(optimizer)


def test_refusals() -> None:
    (p, *_) = parameters()
    for name, settings, error, message in [
        ("Adam", {"lr": -1}, ValueError, "lr: expected a number of at least 0, got -1"),
        ("Adam", {"betas": (0.9, 1.0)}, ValueError, "betas: expected numbers from 0 to below 1"),
        ("Adam", {"betas": (-0.1, 0.9)}, ValueError, "betas"),
        ("Adam", {"betas": 0.9}, TypeError, "betas: expected a pair of numbers, got 0.9"),
        ("AdamW", {"eps": -1}, ValueError, "eps"),
        ("AdamW", {"weight_decay": float("nan")}, ValueError, "weight_decay"),
        ("RMSprop", {"alpha": -1}, ValueError, "alpha"),
        ("RMSprop", {"alpha": 1.1}, ValueError, "alpha: expected a number from 0 to 1, got 1.1"),
        ("RMSprop", {"momentum": -1}, ValueError, "momentum"),
    ]:
        with pytest.raises(error, match=message):
            getattr(optim, name)([p], **settings)
    optimizer = optim.Adam([p])
    set_gradients([p], 0)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["exp_avg"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"\['exp_avg'\]: expected shape \(4, 2, 3, 3\), got"):
        optimizer.load_state_dict(state)


def test_clip_grad_value() -> None:
    weight, other = nn.Parameter([0.0] * 4), nn.Parameter([0.0])
    weight.grad = [-3.0, 0.2, np.inf, np.nan]
    clip_grad_value_([weight, other], 0.5)
    np.testing.assert_array_equal(weight.grad, np.array([-0.5, 0.2, 0.5, np.nan], np.float32))
    assert other.grad is None
    with pytest.raises(ValueError, match="clip_value: expected a number of at least 0, got -1"):
        clip_grad_value_(weight, -1)


def test_clip_filter_rms() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5, groups=1), nn.Linear(4, 4), nn.Conv2d(4, 2, 1))
    for scale in (10.0, 1e-4):
        net[0].weight.copy_(scale * np.random.default_rng(0).standard_normal((4, 3, 5, 5)))
        before = [np.array(p.data) for p in net.parameters()]
        versions = [p.version for p in net.parameters()]
        net[2].weight.copy_(np.full((2, 4, 1, 1), 0.09))
        assert clip_filter_rms_(net, 0.1) == (4 if scale > 1 else 0)
        rms = np.sqrt(np.square(net[0].weight.data).mean(axis=(1, 2, 3)))
        if scale > 1:
            np.testing.assert_allclose(rms, 0.1, rtol=1e-6)
            ratio = (net[0].weight.data / before[0]).reshape(4, -1)
            np.testing.assert_allclose(ratio, np.tile(ratio[:, :1], 75), rtol=1e-5)
        else:
            np.testing.assert_array_equal(net[0].weight.data, before[0])
            assert net[0].weight.version == versions[0]
        np.testing.assert_array_equal(net[1].weight.data, before[2])


@pytest.mark.parametrize(("given", "own"), [("SGD", "Adam"), ("Adam", "RMSprop"), ("Adam", "SGD")])
def test_the_state_of_another_optimiser_is_refused(given: str, own: str) -> None:
    weights = [nn.Parameter(np.ones(2, np.float32))]
    state = getattr(optim, given)(weights, lr=0.1).state_dict()
    optimizer = getattr(optim, own)(weights, lr=0.2)
    with pytest.raises(ValueError, match=f"^state_dict: expected the settings of {own}, got those"):
        optimizer.load_state_dict(state)
    with pytest.raises(TypeError, match=r"^state_dict: expected .*, got NoneType$"):
        optimizer.load_state_dict(None)
    assert optimizer.param_groups[0]["lr"] == 0.2
