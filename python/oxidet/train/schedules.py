"""Optimisers and learning-rate schedules by the names that a trainer takes for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from oxidet import nn
from oxidet._arrays import integer, shown
from oxidet.optim import SGD, Adam, AdamW, Optimizer
from oxidet.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

# Where "step" lowers the rate, as shares of the epochs: the proportions of torchvision's recipe of
# 26 epochs for its detectors (16 and 22).
STEPS_DOWN = (16 / 26, 22 / 26)
WARMUP_FACTOR = 0.001  # of the rate with which a warm-up begins


def make_optimizer(
    optimizer: str | Optimizer | Callable[[list[nn.Parameter]], Optimizer],
    model: nn.Module,
    *,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    """The optimiser of a name, over the parameters of a model that require gradients.

    Parameters
    ----------
    optimizer
        ``"sgd"``, ``"adam"`` or ``"adamw"``; or a function of the parameters; or an optimiser,
        which is returned as it is.
    model
        Whose parameters are learned.
    lr, weight_decay
        Of all of them.
    momentum, nesterov
        Of SGD.

    Examples
    --------
    >>> make_optimizer("adamw", nn.Linear(2, 1), lr=1e-3, weight_decay=0.05).defaults["betas"]
    (0.9, 0.999)
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("freeze: expected something left to learn, got a model all frozen")
    if optimizer == "sgd":
        return SGD(
            parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        )
    if optimizer == "adam":
        return Adam(parameters, lr=lr, weight_decay=weight_decay)
    if optimizer == "adamw":
        return AdamW(parameters, lr=lr, weight_decay=weight_decay)
    made = optimizer(parameters) if callable(optimizer) else None
    if not isinstance(made, Optimizer):
        got = shown(optimizer) if made is None else f"a function that returns {shown(made)}"
        raise ValueError(
            "optimizer: expected 'sgd', 'adam', 'adamw', an Optimizer or a function of the "
            f"parameters that returns one, got {got}"
        )
    return made


def make_schedule(
    schedule: str | Callable[[Optimizer, int], Any] | None,
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    *,
    warmup: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """The schedule of a name, whose ``step()`` is called after every step of the run.

    Parameters
    ----------
    schedule
        ``None`` keeps the rate. ``"cosine"`` falls along half a cosine to ``eta_min`` (0).
        ``"step"`` multiplies the rate by ``gamma`` (0.1) at the ends of the epochs
        ``milestones``, by default 16/26 and 22/26 of them. ``"one_cycle"`` rises to the rate in
        ``pct_start`` (0.3) of the steps, or in ``warmup`` steps, and falls along a cosine; its
        options are those of :class:`oxidet.optim.lr_scheduler.OneCycleLR`, but
        ``cycle_momentum`` is off. A function of the optimiser and the number of steps returns a
        schedule.
    optimizer
        Whose rates it sets.
    epochs, steps_per_epoch
        The length of the run.
    warmup
        Steps in which the rate first rises linearly from a thousandth; what follows fills the
        rest. A function is then called with the number of steps that are left.
    options
        Those named above in parentheses.

    Examples
    --------
    >>> optimizer = SGD(nn.Linear(2, 1).parameters(), lr=0.02)
    >>> schedule = make_schedule("step", optimizer, 12, 100, options={"milestones": (8, 11)})
    >>> [schedule.lr_at(step, 0.02) for step in (0, 799, 800)]
    [0.02, 0.02, 0.002]
    """
    settings = dict(options or {})
    total = epochs * steps_per_epoch
    if not 0 <= integer(warmup, "warmup", 0) < total:
        raise ValueError(f"warmup: expected fewer than the {total} steps of the run, got {warmup}")
    if schedule == "one_cycle":
        if warmup:
            settings["pct_start"] = warmup / total
        settings.setdefault("cycle_momentum", False)
        rates = [group["lr"] for group in optimizer.param_groups]
        return _made(OneCycleLR, optimizer, rates, total, **settings)
    main: Any = None
    left = total - warmup
    if schedule == "cosine":
        main = _made(CosineAnnealingLR, optimizer, left, **settings)
    elif schedule == "step":
        milestones = settings.pop("milestones", [share * epochs for share in STEPS_DOWN])
        main = _made(
            MultiStepLR,
            optimizer,
            _in_steps(milestones, epochs, steps_per_epoch, warmup),
            **settings,
        )
    elif schedule is not None and not callable(schedule):
        raise ValueError(
            "schedule: expected 'cosine', 'step', 'one_cycle', a function or None, "
            f"got {shown(schedule)}"
        )
    elif settings:
        raise ValueError(
            f"schedule_options: expected none for schedule={shown(schedule)}, got {settings}"
        )
    elif schedule is not None:
        main = schedule(optimizer, left)
    if not warmup:
        return main
    ramp = LinearLR(optimizer, WARMUP_FACTOR, total_iters=warmup)
    return ramp if main is None else SequentialLR(optimizer, [ramp, main], [warmup])


def _in_steps(
    milestones: Iterable[float], epochs: int, steps_per_epoch: int, warmup: int
) -> list[int]:
    """Ends of epochs as steps behind the warm-up."""
    steps = []
    for epoch in milestones:
        if not 0 < epoch <= epochs:
            raise ValueError(f"milestones: expected epochs of 1 to {epochs}, got {epoch}")
        steps.append(max(round(epoch * steps_per_epoch) - warmup, 0))
    return steps


def _made(kind: type[LRScheduler], *arguments: Any, **settings: Any) -> LRScheduler:
    try:
        return kind(*arguments, **settings)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise ValueError(
                f"schedule_options: expected those of {kind.__name__}, got {sorted(settings)}"
            ) from None
        raise
