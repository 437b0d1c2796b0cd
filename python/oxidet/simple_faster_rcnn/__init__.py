"""Faster R-CNN as simple-faster-rcnn and chainercv have it, with simple-faster-rcnn's names.

One feature map; boxes are ``(y_min, x_min, y_max, x_max)``, labels count from 0 without background.
Detectors with torchvision's structure and conventions are in :mod:`oxidet.models.detection`.

Programs written against simple-faster-rcnn find here what they import from its modules:
``FasterRCNNVGG16``, ``FasterRCNNTrainer``, ``opt``, ``Dataset``, ``TestDataset``, ``DataLoader``,
``at`` (its ``utils.array_tool``), ``eval_detection_voc``, the box tools, and so on. Neither CUDA
nor a visdom server is needed.
"""

from __future__ import annotations

# First, because its builders come from here: what follows finds the base class there.
import oxidet.models.detection  # noqa: F401
from oxidet.data import VOC_BBOX_LABEL_NAMES, read_image
from oxidet.detection import (
    AnchorTargetCreator,
    ProposalCreator,
    ProposalTargetCreator,
    bbox2loc,
    bbox_iou,
    calc_detection_voc_ap,
    calc_detection_voc_prec_rec,
    crop_bbox,
    eval_detection_voc,
    flip_bbox,
    generate_anchor_base,
    loc2bbox,
    non_maximum_suppression,
    random_flip,
    resize_bbox,
    translate_bbox,
    vis_bbox,
)
from oxidet.simple_faster_rcnn import array_tool
from oxidet.simple_faster_rcnn import array_tool as at
from oxidet.simple_faster_rcnn.config import Config, opt
from oxidet.simple_faster_rcnn.dataset import (
    DataLoader,
    Dataset,
    TestDataset,
    Transform,
    VOCBboxDataset,
    inverse_normalize,
    preprocess,
)
from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN, RoIOutput
from oxidet.simple_faster_rcnn.meters import AverageValueMeter, ConfusionMeter
from oxidet.simple_faster_rcnn.objective import LossTuple, Objective, loc_loss
from oxidet.simple_faster_rcnn.optimizer import faster_rcnn_optimizer
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import Proposals, RegionProposalNetwork
from oxidet.simple_faster_rcnn.resnet import (
    FasterRCNNResNet,
    faster_rcnn_resnet,
    faster_rcnn_resnet101,
)
from oxidet.simple_faster_rcnn.roi_head import RoIHead
from oxidet.simple_faster_rcnn.small import FasterRCNNSmall, faster_rcnn_small
from oxidet.simple_faster_rcnn.trainer import FasterRCNNTrainer
from oxidet.simple_faster_rcnn.vgg16 import (
    FLAVOURS,
    FasterRCNNVGG16,
    Flavour,
    VGG16RoIHead,
    faster_rcnn_vgg16,
)
from oxidet.simple_faster_rcnn.visualizer import Visualizer, visdom_bbox

__all__ = [
    "FLAVOURS",
    "VOC_BBOX_LABEL_NAMES",
    "AnchorTargetCreator",
    "AverageValueMeter",
    "Config",
    "ConfusionMeter",
    "DataLoader",
    "Dataset",
    "FasterRCNN",
    "FasterRCNNResNet",
    "FasterRCNNSmall",
    "FasterRCNNTrainer",
    "FasterRCNNVGG16",
    "Flavour",
    "LossTuple",
    "Objective",
    "Preprocessing",
    "ProposalCreator",
    "ProposalTargetCreator",
    "Proposals",
    "RegionProposalNetwork",
    "RoIHead",
    "RoIOutput",
    "TestDataset",
    "Transform",
    "VGG16RoIHead",
    "VOCBboxDataset",
    "Visualizer",
    "array_tool",
    "at",
    "bbox2loc",
    "bbox_iou",
    "calc_detection_voc_ap",
    "calc_detection_voc_prec_rec",
    "crop_bbox",
    "eval_detection_voc",
    "faster_rcnn_optimizer",
    "faster_rcnn_resnet",
    "faster_rcnn_resnet101",
    "faster_rcnn_small",
    "faster_rcnn_vgg16",
    "flip_bbox",
    "generate_anchor_base",
    "inverse_normalize",
    "loc2bbox",
    "loc_loss",
    "non_maximum_suppression",
    "opt",
    "preprocess",
    "random_flip",
    "read_image",
    "resize_bbox",
    "translate_bbox",
    "vis_bbox",
    "visdom_bbox",
]
