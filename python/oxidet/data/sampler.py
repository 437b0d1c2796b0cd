"""Orders of a data set in which rare classes come more often."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import integer, number
from oxidet.data._seeding import generator


def repeat_factors(labels: Iterable[Any], threshold: float) -> NDArray[np.float64]:
    """How often each image should come in an epoch, (N,), at least 1.

    With f(c) the share of images that have class c, ``r(c) = max(1, sqrt(threshold / f(c)))``, and
    an image's factor is the largest r(c) of its classes; 1 without objects. ``labels`` is an array
    (R,) for each image.

    >>> from oxidet.data import repeat_factors
    >>> repeat_factors([[0], [0, 0], [0, 1], []], threshold=1.0).round(3).tolist()
    [1.155, 1.155, 2.0, 1.0]
    """
    classes = [np.unique(np.asarray(row, np.int64)) for row in labels]
    threshold = number(threshold, "threshold", 0, 1)
    if not classes:
        return np.zeros(0)
    found, counts = np.unique(np.concatenate(classes), return_counts=True)
    of_class = np.maximum(1.0, np.sqrt(threshold * len(classes) / counts))
    return np.array(
        [of_class[np.searchsorted(found, row)].max(initial=1.0) for row in classes], np.float64
    )


class RepeatFactorSampler:
    """Repeats images of rare classes: the order of a :class:`DataLoader` for unbalanced data.

    Each image comes as often as its repeat factor says (:func:`repeat_factors`): rounded down or
    up by chance, such that the mean over epochs is the factor (times a number just above 1), every
    image comes at least once, and all epochs have the same length. The order of an epoch depends
    on ``(seed, epoch)`` alone, so that a run continues in the middle of one.

    Parameters
    ----------
    dataset
        A data set with ``annotation(i).label``, whose images need not be read for that; or the
        labels themselves, an array (R,) for each image.
    threshold
        Share of images below which a class counts as rare. LVIS's paper takes 0.001 of its
        hundred thousand images; among some hundred images, one in ten is rare. 0 repeats nothing.
    seed
        Of the order.

    References
    ----------
    Gupta, Dollar and Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation" (2019),
    section 5.2. There, an image's factor is rounded by its own draw and epochs differ in length.

    Examples
    --------
    >>> from oxidet.data import DataLoader, RepeatFactorSampler
    >>> sampler = RepeatFactorSampler([[0], [0], [0], [0, 1]], threshold=1.0)
    >>> sampler.factors.tolist(), len(sampler)
    ([1.0, 1.0, 1.0, 2.0], 5)
    >>> sorted(sampler.order(epoch=3))
    [0, 1, 2, 3, 3]
    >>> loader = DataLoader("abcd", batch_size=5, sampler=sampler)
    """

    factors: NDArray[np.float64]
    seed: int

    def __init__(self, dataset: Any, threshold: float = 0.1, seed: int = 0) -> None:
        if hasattr(dataset, "annotation"):
            labels = (dataset.annotation(index).label for index in range(len(dataset)))
        else:
            labels = iter(dataset)
        self.factors = repeat_factors(labels, threshold)
        self.threshold = threshold
        self.seed = integer(seed, "seed", 0)
        # A hair less, as a sum of whole factors must not round up to one more.
        self._length = math.ceil(self.factors.sum() - 1e-9)

    def __len__(self) -> int:
        """Items in an epoch, repetitions included."""
        return self._length

    def order(self, epoch: int) -> list[int]:
        """Indices of the data set in the order of an epoch."""
        if len(self) == 0:
            return []
        rng = generator(self.seed, epoch)
        # Points at equal distances along the factors laid end to end, in a random order: each
        # factor has the whole number below or above it, and together they have all the points.
        images = rng.permutation(len(self.factors))
        ends = np.cumsum(self.factors[images])
        step = ends[-1] / len(self)
        points = (rng.random() + np.arange(len(self))) * step
        picked = images[np.minimum(np.searchsorted(ends, points, side="right"), len(images) - 1)]
        return [int(index) for index in rng.permutation(picked)]

    def __repr__(self) -> str:
        return (
            f"RepeatFactorSampler(threshold={self.threshold:g}, seed={self.seed}): "
            f"{len(self.factors)} images, {len(self)} an epoch"
        )
