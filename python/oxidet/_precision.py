"""How convolutions may round: an explicit choice, per thread of control.

``"direct"`` sums products in their plain form. ``"winograd"``, the default, permits Winograd
convolution where an estimate fitted to measurements says that it pays; ``"bf16"`` permits
bfloat16 multiplicands. It holds for plans, where ``Module.plan`` tells what they chose, for
convolutions that run eagerly, and for their gradients, which follow the setting of the forward
pass.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

PRECISIONS = ("direct", "winograd", "bf16")

_default = "winograd"
_scoped: contextvars.ContextVar[str | None] = contextvars.ContextVar("precision", default=None)


def _check(precision: str) -> str:
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {PRECISIONS}, got {precision!r}")
    return precision


def get_precision() -> str:
    """The setting in force: ``"direct"``, ``"winograd"`` or ``"bf16"``.

    >>> import oxidet
    >>> with oxidet.precision("direct"):
    ...     oxidet.get_precision()
    'direct'
    """
    return _scoped.get() or _default


def set_precision(precision: str) -> None:
    """Set the process-wide precision: ``"direct"``, ``"winograd"`` (default) or ``"bf16"``.

    >>> import oxidet
    >>> oxidet.set_precision("fast")
    Traceback (most recent call last):
        ...
    ValueError: precision: expected one of ('direct', 'winograd', 'bf16'), got 'fast'
    """
    global _default
    _default = _check(precision)


@contextlib.contextmanager
def precision(precision: str) -> Iterator[None]:
    """Use another precision inside a ``with`` block, in this thread (or task) only.

    >>> import oxidet
    >>> with oxidet.precision("direct"):
    ...     oxidet.get_precision()
    'direct'
    """
    token = _scoped.set(_check(precision))
    try:
        yield
    finally:
        _scoped.reset(token)
