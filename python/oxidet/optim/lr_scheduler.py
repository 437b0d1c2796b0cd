"""Learning-rate schedules, named as in torch.optim.lr_scheduler.

A schedule here is a function of the step: :meth:`LRScheduler.lr_at` computes the rate of a group
from its initial rate and the number of steps taken, and ``step()`` writes it into the optimiser.
Nothing accumulates, so a schedule continued from its state gives the same rates to the last bit,
and schedules compose by calling each other (:class:`SequentialLR`). torch computes most of its
schedules step from step, which agrees up to rounding; unlike there, a rate that someone else
writes into the optimiser is overwritten at the next step.

A step may be an iteration or an epoch: whatever the caller counts.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oxidet._arrays import integer
from oxidet.optim.optimizer import Optimizer


class LRScheduler:
    """Base class of schedules.

    The rate that a group has when its first schedule is made is its initial rate, kept in the
    group as ``"initial_lr"``.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.base_lrs = [
            float(group.setdefault("initial_lr", group["lr"])) for group in optimizer.param_groups
        ]
        self.last_epoch = 0
        self._apply()

    def lr_at(self, step: int, base_lr: float) -> float:
        """The rate after ``step`` steps, for an initial rate; every subclass defines this."""
        raise NotImplementedError(f"{type(self).__name__} defines no lr_at")

    def step(self) -> None:
        """Count one step and set the rates for the next."""
        self.last_epoch += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The current rate of each group."""
        return [self.lr_at(self.last_epoch, base_lr) for base_lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Progress and settings, as plain values."""
        return {
            name: list(value) if isinstance(value, list) else value
            for name, value in vars(self).items()
            if name != "optimizer"
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, settings included, and set the rates."""
        self._load(state_dict)
        self._apply()

    def _load(self, state_dict: Mapping[str, Any]) -> None:
        expected = self.state_dict()
        if set(state_dict) != set(expected):
            raise ValueError(
                f"state_dict: expected the keys {sorted(expected)} of {type(self).__name__}, "
                f"got {sorted(state_dict)}"
            )
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"state_dict: expected base_lrs for {len(self.base_lrs)} groups, "
                f"got {len(state_dict['base_lrs'])}"
            )
        for name, value in state_dict.items():
            setattr(self, name, list(value) if isinstance(value, (list, tuple)) else value)

    def _apply(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            raise ValueError(
                f"optimizer: expected the {len(self.base_lrs)} groups that the schedule began "
                f"with, got {len(groups)}"
            )
        for group, lr in zip(groups, self.get_last_lr(), strict=True):
            group["lr"] = lr


class StepLR(LRScheduler):
    """Multiply the rate by ``gamma`` every ``step_size`` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = integer(step_size, "step_size", 1)
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr * gamma ** (step // step_size)``."""
        return base_lr * self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """Multiply the rate by ``gamma`` at each of the ``milestones``, twice at one given twice."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(integer(m, "milestones", 0) for m in milestones)
        self.gamma = gamma
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr * gamma ** (number of milestones reached)``."""
        return base_lr * self.gamma ** bisect_right(self.milestones, step)


class CosineAnnealingLR(LRScheduler):
    """Lower the rate to ``eta_min`` along half a cosine in ``T_max`` steps (and raise it again).

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2016),
    formula 5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = integer(T_max, "T_max", 1)
        self.eta_min = eta_min
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``eta_min + (base_lr - eta_min) * (1 + cos(pi * step / T_max)) / 2``."""
        share = (1 + math.cos(math.pi * step / self.T_max)) / 2
        return self.eta_min + (base_lr - self.eta_min) * share


class LinearLR(LRScheduler):
    """Change the rate linearly from ``start_factor`` to ``end_factor`` times the initial rate.

    It arrives after ``total_iters`` steps and stays. With the defaults of torch, this is a warm-up.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor: expected above 0 and at most 1, got {start_factor}")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"end_factor: expected from 0 to 1, got {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = integer(total_iters, "total_iters", 1)
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr`` times a factor on the line between the two."""
        if step >= self.total_iters:
            return base_lr * self.end_factor
        done = step / self.total_iters
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)


class SequentialLR(LRScheduler):
    """One schedule after another; each counts its own steps from the milestone where it begins.

    Parameters
    ----------
    optimizer
        The optimiser of all the schedules.
    schedulers
        The schedules. They are driven from here; do not step them.
    milestones
        The steps at which the second schedule and each further one begins, increasing.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ) -> None:
        self.schedulers = list(schedulers)
        self.milestones = [integer(m, "milestones", 0) for m in milestones]
        for index, scheduler in enumerate(self.schedulers):
            if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"schedulers[{index}]: expected a schedule of the same optimizer, "
                    f"got {type(scheduler).__name__}"
                )
        if not self.schedulers or len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"milestones: expected one fewer than the {len(self.schedulers)} schedulers, "
                f"got {len(self.milestones)}"
            )
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"milestones: expected increasing steps, got {self.milestones}")
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The rate of the schedule in charge at ``step``."""
        index = bisect_right(self.milestones, step)
        begin = self.milestones[index - 1] if index else 0
        return self.schedulers[index].lr_at(step - begin, base_lr)

    def state_dict(self) -> dict[str, Any]:
        """Progress and settings, those of the schedules included."""
        state = super().state_dict()
        state["schedulers"] = [scheduler.state_dict() for scheduler in self.schedulers]
        return state

    def _load(self, state_dict: Mapping[str, Any]) -> None:
        saved, schedulers = state_dict.get("schedulers", ()), self.schedulers
        if len(saved) != len(schedulers):
            raise ValueError(
                f"state_dict: expected the states of {len(schedulers)} schedulers, got {len(saved)}"
            )
        super()._load(state_dict)
        self.schedulers = schedulers
        for scheduler, state in zip(schedulers, saved, strict=True):
            scheduler._load(state)


def warmup_cosine(
    optimizer: Optimizer,
    warmup_steps: int,
    total_steps: int,
    *,
    start_factor: float = 0.001,
    eta_min: float = 0.0,
) -> SequentialLR:
    """Rise linearly to the initial rate in ``warmup_steps``, then fall along a cosine.

    The fall ends at ``eta_min`` after ``total_steps``, the warm-up included.

    Examples
    --------
    >>> from oxidet import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = optim.lr_scheduler.warmup_cosine(optimizer, 2, 6, start_factor=0.5)
    >>> rates = []
    >>> for _ in range(7):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if total_steps <= warmup_steps:
        raise ValueError(f"total_steps: expected more than {warmup_steps}, got {total_steps}")
    main = CosineAnnealingLR(optimizer, total_steps - warmup_steps, eta_min)
    return _with_warmup(main, warmup_steps, start_factor)


def warmup_multistep(
    optimizer: Optimizer,
    warmup_steps: int,
    milestones: Iterable[int],
    *,
    gamma: float = 0.1,
    start_factor: float = 0.001,
) -> SequentialLR:
    """Rise linearly to the initial rate in ``warmup_steps``, then fall by ``gamma`` at milestones.

    The milestones count from the beginning, the warm-up included, and lie behind it.
    """
    steps = sorted(milestones)
    if steps and steps[0] < warmup_steps:
        raise ValueError(
            f"milestones: expected steps of at least warmup_steps={warmup_steps}, got {steps[0]}"
        )
    main = MultiStepLR(optimizer, [step - warmup_steps for step in steps], gamma)
    return _with_warmup(main, warmup_steps, start_factor)


def _with_warmup(main: LRScheduler, warmup_steps: int, start_factor: float) -> SequentialLR:
    optimizer = main.optimizer
    if integer(warmup_steps, "warmup_steps", 0) == 0:
        return SequentialLR(optimizer, [main], [])
    warmup = LinearLR(optimizer, start_factor, total_iters=warmup_steps)
    return SequentialLR(optimizer, [warmup, main], [warmup_steps])
