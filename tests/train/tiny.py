"""A data set and a detector so small that a training step takes milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np

import oxidet
from oxidet.models.detection import build_detector
from oxidet.simple_faster_rcnn import FasterRCNN, Preprocessing

NAMES = ("bright", "dark")


class Rectangles:
    """Images of one to three filled rectangles, brighter (class 0) or darker (class 1)."""

    class_names = NAMES

    def __init__(self, length: int, size: tuple[int, int] = (48, 64)) -> None:
        self.length = length
        self.size = size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rng = np.random.default_rng([17, index])
        img = np.full((3, *self.size), 128, np.float32)
        count = int(rng.integers(1, 4))
        bbox = np.zeros((count, 4), np.float32)
        label = rng.integers(0, 2, count).astype(np.int32)
        for i in range(count):
            height, width = rng.integers(12, 25, 2)
            y, x = rng.integers(self.size[0] - height), rng.integers(self.size[1] - width)
            img[:, y : y + height, x : x + width] = 220 if label[i] == 0 else 30
            bbox[i] = y, x, y + height, x + width
        img += rng.normal(0, 4, img.shape).astype(np.float32)
        return img, bbox, label, np.zeros(count, bool)


def tiny_detector(seed: int = 0) -> FasterRCNN:
    """The small Faster R-CNN for the images of :class:`Rectangles`."""
    oxidet.manual_seed(seed)
    preprocessing = Preprocessing(min_size=48, max_size=64, edge="clamp")
    return build_detector(
        "faster_rcnn_small", n_fg_class=2, class_names=NAMES, preprocessing=preprocessing
    )
