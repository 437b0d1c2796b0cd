"""Short runs of the trainer on :class:`Rectangles`, and what makes two of them the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from oxidet.train import Trainer, load_checkpoint, read_log
from oxidet.transforms import RandomFlip
from train.tiny import Rectangles, tiny_detector


def make_trainer(out: Path, **changes: Any) -> Trainer:
    options: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 2,
        "lr": 0.01,
        "augment": RandomFlip(),
        "validation": Rectangles(3),
        "max_grad_norm": 5.0,
        "checkpoint_every": None,
        "seed": 4,
        "quiet": True,
        **changes,
    }
    dataset = options.pop("dataset", Rectangles(8))
    detector = options.pop("detector", None) or tiny_detector()
    return Trainer(detector, dataset, out, **options)


def make_eventful(out: Path, epochs: int) -> Trainer:
    """A run with all that has a state: momentum, moving average, schedule, random sizes and
    augmentation, accumulation; continued where there is something to continue."""
    return make_trainer(
        out,
        epochs=epochs,
        batch_size=1,
        accumulate=2,
        checkpoint_every=1,
        ema=0.9,
        schedule="cosine",
        warmup=2,
        multi_scale=(40, 48),
        optimizer="adamw",
        resume=(out / "last.npz").exists(),
    )


def assert_same_run(got: Path, expected: Path) -> None:
    """Both directories hold the same run, to the bit; only times may differ."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: timeless(v)
                for k, v in value.items()
                if k not in ("seconds", "images_per_second")
            }
        return value

    ours, theirs = (load_checkpoint(out / "last.npz") for out in (got, expected))
    for name, array in theirs["model"].items():
        assert ours["model"][name].tobytes() == array.tobytes(), name
    np.testing.assert_equal(timeless(ours), timeless(theirs))
    logs = [[timeless(record) for record in read_log(out / "log.jsonl")] for out in (got, expected)]
    assert logs[0] == logs[1]
    assert (got / "best.npz").read_bytes() == (expected / "best.npz").read_bytes()
