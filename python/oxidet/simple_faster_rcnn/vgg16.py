"""Faster R-CNN over VGG-16, with the structure of simple-faster-rcnn and the rules of its kin.

simple-faster-rcnn and chainercv compute the same network from the same layers, and differ in rules
that no weight file records. They are options here, a ``flavour`` is a name for a set of them, and
what a detector uses is stored with its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from oxidet import _arrays, nn
from oxidet._arrays import choice
from oxidet._keywords import keywords_of, refuse_unknown
from oxidet.data import VOC_BBOX_LABEL_NAMES
from oxidet.detection.non_maximum_suppression import NmsRule
from oxidet.models import vgg
from oxidet.ops import RoIPool
from oxidet.simple_faster_rcnn._initialize import normal_init
from oxidet.simple_faster_rcnn.config import opt
from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN, class_count
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import RegionProposalNetwork
from oxidet.simple_faster_rcnn.roi_head import RoIHead

Rounding = Literal["away", "even"]
Ranking = Literal["probability", "logit"]
FlavourName = Literal["simple-faster-rcnn", "simple-faster-rcnn-caffe", "chainercv"]


@dataclass(frozen=True)
class Flavour:
    """Rules that weights were trained with and do not tell.

    Attributes
    ----------
    preprocessing
        How images become the network's input.
    ceil_mode
        Whether pooling keeps a last window that is not full: a 600-pixel image then has 38 rows of
        features instead of 37.
    rank_by
        What orders the proposals; see :class:`RegionProposalNetwork`.
    nms_rule
        Whether a box is suppressed above the threshold, ``"torchvision"``, or also at it,
        ``"chainercv"``; for proposals and for detections.
    frozen
        Layers of the extractor that do not train.
    """

    preprocessing: Preprocessing
    ceil_mode: bool
    rank_by: Ranking
    nms_rule: NmsRule
    frozen: int


FLAVOURS: dict[str, Flavour] = {
    "simple-faster-rcnn": Flavour(Preprocessing(), False, "probability", "torchvision", 10),
    "simple-faster-rcnn-caffe": Flavour(
        Preprocessing(normalization="caffe"), False, "probability", "torchvision", 10
    ),
    "chainercv": Flavour(
        Preprocessing(rounding="trunc", edge="clamp", normalization="chainercv"),
        True,
        "logit",
        "chainercv",
        0,
    ),
}


class ChainerRoIPool(RoIPool):
    """RoI max pooling as Chainer does it on a CPU: halves round to even, bin edges are float64."""

    def _options(self) -> dict[str, Any]:
        return {"half_to_even": True, "float64_edges": True}


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
    roi_rounding
        How half pixels round when regions are pooled: ``"away"`` from zero, as on GPUs, which
        published weights were trained on, and in torchvision; to ``"even"``, as Chainer on a CPU.
    """

    def __init__(
        self,
        n_class: int,
        roi_size: int,
        spatial_scale: float,
        classifier: nn.Module,
        *,
        roi_rounding: Rounding = "away",
    ) -> None:
        choice(roi_rounding, "roi_rounding", ("away", "even"))
        pool = RoIPool if roi_rounding == "away" else ChainerRoIPool
        features = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear)]
        super().__init__(
            n_class,
            pool((roi_size, roi_size), spatial_scale),
            classifier,
            features[-1].out_features if features else 4096,
        )
        self.roi_size = roi_size
        self.spatial_scale = spatial_scale
        self.roi_rounding = roi_rounding


