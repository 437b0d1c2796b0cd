"""The plot of a training log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.train import JsonLog, read_log
from oxidet.visualize import training_curves

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


def write_log(path: Path, steps: int) -> list[float]:
    losses = [1 / (1 + i) for i in range(steps)]
    log = JsonLog(path)
    for i, loss in enumerate(losses, start=1):
        step = {"event": "step", "iteration": i, "lr": 0.1 / i}
        log.write({**step, "loss_box": loss / 4, "total_loss": loss, "gradient_norm": 1.0})
        if i % 10 == 0:
            scores = {"mean_ap": i / 100, "ap": {"cat": i / 50, "dog": float("nan")}}
            coco = {"coco_AP": i / 200, "coco_ARs": 0.5}
            log.write({"event": "evaluation", "iteration": i, **scores, **coco, "seconds": 1.5 * i})
    log.close()
    return losses


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_losses_are_averaged_and_scores_marked(tmp_path: Path) -> None:
    losses = write_log(tmp_path / "log.jsonl", 60)
    loss, rate, score = training_curves(tmp_path / "log.jsonl", smooth=5)
    drawn = lines(loss)
    assert list(drawn) == ["loss_box", "total_loss"]
    expected = [np.mean(losses[i - 5 : i]) for i in range(5, 61)]
    np.testing.assert_allclose(drawn["total_loss"][:, 0], range(5, 61))
    np.testing.assert_allclose(drawn["total_loss"][:, 1], expected, rtol=1e-9)
    [rates] = rate.get_lines()
    np.testing.assert_allclose(rates.get_ydata(), [0.1 / i for i in range(1, 61)])
    scores = lines(score)
    assert list(scores) == ["mean_ap", "cat", "dog", "coco_AP"]
    np.testing.assert_allclose(scores["mean_ap"], [[i, i / 100] for i in range(10, 61, 10)])
    np.testing.assert_allclose(scores["cat"][:, 1], [i / 50 for i in range(10, 61, 10)])
    assert len(scores["dog"]) == 0  # null in the log
    assert [text.get_text() for text in score.texts] == ["0.600"]
    labels = [axes.get_ylabel() for axes in (loss, rate, score)]
    assert labels == [
        "loss, mean of 5 steps", "learning rate", "score on validation data, 0 to 1"
    ]  # fmt: skip
    assert score.get_xlabel() == "step"
    pyplot.close("all")


def test_records_given_axes_and_short_logs(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", 3)
    figure, axes = pyplot.subplots(1, 3)
    records = read_log(tmp_path / "log.jsonl")
    assert training_curves(records, axes=axes) == tuple(axes)
    assert figure.axes == list(axes)
    assert len(axes[0].get_lines()[0].get_xydata()) == 3
    assert [text.get_text() for text in axes[2].texts] == ["not evaluated"]
    with pytest.raises(ValueError, match="axes: expected three, got 2"):
        training_curves(records, axes=axes[:2])
    pyplot.close("all")


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", 0)
    with pytest.raises(ValueError, match=r"log: expected at least one step"):
        training_curves(tmp_path / "log.jsonl")
    (tmp_path / "other.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(ValueError, match=r"log: expected at least one step, got none in .*other"):
        training_curves(tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match=r"log: expected at least one step, got none$"):
        training_curves([])
    with pytest.raises(ValueError, match="smooth: expected at least 1, got 0"):
        training_curves(tmp_path / "log.jsonl", smooth=0)
