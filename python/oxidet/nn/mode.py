"""Evaluation mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from oxidet.nn.module import Module


@contextlib.contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """Put a module in evaluation mode inside a ``with`` block.

    Afterwards every module in it is back in the mode it was in, also where they differed.

    >>> from oxidet import nn
    >>> layer = nn.Dropout()
    >>> with nn.evaluating(layer):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    were_training = [inner for inner in module.modules() if inner.training]
    module.eval()
    try:
        yield
    finally:
        for inner in were_training:
            object.__setattr__(inner, "training", True)
