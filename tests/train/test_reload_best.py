"""Going on from the best weights after an epoch, as simple-faster-rcnn's schedule does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import weights
from oxidet.train.loop import Score
from train.runs import make_trainer


@pytest.mark.parametrize("reload_best", [(), (2,)])
def test_the_best_weights_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reload_best: tuple[int, ...]
) -> None:
    trainer = make_trainer(
        tmp_path,
        epochs=2,
        reload_best=reload_best,
        schedule="step",
        schedule_options={"milestones": [2], "gamma": 0.1},
    )
    scores = iter([0.5, 0.25])
    monkeypatch.setattr(trainer, "score", lambda: Score(value := next(scores), {"mean_ap": value}))
    trainer.run()
    best = weights.load(tmp_path / "best.npz")
    same = [np.array_equal(trainer.model.state_dict()[key], best[key]) for key in best]
    assert all(same) is bool(reload_best)
    # So they are where a resumed run goes on.
    resumed: Any = make_trainer(
        tmp_path,
        epochs=2,
        reload_best=reload_best,
        schedule="step",
        schedule_options={"milestones": [2], "gamma": 0.1},
        resume=True,
    )
    for key, value in resumed.model.state_dict().items():
        np.testing.assert_array_equal(value, trainer.model.state_dict()[key], key)


def test_bad_epochs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reload_best: expected an integer of at least 1, got 0"):
        make_trainer(tmp_path, reload_best=[0])
    with pytest.raises(ValueError, match="reload_best: expected validation data"):
        make_trainer(tmp_path, reload_best=[1], validation=None)
