"""Faster R-CNN over VGG-16, with simple-faster-rcnn's structure, names and presets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oxidet import nn
from oxidet.data import VOC_BBOX_LABEL_NAMES
from oxidet.models import vgg
from oxidet.ops import RoIPool
from oxidet.simple_faster_rcnn._initialize import normal_init
from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import RegionProposalNetwork
from oxidet.simple_faster_rcnn.roi_head import RoIHead


class VGG16RoIHead(RoIHead):
    """RoI max pooling and VGG-16's first two fully connected layers.

    Parameters
    ----------
    n_class
        Number of classes, background included.
    roi_size
        Side of the pooled map, 7.
    spatial_scale
        Pixels of the feature map per pixel of the input, 1 / 16.
    classifier
        Module from (R, 512 * roi_size ** 2) to (R, 4096).
    """

    def __init__(
        self, n_class: int, roi_size: int, spatial_scale: float, classifier: nn.Module
    ) -> None:
        pool = RoIPool((roi_size, roi_size), spatial_scale)
        super().__init__(n_class, pool, classifier, features=4096)
        self.roi_size = roi_size
        self.spatial_scale = spatial_scale


class FasterRCNNVGG16(FasterRCNN):
    """Faster R-CNN over VGG-16's conv5_3, as in simple-faster-rcnn-pytorch.

    The state_dict has that project's keys, so its checkpoints load. The first four convolutions
    are frozen. Weights are random; load a checkpoint, or ImageNet weights of VGG-16.

    Parameters
    ----------
    n_fg_class
        Number of classes without background; 20 for VOC, whose names are then the default.
    ratios, anchor_scales
        Height over width of the anchors, and their sizes in units of 16 pixels.
    use_drop
        Dropout behind the fully connected layers in training; changes the key ``classifier.2`` to
        ``classifier.3``, as in the original.
    class_names
        Names of the foreground classes.
    preprocessing
        How images become the network's input; by default simple-faster-rcnn's rules with
        torchvision's normalisation.
    """

    feat_stride = 16

    def __init__(
        self,
        n_fg_class: int = 20,
        ratios: Sequence[float] = (0.5, 1, 2),
        anchor_scales: Sequence[float] = (8, 16, 32),
        *,
        use_drop: bool = False,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        rpn = RegionProposalNetwork(
            512, 512, ratios=ratios, anchor_scales=anchor_scales, feat_stride=self.feat_stride
        )
        head = VGG16RoIHead(n_fg_class + 1, 7, 1.0 / self.feat_stride, _classifier(use_drop))
        if class_names is None and n_fg_class == len(VOC_BBOX_LABEL_NAMES):
            class_names = VOC_BBOX_LABEL_NAMES
        super().__init__(
            _extractor(), rpn, head, class_names=class_names, preprocessing=preprocessing
        )


def _extractor() -> nn.Sequential:
    """VGG-16 up to the ReLU behind conv5_3; the first two stages do not train."""
    features: nn.Sequential = vgg.make_features("D")[:30]
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            vgg.initialize(layer)
    for layer in features[:10]:
        layer.requires_grad_(False)
    features.compiled = True
    return features


def _classifier(use_drop: bool) -> nn.Sequential:
    """VGG-16's first two fully connected layers."""
    fc6, fc7 = nn.Linear(512 * 7 * 7, 4096), nn.Linear(4096, 4096)
    for layer in (fc6, fc7):
        normal_init(layer, 0.01)
    if use_drop:
        return nn.Sequential(fc6, nn.ReLU(True), nn.Dropout(), fc7, nn.ReLU(True), nn.Dropout())
    return nn.Sequential(fc6, nn.ReLU(True), fc7, nn.ReLU(True))


def faster_rcnn_vgg16(n_fg_class: int = 20, **options: Any) -> FasterRCNNVGG16:
    """Faster R-CNN over VGG-16 with fresh weights; options as :class:`FasterRCNNVGG16`."""
    return FasterRCNNVGG16(n_fg_class, **options)
