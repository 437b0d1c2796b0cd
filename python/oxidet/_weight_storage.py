"""How plans store their weights: an explicit choice, per thread of control.

``"f32"``, the default, keeps weights as they are. ``"f16"`` and ``"bf16"`` round the weights of
layers that wait for memory rather than for arithmetic to 16 bits, which halves what is read; sums
stay in float32. Parameters themselves are never changed, only what plans pack.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

WEIGHT_STORAGES = ("f32", "f16", "bf16")

_default = "f32"
_scoped: contextvars.ContextVar[str | None] = contextvars.ContextVar("storage", default=None)


def _check(storage: str) -> str:
    if storage not in WEIGHT_STORAGES:
        raise ValueError(f"storage: expected one of {WEIGHT_STORAGES}, got {storage!r}")
    return storage


def get_weight_storage() -> str:
    """The setting in force: ``"f32"``, ``"f16"`` or ``"bf16"``."""
    return _scoped.get() or _default


def set_weight_storage(storage: str) -> None:
    """Set how plans of this process store weights: ``"f32"`` (default), ``"f16"`` or ``"bf16"``.

    >>> import oxidet
    >>> oxidet.set_weight_storage("int8")
    Traceback (most recent call last):
        ...
    ValueError: storage: expected one of ('f32', 'f16', 'bf16'), got 'int8'
    """
    global _default
    _default = _check(storage)


@contextlib.contextmanager
def weight_storage(storage: str) -> Iterator[None]:
    """Store weights in another form inside a ``with`` block, in this thread (or task) only.

    >>> import oxidet
    >>> with oxidet.weight_storage("f16"):
    ...     oxidet.get_weight_storage()
    'f16'
    """
    token = _scoped.set(_check(storage))
    try:
        yield
    finally:
        _scoped.reset(token)
