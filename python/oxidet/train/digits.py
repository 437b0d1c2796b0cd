"""The recipes of the shipped weights: LeNet-5 on digits, the small Faster R-CNN on digit scenes.

::

    python -m oxidet.train.digits lenet --out runs/lenet
    python -m oxidet.train.digits detector --out runs/digits

Every choice here was made on validation data. ``--resume`` continues a run that was stopped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import oxidet
from oxidet import weights
from oxidet._arrays import F32
from oxidet.data import DigitScenes, lenet_input, load_digits
from oxidet.data.digits import BACKGROUND, Split
from oxidet.models import LeNet5
from oxidet.models.detection import build_detector, load_detector, save_detector
from oxidet.optim import Optimizer
from oxidet.optim.lr_scheduler import LRScheduler, warmup_cosine
from oxidet.simple_faster_rcnn import faster_rcnn_optimizer
from oxidet.train.classifier import ClassifierTrainer, accuracy
from oxidet.train.evaluate import Evaluation, evaluate_detector
from oxidet.train.trainer import Trainer


class DigitImages:
    """The scans of one split as LeNet-5 takes them; items ``(img (1, 32, 32), label)``."""

    images: F32
    labels: NDArray[np.int32]

    def __init__(self, split: Split) -> None:
        scans = load_digits(split)
        self.images, self.labels = lenet_input(scans.images), scans.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[F32, Any]:
        return self.images[index], self.labels[index]


@dataclass(frozen=True)
class RandomAffine:
    """Turns, scales, slants and shifts an image a little, about its centre."""

    degrees: float = 10.0
    """Largest turn to either side."""
    scale: float = 0.12
    """Largest relative change of size, drawn for height and width separately."""
    shear: float = 0.1
    """Largest slant: pixels sideways for a pixel up."""
    shift: float = 2.0
    """Largest shift along each axis, in pixels."""
    fill: float = BACKGROUND
    """What lies beyond the edge."""

    def __call__(self, img: F32, rng: np.random.Generator) -> F32:
        angle = np.radians(rng.uniform(-self.degrees, self.degrees))
        slant = rng.uniform(-self.shear, self.shear)
        zoom_y, zoom_x = np.exp(rng.uniform(-self.scale, self.scale, 2))
        offset = rng.uniform(-self.shift, self.shift, 2)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, 0], [slant, 1]])
        inverse = turn @ np.diag([1 / zoom_y, 1 / zoom_x])

        height, width = img.shape[1:]
        centre = np.array([[height - 1], [width - 1]]) / 2
        grid = np.indices((height, width)).reshape(2, -1)
        y, x = inverse @ (grid - centre - offset[:, None]) + centre
        padded = np.pad(img, ((0, 0), (1, 1), (1, 1)), constant_values=self.fill)
        y, x = np.clip(y + 1, 0, height + 0.999), np.clip(x + 1, 0, width + 0.999)
        row, column = y.astype(int), x.astype(int)
        v, u = (y - row).astype(np.float32), (x - column).astype(np.float32)
        upper = padded[:, row, column] * (1 - u) + padded[:, row, column + 1] * u
        lower = padded[:, row + 1, column] * (1 - u) + padded[:, row + 1, column + 1] * u
        return (upper * (1 - v) + lower * v).reshape(img.shape).astype(np.float32)


def warm_up_and_cool_down(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Up to the learning rate in the first twentieth of the run, then along a cosine to zero."""
    return warmup_cosine(optimizer, steps // 20, steps, start_factor=0.05)


# --- LeNet-5


def train_lenet(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    epochs: int = 120,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> LeNet5:
    """Train LeNet-5 on the training digits, watched on the validation digits.

    Writes the weights of the last epoch to ``lenet5_digits.npz`` in ``out``, in half precision, and
    returns the model of them.
    """
    oxidet.manual_seed(seed)
    model = LeNet5()
    trainer = ClassifierTrainer(
        model,
        DigitImages("train"),
        out,
        validation=DigitImages("validation"),
        epochs=epochs,
        batch_size=32,
        lr=0.03,
        weight_decay=2e-3,
        label_smoothing=0.1,
        schedule=warm_up_and_cool_down,
        augment=RandomAffine(),
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
    )
    trainer.run()
    path = Path(out) / "lenet5_digits.npz"
    weights.save(path, model.state_dict(), dtype="float16")
    model.load_state_dict(weights.load(path))
    return model.eval()


# --- the detector


def train_digit_detector(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    epochs: int = 8,
    scenes: int = 2500,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Train the small Faster R-CNN on scenes of training digits, watched on validation scenes.

    Writes the weights of the last epoch to ``faster_rcnn_small_digits.npz`` in ``out``, in half
    precision, and returns its path.
    """
    oxidet.manual_seed(seed)
    detector = build_detector("faster_rcnn_small", class_names=DigitScenes.class_names)
    trainer = Trainer(
        detector,
        # More digits than in the scenes to be judged by: a step costs the same and teaches more.
        DigitScenes("train", length=scenes, digits=(4, 14)),
        out,
        validation=DigitScenes("validation", length=200),
        epochs=epochs,
        batch_size=4,
        optimizer=faster_rcnn_optimizer(detector, lr=0.03, weight_decay=1e-4),
        schedule=warm_up_and_cool_down,
        max_grad_norm=10.0,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
    )
    trainer.run()
    path = Path(out) / "faster_rcnn_small_digits.npz"
    save_detector(path, detector, dtype="float16")
    return path


def judged_scenes() -> DigitScenes:
    """The 200 scenes of test digits that the published figure is of."""
    return DigitScenes("test", length=200)


def measure_lenet(model: LeNet5) -> float:
    """Accuracy on the 360 test digits."""
    return accuracy(model, DigitImages("test"))


def measure_detector(path: str | os.PathLike[str], *, quiet: bool = False) -> Evaluation:
    """Average precision on :func:`judged_scenes` of a detector file."""
    return evaluate_detector(load_detector(path), judged_scenes(), quiet=quiet)


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m oxidet.train.digits``."""
    parser = argparse.ArgumentParser(
        prog="python -m oxidet.train.digits", description="Train the shipped weights."
    )
    parser.add_argument("model", choices=("lenet", "detector"))
    parser.add_argument("--out", required=True, type=Path, help="directory of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace a run in that directory")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--test", action="store_true", help="measure on test digits at the end")
    options = vars(parser.parse_args(arguments))
    model, test = options.pop("model"), options.pop("test")
    if options["epochs"] is None:
        del options["epochs"]
    if model == "lenet":
        lenet = train_lenet(**options)
        if test:
            print(f"accuracy on the test digits: {measure_lenet(lenet):.4f}")
    else:
        path = train_digit_detector(**options)
        if test:
            print(measure_detector(path))


if __name__ == "__main__":
    main()
