"""Evaluation mode for a while."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from oxidet.nn.module import Module, set_mode

_lock = threading.Lock()
# For each module inside `evaluating`: by how many blocks, and what to put back into training.
_active: dict[Module, tuple[int, list[Module]]] = {}


@contextlib.contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """Put a module in evaluation mode inside a ``with`` block.

    Afterwards every module in it is back in the mode it was in, also where they differed. Several
    threads may do so at once: the modes come back when the last block ends.

    >>> from oxidet import nn
    >>> layer = nn.Dropout()
    >>> with nn.evaluating(layer):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    with _lock:
        blocks, were_training = _active.get(module, (0, []))
        were_training = were_training + [inner for inner in module.modules() if inner.training]
        _active[module] = blocks + 1, were_training
        module.eval()
    try:
        yield
    finally:
        with _lock:
            blocks, were_training = _active.pop(module)
            if blocks > 1:
                _active[module] = blocks - 1, were_training
            else:
                set_mode(were_training, True)
