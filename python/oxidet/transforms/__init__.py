"""Transforms of images and their boxes: resizing, flipping, normalising, one after another.

Images are ``(C, H, W)``, boxes ``(y_min, x_min, y_max, x_max)`` in continuous pixel edges.
Functions work on arrays; classes are transforms of a ``Sample`` and draw from the Generator they
are given.
"""

from oxidet.transforms.flip import RandomFlip, flip
from oxidet.transforms.normalize import Normalize
from oxidet.transforms.resize import resize
from oxidet.transforms.resize_sample import ResizeShortSide
from oxidet.transforms.sample import Compose, OnImage, Sample, Transform
from oxidet.transforms.size import scaled_size

__all__ = [
    "Compose",
    "Normalize",
    "OnImage",
    "RandomFlip",
    "ResizeShortSide",
    "Sample",
    "Transform",
    "flip",
    "resize",
    "scaled_size",
]
