"""Learning-rate schedules, named as in torch.optim.lr_scheduler.

A schedule here is a function of the step: :meth:`LRScheduler.lr_at` computes the rate of a group
from its initial rate and the number of steps taken, and ``step()`` writes it into the optimiser.
Nothing accumulates, so a schedule continued from its state gives the same rates to the last bit,
and schedules compose by calling each other (:class:`SequentialLR`). The one exception,
:class:`ReduceLROnPlateau`, keeps its rates in its state. torch computes most of its
schedules step from step, which agrees up to rounding; unlike there, a rate that someone else
writes into the optimiser is overwritten at the next step.

A step may be an iteration or an epoch: whatever the caller counts.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from oxidet._arrays import choice, integer, number
from oxidet.optim.optimizer import Optimizer

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "InverseDecayLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "warmup_cosine",
    "warmup_multistep",
]


class LRScheduler:
    """Base class of schedules.

    The rate that a group has when its first schedule is made is its initial rate, kept in the
    group as ``"initial_lr"``.
    """

    base_lrs: list[float]
    last_epoch: int

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
        # No stub: every schedule has a rate of its own; torch's base raises this class too.
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
    """Multiply the rate by ``gamma`` every ``step_size`` steps.

    >>> from oxidet import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    >>> schedule = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> for _ in range(3):
    ...     print(schedule.get_last_lr())
    ...     schedule.step()
    [0.1]
    [0.1]
    [0.05]
    """

    step_size: int
    gamma: float

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = integer(step_size, "step_size", 1)
        self.gamma = number(gamma, "gamma")
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr * gamma ** (step // step_size)``."""
        return base_lr * self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """Multiply the rate by ``gamma`` at each of the ``milestones``, twice at one given twice."""

    milestones: list[int]
    gamma: float

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(integer(m, "milestones", 0) for m in milestones)
        self.gamma = number(gamma, "gamma")
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr * gamma ** (number of milestones reached)``."""
        return base_lr * self.gamma ** bisect_right(self.milestones, step)


class ExponentialLR(LRScheduler):
    """Multiply the rate by ``gamma`` at every step."""

    gamma: float

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = number(gamma, "gamma", 0)
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr * gamma ** step``."""
        return base_lr * self.gamma**step


class PolynomialLR(LRScheduler):
    """Lower the rate to 0 in ``total_iters`` steps, as a power of what is left of them.

    Caffe's ``"poly"``.
    """

    total_iters: int
    power: float

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0) -> None:
        self.total_iters = integer(total_iters, "total_iters", 1)
        self.power = number(power, "power", 0)
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr * (1 - step / total_iters) ** power``, 0 after that."""
        left: float = (1 - min(step, self.total_iters) / self.total_iters) ** self.power
        return base_lr * left


class InverseDecayLR(LRScheduler):
    """Lower the rate like a power of the inverse number of steps: Caffe's ``"inv"``.

    The defaults are those of Caffe's LeNet, which counts iterations.

    >>> from oxidet import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.01, momentum=0.9)
    >>> schedule = optim.lr_scheduler.InverseDecayLR(optimizer)
    >>> round(schedule.lr_at(10_000, 0.01), 5)
    0.00595
    """

    gamma: float
    power: float

    def __init__(self, optimizer: Optimizer, gamma: float = 1e-4, power: float = 0.75) -> None:
        self.gamma = number(gamma, "gamma", 0)
        self.power = number(power, "power", 0)
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr * (1 + gamma * step) ** -power``."""
        factor: float = (1 + self.gamma * step) ** -self.power
        return base_lr * factor


class CosineAnnealingLR(LRScheduler):
    """Lower the rate to ``eta_min`` along half a cosine in ``T_max`` steps (and raise it again).

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2016),
    formula 5, without restarts.
    """

    T_max: int

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

    total_iters: int

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


