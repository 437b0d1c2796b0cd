"""Detectors with torchvision's structure and conventions, their pieces, and detector files.

Boxes are ``(x1, y1, x2, y2)``. Detectors that follow simple-faster-rcnn and chainercv are in
:mod:`oxidet.simple_faster_rcnn`; their builders are here, too.
"""

from __future__ import annotations

import sys

from oxidet.models.detection import anchor_utils as anchor_utils
from oxidet.models.detection.anchor_generator import AnchorGenerator
from oxidet.models.detection.augmented import AugmentedDetector
from oxidet.models.detection.balanced_sampler import BalancedPositiveNegativeSampler
from oxidet.models.detection.box_coder import BoxCoder
from oxidet.models.detection.builders import (
    faster_rcnn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    fasterrcnn_resnet_fpn,
)
from oxidet.models.detection.detector import Detector, Found
from oxidet.models.detection.detector_files import (
    DETECTORS,
    build_detector,
    load_detector,
    save_detector,
)
from oxidet.models.detection.faster_rcnn import (
    FasterRCNN,
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from oxidet.models.detection.image_list import ImageList
from oxidet.models.detection.matcher import Matcher
from oxidet.simple_faster_rcnn.resnet import faster_rcnn_resnet, faster_rcnn_resnet101
from oxidet.simple_faster_rcnn.small import faster_rcnn_small
from oxidet.simple_faster_rcnn.vgg16 import faster_rcnn_vgg16

# Here the name faster_rcnn is a function's; torchvision's programs find classes under it as well,
# as in ``models.detection.faster_rcnn.FastRCNNPredictor(1024, 3)``, and import builders from the
# module of that name.
for _piece in (FasterRCNN, FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead, AnchorGenerator):
    setattr(faster_rcnn, _piece.__name__, _piece)
for _build in (fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2):
    setattr(faster_rcnn, _build.__name__, _build)
    setattr(sys.modules[FasterRCNN.__module__], _build.__name__, _build)

__all__ = [
    "DETECTORS",
    "AnchorGenerator",
    "AugmentedDetector",
    "BalancedPositiveNegativeSampler",
    "BoxCoder",
    "Detector",
    "FasterRCNN",
    "Found",
    "ImageList",
    "Matcher",
    "build_detector",
    "faster_rcnn",
    "faster_rcnn_resnet",
    "faster_rcnn_resnet101",
    "faster_rcnn_small",
    "faster_rcnn_vgg16",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_resnet_fpn",
    "load_detector",
    "save_detector",
]
