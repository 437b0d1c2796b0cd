"""The networks of the comparison, built from oxidet alone, with torchvision's weight names.

Those that ``oxidet.models`` has come from there; the others are here until it has them, without
auxiliary heads and initialisation.
"""

from __future__ import annotations

import oxidet.models
from oxidet import nn

from .alexnet import AlexNet
from .densenet import densenet121
from .googlenet import GoogLeNet
from .inception import Inception3

BUILDERS = {
    "alexnet": AlexNet,
    "densenet121": densenet121,
    "googlenet": GoogLeNet,
    "inception_v3": Inception3,
}


def build(model: str) -> nn.Module:
    """torchvision's ``model`` in evaluation mode; ``vgg16.features``: that child of it alone."""
    name, _, part = model.partition(".")
    network = (BUILDERS.get(name) or getattr(oxidet.models, name))()
    return (getattr(network, part) if part else network).eval()
