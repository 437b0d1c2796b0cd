"""Faster R-CNN over one map or a feature pyramid, with torchvision's structure and names.

Ren et al., "Faster R-CNN" (arXiv 1506.01497); Lin et al., "Feature Pyramid Networks" (1612.03144).
``state_dict`` keys are torchvision's, so its checkpoints load. The functions that build detectors
of known backbones are in ``builders.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from oxidet import nn
from oxidet._arrays import extent, integer
from oxidet._keywords import keywords_of, refuse_unknown
from oxidet.models.detection.anchor_generator import AnchorGenerator
from oxidet.models.detection.generalized_rcnn import GeneralizedRCNN
from oxidet.models.detection.roi_heads import RoIHeads
from oxidet.models.detection.rpn import RegionProposalNetwork, RPNHead
from oxidet.models.detection.transform import GeneralizedRCNNTransform
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.ops import Conv2dNormActivation, MultiScaleRoIAlign

ANCHOR_SIZES = ((32,), (64,), (128,), (256,), (512,))
ANCHOR_RATIOS = (0.5, 1.0, 2.0)
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FEATURES = 1024  # of a region, behind the head
TRANSFORM_OPTIONS = ("size_divisible", "fixed_size", "_skip_resize")


class TwoMLPHead(nn.Module):
    """Two fully connected layers, each with a ReLU: pooled regions to features.

    Parameters
    ----------
    in_channels
        Values of a region, C * h * w.
    representation_size
        Features that come out.
    """

    fc6: nn.Linear
    fc7: nn.Linear

    _mode_matters = False

    def __init__(self, in_channels: int, representation_size: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_channels, representation_size)
        self.fc7 = nn.Linear(representation_size, representation_size)

    def forward(self, x: Any) -> Any:
        """(S, C, h, w) to (S, representation_size)."""
        return F.relu(self.fc7(F.relu(self.fc6(F.flatten(x, 1)))))


class FastRCNNConvFCHead(nn.Sequential):
    """3 x 3 convolutions, then fully connected layers, each with a ReLU.

    Parameters
    ----------
    input_size
        (C, h, w) of a pooled region.
    conv_layers, fc_layers
        Channels of each convolution, and features of each layer behind them.
    norm_layer
        Normalisation behind each convolution; None for none.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection.faster_rcnn import FastRCNNConvFCHead
    >>> head = FastRCNNConvFCHead((8, 7, 7), [16, 16], [32]).eval()
    >>> head(np.zeros((5, 8, 7, 7), np.float32)).shape
    (5, 32)
    """

    _mode_matters = False

    def __init__(
        self,
        input_size: tuple[int, int, int],
        conv_layers: Sequence[int],
        fc_layers: Sequence[int],
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        channels, height, width = input_size
        blocks: list[nn.Module] = []
        for planes in conv_layers:
            blocks.append(Conv2dNormActivation(channels, planes, norm_layer=norm_layer))
            channels = planes
        blocks.append(nn.Flatten())
        features = channels * height * width
        for size in fc_layers:
            blocks += [nn.Linear(features, size), nn.ReLU(inplace=True)]
            features = size
        super().__init__(*blocks)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    init.zeros_(layer.bias)


class FastRCNNPredictor(nn.Module):
    """Logits and corrections of each class from the features of a region.

    Parameters
    ----------
    in_channels
        Features of a region.
    num_classes
        Classes with background, which is the first.

    Examples
    --------
    To train a detector for classes of one's own, its predictor is replaced:

    >>> from oxidet.models.detection import fasterrcnn_resnet_fpn
    >>> from oxidet.models.detection.faster_rcnn import FastRCNNPredictor
    >>> model = fasterrcnn_resnet_fpn(num_classes=91)
    >>> in_features = model.roi_heads.box_predictor.cls_score.in_features
    >>> model.roi_heads.box_predictor = FastRCNNPredictor(in_features, 3)
    >>> model.class_names = ("cat", "dog")
    """

    cls_score: nn.Linear
    bbox_pred: nn.Linear

    _mode_matters = False

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        classes = extent(num_classes, "num_classes")
        self.cls_score = nn.Linear(in_channels, classes)
        self.bbox_pred = nn.Linear(in_channels, classes * 4)

    def forward(self, x: Any) -> tuple[Any, Any]:
        """(S, F) or (S, F, 1, 1) to logits (S, K) and corrections (S, 4 K) of K classes."""
        if len(x.shape) == 4 and tuple(x.shape[2:]) != (1, 1):
            raise ValueError(f"x: expected one value of a feature (S, F, 1, 1), got {x.shape}")
        x = F.flatten(x, 1)
        return self.cls_score(x), self.bbox_pred(x)


class FasterRCNN(GeneralizedRCNN):
    """Faster R-CNN, as torchvision's class: arguments, defaults and ``state_dict`` are the same.

    Parameters
    ----------
    backbone
        Module from a batch (N, 3, H, W) to one map, or to maps by name, finest first, with an
        attribute ``out_channels``.
    num_classes
        Classes with background; given by ``box_predictor`` if that is.
    min_size, max_size, image_mean, image_std
        See :class:`~oxidet.models.detection.transform.GeneralizedRCNNTransform`.
    rpn_anchor_generator, rpn_head
        By default squares of 32 to 512 pixels, one size for each of five maps, in three shapes; and
        a :class:`~oxidet.models.detection.rpn.RPNHead` for them.
    rpn_pre_nms_top_n_train, rpn_pre_nms_top_n_test, rpn_post_nms_top_n_train, \
