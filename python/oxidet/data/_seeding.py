"""Independent random streams that depend on nothing but the numbers they are named by."""

from __future__ import annotations

import numpy as np


def generator(seed: int, *key: int) -> np.random.Generator:
    """The Generator of ``seed`` and ``key``, as in ``generator(seed, epoch, index)``.

    Different keys give independent streams, keys of different length included: the key goes in as
    a spawn key, since SeedSequence reads the entropies (1, 2) and (1, 2, 0) as the same.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
