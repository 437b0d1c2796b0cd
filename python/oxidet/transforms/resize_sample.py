"""Resizing an image together with its boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oxidet.detection.resize_bbox import resize_bbox
from oxidet.transforms.resize import Edge, resize
from oxidet.transforms.sample import Sample
from oxidet.transforms.size import Rounding, scaled_size


@dataclass(frozen=True)
class ResizeShortSide:
    """Scale the image to a detector's input size, and the boxes per axis with it.

    The size is that of ``scaled_size``, the pixels are those of ``resize``. Three sets of
    arguments reproduce the detectors people know:

    =================== ======== ======== ============ ==========
    detector            min_size max_size rounding     edge
    =================== ======== ======== ============ ==========
    chainercv           600      1000     ``"trunc"``  ``"clamp"``
    simple-faster-rcnn  600      1000     ``"round"``  ``"mirror"``
    torchvision         800      1333     ``"floor"``  ``"clamp"``
    =================== ======== ======== ============ ==========

    The sample's ``scale`` is multiplied by new height / old height.
    """

    min_size: float = 600
    max_size: float = 1000
    rounding: Rounding = "trunc"
    edge: Edge = "clamp"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        height, width = sample.img.shape[1:]
        size = scaled_size(height, width, self.min_size, self.max_size, self.rounding)
        return sample._replace(
            img=resize(sample.img, size, edge=self.edge),
            bbox=resize_bbox(sample.bbox, (height, width), size),
            scale=sample.scale * size[0] / height,
        )
