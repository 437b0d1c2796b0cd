"""Detectors: Faster R-CNN over VGG-16, a ResNet, any network, and small; torchvision's pieces."""

from __future__ import annotations

from oxidet.models.detection.anchor_generator import AnchorGenerator
from oxidet.models.detection.balanced_sampler import BalancedPositiveNegativeSampler
from oxidet.models.detection.box_coder import BoxCoder
from oxidet.models.detection.detector_files import (
    DETECTORS,
    build_detector,
    load_detector,
    save_detector,
)
from oxidet.models.detection.faster_rcnn import FasterRCNN, RoIOutput
from oxidet.models.detection.faster_rcnn_backbone import FasterRCNNBackbone, faster_rcnn
from oxidet.models.detection.faster_rcnn_resnet import FasterRCNNResNet, faster_rcnn_resnet
from oxidet.models.detection.faster_rcnn_small import FasterRCNNSmall, faster_rcnn_small
from oxidet.models.detection.faster_rcnn_vgg16 import (
    FasterRCNNVGG16,
    VGG16RoIHead,
    faster_rcnn_vgg16,
)
from oxidet.models.detection.image_list import ImageList
from oxidet.models.detection.matcher import Matcher
from oxidet.models.detection.preprocessing import Preprocessing
from oxidet.models.detection.roi_head import RoIHead
from oxidet.models.detection.rpn import Proposals, RegionProposalNetwork

__all__ = [
    "DETECTORS",
    "AnchorGenerator",
    "BalancedPositiveNegativeSampler",
    "BoxCoder",
    "FasterRCNN",
    "FasterRCNNBackbone",
    "FasterRCNNResNet",
    "FasterRCNNSmall",
    "FasterRCNNVGG16",
    "ImageList",
    "Matcher",
    "Preprocessing",
    "Proposals",
    "RegionProposalNetwork",
    "RoIHead",
    "RoIOutput",
    "VGG16RoIHead",
    "build_detector",
    "faster_rcnn",
    "faster_rcnn_resnet",
    "faster_rcnn_small",
    "faster_rcnn_vgg16",
    "load_detector",
    "save_detector",
]
