"""Random draws of the creators."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator | np.random.RandomState | None


def draw(rng: Rng, candidates: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """``size`` of the candidates without replacement.

    Without ``rng`` they come from NumPy's global state, as the originals' do: the same seed then
    gives the same sample.
    """
    if not isinstance(rng, (np.random.Generator, np.random.RandomState, type(None))):
        raise TypeError(
            f"rng: expected a numpy Generator, a RandomState or None, got {type(rng).__name__}"
        )
    if isinstance(rng, np.random.Generator):
        return rng.choice(candidates, size=size, replace=False)
    # What `choice` of the legacy generators does, without its checks of probabilities.
    count = len(candidates)
    order = np.random.permutation(count) if rng is None else rng.permutation(count)
    return candidates[order[:size]]
