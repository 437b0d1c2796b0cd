"""The plot of a training log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oxidet.train import JsonLog
from oxidet.visualize import training_curves

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


def write_log(path: Path, steps: int) -> list[float]:
    losses = [1 / (1 + i) for i in range(steps)]
    log = JsonLog(path)
    for i, loss in enumerate(losses, start=1):
        step = {"event": "step", "iteration": i, "rpn_loc_loss": loss / 4, "total_loss": loss}
        log.write({**step, "gradient_norm": 1.0})
        if i % 10 == 0:
            log.write(
                {"event": "evaluation", "iteration": i, "mean_ap": i / 100, "seconds": 1.5 * i}
            )
    log.close()
    return losses


def test_losses_are_averaged_and_scores_marked(tmp_path: Path) -> None:
    losses = write_log(tmp_path / "log.jsonl", 30)
    axes = training_curves(tmp_path / "log.jsonl", smooth=5)
    lines = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    assert list(lines) == ["rpn_loc_loss", "total_loss"]
    expected = [np.mean(losses[i - 5 : i]) for i in range(5, 31)]
    np.testing.assert_allclose(lines["total_loss"][:, 0], range(5, 31))
    np.testing.assert_allclose(lines["total_loss"][:, 1], expected, rtol=1e-9)
    [twin] = [other for other in axes.figure.axes if other is not axes]
    [scores] = twin.get_lines()
    np.testing.assert_allclose(scores.get_xydata(), [[10, 0.1], [20, 0.2], [30, 0.3]])
    pyplot.close("all")


def test_given_axes_are_used_and_short_logs_plotted(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", 3)
    figure, axes = pyplot.subplots()
    assert training_curves(tmp_path / "log.jsonl", ax=axes) is axes
    assert figure.axes == [axes]
    assert len(axes.get_lines()[0].get_xydata()) == 1
    pyplot.close("all")


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", 0)
    with pytest.raises(ValueError, match=r"log: expected at least one step"):
        training_curves(tmp_path / "log.jsonl")
    (tmp_path / "other.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(ValueError, match=r"log: expected at least one step, got none in .*other"):
        training_curves(tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match="smooth: expected at least 1, got 0"):
        training_curves(tmp_path / "log.jsonl", smooth=0)
