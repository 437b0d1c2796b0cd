"""Training a detector on a data set of images with boxes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from oxidet import weights
from oxidet._arrays import choice, integer
from oxidet.models.detection import Detector, save_detector
from oxidet.models.detection.detector_files import THRESHOLDS
from oxidet.train.evaluate import Evaluation, evaluate_detector
from oxidet.train.ground_truth import PrepareItem
from oxidet.train.loop import Score, TrainingLoop
from oxidet.transforms import Transform

Metric = Literal["voc", "voc07", "coco"]


class Trainer(TrainingLoop):
    """Trains any :class:`oxidet.models.detection.Detector` and keeps the best weights.

    A step takes the sum of the losses that the detector computes of a batch. Files, checkpoints,
    log, randomness and most options are those of :class:`TrainingLoop`; ``best.npz`` is for
    ``load_detector``. What the detector draws, such as which anchors it learns from, and the sizes
    of ``multi_scale`` come from a RandomState(seed) of the trainer's own.

    Parameters
    ----------
    detector
        The detector. ``best.npz`` carries its recipe, so that the file is enough to load it; of one
        that was built around Modules of one's own it holds weights alone.
    dataset
        Items ``(img, bbox, label[, difficult[, crowd]])``: images (3, H, W) float32 RGB 0..255,
        boxes (R, 4) (y_min, x_min, y_max, x_max) in pixels, labels (R,) from 0, and marks (R,)
        bool. R may be 0: images without objects are trained on, too.
    out
        Directory of the run, made where missing.
    validation
        A data set of the same kind to score the detector on; None to go without.
    epochs, batch_size, lr, num_workers
        As of :class:`TrainingLoop`. Images of a batch may differ in size if the detector can take
        them so: torchvision's family pads them, the detectors after simple-faster-rcnn take one
        size at a time.
    augment
        A transform of the original image and boxes, such as ``oxidet.transforms.RandomFlip()``. A
        box of which it leaves nothing is left out.
    multi_scale
        Lengths of the short side, of which every batch draws one; None for the detector's own.
    metric
        The score: mean average precision by VOC at IoU 0.5 (``"voc"``), that with the eleven
        points of VOC 2007 (``"voc07"``), or COCO's mean over IoU 0.50 to 0.95 (``"coco"``). The log
        has both VOC's and COCO's figures in any case.
    use_difficult
        Learn from objects marked as difficult, too. Crowds are never learned from.
    seed
        Of order, augmentation and what is drawn in a step.
    **options
        All further options of :class:`TrainingLoop`: ``optimizer``, ``schedule``, ``warmup``,
        ``accumulate``, ``max_grad_norm``, ``ema``, ``freeze``, ``freeze_batch_norm``,
        ``early_stop``, ``on_error``, ``resume`` and so on.

    Examples
    --------
    One step on two images with a bright square each:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from oxidet.models.detection import build_detector
    >>> from oxidet.simple_faster_rcnn import Preprocessing
    >>> from oxidet.train import Trainer, read_log
    >>> image = np.zeros((3, 48, 48), np.float32)
    >>> image[:, 8:28, 10:30] = 255
    >>> item = (image, np.array([[8, 10, 28, 30]], np.float32), np.array([0], np.int32))
    >>> detector = build_detector(
    ...     "faster_rcnn_small", n_fg_class=1, preprocessing=Preprocessing(48, 48)
    ... )
    >>> out = Path(tempfile.mkdtemp())
    >>> trainer = Trainer(detector, [item, item], out, epochs=1, batch_size=2, quiet=True)
    >>> trainer.run()
    >>> sorted(path.name for path in out.iterdir())
    ['last.npz', 'log.jsonl']
    >>> [(record["iteration"], record["total_loss"] > 0) for record in read_log(out / "log.jsonl")]
    [(1, True)]
    """

    model: Detector
    metric: str
    rng: np.random.RandomState
    multi_scale: tuple[int, ...] | None

    def __init__(
        self,
        detector: Detector,
        dataset: Any,
        out: str | os.PathLike[str],
        *,
        validation: Any = None,
        epochs: int = 14,
        batch_size: int = 1,
        lr: float = 1e-3,
        augment: Transform | None = None,
        multi_scale: Sequence[int] | None = None,
        metric: Metric = "voc",
        use_difficult: bool = False,
        seed: int = 0,
        num_workers: int = 2,
        **options: Any,
    ) -> None:
        self.metric = choice(metric, "metric", ("voc", "voc07", "coco"))
        self.rng = np.random.RandomState(seed)
        self.multi_scale = None
        if multi_scale is not None:
            self.multi_scale = tuple(integer(size, "multi_scale", 1) for size in multi_scale)
            if not self.multi_scale:
                raise ValueError("multi_scale: expected at least one length, got none")
        super().__init__(
            detector,
            dataset,
            out,
            transform=PrepareItem(len(detector.class_names), use_difficult, augment),
            validation=validation,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            seed=seed,
            num_workers=num_workers,
            config={
                "detector": _trained(detector.recipe),
                "augment": augment,
                "multi_scale": self.multi_scale,
                "metric": metric,
                "use_difficult": use_difficult,
            },
            **options,
        )

    def losses(self, batch: list[Any]) -> Mapping[str, Any]:
        """The detector's losses and their sum."""
        min_size = None
        if self.multi_scale is not None:
            min_size = self.multi_scale[self.rng.randint(len(self.multi_scale))]
        losses = self.model.training_losses(
            [sample.img for sample in batch],
            [np.asarray(sample.bbox, np.float32)[:, [1, 0, 3, 2]] for sample in batch],
            [np.asarray(sample.label, np.int64) for sample in batch],
            rng=self.rng,
            min_size=min_size,
        )
        total: Any = sum(losses.values())
        return {**losses, "total_loss": total}

    def score(self) -> Score | None:
        """Mean average precision on the validation data."""
        if self.validation is None:
            return None
        result = evaluate_detector(
            self._judged_detector(),
            self.validation,
            use_07_metric=self.metric == "voc07",
            num_workers=max(self.loader.num_workers, 1),
            on_error=self.on_error,
            quiet=self.quiet,
        )
        self._new_problems.extend(result.skipped)
        self._report_problems()
        return Score(*figures(result, self.metric))

    def save_best(self, path: Path) -> None:
        """Write a detector file, or weights alone if the detector has no recipe."""
        detector = self._judged_detector()
        if detector.recipe is not None:
            save_detector(path, detector)
        else:
            weights.save(path, detector.state_dict())

    def random_state(self) -> dict[str, Any]:
        """State of the random stream that detector and sizes draw from."""
        return {"detector": self.rng.get_state(legacy=False)}

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`random_state` returned."""
        self.rng.set_state(state["detector"])

    def _judged_detector(self) -> Detector:
        judged = self.judged
        assert isinstance(judged, Detector)  # a copy of the one that was given
        return judged


def figures(result: Evaluation, metric: str) -> tuple[float, dict[str, Any]]:
    """The score of an evaluation by a metric, and what the log says about it: ``mean_ap`` and the
    classes' ``ap`` by that metric, and COCO's twelve numbers."""
    value, ap = result.mean_ap, result.ap
    if metric == "coco":
        value, ap = result.coco_figures["AP"], result.coco_ap
    coco = {f"coco_{name}": number for name, number in result.coco_figures.items()}
    known = {name: number for name, number in coco.items() if not math.isnan(number)}
    return value, {"mean_ap": value, "ap": ap, **known}


def _trained(recipe: dict[str, Any] | None) -> dict[str, Any] | None:
    """What matters to training of a recipe: not where ``predict`` draws the line."""
    if recipe is None:
        return None
    return {name: value for name, value in recipe.items() if name not in THRESHOLDS}
