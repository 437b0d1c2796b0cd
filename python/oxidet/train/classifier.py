"""Training a classifier on a data set of images with one label each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oxidet import nn, weights
from oxidet._arrays import F32
from oxidet.data import DataLoader, stack
from oxidet.nn import functional as F
from oxidet.optim import SGD
from oxidet.train.loop import Score, TrainingLoop, check_validation

ImageTransform = Callable[[F32, np.random.Generator], F32]


class ClassifierTrainer(TrainingLoop):
    """Trains a classifier with cross-entropy and keeps the best weights.

    Files, checkpoints, log and randomness are those of :class:`oxidet.train.Trainer`; ``best.npz``
    holds the weights with the highest accuracy on ``validation``.

    Parameters
    ----------
    model
        Module from images (N, C, H, W) to logits (N, classes).
    dataset
        Items ``(img, label)``: an image (C, H, W) as the model takes it, and its class from 0.
    out
        Directory of the run, made where missing.
    validation
        A data set of the same kind to measure accuracy on; None to go without.
    epochs, batch_size
        How often to go through the data, and images in a step.
    lr, momentum, weight_decay
        Of SGD, unless ``optimizer`` is given.
    augment
        ``augment(img, rng) -> img``, applied to every image in training.
    label_smoothing
        Share of the target spread over all classes, 0..1.

    The other parameters are those of :class:`oxidet.train.Trainer`.
    """

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
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        optimizer: Any = None,
        schedule: Callable[[Any, int], Any] | None = None,
        max_grad_norm: float | None = None,
        augment: ImageTransform | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        evaluate_every: int = 1,
        checkpoint_every: int | None = 500,
        log_every: int = 1,
        resume: str | os.PathLike[str] | bool = False,
        overwrite: bool = False,
        num_workers: int = 1,
        quiet: bool = False,
    ) -> None:
        check_validation(validation)
        self.validation = validation
        self.label_smoothing = label_smoothing
        loader = DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=True,
            num_workers=num_workers,
            seed=seed,
            transform=None if augment is None else _OnItem(augment),
        )
        if optimizer is None:
            parameters = [p for p in model.parameters() if p.requires_grad]
            optimizer = SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
        super().__init__(
            model,
            optimizer,
            loader,
            out,
            epochs=epochs,
            schedule=None if schedule is None else schedule(optimizer, epochs * len(loader)),
            max_grad_norm=max_grad_norm,
            evaluate_every=evaluate_every,
            checkpoint_every=checkpoint_every,
            log_every=log_every,
            resume=resume,
            overwrite=overwrite,
            quiet=quiet,
            config={"augment": augment, "label_smoothing": label_smoothing},
        )

    def losses(self, batch: list[Any]) -> Mapping[str, Any]:
        """The cross-entropy."""
        images, labels = stack(batch)
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return {"total_loss": loss}

    def score(self) -> Score | None:
        """Accuracy on the validation data."""
        if self.validation is None:
            return None
        value = accuracy(self.model, self.validation)
        return Score(value, {"accuracy": value})

    def save_best(self, path: Path) -> None:
        """Write the weights."""
        weights.save(path, self.model.state_dict())


def accuracy(model: nn.Module, dataset: Any, batch_size: int = 256) -> float:
    """Share of a data set's items ``(img, label)`` whose highest logit is their label's.

    The model computes in evaluation mode and is left in the mode it was in.

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
    right = 0
    with nn.evaluating(model), DataLoader(dataset, batch_size=batch_size, collate=stack) as loader:
        for images, labels in loader:
            right += int((np.argmax(model(images), axis=1) == labels).sum())
    return right / len(dataset)


class _OnItem:
    """Applies a transform of images to items ``(img, label)``."""

    def __init__(self, augment: ImageTransform) -> None:
        self.augment = augment

    def __call__(self, item: Any, rng: np.random.Generator) -> Any:
        image, label = item
        return self.augment(image, rng), label
