"""Going on from the best weights after an epoch, as simple-faster-rcnn's schedule does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import weights
from oxidet.train.loop import Score
from train.runs import make_trainer
from train.tiny import Rectangles


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


def test_a_run_goes_on_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the best weights of the first, which are read when training goes back to them."""
    first, second = tmp_path / "first", tmp_path / "second"
    options: dict[str, Any] = {"reload_best": (2,), "dataset": Rectangles(4)}
    begun = make_trainer(first, epochs=1, **options)
    monkeypatch.setattr(begun, "score", lambda: Score(0.5, {"mean_ap": 0.5}))
    begun.run()
    names = ("best.npz", "last.npz", "log.jsonl")
    before = {name: (first / name).read_bytes() for name in names}

    resumed = make_trainer(second, epochs=2, resume=first, **options)
    monkeypatch.setattr(resumed, "score", lambda: Score(0.25, {"mean_ap": 0.25}))
    assert (resumed.epoch, resumed.best) == (1, 0.5)
    assert not second.exists()
    resumed.run()
    assert {name: (first / name).read_bytes() for name in names} == before
    assert (second / "best.npz").read_bytes() == before["best.npz"]
    best = weights.load(first / "best.npz")
    for key, value in resumed.model.state_dict().items():
        np.testing.assert_array_equal(value, best[key], key)

    # A folder with a run is not written over by another one that goes on there.
    with pytest.raises(FileExistsError, match="out: expected a directory without last"):
        make_trainer(second, epochs=2, resume=first / "last.npz", **options)
    replacing = make_trainer(second, epochs=2, resume=first / "last.npz", overwrite=True, **options)
    assert replacing.epoch == 1
    (first / "best.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected best\.npz beside last\.npz, for reload"):
        make_trainer(tmp_path / "third", epochs=2, resume=first, **options)
    # Nothing to go back to.
    assert make_trainer(first, epochs=2, resume=first, **options).epoch == 1


def test_bad_epochs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reload_best: expected an integer of at least 1, got 0"):
        make_trainer(tmp_path, reload_best=[0])
    with pytest.raises(ValueError, match="reload_best: expected validation data"):
        make_trainer(tmp_path, reload_best=[1], validation=None)