class LambdaLR(LRScheduler):
    """Multiply the initial rate by a function of the step.

    Parameters
    ----------
    optimizer
        The optimiser.
    lr_lambda
        From the number of steps taken to a factor. It is not part of the state: who continues a
        run gives the same function again.

    Examples
    --------
    >>> from oxidet import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.5)
    >>> schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    >>> schedule.step()
    >>> optimizer.param_groups[0]["lr"]
    0.25
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        if not callable(lr_lambda):
            raise TypeError(f"lr_lambda: expected a function, got {type(lr_lambda).__name__}")
        self.lr_lambda = lr_lambda
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """``base_lr * lr_lambda(step)``."""
        return base_lr * float(self.lr_lambda(step))

    def state_dict(self) -> dict[str, Any]:
        """Progress, without the function."""
        state = super().state_dict()
        del state["lr_lambda"]
        return state


class OneCycleLR(LRScheduler):
    """Up to a high rate and down to next to nothing: Smith's policy of a single cycle.

    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning
    rates" (2017), in the two phases and with the steps of ``torch.optim.lr_scheduler.OneCycleLR``.
    The momentum moves against the rate.

    Parameters
    ----------
    optimizer
        The optimiser; for ``cycle_momentum`` one with a momentum or betas.
    max_lr
        The highest rate, one for all groups or one for each.
    total_steps
        Steps of the whole cycle; the rate stays where it is after them.
    epochs, steps_per_epoch
        Whose product they are, if not given so.
    pct_start
        Share of the steps on the way up, above 0 and below 1.
    anneal_strategy
        ``"cos"`` or ``"linear"``.
    cycle_momentum, base_momentum, max_momentum
        Whether the momentum (the first beta) falls from ``max_momentum`` to ``base_momentum`` while
        the rate rises, and back.
    div_factor, final_div_factor
        The first rate is ``max_lr / div_factor``, the last that divided by ``final_div_factor``.

    Examples
    --------
    >>> from oxidet import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1, momentum=0.9)
    >>> schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10, pct_start=0.5)
    >>> [round(schedule.lr_at(step, 0.1), 4) for step in (0, 2, 4, 9)]
    [0.004, 0.052, 0.1, 0.0]
    """

    total_steps: int
    pct_start: float
    anneal_strategy: str
    cycle_momentum: bool
    base_momentum: float
    max_momentum: float
    div_factor: float
    final_div_factor: float

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(
                    "total_steps: expected that, or both epochs and steps_per_epoch, got None"
                )
            total_steps = integer(epochs, "epochs", 1) * integer(
                steps_per_epoch, "steps_per_epoch", 1
            )
        self.total_steps = integer(total_steps, "total_steps", 1)
        self.pct_start = number(pct_start, "pct_start", 0, 1)
        if pct_start in (0, 1):
            raise ValueError(f"pct_start: expected a number between 0 and 1, got {pct_start!r}")
        self.anneal_strategy = choice(anneal_strategy, "anneal_strategy", ("cos", "linear"))
        self.cycle_momentum = bool(cycle_momentum)
        self.base_momentum = number(base_momentum, "base_momentum", 0, 1)
        self.max_momentum = number(max_momentum, "max_momentum", 0, 1)
        self.div_factor = number(div_factor, "div_factor", 1)
        self.final_div_factor = number(final_div_factor, "final_div_factor", 1)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {type(optimizer).__name__}")
        groups = optimizer.param_groups
        highest = list(max_lr) if isinstance(max_lr, Sequence) else [max_lr] * len(groups)
        if len(highest) != len(groups):
            raise ValueError(
                f"max_lr: expected a rate for each of {len(groups)} groups, got {len(highest)}"
            )
        if self.cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(
                "cycle_momentum: expected an optimizer with momentum or betas, "
                f"got {type(optimizer).__name__}"
            )
        for group, rate in zip(groups, highest, strict=True):
            group["initial_lr"] = number(rate, "max_lr", 0)
        super().__init__(optimizer)

    def lr_at(self, step: int, base_lr: float) -> float:
        """The rate at ``step``, ``base_lr`` being the highest."""
        first = base_lr / self.div_factor
        return self._at(step, first, base_lr, first / self.final_div_factor)

    def momentum_at(self, step: int) -> float:
        """The momentum at ``step``."""
        return self._at(step, self.max_momentum, self.base_momentum, self.max_momentum)

    def _at(self, step: int, first: float, middle: float, last: float) -> float:
        # As torch has it: the top may lie between two steps.
        top, end = self.pct_start * self.total_steps - 1, self.total_steps - 1
        step = min(step, end)
        if step < top:
            return self._between(first, middle, step / top)
        return self._between(middle, last, (step - top) / (end - top))

    def _between(self, start: float, stop: float, share: float) -> float:
        if self.anneal_strategy == "cos":
            return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))
        return start + (stop - start) * share

    def _apply(self) -> None:
        super()._apply()
        if not self.cycle_momentum:
            return
        momentum = self.momentum_at(self.last_epoch)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


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

    milestones: list[int]
    schedulers: list[LRScheduler]

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]
    ) -> None:
        self.schedulers = list(schedulers)
        self.milestones = [integer(m, "milestones", 0) for m in milestones]
        for index, scheduler in enumerate(self.schedulers):
            if isinstance(scheduler, ReduceLROnPlateau):
                raise TypeError(
                    f"schedulers[{index}]: expected a function of the step, got ReduceLROnPlateau"
                )
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


class ReduceLROnPlateau(LRScheduler):
    """Multiply the rate by ``factor`` when a measure has stopped improving.

    The only schedule that is no function of the step: ``step`` takes the measure. A trainer calls
    it with the score after each evaluation, where more is better (``mode="max"``).

    Parameters
    ----------
    optimizer
        The optimiser.
    mode
        ``"min"`` if less is better, as of a loss, ``"max"`` if more is.
    factor
        What the rate is multiplied with, below 1.
    patience
        Steps without improvement that are forgiven; the next one lowers the rate.
    threshold, threshold_mode
        What counts as an improvement on the best value: more than ``threshold`` times it
        (``"rel"``), or more than ``threshold`` (``"abs"``).
    cooldown
        Steps after a reduction that are not counted.
    min_lr
        The rate does not fall below this.
    eps
        A reduction by no more than this is left out.

    Examples
    --------
    >>> from oxidet import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=1)
    >>> for accuracy in (0.5, 0.7, 0.7, 0.6, 0.8):
    ...     schedule.step(accuracy)
    >>> optimizer.param_groups[0]["lr"]
    0.1
    """

    mode: str
    factor: float
    patience: int
    threshold: float
    threshold_mode: str
    cooldown: int
    min_lr: float
    eps: float
    cooldown_counter: int
    num_bad_epochs: int
    last_epoch: int

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.mode = choice(mode, "mode", ("min", "max"))
        self.factor = number(factor, "factor", 0)
        if not factor < 1:
            raise ValueError(f"factor: expected a number below 1, got {factor!r}")
        self.patience = integer(patience, "patience", 0)
        self.threshold = number(threshold, "threshold", 0)
        self.threshold_mode = choice(threshold_mode, "threshold_mode", ("rel", "abs"))
        self.cooldown = integer(cooldown, "cooldown", 0)
        self.min_lr = number(min_lr, "min_lr", 0)
        self.eps = number(eps, "eps", 0)
        self.best: float | None = None
        self.num_bad_epochs = self.cooldown_counter = 0
        self.rates: list[float] = []
        super().__init__(optimizer)
        self.rates = list(self.base_lrs)

    def get_last_lr(self) -> list[float]:
        """The current rate of each group."""
        return list(self.rates or self.base_lrs)

    def step(self, metrics: float | None = None) -> None:
        """Take the measure of another epoch, and lower the rates if it is time. NaN is no better
        than anything.
        """
        if metrics is None:
            raise TypeError("step: expected the measure that may have stopped improving, got none")
        self.last_epoch += 1
        value = float(metrics)
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            lower = [max(rate * self.factor, self.min_lr) for rate in self.rates]
            self.rates = [
                new if rate - new > self.eps else rate
                for rate, new in zip(self.rates, lower, strict=True)
            ]
        self._apply()

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return math.isfinite(value)
        margin = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        if self.mode == "min":
            return value < self.best - margin
        return value > self.best + margin


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
