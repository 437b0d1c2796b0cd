"""Optimisers and schedules by name."""

from __future__ import annotations

from typing import Any

import pytest

from oxidet import nn, optim
from oxidet.optim import lr_scheduler
from oxidet.train import make_optimizer, make_schedule


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    net[0].bias.requires_grad = False
    return net


def rates(schedule: Any, optimizer: optim.Optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    return found


def test_optimizers() -> None:
    for name, kind in (("sgd", optim.SGD), ("adam", optim.Adam), ("adamw", optim.AdamW)):
        made = make_optimizer(name, model(), lr=0.1, weight_decay=0.02)
        assert type(made) is kind
        [group] = made.param_groups
        assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.1, 0.02, 3)
    assert make_optimizer("sgd", model(), lr=0.1, nesterov=True).param_groups[0]["nesterov"]
    given = optim.SGD(model().parameters(), lr=0.5)
    assert make_optimizer(given, model(), lr=0.1) is given
    made = make_optimizer(lambda parameters: optim.RMSprop(parameters, 0.3), model(), lr=0.1)
    assert made.param_groups[0]["lr"] == 0.3
    with pytest.raises(ValueError, match="got a function that returns 7"):
        make_optimizer(lambda parameters: 7, model(), lr=0.1)  # type: ignore[arg-type,return-value]


def made(schedule: Any, **settings: Any) -> list[float]:
    optimizer = make_optimizer("sgd", model(), lr=1.0)
    return rates(make_schedule(schedule, optimizer, 4, 5, **settings), optimizer, 20)


def test_schedules() -> None:
    optimizer = make_optimizer("sgd", model(), lr=1.0)
    assert make_schedule(None, optimizer, 4, 5) is None
    assert made(None, warmup=4)[3:] == pytest.approx([0.001 + 0.999 * 0.75] + [1.0] * 16)
    cosine = made("cosine", warmup=2, options={"eta_min": 0.1})
    assert cosine[2] == pytest.approx(1.0)
    assert cosine[11] == pytest.approx(0.55)
    assert cosine[-1] == pytest.approx(0.1, abs=0.01)
    assert made("step") == pytest.approx([1.0] * 12 + [0.1] * 5 + [0.01] * 3)
    halves = made("step", warmup=3, options={"milestones": (1, 3), "gamma": 0.5})
    assert halves[3:] == pytest.approx([1.0] * 2 + [0.5] * 10 + [0.25] * 5)
    cycle = made("one_cycle")
    assert cycle[0] == pytest.approx(1 / 25)
    assert max(cycle) == cycle[5] == pytest.approx(1.0)
    assert cycle[-1] == pytest.approx(4e-6)
    assert made("one_cycle", warmup=10).index(pytest.approx(1.0)) == 9
    assert made(lambda o, n: lr_scheduler.PolynomialLR(o, n))[-1] == pytest.approx(1 / 20)
    left = made(lambda o, n: lr_scheduler.PolynomialLR(o, n), warmup=10)
    assert left[10:] == pytest.approx([1 - k / 10 for k in range(10)])


@pytest.mark.parametrize(
    ("schedule", "settings", "message"),
    [
        ("linear", {}, "schedule: expected 'cosine', 'step', 'one_cycle', a function or None"),
        ("cosine", {"options": {"gamma": 2}}, "schedule_options: expected those of Cosine"),
        ("step", {"options": {"milestones": (5,)}}, "milestones: expected epochs of 1 to 4, got 5"),
        (None, {"options": {"gamma": 2}}, "schedule_options: expected none for schedule=None"),
        ("cosine", {"warmup": 20}, "warmup: expected fewer than the 20 steps of the run, got 20"),
        ("cosine", {"warmup": -1}, "warmup: expected an integer of at least 0"),
    ],
)
def test_refusals(schedule: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(schedule, **settings)
