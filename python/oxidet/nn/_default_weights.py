"""What the weights and biases of convolutions and linear layers start with."""

from __future__ import annotations

import math

import numpy as np

from oxidet import _random
from oxidet._arrays import F32

# Numbers that are drawn at a time, for the reason that `init` gives.
_PIECE = 1 << 15


def default_weights(shape: tuple[int, ...], fan_in: int) -> F32:
    """torch's default for weights and biases: U(-b, b) with b = 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(max(fan_in, 1))
    try:
        result = np.empty(shape, np.float32)
    except (MemoryError, ValueError):  # more bytes than memory, or than there are addresses
        got = f"{math.prod(shape)} numbers"
        raise MemoryError(f"weight: expected one that fits into memory, got {got}") from None
    flat = result.reshape(-1)
    for first in range(0, flat.size, _PIECE):
        part = flat[first : first + _PIECE]
        part[:] = _random.default.generator.uniform(-bound, bound, part.shape)
    return result
