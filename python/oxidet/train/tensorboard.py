"""Figures of a run for TensorBoard."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oxidet import _extras

# What a record says about the step, not about the model.
NOT_SCALARS = ("iteration", "epoch", "seconds", "event")


@contextlib.contextmanager
def tensorboard_writer(tensorboard: Any, folder: Path, iteration: int) -> Iterator[Any]:
    """What scalars go to while a run is under way, or None.

    Parameters
    ----------
    tensorboard
        False for none; True for event files in ``folder``, written by tensorboardX (extra
        ``tensorboard``); or any object with ``add_scalar(tag, value, step)``, which is not closed.
    folder
        Where event files go.
    iteration
        The last step that is kept of files already there: those of a run that went on after its
        last checkpoint and is now repeated from there show nothing twice.
    """
    if tensorboard is True:
        module = _extras.require("tensorboardX", extra="tensorboard")
        purge = iteration + 1 if iteration else None
        writer = module.SummaryWriter(str(folder), purge_step=purge, flush_secs=20)
        with contextlib.closing(writer):
            yield writer
    else:
        yield tensorboard or None


def check_tensorboard(tensorboard: Any) -> None:
    """Refuse, before the run begins, what could not be written to."""
    if tensorboard is True:
        _extras.require("tensorboardX", extra="tensorboard")
    elif tensorboard and not callable(getattr(tensorboard, "add_scalar", None)):
        raise TypeError(
            "tensorboard: expected True, False or an object with add_scalar, "
            f"got {type(tensorboard).__name__}"
        )


def write_scalars(writer: Any, kind: str, record: Mapping[str, Any]) -> None:
    """Write the numbers of a record of the log, as ``kind/name``; what is not finite is left out.

    >>> class Writer:
    ...     def add_scalar(self, tag, value, step):
    ...         print(step, tag, value)
    >>> write_scalars(Writer(), "validation", {"iteration": 9, "mean_ap": 0.5, "ap": {"cat": 0.5}})
    9 validation/mean_ap 0.5
    9 validation/ap/cat 0.5
    """
    if writer is None:
        return
    for name, value in _scalars(record):
        if math.isfinite(value):
            writer.add_scalar(f"{kind}/{name}", value, record["iteration"])


def _scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            for inner, number in _scalars(value):
                yield f"{name}/{inner}", number
        elif name not in NOT_SCALARS and isinstance(value, (int, float)):
            yield name, float(value)
