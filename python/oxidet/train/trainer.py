"""Training a detector on a data set of images with boxes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oxidet import weights
from oxidet.data import DataLoader
from oxidet.detection import resize_bbox
from oxidet.models.detection import Detector, save_detector
from oxidet.simple_faster_rcnn import FasterRCNN, Preprocessing
from oxidet.train.evaluate import evaluate_detector
from oxidet.train.faster_rcnn import FasterRCNNTrainer, faster_rcnn_optimizer
from oxidet.train.loop import Score, TrainingLoop, check_schedule, check_validation
from oxidet.transforms import Compose, Sample, Transform


@dataclass(frozen=True)
class PrepareSample:
    """A transform that does to an image what the detector will do to it, and scales the boxes."""

    preprocessing: Preprocessing

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        prepared = self.preprocessing(sample.img)
        old, new = sample.img.shape[1:], prepared.shape[1:]
        return sample._replace(
            img=prepared,
            bbox=resize_bbox(np.asarray(sample.bbox, np.float32), old, new),
            scale=sample.scale * new[1] / old[1],
        )


class Trainer(TrainingLoop):
    """Trains a :class:`FasterRCNN` by approximate joint training and keeps the best weights.

    ``run()`` goes through the data ``epochs`` times and writes three files to ``out``:
    ``last.npz``, a checkpoint from which ``resume=True`` continues to the same bits; ``best.npz``,
    the detector with the highest mean average precision on ``validation`` so far, for
    ``load_detector``; and ``log.jsonl``, a line of JSON for every step and evaluation.

    Randomness: the order of the data comes from (seed, epoch), augmentation from (seed, epoch,
    index), the creators draw from a RandomState(seed) of the trainer's own, and dropout and
    initial weights from the package's state (``oxidet.manual_seed``).

    Parameters
    ----------
    detector
        The detector; one made by ``build_detector`` or ``load_detector`` has a recipe, which
        ``best.npz`` then carries (otherwise it holds weights alone).
    dataset
        Items ``(img, bbox, label[, difficult])``: images (3, H, W) float32 RGB 0..255, boxes
        (R, 4) (y_min, x_min, y_max, x_max) in pixels, labels (R,) from 0. All of an item's
        objects are trained on; R may be 0.
    out
        Directory of the run, made where missing.
    validation
        A data set of the same kind to score the detector on; None to go without.
    epochs
        How often to go through the data.
    batch_size
        Images in a step. The prepared images of a batch must have one size, so images of mixed
        sizes need ``batch_size=1``.
    lr, momentum, weight_decay
        Of :func:`faster_rcnn_optimizer`, unless ``optimizer`` is given.
    optimizer
        Another optimiser over the detector's parameters.
    schedule
        Called with the optimiser and the number of steps of the whole run, returns a schedule
        whose ``step()`` is called after each step (of ``ReduceLROnPlateau``, with the score after
        each evaluation). None keeps the rate.
    max_grad_norm
        Scale the gradients of a step down to this Euclidean norm where it is larger.
    augment
        A transform of the original image and boxes, such as ``oxidet.transforms.RandomFlip()``.
    evaluate_every
        Epochs between evaluations; the last epoch always has one.
    use_07_metric
        Which average precision to evaluate.
    checkpoint_every
        Steps between checkpoints inside an epoch (None: none). Every epoch ends with one.
    log_every
        Steps between lines of the log.
    resume
        True to continue from ``out/last.npz``, or the path of a checkpoint.
    overwrite
        Start anew in a directory that holds a run. Without it that is a FileExistsError.
    num_workers
        Threads that prepare images ahead.
    quiet
        No progress bar.
    objective_options
        ``rpn_sigma``, ``roi_sigma``, ``anchor_target_creator`` and ``proposal_target_creator`` of
        :class:`FasterRCNNTrainer`.

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
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        optimizer: Any = None,
        schedule: Callable[[Any, int], Any] | None = None,
        max_grad_norm: float | None = None,
        augment: Transform | None = None,
        seed: int = 0,
        evaluate_every: int = 1,
        use_07_metric: bool = False,
        checkpoint_every: int | None = 500,
        log_every: int = 1,
        resume: str | os.PathLike[str] | bool = False,
        overwrite: bool = False,
        num_workers: int = 2,
        quiet: bool = False,
        **objective_options: Any,
    ) -> None:
        check_validation(validation)
        if not isinstance(detector, FasterRCNN):
            raise TypeError(f"detector: expected a FasterRCNN, got a {type(detector).__name__}")
        self.detector = detector
        self.dataset = dataset
        self.validation = validation
        self.use_07_metric = use_07_metric
        self.rng = np.random.RandomState(seed)
        self.objective = FasterRCNNTrainer(detector, rng=self.rng, **objective_options)
        prepare = PrepareSample(detector.preprocessing)
        loader = DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=True,
            num_workers=num_workers,
            seed=seed,
            transform=Compose([prepare] if augment is None else [augment, prepare]),
        )
        if optimizer is None:
            optimizer = faster_rcnn_optimizer(detector, lr, momentum, weight_decay)
        scheduled = None if schedule is None else schedule(optimizer, epochs * len(loader))
        check_schedule(scheduled, validation)
        super().__init__(
            detector,
            optimizer,
            loader,
            out,
            epochs=epochs,
            schedule=scheduled,
            max_grad_norm=max_grad_norm,
            evaluate_every=evaluate_every,
            checkpoint_every=checkpoint_every,
            log_every=log_every,
            resume=resume,
            overwrite=overwrite,
            quiet=quiet,
            config={"detector": detector.recipe, "augment": augment},
        )

    def losses(self, batch: list[Any]) -> Mapping[str, Any]:
        """The four losses and their sum."""
        for index, sample in zip(self._indices(batch), batch, strict=True):
            check_ground_truth(
                sample.bbox, sample.label, self.detector.n_class - 1, self._name(index)
            )
        sizes = {sample.img.shape for sample in batch}
        if len(sizes) > 1:
            raise ValueError(
                f"batch_size: expected 1 for images of mixed sizes, got {len(batch)} and prepared "
                f"images of shapes {sorted(sizes)} ({self.describe(batch)})"
            )
        losses = self.objective(
            np.stack([sample.img for sample in batch]),
            [sample.bbox for sample in batch],
            [sample.label for sample in batch],
            scale=[sample.scale for sample in batch],
        )
        return dict(losses._asdict())

    def score(self) -> Score | None:
        """Mean average precision on the validation data."""
        if self.validation is None:
            return None
        result = evaluate_detector(
            self.detector, self.validation, use_07_metric=self.use_07_metric, quiet=self.quiet
        )
        return Score(result.mean_ap, {"mean_ap": result.mean_ap, "ap": result.ap})

    def save_best(self, path: Path) -> None:
        """Write a detector file, or weights alone if the detector has no recipe."""
        if self.detector.recipe is not None:
            save_detector(path, self.detector)
        else:
            weights.save(path, self.detector.state_dict())

    def describe(self, batch: list[Any]) -> str:
        """Name the images of a batch."""
        return ", ".join(self._name(index) for index in self._indices(batch))

    def random_state(self) -> dict[str, Any]:
        """State of the creators' random stream."""
        return {"creators": self.rng.get_state(legacy=False)}

    def set_random_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`random_state` returned."""
        self.rng.set_state(state["creators"])

    def _indices(self, batch: list[Any]) -> list[int]:
        start = self.batch * self.loader.batch_size
        return self.loader.order(self.epoch)[start : start + len(batch)]

    def _name(self, index: int) -> str:
        ids = getattr(self.dataset, "ids", None)
        return f"image {index}" if ids is None else f"image {index} ({ids[index]})"


def check_ground_truth(bbox: Any, label: Any, n_fg_class: int, name: str) -> None:
    """Refuse ground truth that cannot be learned from; ``name`` says in messages where it is.

    Raises
    ------
    ValueError
        A coordinate is NaN or infinite, a box has no height or width, a label is no class, or
        boxes and labels differ in number. The message names the row.

    Examples
    --------
    >>> check_ground_truth([[0, 0, 9, 9], [4, 4, 4, 9]], [0, 1], 20, "image 7")
    Traceback (most recent call last):
        ...
    ValueError: bbox: expected finite y_min < y_max and x_min < x_max, got (4.0, 4.0, 4.0, 9.0) in \
row 1 of image 7
    """
    bbox, label = np.asarray(bbox), np.asarray(label)
    if bbox.ndim != 2 or bbox.shape[1] != 4:
        raise ValueError(f"bbox: expected shape (R, 4), got {bbox.shape} in {name}")
    if label.shape != bbox.shape[:1]:
        raise ValueError(
            f"label: expected shape {bbox.shape[:1]} for as many boxes, got {label.shape} in {name}"
        )
    sane = np.isfinite(bbox).all(axis=1) & (bbox[:, 2:] > bbox[:, :2]).all(axis=1)
    if not sane.all():
        row = int(np.argmin(sane))
        raise ValueError(
            "bbox: expected finite y_min < y_max and x_min < x_max, "
            f"got {tuple(map(float, bbox[row]))} in row {row} of {name}"
        )
    known = (label >= 0) & (label < n_fg_class)
    if not known.all():
        row = int(np.argmin(known))
        raise ValueError(
            f"label: expected a class from 0 to {n_fg_class - 1}, "
            f"got {label[row]} in row {row} of {name}"
        )
