"""Weight files: reading torch's, and reading and writing ``.npz`` and ``.safetensors``.

>>> from oxidet import weights
>>> state = weights.load("faster_rcnn.pth")           # doctest: +SKIP
>>> weights.save("faster_rcnn.npz", state)            # doctest: +SKIP

No deep-learning framework is needed, and none of a file's content is ever executed.
"""

from __future__ import annotations

from oxidet.weights._caffe import load_caffemodel
from oxidet.weights._convert import (
    DescribedWeights,
    from_chainercv_faster_rcnn,
    vgg16_to_faster_rcnn,
)
from oxidet.weights._convert_vgg import from_caffe, from_chainercv
from oxidet.weights._download import DownloadError, ResumingDownloader
from oxidet.weights._fetch import fetch
from oxidet.weights._files import load, load_checkpoint, load_metadata, save
from oxidet.weights._loading import LoadReport, load_into, locate, save_from
from oxidet.weights._published import PublishedWeights, imagenet_classes, list_published
from oxidet.weights._source import WeightFileError

__all__ = [
    "DescribedWeights",
    "DownloadError",
    "LoadReport",
    "PublishedWeights",
    "ResumingDownloader",
    "WeightFileError",
    "fetch",
    "from_caffe",
    "from_chainercv",
    "from_chainercv_faster_rcnn",
    "imagenet_classes",
    "list_published",
    "load",
    "load_caffemodel",
    "load_checkpoint",
    "load_into",
    "load_metadata",
    "locate",
    "save",
    "save_from",
    "vgg16_to_faster_rcnn",
]
