"""Figures that are watched during training, with the interface of torchnet's meters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class AverageValueMeter:
    """Mean and standard deviation of the numbers it was given.

    >>> meter = AverageValueMeter()
    >>> for value in (1.0, 2.0, 6.0):
    ...     meter.add(value)
    >>> meter.value()[0]
    3.0
    """

    n: int

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.n, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float, n: int = 1) -> None:
        """Take ``value``, counted ``n`` times."""
        self.n += n
        step = float(value) - self._mean
        self._mean += step * n / self.n
        self._squares += step * (float(value) - self._mean) * n

    def value(self) -> tuple[float, float]:
        """Mean and standard deviation (of the sample); NaN where too few numbers came."""
        if self.n == 0:
            return math.nan, math.nan
        return self._mean, math.sqrt(self._squares / (self.n - 1)) if self.n > 1 else math.inf


class ConfusionMeter:
    """Counts which class was predicted for which.

    Parameters
    ----------
    k
        Number of classes.
    normalized
        Whether :meth:`value` gives shares of each true class instead of counts.

    Attributes
    ----------
    conf
        (k, k) int64: row, the true class; column, the predicted one.

    Examples
    --------
    >>> meter = ConfusionMeter(2)
    >>> meter.add([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1])
    >>> meter.value().tolist()
    [[1, 0], [1, 1]]
    """

    def __init__(self, k: int, normalized: bool = False) -> None:
        self.k = k
        self.normalized = normalized
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.conf: NDArray[np.int64] = np.zeros((self.k, self.k), np.int64)

    def add(self, predicted: Any, target: Any) -> None:
        """Count rows: ``predicted`` (R, k) scores or (R,) classes, ``target`` (R,) classes."""
        scores, truth = np.asarray(predicted), np.asarray(target)
        chosen = scores.argmax(axis=1) if scores.ndim == 2 else scores
        if chosen.shape != truth.shape:
            raise ValueError(f"target: expected shape {chosen.shape}, got {truth.shape}")
        for name, classes in (("predicted", chosen), ("target", truth)):
            if classes.size and not (classes.min() >= 0 and classes.max() < self.k):
                raise ValueError(
                    f"{name}: expected classes from 0 to {self.k - 1}, "
                    f"got {classes.min()} to {classes.max()}"
                )
        np.add.at(self.conf, (truth.astype(np.int64), chosen.astype(np.int64)), 1)

    def value(self) -> NDArray[Any]:
        """The counts, or each row divided by its sum."""
        if not self.normalized:
            return self.conf
        return self.conf / np.maximum(self.conf.sum(axis=1, keepdims=True), 1)
