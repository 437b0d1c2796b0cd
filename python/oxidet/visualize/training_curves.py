"""How a training went: its losses and scores over the steps."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from oxidet import _extras
from oxidet.visualize._networks import as_axes

NOT_SCORES = ("iteration", "epoch", "seconds")


def training_curves(log: str | os.PathLike[str], smooth: int = 50, ax: Any = None) -> Any:
    """Plot the losses and scores of a training log with matplotlib (extra ``plots``).

    Losses are on the left axis, on a logarithmic scale; scores of evaluations (mean average
    precision, accuracy) are dots on the right axis, 0 to 1.

    Parameters
    ----------
    log
        The ``log.jsonl`` that ``oxidet.train.Trainer`` or ``ClassifierTrainer`` wrote.
    smooth
        Steps over which a loss is averaged.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes of the losses.

    Raises
    ------
    ValueError
        ``smooth`` is below 1, or the log has no steps.
    """
    from oxidet.train.log import read_log

    if smooth < 1:
        raise ValueError(f"smooth: expected at least 1, got {smooth}")
    records = read_log(log)
    steps = [record for record in records if record.get("event") == "step"]
    if not steps:
        raise ValueError(f"log: expected at least one step, got none in {os.fspath(log)}")
    if ax is None:
        ax = _extras.require("matplotlib.pyplot", extra="plots").figure().add_subplot()
    as_axes(ax)

    iterations = np.array([record["iteration"] for record in steps])
    window = min(smooth, len(steps))
    for name in (key for key in steps[0] if key.endswith("loss")):
        sums = np.cumsum([0.0, *(record[name] for record in steps)])
        ax.plot(iterations[window - 1 :], (sums[window:] - sums[:-window]) / window, label=name)
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss" if window == 1 else f"loss, mean of {window} steps")

    evaluations = [record for record in records if record.get("event") == "evaluation"]
    if evaluations:
        scores = ax.twinx()
        scores.set_ylim(0, 1)
        for name, value in evaluations[0].items():
            if isinstance(value, float) and name not in NOT_SCORES:
                at = [record["iteration"] for record in evaluations]
                scores.plot(at, [record[name] for record in evaluations], "ko-", label=name)
                scores.set_ylabel(name)
    ax.legend(loc="lower left")
    return ax
