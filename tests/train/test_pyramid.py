"""A detector with torchvision's structure under the trainer: mixed sizes in a batch, and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import oxidet
from oxidet.models.detection import build_detector
from oxidet.train import Trainer
from oxidet.transforms import Compose, RandomFlip, RandomPhotometricDistort, ScaleJitter
from train.runs import assert_same_run
from train.tiny import Rectangles


class Mixed(Rectangles):
    """Every other image is less high."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        img, bbox, *rest = super().__getitem__(index)
        return (img, bbox, *rest) if index % 2 else (img[:, :40], bbox.clip(0, 40), *rest)


def start(out: Path, seed: int = 0, **options: Any) -> Trainer:
    oxidet.manual_seed(seed)
    augment = Compose([RandomFlip(0.5, 0.5), ScaleJitter((0.8, 1.2)), RandomPhotometricDistort()])
    detector = build_detector(
        "fasterrcnn_resnet_fpn",
        backbone="resnet18",
        n_fg_class=2,
        class_names=Rectangles.class_names,
        norm_layer="batch",
        min_size=64,
        max_size=96,
    )
    return Trainer(
        detector,
        Mixed(8),
        out,
        validation=Mixed(2),
        epochs=2,
        batch_size=2,
        accumulate=2,
        lr=0.005,
        ema=0.9,
        schedule="cosine",
        warmup=1,
        checkpoint_every=1,
        multi_scale=(56, 64),
        augment=augment,
        quiet=True,
        **options,
    )


@pytest.mark.slow
def test_it_resumes_to_the_same_bits_with_another_number_of_threads(tmp_path: Path) -> None:
    oxidet.set_num_threads(2)
    start(tmp_path / "straight").run()
    oxidet.set_num_threads(1)
    stopped = start(tmp_path / "stopped")
    step = stopped._step

    def counted(batches: list[list[Any]]) -> None:
        if stopped.iteration == 3:
            raise RuntimeError("stopped")
        step(batches)

    stopped._step = counted  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="stopped"):
        stopped.run()
    resumed = start(tmp_path / "stopped", seed=5, num_workers=0, resume=True)
    assert resumed.iteration == 3
    resumed.run()
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")
