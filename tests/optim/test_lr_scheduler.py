"""Schedules: values written out by hand, composition, and states that continue exactly."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oxidet import nn, optim
from oxidet.optim import lr_scheduler
from oxidet.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    InverseDecayLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    warmup_cosine,
    warmup_multistep,
)


def sgd(*rates: float) -> optim.SGD:
    return optim.SGD([{"params": [nn.Parameter([0.0])], "lr": lr} for lr in rates or (1.0,)])


def rates(optimizer: optim.Optimizer, schedule: LRScheduler, steps: int) -> list[list[float]]:
    got = []
    for _ in range(steps):
        got.append([group["lr"] for group in optimizer.param_groups])
        assert schedule.get_last_lr() == got[-1]
        schedule.step()
    return got


def sequential(optimizer: optim.Optimizer) -> SequentialLR:
    parts = [LinearLR(optimizer, 0.5, total_iters=2), StepLR(optimizer, 2, 0.5)]
    return SequentialLR(optimizer, [*parts, CosineAnnealingLR(optimizer, 2)], [2, 5])


Make = Callable[[optim.Optimizer], LRScheduler]
SCHEDULES: dict[str, tuple[Make, list[float]]] = {
    "step": (lambda o: StepLR(o, 2), [1, 1, 0.1, 0.1, 0.01, 0.01]),
    "step gamma": (lambda o: StepLR(o, 1, 0.5), [1, 0.5, 0.25, 0.125]),
    "multistep": (lambda o: MultiStepLR(o, [4, 1], 0.5), [1, 0.5, 0.5, 0.5, 0.25, 0.25]),
    "multistep twice": (lambda o: MultiStepLR(o, [2, 2], 0.5), [1, 1, 0.25, 0.25]),
    "multistep none": (lambda o: MultiStepLR(o, []), [1, 1, 1]),
    "cosine": (lambda o: CosineAnnealingLR(o, 4), [1, 0.85355339, 0.5, 0.14644661, 0, 0.14644661]),
    "cosine floor": (lambda o: CosineAnnealingLR(o, 2, 0.5), [1, 0.75, 0.5, 0.75, 1]),
    "exponential": (lambda o: ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125]),
    "polynomial": (lambda o: PolynomialLR(o, 4), [1, 0.75, 0.5, 0.25, 0, 0]),
    "polynomial squared": (lambda o: PolynomialLR(o, 4, 2.0), [1, 0.5625, 0.25, 0.0625, 0]),
    "inverse": (lambda o: InverseDecayLR(o, 1.0, 0.5), [1, 0.70710678, 0.57735027, 0.5]),
    "linear": (lambda o: LinearLR(o, 0.2, total_iters=4), [0.2, 0.4, 0.6, 0.8, 1, 1]),
    "linear down": (lambda o: LinearLR(o, 1, 0, 2), [1, 0.5, 0, 0]),
    "sequential": (sequential, [0.5, 0.75, 1, 1, 0.5, 1, 0.5, 0]),
    "warm-up, cosine": (
        lambda o: warmup_cosine(o, 2, 6, start_factor=0.5),
        [0.5, 0.75, 1, 0.85355339, 0.5, 0.14644661, 0],
    ),
    "warm-up, steps": (
        lambda o: warmup_multistep(o, 2, [5, 3], gamma=0.5, start_factor=0.5),
        [0.5, 0.75, 1, 0.5, 0.5, 0.25, 0.25],
    ),
    "no warm-up": (lambda o: warmup_cosine(o, 0, 2), [1, 0.5, 0]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_values(name: str) -> None:
    make, expected = SCHEDULES[name]
    optimizer = sgd(1.0, 2.0)
    got = rates(optimizer, make(optimizer), len(expected))
    if name == "cosine floor":  # the floor is a rate, not a factor
        got = [[first, first * 2] for first, _ in got]
    np.testing.assert_allclose(got, [[x, 2 * x] for x in expected], atol=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_resumes_to_the_same_bits(name: str, stop: int) -> None:
    make, expected = SCHEDULES[name]
    optimizer = sgd(0.3)
    schedule = make(optimizer)
    rates(optimizer, schedule, stop)
    state = json.loads(json.dumps(schedule.state_dict()))  # plain values
    optimizer_state = copy.deepcopy(optimizer.state_dict())
    want = rates(optimizer, schedule, len(expected))

    for order in ("schedule last", "schedule first"):
        resumed = sgd(0.3)
        again = make(resumed)
        if order == "schedule last":
            resumed.load_state_dict(optimizer_state)
            again.load_state_dict(state)
        else:
            again.load_state_dict(state)
            resumed.load_state_dict(optimizer_state)
        assert rates(resumed, again, len(expected)) == want, order


MEASURES = [0.9, 0.5, 0.5, 0.6, 0.4999, 0.3, 0.3, 0.3, 0.3, float("nan"), 0.3, 0.2, 0.2, 0.2, 0.2]


def test_plateau_by_hand() -> None:
    """Better by less than the threshold is no better; after a cut, one measure is not counted."""
    optimizer = sgd(1.0, 4.0)
    schedule = ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, threshold=0.01, cooldown=1, min_lr=0.3
    )
    got = []
    for value in MEASURES:
        schedule.step(value)
        got.append(optimizer.param_groups[0]["lr"])
    assert got == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    rising = ReduceLROnPlateau(sgd(), "max", patience=0, threshold=0.1, threshold_mode="abs")
    for value in (0.0, 0.05, 0.2, 0.25):
        rising.step(value)
    assert rising.get_last_lr() == pytest.approx([0.01])


@pytest.mark.parametrize("stop", [0, 1, 4, 9])
def test_plateau_resumes_to_the_same_bits(stop: int) -> None:
    def make(optimizer: optim.Optimizer) -> ReduceLROnPlateau:
        return ReduceLROnPlateau(optimizer, factor=0.3, patience=1, cooldown=1)

    optimizer, resumed = sgd(0.3), sgd(0.3)
    schedule, again = make(optimizer), make(resumed)
    for value in MEASURES[:stop]:
        schedule.step(value)
    again.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    for value in MEASURES[stop:]:
        schedule.step(value)
        again.step(value)
        assert again.get_last_lr() == schedule.get_last_lr()
        assert resumed.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert schedule.get_last_lr()[0] < 0.1


def test_a_state_brings_its_settings() -> None:
    first, second = sgd(), sgd(0.5)
    state = StepLR(first, 3, 0.5).state_dict()
    schedule = StepLR(second, 7)
    schedule.load_state_dict(state)
    assert (schedule.step_size, schedule.gamma, schedule.base_lrs) == (3, 0.5, [1.0])
    assert second.param_groups[0]["lr"] == 1.0


def test_refusals() -> None:
    optimizer, other = sgd(), sgd()
    linear = LinearLR(optimizer)
    for make, message in [
        (lambda: StepLR(optimizer, 0), "step_size: expected an integer of at least 1, got 0"),
        (
            lambda: MultiStepLR(optimizer, [3, -1]),
            "milestones: expected an integer of at least 0, got -1",
        ),
        (lambda: CosineAnnealingLR(optimizer, 0), "T_max"),
        (lambda: LinearLR(optimizer, 0), "start_factor"),
        (lambda: LinearLR(optimizer, 2.0), "start_factor"),
        (lambda: LinearLR(optimizer, 1, -1), "end_factor"),
        (lambda: LinearLR(optimizer, total_iters=0), "total_iters"),
        (lambda: ExponentialLR(optimizer, -1), "gamma: expected a number of at least 0, got -1"),
        (lambda: PolynomialLR(optimizer, 0), "total_iters"),
        (lambda: PolynomialLR(optimizer, 4, -1), "power"),
        (lambda: InverseDecayLR(optimizer, -1), "gamma"),
        (lambda: ReduceLROnPlateau(optimizer, "up"), "mode: expected one of"),
        (lambda: ReduceLROnPlateau(optimizer, factor=1), "factor: expected a number below 1"),
        (lambda: ReduceLROnPlateau(optimizer, patience=-1), "patience"),
        (lambda: SequentialLR(optimizer, [], []), "one fewer than the 0 schedulers, got 0"),
        (lambda: SequentialLR(optimizer, [linear], [3]), "one fewer than the 1"),
        (lambda: SequentialLR(optimizer, [linear] * 3, [3, 2]), "increasing steps"),
        (lambda: SequentialLR(other, [linear], []), r"schedulers\[0\]: .* same optimizer"),
        (lambda: warmup_cosine(optimizer, 5, 5), "total_steps: expected more than 5, got 5"),
        (lambda: warmup_cosine(optimizer, -1, 5), "warmup_steps"),
        (lambda: warmup_multistep(optimizer, 5, [9, 4]), "at least warmup_steps=5, got 4"),
        (lambda: linear.load_state_dict({"last_epoch": 1}), "keys .* of LinearLR"),
        (lambda: linear.load_state_dict(StepLR(other, 1).state_dict()), "keys .* of LinearLR"),
        (lambda: linear.load_state_dict(LinearLR(sgd(1, 2)).state_dict()), "1 groups, got 2"),
        (lambda: sequential(other).load_state_dict({"schedulers": []}), "3 schedulers, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    for gamma in ("a", None):
        wrong: Any = gamma
        with pytest.raises(TypeError, match="gamma: expected a number"):
            StepLR(optimizer, 1, wrong)
        with pytest.raises(TypeError, match="gamma: expected a number"):
            MultiStepLR(optimizer, [1], wrong)
    plateau = ReduceLROnPlateau(optimizer)
    with pytest.raises(TypeError, match="step: expected the measure"):
        plateau.step()
    with pytest.raises(TypeError, match=r"schedulers\[0\]: expected a function of the step"):
        SequentialLR(optimizer, [plateau], [])
    with pytest.raises(TypeError, match="optimizer: expected an Optimizer, got list"):
        lr_scheduler.StepLR([], 1)  # type: ignore[arg-type]
    optimizer.add_param_group({"params": [nn.Parameter([1.0])]})
    with pytest.raises(ValueError, match="the 1 groups that the schedule began with, got 2"):
        linear.step()


def test_a_function_of_the_step_is_no_part_of_the_state() -> None:
    optimizer = sgd(1.0, 0.5)
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    assert rates(optimizer, schedule, 3) == [[1.0, 0.5], [0.5, 0.25], [1 / 3, 0.5 / 3]]
    state = json.loads(json.dumps(schedule.state_dict()))
    assert set(state) == {"base_lrs", "last_epoch"}
    other = sgd(1.0, 0.5)
    again = LambdaLR(other, lambda step: 1 / (1 + step))
    again.load_state_dict(state)
    assert again.get_last_lr() == [0.25, 0.125]
    with pytest.raises(TypeError, match="lr_lambda: expected a function, got float"):
        LambdaLR(other, 0.5)  # type: ignore[arg-type]


def test_one_cycle_stays_where_it_ends_and_continues_exactly() -> None:
    optimizer = optim.SGD([nn.Parameter([0.0])], lr=0.2, momentum=0.9)
    schedule = OneCycleLR(optimizer, 0.2, 7)
    got = rates(optimizer, schedule, 9)
    assert got[6] == got[7] == got[8] == [pytest.approx(0.2 / 25 / 1e4)]
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.95)
    other = optim.SGD([nn.Parameter([0.0])], lr=0.2, momentum=0.9)
    again = OneCycleLR(other, 0.2, 7)
    for _ in range(3):
        again.step()
    state = json.loads(json.dumps(again.state_dict()))
    third = optim.SGD([nn.Parameter([0.0])], lr=0.2, momentum=0.9)
    continued = OneCycleLR(third, 0.2, 7)
    continued.load_state_dict(state)
    assert rates(third, continued, 4) == got[3:7]
    for total in (1, 2, 3):  # the top lies before the first step
        shortest = OneCycleLR(sgd(1.0), 1.0, total, cycle_momentum=False)
        assert 0 < shortest.get_last_lr()[0] <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_steps": None, "epochs": 3}, "total_steps: expected that, or both"),
        ({"total_steps": 0}, "total_steps: expected an integer of at least 1"),
        ({"pct_start": 0.0}, "pct_start: expected a number between 0 and 1"),
        ({"pct_start": 1.0}, "pct_start: expected a number between 0 and 1"),
        ({"anneal_strategy": "sine"}, "anneal_strategy: expected one of"),
        ({"max_lr": [0.1, 0.2, 0.3]}, "max_lr: expected a rate for each of 1 groups, got 3"),
        ({"max_momentum": 2}, "max_momentum: expected a number from 0 to 1"),
    ],
)
def test_one_cycle_refuses(settings: dict[str, Any], message: str) -> None:
    optimizer = optim.SGD([nn.Parameter([0.0])], lr=0.2, momentum=0.9)
    with pytest.raises(ValueError, match=message):
        OneCycleLR(optimizer, **{"max_lr": 0.1, "total_steps": 5, **settings})
