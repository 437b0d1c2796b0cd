"""Which layer of a network an error came from.

A convolution does not know what it is called in the network that holds it, and the network does
not know which of its layers failed. So the innermost module that a ValueError leaves signs it, and
the module that was called puts that module's name in front of the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oxidet.nn.module import Module


def sign(error: ValueError, module: Module) -> None:
    """Note that ``error`` came out of ``module``, unless it came from further inside."""
    if not hasattr(error, "_layer"):
        error._layer = module  # type: ignore[attr-defined]


def name_layer(error: ValueError, owner: Module) -> None:
    """Put the name that the signing module has below ``owner`` in front of the message."""
    layer = error.__dict__.pop("_layer", None)
    if layer is None or layer is owner or len(error.args) != 1:
        return
    for path, module in owner.named_modules():
        if module is layer:
            error.args = (f"layer {path}: {error.args[0]}",)
