"""SGD: the update, groups, and a state that continues to the same bits."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest

from optim.gradients import parameters, run, set_gradients
from oxidet import nn, optim


def test_golden_value() -> None:
    """p = 1, constant gradient 2, lr 0.1, momentum 0.9, weight decay 0.5."""
    parameter = nn.Parameter([1.0])
    optimizer = optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.5)
    got = []
    for _ in range(2):
        parameter.grad = [2.0]
        optimizer.step()
        got.append(float(parameter.data[0]))
    assert got == pytest.approx([0.75, 0.2875], abs=1e-7)


SETTINGS = [
    {"momentum": m, "dampening": d, "weight_decay": w, "nesterov": n, "maximize": x}
    for m, d, w, n, x in itertools.product(
        (0, 0.9), (0, 0.3), (0, 0.01), (False, True), (False, True)
    )
    if not (n and (m == 0 or d != 0))
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_against_the_formula_in_float64(settings: dict) -> None:
    params = parameters()
    expected = [p.data.astype(np.float64) for p in params]
    velocity: list = [None] * len(params)
    optimizer = optim.SGD(params, lr=0.05, **settings)
    for step in range(6):
        set_gradients(params, step)
        for i, parameter in enumerate(params):
            g = parameter.grad.astype(np.float64)
            g = (-g if settings["maximize"] else g) + settings["weight_decay"] * expected[i]
            if settings["momentum"]:
                v = velocity[i]
                v = g if v is None else settings["momentum"] * v + (1 - settings["dampening"]) * g
                velocity[i] = v
                g = g + settings["momentum"] * v if settings["nesterov"] else v
            expected[i] = expected[i] - 0.05 * g
        optimizer.step()
    for parameter, value in zip(params, expected, strict=True):
        np.testing.assert_allclose(parameter.data, value, rtol=0, atol=2e-6)


def test_a_step_raises_versions_and_keeps_the_memory_order() -> None:
    params = parameters()
    strides = [p.data.strides for p in params]
    versions = [p.version for p in params]
    optimizer = optim.SGD(params, lr=0.1, momentum=0.9)
    run(params, optimizer, range(2))
    assert [p.data.strides for p in params] == strides
    assert [p.version for p in params] == [v + 2 for v in versions]
    assert optimizer.state[params[0]]["momentum_buffer"].strides == strides[0]


def test_parameters_without_a_gradient_are_left_alone() -> None:
    params = parameters()
    before = params[1].data.copy()
    optimizer = optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1)
    set_gradients(params, 0)
    params[1].grad = None
    optimizer.step()
    np.testing.assert_array_equal(params[1].data, before)
    assert params[1].version == 0
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)
    versions = [p.version for p in params]
    optimizer.step()
    assert [p.version for p in params] == versions


def test_groups() -> None:
    a, b, c = parameters()
    groups = [{"params": [a], "weight_decay": 0.5}, {"params": b, "lr": 0.2, "name": "bias"}]
    optimizer = optim.SGD(groups, lr=0.1)
    optimizer.add_param_group({"params": [c], "lr": 0.0})
    before = [p.data.copy() for p in (a, b, c)]
    for parameter in (a, b, c):
        parameter.grad = np.ones(parameter.shape, np.float32)
    optimizer.step()
    np.testing.assert_allclose(a.data, before[0] - 0.1 * (1 + 0.5 * before[0]), atol=1e-6)
    np.testing.assert_allclose(b.data, before[1] - 0.2, atol=1e-6)
    np.testing.assert_array_equal(c.data, before[2])
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2, 0.0]
    assert optimizer.param_groups[1]["name"] == "bias"
    optimizer.param_groups[0]["lr"] = np.float64(0.01)  # as a caller's own arithmetic leaves it
    optimizer.step()
    assert a.data.dtype == np.float32


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_resumes_to_the_same_bits(settings: dict) -> None:
    params = parameters()
    optimizer = optim.SGD(params, lr=0.05, **settings)
    run(params, optimizer, range(5))
    saved = copy.deepcopy(optimizer.state_dict())
    values = [p.data.copy() for p in params]
    run(params, optimizer, range(5, 10))

    others = parameters(seed=9)
    for parameter, value in zip(others, values, strict=True):
        parameter.copy_(value)
    resumed = optim.SGD(others, lr=7.0)
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["lr"] == 0.05
    run(others, resumed, range(5, 10))
    for parameter, other in zip(params, others, strict=True):
        assert parameter.data.tobytes() == other.data.tobytes()


def test_state_dict_has_torchs_form() -> None:
    params = parameters()
    optimizer = optim.SGD([{"params": params[:2]}, {"params": params[2:]}], lr=0.1, momentum=0.9)
    assert optimizer.state_dict()["state"] == {}
    run(params[1:], optimizer, range(1))
    state = optimizer.state_dict()
    assert sorted(state) == ["param_groups", "state"]
    assert [group["params"] for group in state["param_groups"]] == [[0, 1], [2]]
    assert sorted(state["state"]) == [1, 2]
    buffer = state["state"][1]["momentum_buffer"]
    np.testing.assert_array_equal(buffer, params[1].grad)
    with pytest.raises(ValueError, match="read-only"):
        buffer[...] = 0


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    params = parameters()
    optimizer = optim.SGD(params, lr=0.1, momentum=0.9)
    run(params, optimizer, range(1))
    good = copy.deepcopy(optimizer.state_dict())

    def changed(**changes):
        return {**copy.deepcopy(good), **changes}

    wrong_shape = changed(state={0: {"momentum_buffer": np.zeros(3)}})
    negative = changed()
    negative["param_groups"][0]["lr"] = -1
    for state, message in [
        ({}, "keys 'state' and 'param_groups'"),
        (changed(param_groups=[]), r"groups of \[3\] parameters, got \[\]"),
        (changed(param_groups=[{"params": [0, 1]}]), r"got \[2\]"),
        (wrong_shape, r"\[0\]\['momentum_buffer'\]: expected shape \(4, 2, 3, 3\), got \(3,\)"),
        (changed(state={7: {}}), "state of a parameter, got 7"),
        (negative, "lr: expected a number of at least 0, got -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after["param_groups"] == good["param_groups"]
    for index, values in good["state"].items():
        np.testing.assert_array_equal(
            after["state"][index]["momentum_buffer"], values["momentum_buffer"]
        )


def test_refusals() -> None:
    p, q, r = parameters()
    for arguments, settings, error, message in [
        ([], {}, ValueError, "at least one parameter"),
        (p, {}, TypeError, "got a single Parameter"),
        ([np.zeros(3)], {}, TypeError, r"params\[0\]: expected a Parameter, got ndarray"),
        ([p, nn.Tensor([1.0])], {}, TypeError, r"params\[1\]: expected a Parameter, got Tensor"),
        ([p, p], {}, ValueError, "every parameter once"),
        ([{"params": [p]}, {"params": [q, p]}], {}, ValueError, "every parameter once"),
        ([{"lr": 1}], {}, TypeError, "'params'"),
        ([p], {"lr": -1}, ValueError, "lr: expected a number of at least 0, got -1"),
        ([p], {"lr": float("nan")}, ValueError, "lr"),
        ([p], {"momentum": -0.1}, ValueError, "momentum"),
        ([p], {"weight_decay": -0.1}, ValueError, "weight_decay"),
        ([p], {"nesterov": True}, ValueError, "nesterov: expected a momentum above 0"),
        ([p], {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "dampening 0"),
    ]:
        with pytest.raises(error, match=message):
            optim.SGD(arguments, **settings)
    optimizer = optim.SGD([p])
    with pytest.raises(ValueError, match="every parameter once"):
        optimizer.add_param_group({"params": [q, p]})
    with pytest.raises(ValueError, match="momentum"):
        optimizer.add_param_group({"params": [r], "momentum": -1})
    assert len(optimizer.param_groups) == 1


def test_trains() -> None:
    """A line through points, to the least-squares solution."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3)).astype(np.float32)
    target = x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + 0.25
    layer = nn.Linear(3, 1)
    optimizer = optim.SGD(layer.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(200):
        optimizer.zero_grad()
        difference = layer(nn.Tensor(x)) - target
        (difference * difference).mean().backward()
        optimizer.step()
    np.testing.assert_allclose(layer.weight.data, [[1.0, -2.0, 0.5]], atol=1e-4)
    np.testing.assert_allclose(layer.bias.data, [0.25], atol=1e-4)
    assert "momentum: 0.9" in repr(optimizer)
