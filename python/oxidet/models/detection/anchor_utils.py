"""What programs written against torchvision import from its module of this name."""

from __future__ import annotations

from oxidet.models.detection.anchor_generator import AnchorGenerator as AnchorGenerator
from oxidet.models.detection.image_list import ImageList as ImageList
