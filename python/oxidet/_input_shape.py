"""The shape of input on which a network is looked at, if nobody gives one."""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet.nn.plans import check_shape
from oxidet.nn.recording import Recording, record

# Sides of images: ImageNet's, the Inception networks', LeNet-5's, and that of its digits.
_SIDES = (224, 299, 32, 28)


def recorded(model: nn.Module, shape: Any = None, argument: str = "shape") -> Recording:
    """The recording of a network on one input, which ``shape`` gives as (N, C, H, W) or (N, F).

    Without it, the input is a square image with the channels of the first convolution, of the
    side that the network's own preparation makes, or else the first usual one that it takes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    if shape is not None:
        return record(model, check_shape(shape, argument))
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    first = next(convolutions, None)
    if first is None:
        raise ValueError(
            f"{argument}: expected (N, C, H, W) or (N, F) for a network without convolutions, "
            "got None"
        )
    crop = getattr(getattr(model, "preprocess", None), "crop_size", None)
    own = crop[0] if isinstance(crop, (tuple, list)) else crop
    refused: ValueError | None = None
    for side in dict.fromkeys((own or _SIDES[0], *_SIDES)):
        try:
            return record(model, (1, first.in_channels, side, side))
        except ValueError as error:
            refused = refused or error
    raise ValueError(f"{argument}: expected one that the network takes, got None; {refused}")
