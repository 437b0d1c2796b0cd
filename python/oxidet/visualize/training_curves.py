"""How a training went: its losses, its learning rate and its scores over the steps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet.visualize._networks import as_axes
from oxidet.visualize.themes import ink, line_colours

# Of an evaluation's numbers those that are no score, or one of COCO's many.
NOT_SCORES = ("iteration", "epoch", "seconds")
OF_COCO = ("coco_AP", "coco_AP75")


def training_curves(
    log: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    smooth: int = 50,
    axes: Sequence[Any] | None = None,
) -> tuple[Any, Any, Any]:
    """Plot the losses, the learning rate and the scores of a run with matplotlib (extra ``plots``).

    Three panels share the axis of the steps: losses on a logarithmic scale, averaged; the learning
    rate (of the first group of parameters); and the scores on the validation data, 0 to 1, the best
    of them marked: a thick line for what the run is judged by, thin ones for classes.

    Parameters
    ----------
    log
        The ``log.jsonl`` that a trainer wrote, or its records (:func:`oxidet.train.read_log`).
    smooth
        Steps over which a loss is averaged; fewer, a tenth of them, in a short run.
    axes
        Three axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes of losses, rate and scores.

    Raises
    ------
    ValueError
        ``smooth`` is below 1, the log has no steps, or ``axes`` are not three.
    """
    from oxidet.train.log import read_log

    if smooth < 1:
        raise ValueError(f"smooth: expected at least 1, got {smooth}")
    is_path = isinstance(log, (str, os.PathLike))
    records: list[Mapping[str, Any]] = list(read_log(log) if is_path else log)  # type: ignore[arg-type]
    steps = [record for record in records if record.get("event") == "step"]
    if not steps:
        where = f" in {os.fspath(log)}" if is_path else ""  # type: ignore[arg-type]
        raise ValueError(f"log: expected at least one step, got none{where}")
    if axes is None:
        pyplot = _extras.require("matplotlib.pyplot", extra="plots")
        figure = pyplot.figure(figsize=(7, 8), layout="constrained")
        axes = tuple(figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 2)))
    if len(axes) != 3:
        raise ValueError(f"axes: expected three, got {len(axes)}")
    losses, rate, scores = map(as_axes, axes)
    _plot_losses(losses, steps, smooth)
    rate.plot(*_series(steps, "lr"), color=ink(rate))
    rate.set_ylabel("learning rate")
    rate.grid(alpha=0.25)
    evaluations = [record for record in records if record.get("event") == "evaluation"]
    _plot_scores(scores, evaluations)
    scores.set_xlabel("step")
    scores.xaxis.get_major_locator().set_params(integer=True)
    return losses, rate, scores


def _plot_losses(ax: Any, steps: Sequence[Mapping[str, Any]], smooth: int) -> None:
    window = min(smooth, max(len(steps) // 10, 1))
    for name, colour in _coloured(
        ax, dict.fromkeys(key for record in steps for key in record if "loss" in key), "total_loss"
    ):
        at, values = _series(steps, name)
        count = min(window, len(values))
        sums = np.cumsum([0.0, *values])
        ax.plot(
            at[count - 1 :],
            (sums[count:] - sums[:-count]) / count,
            label=name,
            color=colour,
            linewidth=2 if name == "total_loss" else 1,
        )
    ax.set_yscale("log")
    ax.set_ylabel("loss" if window == 1 else f"loss, mean of {window} steps")
    ax.grid(alpha=0.25)
    ax.legend(loc="upper right", fontsize="small")


def _plot_scores(ax: Any, evaluations: Sequence[Mapping[str, Any]]) -> None:
    ax.set_ylim(0, 1)
    ax.set_ylabel("score on validation data, 0 to 1")
    ax.grid(alpha=0.25)
    if not evaluations:
        ax.text(0.5, 0.5, "not evaluated", transform=ax.transAxes, ha="center", va="center")
        return
    flat = [_scores(record) for record in evaluations]
    names = list(dict.fromkeys(name for record in flat for name in record))
    main = next((name for name in names if name not in OF_COCO and name != "iteration"), None)
    for name, colour in _coloured(ax, [name for name in names if name != "iteration"], main):
        at, values = _series(flat, name)
        style: dict[str, Any] = {"linewidth": 1, "marker": "."}
        if name == main and len(values):
            style = {"linewidth": 2.5, "marker": "o"}
            best = int(np.argmax(values))
            ax.annotate(
                f"{values[best]:.3f}",
                (at[best], values[best]),
                textcoords="offset points",
                xytext=(0, -14 if values[best] > 0.5 else 8),
                ha="center",
                bbox={"facecolor": ax.get_facecolor(), "edgecolor": "none", "alpha": 0.8, "pad": 1},
                zorder=4,
            )
        ax.plot(at, values, label=name, color=colour, **style)
    for text in ax.legend(loc="lower right", fontsize="small").get_texts():
        text.set_parse_math(False)


def _coloured(ax: Any, names: Iterable[str], main: str | None) -> list[tuple[str, str]]:
    """Names with the colours of their lines, that of the main one being the text's."""
    colours = line_colours(ax)
    others = [name for name in names if name != main]
    by_name = {name: colours[i % len(colours)] for i, name in enumerate(others)}
    return [(name, by_name.get(name, ink(ax))) for name in names]


def _scores(record: Mapping[str, Any]) -> dict[str, Any]:
    """The iteration and all scores of an evaluation; those of the classes by their names."""
    scores: dict[str, Any] = {"iteration": record["iteration"]}
    for name, value in record.items():
        if isinstance(value, Mapping):
            scores.update(value)
        elif isinstance(value, float) and name not in NOT_SCORES:
            scores[name] = value
    return {name: v for name, v in scores.items() if "coco_" not in name or name in OF_COCO}


def _series(
    records: Sequence[Mapping[str, Any]], name: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps and values of those records that have a number of this name."""
    found = [(r["iteration"], r[name]) for r in records if isinstance(r.get(name), (int, float))]
    return (
        np.array([at for at, _ in found], np.int64),
        np.array([value for _, value in found], np.float64),
    )
