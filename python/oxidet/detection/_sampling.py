"""Random draws of the creators."""

from __future__ import annotations

from typing import Any

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
    source: Any = np.random if rng is None else rng
    drawn: NDArray[np.intp] = source.choice(candidates, size=size, replace=False)
    return drawn
