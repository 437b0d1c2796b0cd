"""The bundled data: scikit-learn's 1797 scans of handwritten digits, split once and for all."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet._arrays import F32, as_array, read_only
from oxidet.transforms.resize import resize

Split = Literal["train", "validation", "test"]

SPLITS = ("train", "validation", "test")
HELD_OUT = 360  # scans in validation, and as many in test, of 1797
DIGIT_NAMES = tuple("0123456789")

# LeNet's paper (1998, section II.B): background -0.1 and ink 1.175 give the input a mean near 0
# and a variance near 1.
BACKGROUND, INK = -0.1, 1.175


class Digits(NamedTuple):
    """Scans and what they show. The arrays are read-only."""

    images: F32
    """(N, 8, 8) float32, 0 (paper) to 16 (ink)."""
    labels: NDArray[np.int32]
    """(N,) int32, 0 to 9."""


def load_digits(split: Split) -> Digits:
    """One part of the digit scans: 1077 to train on, 360 for validation, 360 for test.

    The scans are the 8x8 digits that scikit-learn ships (extra ``digits``; from UCI's "Optical
    Recognition of Handwritten Digits", its test part), nothing is downloaded. The split is
    stratified and fixed for ever: it depends on NumPy's frozen RandomState(0) alone.

    Examples
    --------
    Needs scikit-learn::

        images, labels = load_digits("test")
        x = lenet_input(images)                  # (360, 1, 32, 32)
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {list(SPLITS)}, got {split!r}")
    return _all_splits()[split]


def lenet_input(images: NDArray[np.generic] | F32) -> F32:
    """Digit scans as LeNet-5 takes them: ``(N, 8, 8)``, 0..16, to float32 ``(N, 1, 32, 32)``.

    Each scan is enlarged three times (bilinear, half-pixel centres) and stands in a border of four
    pixels, as the 1998 paper keeps strokes away from the edge of its 32x32 field. Paper becomes
    -0.1 and full ink 1.175.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.data import lenet_input
    >>> x = lenet_input(np.full((2, 8, 8), 16.0))
    >>> x.shape, x.dtype, round(float(x[0, 0, 16, 16]), 3), round(float(x[0, 0, 0, 0]), 3)
    ((2, 1, 32, 32), dtype('float32'), 1.175, -0.1)
    """
    scans = as_array(images, "images").astype(np.float32)
    if scans.ndim != 3 or scans.shape[1:] != (8, 8):
        raise ValueError(f"images: expected shape (N, 8, 8), got {scans.shape}")
    field = np.full((len(scans), 1, 32, 32), BACKGROUND, np.float32)
    if len(scans):
        field[:, 0, 4:28, 4:28] = resize(scans, (24, 24)) * ((INK - BACKGROUND) / 16) + BACKGROUND
    return field


@functools.cache
def _all_splits() -> dict[str, Digits]:
    bunch = _extras.require("sklearn.datasets", extra="digits").load_digits()
    images, labels = bunch.images.astype(np.float32), bunch.target.astype(np.int32)
    return {
        name: Digits(read_only(images[rows]), read_only(labels[rows]))
        for name, rows in zip(SPLITS, split_rows(labels), strict=True)
    }


def split_rows(
    labels: NDArray[np.int32],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Rows for training, validation and test, ascending; stratified by label, seed 0.

    Validation and test take ``HELD_OUT`` rows each, shared among the classes in proportion to
    their size: whole numbers first, what is left over to the largest remainders.
    """
    random = np.random.RandomState(0)  # its streams never change between NumPy versions
    classes, sizes = np.unique(labels, return_counts=True)
    exact = HELD_OUT * sizes / len(labels)
    quota = np.floor(exact).astype(int)
    by_remainder = np.argsort(quota - exact, kind="stable")
    quota[by_remainder[: HELD_OUT - quota.sum()]] += 1

    train, validation, test = [], [], []
    for label, held_out in zip(classes, quota, strict=True):
        rows = random.permutation(np.flatnonzero(labels == label))
        test.append(rows[:held_out])
        validation.append(rows[held_out : 2 * held_out])
        train.append(rows[2 * held_out :])
    return tuple(np.sort(np.concatenate(part)) for part in (train, validation, test))  # type: ignore[return-value]
