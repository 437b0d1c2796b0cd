"""BalancedPositiveNegativeSampler: counts, draws, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from oxidet.models.detection import BalancedPositiveNegativeSampler

LABELS = [np.r_[np.zeros(50), np.ones(20), -np.ones(5)], np.zeros(3, int)]


def sample(rng: object, sampler: BalancedPositiveNegativeSampler) -> list:
    positive, negative = sampler(LABELS, rng=rng)  # type: ignore[arg-type]
    return [mask.tolist() for mask in positive + negative]


def test_generators() -> None:
    sampler = BalancedPositiveNegativeSampler(16, 0.25)
    np.random.seed(3)
    assert sample(np.random.RandomState(3), sampler) == sample(None, sampler)
    generator = np.random.default_rng
    assert sample(generator(3), sampler) == sample(generator(3), sampler)
    assert sample(generator(3), sampler) != sample(generator(4), sampler)
    with pytest.raises(TypeError, match="rng: expected"):
        sample(3, sampler)


def test_what_positives_leave_free_is_filled_with_negatives() -> None:
    positive, negative = BalancedPositiveNegativeSampler(60, 0.5)(LABELS)
    assert [int(mask.sum()) for mask in positive] == [20, 0]
    assert [int(mask.sum()) for mask in negative] == [40, 3]
    assert BalancedPositiveNegativeSampler(60, 0.5)([]) == ([], [])


def test_every_element_has_its_turn() -> None:
    rng = np.random.default_rng(0)
    sampler = BalancedPositiveNegativeSampler(10, 0.5)
    positive, negative = zip(*(sampler(LABELS[:1], rng=rng) for _ in range(200)), strict=True)
    chosen = np.concatenate(positive).sum(axis=0), np.concatenate(negative).sum(axis=0)
    assert ((chosen[0] > 0) == (LABELS[0] == 1)).all()
    assert ((chosen[1] > 0) == (LABELS[0] == 0)).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="positive_fraction: expected a number from 0 to 1"):
        BalancedPositiveNegativeSampler(4, 1.5)
    with pytest.raises(TypeError, match="batch_size_per_image: expected an integer"):
        BalancedPositiveNegativeSampler(4.0, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"matched_idxs: expected shape \(R,\), got \(2, 2\)"):
        BalancedPositiveNegativeSampler(4, 0.5)([np.zeros((2, 2))])
