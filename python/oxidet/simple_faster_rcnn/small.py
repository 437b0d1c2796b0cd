"""A small Faster R-CNN: the same code as over VGG-16, at a size that trains in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oxidet import _arrays, nn
from oxidet._keywords import keywords_of, refuse_unknown
from oxidet.models.resnet import BasicBlock, make_layer
from oxidet.nn import init
from oxidet.ops import RoIAlign
from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN, class_count
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import RegionProposalNetwork
from oxidet.simple_faster_rcnn.roi_head import RoIHead


class FasterRCNNSmall(FasterRCNN):
    """Faster R-CNN over a residual network of a few layers, for objects of 12 to 70 pixels.

    The feature map has 64 channels and a stride of 4, fine enough to read a digit of 16 pixels;
    about a million parameters. Regions are pooled by RoI align, which does not round their edges.

    Parameters
    ----------
    n_fg_class
        Number of classes without background; by default that of ``class_names``, or 10.
    ratios, anchor_scales
        Height over width of the anchors, and their sizes in units of 16 pixels.
    class_names, preprocessing
        As :class:`FasterRCNN`; by default pictures keep their size up to 192 x 256.
    """

    feat_stride = 4

    def __init__(
        self,
        n_fg_class: int | None = None,
        ratios: Sequence[float] = (1.0, 1.6),
        anchor_scales: Sequence[float] = (1.0, 1.75, 3.0),
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        class_names = _arrays.optional_names(class_names, "class_names")
        classes = class_count(n_fg_class, class_names, 10)
        channels, size, features = 64, 7, 256
        extractor = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            make_layer(BasicBlock, 24, 48, 1, stride=2),
            make_layer(BasicBlock, 48, channels, 1, stride=1),
        )
        for module in extractor.modules():
            if isinstance(module, nn.Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        extractor.compiled = True
        rpn = RegionProposalNetwork(
            channels,
            channels,
            ratios=ratios,
            anchor_scales=anchor_scales,
            feat_stride=self.feat_stride,
            proposal_creator_params={
                "n_train_pre_nms": 2000,
                "n_train_post_nms": 300,
                "n_test_pre_nms": 1000,
                "n_test_post_nms": 100,
                "min_size": 6,
            },
        )
        classifier = nn.Sequential(nn.Linear(channels * size * size, features), nn.ReLU())
        pool = RoIAlign((size, size), 1.0 / self.feat_stride, sampling_ratio=2, aligned=True)
        head = RoIHead(classes + 1, pool, classifier, features)
        super().__init__(
            extractor,
            rpn,
            head,
            class_names=class_names,
            preprocessing=preprocessing or Preprocessing(min_size=192, max_size=256, edge="clamp"),
        )
        self._remember(
            "faster_rcnn_small",
            FasterRCNNSmall,
            ratios=list(ratios),
            anchor_scales=list(anchor_scales),
        )


def faster_rcnn_small(n_fg_class: int | None = None, **options: Any) -> FasterRCNNSmall:
    """A small Faster R-CNN with fresh weights; options as :class:`FasterRCNNSmall`."""
    refuse_unknown("faster_rcnn_small", options, keywords_of(FasterRCNNSmall))
    return FasterRCNNSmall(n_fg_class, **options)
