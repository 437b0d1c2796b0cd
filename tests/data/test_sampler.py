"""Class-balanced orders: how often, in which order, and the same again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oxidet.data import DataLoader, RepeatFactorSampler, VOCBboxDataset, repeat_factors


def long_tail(images: int = 400) -> list[np.ndarray]:
    """Class 0 nearly everywhere, 1 seldom, 2 twice, some images empty."""
    rng = np.random.default_rng(0)
    labels = [np.flatnonzero(rng.random(2) < (0.9, 0.05)).repeat(2) for _ in range(images)]
    labels[7] = np.array([2, 0])
    labels[-1] = np.array([2])
    return labels


def test_factors_are_those_of_the_paper() -> None:
    labels, threshold = long_tail(), 0.1
    expected = []
    for row in labels:
        factor = 1.0
        for c in set(row.tolist()):
            frequency = sum(c in other for other in labels) / len(labels)
            factor = max(factor, np.sqrt(threshold / frequency))
        expected.append(factor)
    np.testing.assert_allclose(repeat_factors(labels, threshold), expected)
    assert max(expected) == pytest.approx(np.sqrt(0.1 * 400 / 2))
    assert repeat_factors([], 0.1).shape == (0,)
    assert repeat_factors([[], []], 0.1).tolist() == [1, 1]


def test_every_image_comes_as_often_as_its_factor() -> None:
    sampler = RepeatFactorSampler(long_tail(), 0.1, seed=5)
    assert len(sampler) == np.ceil(sampler.factors.sum())
    epochs = 300
    counts = np.zeros(400)
    for epoch in range(epochs):
        order = sampler.order(epoch)
        assert len(order) == len(sampler)
        own = np.bincount(order, minlength=400)
        assert (own >= 1).all()
        assert (own >= np.floor(sampler.factors)).all()
        assert (own <= np.ceil(sampler.factors * len(sampler) / sampler.factors.sum())).all()
        counts += own
    np.testing.assert_allclose(counts / epochs, sampler.factors, atol=0.12)


def test_orders_depend_on_seed_and_epoch_alone() -> None:
    a, b = (RepeatFactorSampler(long_tail(), 0.1, seed=1) for _ in range(2))
    assert a.order(3) == b.order(3)
    assert a.order(3) != a.order(4)
    assert a.order(3) != RepeatFactorSampler(long_tail(), 0.1, seed=2).order(3)
    assert all(type(index) is int for index in a.order(0))
    assert sorted(RepeatFactorSampler(long_tail(), 0.0).order(0)) == list(range(400))
    assert RepeatFactorSampler([], 0.1).order(0) == []


def test_the_loader_follows_and_continues() -> None:
    labels = long_tail(40)
    labels[7] = np.array([2])
    sampler = RepeatFactorSampler(labels, 0.5, seed=2)
    assert len(sampler) > 45

    def loader() -> DataLoader:
        return DataLoader(
            range(40), batch_size=4, sampler=sampler, transform=lambda k, rng: (k, rng.random())
        )

    whole = loader()
    assert len(whole) == -(-len(sampler) // 4)
    first, second = list(whole), list(whole)
    assert [k for batch in first for k, _ in batch] == sampler.order(0) == whole.order(0)
    assert [k for batch in second for k, _ in batch] == sampler.order(1)
    later = loader()
    later.set_epoch(1, start=5)
    assert list(later) == second[5:]
    # Copies of an image in one epoch are augmented on their own; the first as without a sampler.
    draws = [draw for batch in first for _, draw in batch]
    assert len(set(draws)) == len(draws) > 40
    plain = {k: draw for batch in DataLoader(
        range(40), batch_size=4, transform=lambda k, rng: (k, rng.random())
    ) for k, draw in batch}  # fmt: skip
    assert set(plain.values()) < set(draws)


def test_arguments() -> None:
    with pytest.raises(ValueError, match="threshold"):
        RepeatFactorSampler([[0]], 2)
    with pytest.raises(ValueError, match="shuffle: expected False with a sampler"):
        DataLoader(range(3), shuffle=True, sampler=RepeatFactorSampler([[0]] * 3))
    assert repr(RepeatFactorSampler([[0], [1]], 1.0)).startswith(
        "RepeatFactorSampler(threshold=1, seed=0): 2 images, 3"
    )


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_bccd(bccd: Path) -> None:
    """Platelets are in 60% of the images and red cells in nearly all; no image is read for it."""
    dataset = VOCBboxDataset(bccd, "train")
    sampler = RepeatFactorSampler(dataset, threshold=1.0)
    order = sampler.order(0)
    names = np.array(dataset.class_names)

    def share(indices: list[int], name: str) -> float:
        has = [name in names[dataset.annotation(k).label] for k in indices]
        return float(np.mean(has))

    for name in ("Platelets",):
        assert share(order, name) > share(list(range(len(dataset))), name)
