"""Training a classifier on a data set of images with one label each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from oxidet import nn, weights
from oxidet._arrays import F32, choice, number
from oxidet.data import DataLoader, stack
from oxidet.models.classifier import Classifier
from oxidet.nn import functional as F
from oxidet.train.loop import Score, TrainingLoop

ImageTransform = Callable[[F32, np.random.Generator], F32]


class ClassifierTrainer(TrainingLoop):
    """Trains a classifier with cross-entropy and keeps the best weights.

    Files, checkpoints, log, randomness and most options are those of :class:`TrainingLoop`;
    ``best.npz`` holds the weights with the highest accuracy on ``validation``.

    A network with auxiliary heads returns a tuple in training, its logits first. The loss is then
    the cross-entropy of those, plus ``auxiliary_weight`` times that of each head; all are smoothed
    alike, and the log has them one by one.

    Parameters
    ----------
    model
        Module from images (N, C, H, W) to logits (N, classes), or to a tuple of such in training.
    dataset
        Items ``(img, label)``: an image (C, H, W) as the model takes it, and its class from 0.
    out
        Directory of the run, made where missing.
    validation
        A data set of the same kind to measure accuracy on; None to go without.
    epochs, batch_size, lr
        As of :class:`TrainingLoop`.
    augment
        ``augment(img, rng) -> img``, applied to every image in training.
    label_smoothing
        Share of the target spread over all classes, 0..1.
    auxiliary_weight
        Share of each auxiliary loss in the sum; by default the model's own ``auxiliary_weight``.
    options
        All further options of :class:`TrainingLoop`: ``optimizer``, ``schedule``, ``warmup``,
        ``accumulate``, ``max_grad_norm``, ``ema``, ``freeze``, ``early_stop``, ``on_error``,
        ``resume`` and so on.
    """

    label_smoothing: float
    auxiliary_weight: float

    def __init__(
        self,
        model: nn.Module,
        dataset: Any,
        out: str | os.PathLike[str],
        *,
        validation: Any = None,
        epochs: int = 30,
        batch_size: int = 32,
        lr: float = 0.01,
        augment: ImageTransform | None = None,
        label_smoothing: float = 0.0,
        auxiliary_weight: float | None = None,
        **options: Any,
    ) -> None:
        self.label_smoothing = number(label_smoothing, "label_smoothing", 0, 1)
        if auxiliary_weight is None:
            auxiliary_weight = getattr(model, "auxiliary_weight", Classifier.auxiliary_weight)
        self.auxiliary_weight = number(auxiliary_weight, "auxiliary_weight", 0)
        super().__init__(
            model,
            dataset,
            out,
            transform=None if augment is None else _OnItem(augment),
            validation=validation,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            config={
                "augment": augment,
                "label_smoothing": label_smoothing,
                "auxiliary_weight": self.auxiliary_weight,
            },
            **options,
        )

    def losses(self, batch: list[Any]) -> Mapping[str, Any]:
        """The cross-entropy, and that of each auxiliary head where there are any."""
        images, labels = _pairs(batch)
        outputs = self.model(images)
        logits, *heads = outputs if isinstance(outputs, tuple) else (outputs,)
        names = getattr(outputs, "_fields", [f"output{i}" for i in range(1 + len(heads))])
        losses = {
            f"{name}_loss": F.cross_entropy(head, labels, label_smoothing=self.label_smoothing)
            for name, head in zip(names, [logits, *heads], strict=True)
            if head is not None
        }
        total, *auxiliary = losses.values()
        if not auxiliary:
            return {"total_loss": total}
        for loss in auxiliary:
            total = total + self.auxiliary_weight * loss
        return {"total_loss": total, **losses}

    def score(self) -> Score | None:
        """Accuracy on the validation data."""
        if self.validation is None:
            return None
        value = accuracy(
            self.judged,
            self.validation,
            on_error=self.on_error,
            report=self._new_problems.append,
        )
        self._report_problems()
        return Score(value, {"accuracy": value})

    def save_best(self, path: Path) -> None:
        """Write the weights, and the network's recipe and class names where it has them."""
        weights.save_from(self.judged, path)


def accuracy(
    model: nn.Module,
    dataset: Any,
    batch_size: int = 256,
    on_error: Literal["raise", "skip"] = "raise",
    report: Callable[[str], Any] | None = None,
) -> float:
    """Share of a data set's items ``(img, label)`` whose highest logit is their label's.

    The model computes in evaluation mode and is left in the mode it was in. With
    ``on_error="skip"``, items that cannot be read do not count (NaN if none can), and ``report`` is
    called with a line on each instead of a warning.

    Examples
    --------
    >>> flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> flat[1].weight = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    >>> flat[1].bias = np.zeros(2)
    >>> upper, lower = np.array([[[1, 1], [0, 0]]]), np.array([[[0, 0], [1, 1]]])
    >>> accuracy(flat, [(upper, 0), (lower, 1), (lower, 0)])
    0.6666666666666666
    """
    if len(dataset) == 0:
        raise ValueError("dataset: expected at least one item, got none")
    choice(on_error, "on_error", ("raise", "skip"))
    right = seen = 0
    with (
        nn.evaluating(model),
        DataLoader(dataset, batch_size=batch_size, on_error=on_error, report=report) as loader,
    ):
        for batch in filter(None, loader):
            images, labels = _pairs(batch)
            right += int((np.argmax(model(images), axis=1) == labels).sum())
            seen += len(batch)
    return right / seen if seen else math.nan


def _pairs(batch: list[Any]) -> tuple[np.ndarray, ...]:
    """Images and labels of items, as two arrays."""
    for item in batch:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            got = f"{len(item)} values" if isinstance(item, (tuple, list)) else type(item).__name__
            raise ValueError(f"dataset: expected items (image, label), got one of {got}")
    return stack(batch)


class _OnItem:
    """Applies a transform of images to items ``(img, label)``."""

    def __init__(self, augment: ImageTransform) -> None:
        self.augment = augment

    def __call__(self, item: Any, rng: np.random.Generator) -> Any:
        image, label = item
        return self.augment(image, rng), label
