"""Settings of a run: which of them make sense together, and how they stand in a checkpoint."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from oxidet import nn
from oxidet.optim.lr_scheduler import ReduceLROnPlateau


def check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Refuse an optimiser of another model: the loss would just not fall."""
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("optimizer: expected one of the model's parameters, got one of others")


def check_schedule(schedule: Any, validation: Any) -> None:
    """Refuse a plateau that nothing could tell of, or that takes better scores for worse."""
    if not isinstance(schedule, ReduceLROnPlateau):
        return
    if validation is None:
        raise ValueError("schedule: expected validation data for ReduceLROnPlateau, got none")
    if schedule.mode != "max":
        raise ValueError(
            f"schedule: expected ReduceLROnPlateau with mode='max', as a higher score is better, "
            f"got mode={schedule.mode!r}"
        )


def optimizer_settings(optimizer: Any) -> dict[str, Any]:
    """What the optimiser began with: of each setting, the values that occur in its groups."""
    settings: dict[str, Any] = {"optimizer": type(optimizer).__name__}
    for name in optimizer.defaults:
        values = {group.get(f"initial_{name}", group[name]) for group in optimizer.param_groups}
        settings[name] = sorted(values, key=repr)
    return settings


def described(value: Any) -> Any:
    """What JSON has no form for: NumPy's numbers as numbers, other objects by their repr."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    # Without the address, which is another in the process that resumes.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
