"""A padded batch and what is image in it."""

from __future__ import annotations

from typing import Any


class ImageList:
    """Images of several sizes in one batch, as torchvision's class of that name.

    Parameters
    ----------
    tensors
        The batch, (N, C, H, W), each image in the upper left corner.
    image_sizes
        (height, width) of each image without its padding.
    """

    def __init__(self, tensors: Any, image_sizes: list[tuple[int, int]]) -> None:
        self.tensors = tensors
        self.image_sizes = image_sizes