class FasterRCNNVGG16(FasterRCNN):
    """Faster R-CNN over VGG-16's conv5_3, as in simple-faster-rcnn-pytorch and in chainercv.

    The state_dict has simple-faster-rcnn's keys, so its checkpoints load. Weights are random; load
    a checkpoint, or ImageNet weights of VGG-16 (:func:`oxidet.weights.vgg16_to_faster_rcnn`).

    Parameters
    ----------
    n_fg_class
        Number of classes without background; by default that of ``class_names``, or VOC's 20, whose
        names are then the default, too.
    ratios, anchor_scales
        Height over width of the anchors, and their sizes in units of 16 pixels.
    flavour
        Whose rules the following options take where they are None: ``"simple-faster-rcnn"``,
        ``"simple-faster-rcnn-caffe"`` (its ``caffe_pretrain``) or ``"chainercv"``. By default one
        of the former two, as ``opt.caffe_pretrain`` says.
    use_drop
        Dropout behind the fully connected layers in training, by default as ``opt.use_drop`` says;
        changes the key ``classifier.2`` to ``classifier.3``, as in the original.
    class_names
        Names of the foreground classes.
    preprocessing, ceil_mode, rank_by, nms_rule
        See :class:`Flavour`.
    roi_rounding
        See :class:`VGG16RoIHead`.

    Examples
    --------
    >>> from oxidet.simple_faster_rcnn import FLAVOURS
    >>> FLAVOURS["simple-faster-rcnn"].preprocessing.size(333, 500)
    (600, 901)
    >>> FLAVOURS["chainercv"].preprocessing.size(333, 500)
    (600, 900)
    """

    feat_stride = 16

    def __init__(
        self,
        n_fg_class: int | None = None,
        ratios: Sequence[float] = (0.5, 1, 2),
        anchor_scales: Sequence[float] = (8, 16, 32),
        *,
        flavour: FlavourName | None = None,
        use_drop: bool | None = None,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        ceil_mode: bool | None = None,
        rank_by: Ranking | None = None,
        nms_rule: NmsRule | None = None,
        roi_rounding: Rounding = "away",
    ) -> None:
        if flavour is None:
            flavour = "simple-faster-rcnn-caffe" if opt.caffe_pretrain else "simple-faster-rcnn"
        class_names = _arrays.optional_names(class_names, "class_names")
        classes = class_count(n_fg_class, class_names, len(VOC_BBOX_LABEL_NAMES))
        rules = FLAVOURS[choice(flavour, "flavour", tuple(FLAVOURS))]
        stated: dict[str, Any] = {
            "flavour": flavour,
            "use_drop": opt.use_drop if use_drop is None else bool(use_drop),
            "ceil_mode": rules.ceil_mode if ceil_mode is None else bool(ceil_mode),
            "rank_by": rank_by or rules.rank_by,
            "nms_rule": nms_rule or rules.nms_rule,
            "roi_rounding": roi_rounding,
        }
        rpn = RegionProposalNetwork(
            512,
            512,
            ratios=ratios,
            anchor_scales=anchor_scales,
            feat_stride=self.feat_stride,
            proposal_creator_params={"nms_rule": stated["nms_rule"]},
            rank_by=stated["rank_by"],
        )
        head = VGG16RoIHead(
            classes + 1,
            7,
            1.0 / self.feat_stride,
            _classifier(stated["use_drop"]),
            roi_rounding=roi_rounding,
        )
        if class_names is None and classes == len(VOC_BBOX_LABEL_NAMES):
            class_names = VOC_BBOX_LABEL_NAMES
        super().__init__(
            _extractor(stated["ceil_mode"], rules.frozen),
            rpn,
            head,
            class_names=class_names,
            preprocessing=preprocessing or rules.preprocessing,
            nms_rule=stated["nms_rule"],
        )
        self._remember(
            "faster_rcnn_vgg16",
            FasterRCNNVGG16,
            ratios=list(ratios),
            anchor_scales=list(anchor_scales),
            **stated,
        )


def _extractor(ceil_mode: bool, frozen: int) -> nn.Sequential:
    """VGG-16 up to the ReLU behind conv5_3; the first ``frozen`` layers do not train."""
    features: nn.Sequential = vgg.make_features("D")[:30]
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            vgg.initialize(layer)
        elif isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = ceil_mode
    for layer in features[:frozen]:
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


def faster_rcnn_vgg16(
    n_fg_class: int | None = None,
    *,
    flavour: FlavourName = "simple-faster-rcnn",
    use_drop: bool = False,
    **options: Any,
) -> FasterRCNNVGG16:
    """Faster R-CNN over VGG-16 with fresh weights; options as :class:`FasterRCNNVGG16`.

    The same whatever ``oxidet.simple_faster_rcnn.opt`` says.
    """
    refuse_unknown("faster_rcnn_vgg16", options, keywords_of(FasterRCNNVGG16))
    return FasterRCNNVGG16(n_fg_class, flavour=flavour, use_drop=use_drop, **options)
