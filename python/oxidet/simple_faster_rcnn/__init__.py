"""Faster R-CNN as simple-faster-rcnn and chainercv have it: one feature map, boxes in (y, x) order.

Boxes are ``(y_min, x_min, y_max, x_max)``, labels count from 0 without background. Detectors with
torchvision's structure and conventions are in :mod:`oxidet.models.detection`.
"""

from __future__ import annotations

# First, because its builders come from here: what follows finds the base class there.
import oxidet.models.detection  # noqa: F401
from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN, RoIOutput
from oxidet.simple_faster_rcnn.objective import LossTuple, Objective
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import Proposals, RegionProposalNetwork
from oxidet.simple_faster_rcnn.resnet import FasterRCNNResNet, faster_rcnn_resnet
from oxidet.simple_faster_rcnn.roi_head import RoIHead
from oxidet.simple_faster_rcnn.small import FasterRCNNSmall, faster_rcnn_small
from oxidet.simple_faster_rcnn.vgg16 import FasterRCNNVGG16, VGG16RoIHead, faster_rcnn_vgg16

__all__ = [
    "FasterRCNN",
    "FasterRCNNResNet",
    "FasterRCNNSmall",
    "FasterRCNNVGG16",
    "LossTuple",
    "Objective",
    "Preprocessing",
    "Proposals",
    "RegionProposalNetwork",
    "RoIHead",
    "RoIOutput",
    "VGG16RoIHead",
    "faster_rcnn_resnet",
    "faster_rcnn_small",
    "faster_rcnn_vgg16",
]
