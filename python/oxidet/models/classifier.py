"""What all classification networks share."""

from __future__ import annotations

from typing import ClassVar

from oxidet import nn


class Classifier(nn.Module):
    """Base of the classification networks: images (N, C, H, W) to logits (N, num_classes)."""

    compiled = True

    #: What the outputs mean, one name per class; None where nobody said.
    class_names: ClassVar[tuple[str, ...] | None] = None
