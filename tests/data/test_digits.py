"""The digit scans: sizes, the frozen split, LeNet's input."""

from __future__ import annotations

import importlib.util
import zlib

import numpy as np
import pytest

from oxidet.data import lenet_input, load_digits
from oxidet.data.digits import SPLITS, split_rows

needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn"
)


@needs_digits
def test_split_is_what_it_has_always_been() -> None:
    from sklearn.datasets import load_digits as original

    labels = original().target
    parts = split_rows(labels.astype(np.int32))
    assert [len(part) for part in parts] == [1077, 360, 360]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1797))
    # Whoever changes these numbers makes every published figure incomparable.
    checksums = [zlib.crc32(part.astype("<i8").tobytes()) for part in parts]
    assert checksums == CHECKSUMS


CHECKSUMS = [3411714505, 2381499564, 488846306]


@needs_digits
def test_split_is_stratified() -> None:
    share = {name: np.bincount(load_digits(name).labels, minlength=10) for name in SPLITS}
    total = sum(share.values())
    for name, size in zip(SPLITS, (1077, 360, 360), strict=True):
        # Whole scans: within one (two in what is left for training) of the exact share.
        exact = total * size / 1797
        assert (np.abs(share[name] - exact) < (2 if name == "train" else 1)).all(), name


@needs_digits
def test_scans() -> None:
    images, labels = load_digits("test")
    assert (images.shape, images.dtype, labels.dtype) == ((360, 8, 8), np.float32, np.int32)
    assert (images.min(), images.max()) == (0, 16)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    with pytest.raises(ValueError, match="split: expected one of"):
        load_digits("val")  # type: ignore[arg-type]


def test_split_of_other_label_counts() -> None:
    labels = np.repeat(np.arange(3), [400, 401, 402]).astype(np.int32)
    train, validation, test = split_rows(labels)
    assert len(validation) == len(test) == 360
    assert np.bincount(labels[test]).sum() == 360
    assert not set(train) & set(test)


def test_lenet_input() -> None:
    x = lenet_input(np.full((3, 8, 8), 16))
    assert (x.shape, x.dtype) == ((3, 1, 32, 32), np.float32)
    assert x[0, 0, 4:28, 4:28].tolist() == pytest.approx(np.full((24, 24), 1.175))
    x[0, 0, 4:28, 4:28] = np.nan
    assert np.unique(x[0][~np.isnan(x[0])]) == pytest.approx([-0.1])
    assert lenet_input(np.zeros((0, 8, 8))).shape == (0, 1, 32, 32)
    with pytest.raises(ValueError, match=r"images: expected shape \(N, 8, 8\), got \(8, 8\)"):
        lenet_input(np.zeros((8, 8)))


@needs_digits
def test_lenet_input_is_about_standardised() -> None:
    x = lenet_input(load_digits("train").images)
    assert abs(float(x.mean())) < 0.15
    assert 0.1 < float(x.var()) < 1.5