rpn_post_nms_top_n_test, rpn_nms_thresh, rpn_fg_iou_thresh, rpn_bg_iou_thresh, \
rpn_batch_size_per_image, rpn_positive_fraction, rpn_score_thresh
        See :class:`~oxidet.models.detection.rpn.RegionProposalNetwork`.
    box_roi_pool, box_head, box_predictor
        By default 7 x 7 values from the maps "0" to "3", :class:`TwoMLPHead` and
        :class:`FastRCNNPredictor` with 1024 features.
    box_score_thresh, box_nms_thresh, box_detections_per_img, box_fg_iou_thresh, \
box_bg_iou_thresh, box_batch_size_per_image, box_positive_fraction, bbox_reg_weights
        See :class:`~oxidet.models.detection.roi_heads.RoIHeads`.
    class_names
        Names of the foreground classes; by default "0", "1", ...
    transform_options
        ``size_divisible``, ``fixed_size``, ``_skip_resize`` of the transform.

    Attributes
    ----------
    built_with
        Name of the function that built the detector, as ``model``, and its options besides the
        arguments here; for a Module that it was given its class.

    Raises
    ------
    ValueError
        Unless just one of ``num_classes`` and ``box_predictor`` is given; if ``backbone`` has no
        ``out_channels``.
    TypeError
        ``rpn_anchor_generator`` or ``box_roi_pool`` is something else.

    Examples
    --------
    A backbone of one's own:

    >>> import numpy as np
    >>> from oxidet import nn
    >>> from oxidet.models.detection import AnchorGenerator, FasterRCNN
    >>> from oxidet.ops import MultiScaleRoIAlign
    >>> backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 4, 1))
    >>> backbone.out_channels = 16
    >>> model = FasterRCNN(
    ...     backbone,
    ...     num_classes=3,
    ...     rpn_anchor_generator=AnchorGenerator(((32, 64),), ((0.5, 1.0, 2.0),)),
    ...     box_roi_pool=MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
    ...     min_size=96,
    ... ).eval()
    >>> [found] = model([np.zeros((3, 60, 80), np.float32)])
    >>> sorted(found), found["boxes"].shape[1]
    (['boxes', 'labels', 'scores'], 4)
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        rpn_anchor_generator: AnchorGenerator | None = None,
        rpn_head: nn.Module | None = None,
        rpn_pre_nms_top_n_train: int = 2000,
        rpn_pre_nms_top_n_test: int = 1000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_score_thresh: float = 0.0,
        box_roi_pool: MultiScaleRoIAlign | None = None,
        box_head: nn.Module | None = None,
        box_predictor: nn.Module | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: tuple[float, float, float, float] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        **transform_options: Any,
    ) -> None:
        known = (*keywords_of(FasterRCNN), *TRANSFORM_OPTIONS)
        refuse_unknown("FasterRCNN", transform_options, known)
        if not hasattr(backbone, "out_channels"):
            raise ValueError(
                "backbone: expected a module with an attribute out_channels, the channels of its "
                f"maps, got {type(backbone).__name__} without"
            )
        for value, kind, argument in (
            (rpn_anchor_generator, AnchorGenerator, "rpn_anchor_generator"),
            (box_roi_pool, MultiScaleRoIAlign, "box_roi_pool"),
        ):
            if not isinstance(value, (kind, type(None))):
                got = type(value).__name__
                raise TypeError(f"{argument}: expected {kind.__name__} or None, got {got}")
        if (num_classes is None) == (box_predictor is None):
            got = "neither" if num_classes is None else "both"
            raise ValueError(f"num_classes: expected either this or box_predictor, got {got}")
        channels: int = backbone.out_channels
        if rpn_anchor_generator is None:
            rpn_anchor_generator = AnchorGenerator(
                ANCHOR_SIZES, (ANCHOR_RATIOS,) * len(ANCHOR_SIZES)
            )
        if rpn_head is None:
            rpn_head = RPNHead(channels, rpn_anchor_generator.num_anchors_per_location()[0])
        rpn = RegionProposalNetwork(
            rpn_anchor_generator,
            rpn_head,
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            {"training": rpn_pre_nms_top_n_train, "testing": rpn_pre_nms_top_n_test},
            {"training": rpn_post_nms_top_n_train, "testing": rpn_post_nms_top_n_test},
            rpn_nms_thresh,
            rpn_score_thresh,
        )
        if box_roi_pool is None:
            box_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
        if box_head is None:
            rows, cols = box_roi_pool.output_size
            box_head = TwoMLPHead(channels * rows * cols, FEATURES)
        if box_predictor is None:
            box_predictor = FastRCNNPredictor(FEATURES, integer(num_classes, "num_classes", 2))
        roi_heads = RoIHeads(
            box_roi_pool,
            box_head,
            box_predictor,
            box_fg_iou_thresh,
            box_bg_iou_thresh,
            box_batch_size_per_image,
            box_positive_fraction,
            bbox_reg_weights,
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
        )
        transform = GeneralizedRCNNTransform(
            min_size,
            max_size,
            IMAGE_MEAN if image_mean is None else image_mean,
            IMAGE_STD if image_std is None else image_std,
            **transform_options,
        )
        super().__init__(backbone, rpn, roi_heads, transform, class_names)
        self.built_with: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        """See :meth:`Detector.settings`: the arguments that are numbers, as they are now."""
        transform, rpn, heads = self.transform, self.rpn, self.roi_heads
        return {
            **super().settings(),
            **self.built_with,
            "min_size": list(transform.min_size),
            "max_size": transform.max_size,
            "image_mean": list(transform.image_mean),
            "image_std": list(transform.image_std),
            "size_divisible": transform.size_divisible,
            "fixed_size": transform.fixed_size,
            "rpn_pre_nms_top_n_train": rpn._pre_nms_top_n["training"],
            "rpn_pre_nms_top_n_test": rpn._pre_nms_top_n["testing"],
            "rpn_post_nms_top_n_train": rpn._post_nms_top_n["training"],
            "rpn_post_nms_top_n_test": rpn._post_nms_top_n["testing"],
            "rpn_nms_thresh": rpn.nms_thresh,
            "rpn_fg_iou_thresh": rpn.proposal_matcher.high_threshold,
            "rpn_bg_iou_thresh": rpn.proposal_matcher.low_threshold,
            "rpn_batch_size_per_image": rpn.fg_bg_sampler.batch_size_per_image,
            "rpn_positive_fraction": rpn.fg_bg_sampler.positive_fraction,
            "rpn_score_thresh": rpn.score_thresh,
            "box_score_thresh": heads.score_thresh,
            "box_nms_thresh": heads.nms_thresh,
            "box_detections_per_img": heads.detections_per_img,
            "box_fg_iou_thresh": heads.proposal_matcher.high_threshold,
            "box_bg_iou_thresh": heads.proposal_matcher.low_threshold,
            "box_batch_size_per_image": heads.fg_bg_sampler.batch_size_per_image,
            "box_positive_fraction": heads.fg_bg_sampler.positive_fraction,
            "bbox_reg_weights": list(heads.box_coder.weights),
            **({"_skip_resize": True} if transform._skip_resize else {}),
        }
