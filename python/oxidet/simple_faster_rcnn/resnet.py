"""Faster R-CNN over a ResNet: regions are pooled from conv4 and pass through conv5 ("C4")."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from oxidet import _arrays, nn
from oxidet._keywords import keywords_of, refuse_unknown
from oxidet.models import resnet
from oxidet.ops import RoIAlign
from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN, class_count
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import RegionProposalNetwork
from oxidet.simple_faster_rcnn.roi_head import RoIHead

BACKBONES: dict[str, Callable[[], resnet.ResNet]] = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
}

Self = TypeVar("Self", bound="FasterRCNNResNet")


class FasterRCNNResNet(FasterRCNN):
    """Faster R-CNN whose extractor is a ResNet up to ``layer3`` and whose head is ``layer4``.

    The layout of He et al. (arXiv 1512.03385, appendix A). Batch norm always uses its running
    statistics: one picture at a time is too little to estimate them.

    Parameters
    ----------
    n_fg_class
        Number of classes without background; by default that of ``class_names``, or 20.
    backbone
        ``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"resnet101"`` or ``"resnet152"``.
    ratios, anchor_scales
        Height over width of the anchors, and their sizes in units of 16 pixels.
    class_names, preprocessing
        As :class:`FasterRCNN`.
    """

    feat_stride = 16

    def __init__(
        self,
        n_fg_class: int | None = None,
        backbone: str = "resnet50",
        ratios: Sequence[float] = (0.5, 1, 2),
        anchor_scales: Sequence[float] = (8, 16, 32),
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if backbone not in BACKBONES:
            raise ValueError(f"backbone: expected one of {sorted(BACKBONES)}, got {backbone!r}")
        class_names = _arrays.optional_names(class_names, "class_names")
        classes = class_count(n_fg_class, class_names, 20)
        net = BACKBONES[backbone]()
        channels = net.fc.in_features
        stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
        extractor = nn.Sequential(OrderedDict((name, getattr(net, name)) for name in stages))
        extractor.compiled = True
        rpn = RegionProposalNetwork(
            channels // 2,
            512,
            ratios=ratios,
            anchor_scales=anchor_scales,
            feat_stride=self.feat_stride,
        )
        classifier = nn.Sequential(
            OrderedDict(layer4=net.layer4, avgpool=net.avgpool, flatten=nn.Flatten())
        )
        pool = RoIAlign((14, 14), 1.0 / self.feat_stride, sampling_ratio=2)
        head = RoIHead(classes + 1, pool, classifier, channels, flatten=False)
        super().__init__(extractor, rpn, head, class_names=class_names, preprocessing=preprocessing)
        options: dict[str, Any] = {"ratios": list(ratios), "anchor_scales": list(anchor_scales)}
        if backbone == "resnet101":
            self._remember("faster_rcnn_resnet101", FasterRCNNResNet, **options)
        else:
            self._remember("faster_rcnn_resnet", FasterRCNNResNet, backbone=backbone, **options)
        self.train()

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode; batch norm stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def faster_rcnn_resnet(
    n_fg_class: int | None = None, backbone: str = "resnet50", **options: Any
) -> FasterRCNNResNet:
    """Faster R-CNN over a ResNet with fresh weights; options as :class:`FasterRCNNResNet`."""
    refuse_unknown("faster_rcnn_resnet", options, keywords_of(FasterRCNNResNet))
    return FasterRCNNResNet(n_fg_class, backbone, **options)


def faster_rcnn_resnet101(n_fg_class: int | None = None, **options: Any) -> FasterRCNNResNet:
    """Faster R-CNN over ResNet-101 with fresh weights; options as :class:`FasterRCNNResNet`."""
    known = set(keywords_of(FasterRCNNResNet)) - {"backbone"}
    refuse_unknown("faster_rcnn_resnet101", options, known)
    return FasterRCNNResNet(n_fg_class, "resnet101", **options)
