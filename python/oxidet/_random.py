"""The package's own random state: initialisation and dropout draw from it, ``manual_seed`` sets it.

NumPy's global state is left alone, except where an original API drew from it (see
``oxidet.detection``). Dropout masks come from a counter: the n-th mask after a seed is a function
of ``(seed, n)``, whatever the number of threads.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from oxidet._arrays import integer


class RandomState:
    """A generator for initial values and a counter for dropout masks, both set by one seed."""

    def __init__(self, seed: int | None = None) -> None:
        self._lock = threading.Lock()
        self.seed(seed)

    def seed(self, seed: int | None) -> None:
        """Start over from ``seed``; None draws one from the system."""
        sequence = np.random.SeedSequence(seed)
        with self._lock:
            self.generator = np.random.Generator(np.random.PCG64(sequence))
            self._mask_seed = int(sequence.generate_state(1, np.uint64)[0])
            self._masks = 0

    def next_mask(self) -> tuple[int, int]:
        """Seed and number of the next dropout mask."""
        with self._lock:
            self._masks += 1
            return self._mask_seed, self._masks

    def get_state(self) -> dict[str, Any]:
        """The whole state as plain values, for a checkpoint."""
        with self._lock:
            return {
                "generator": self.generator.bit_generator.state,
                "mask_seed": self._mask_seed,
                "masks": self._masks,
            }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`get_state` returned."""
        with self._lock:
            self.generator.bit_generator.state = state["generator"]
            self._mask_seed = int(state["mask_seed"])
            self._masks = int(state["masks"])


default = RandomState()


def manual_seed(seed: int) -> None:
    """Set the seed of parameter initialisation and of dropout.

    ``seed`` is an integer of at least 0. The creators of ``oxidet.detection`` draw from NumPy's
    global state like their originals; seed that with ``np.random.seed``.

    >>> import oxidet
    >>> oxidet.manual_seed(0)
    """
    default.seed(integer(seed, "seed", 0))
