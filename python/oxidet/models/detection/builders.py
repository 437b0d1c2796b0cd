"""Functions that build detectors with torchvision's structure, and load weights into them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oxidet import _arrays, nn
from oxidet._arrays import choice, integer, number
from oxidet._keywords import keywords_of, refuse_unknown
from oxidet.models.detection.anchor_generator import AnchorGenerator
from oxidet.models.detection.backbone_utils import RESNETS, STAGES, _resnet_fpn_extractor
from oxidet.models.detection.coco import coco_classes
from oxidet.models.detection.faster_rcnn import (
    ANCHOR_RATIOS,
    ANCHOR_SIZES,
    FEATURES,
    TRANSFORM_OPTIONS,
    FasterRCNN,
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from oxidet.models.detection.feature_maps import TracedBackbone, feature_maps
from oxidet.models.detection.rpn import RPNHead
from oxidet.models.registry import get_model
from oxidet.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

Weights = str | os.PathLike[str]
Norm = str | Callable[..., nn.Module] | None

COCO_CLASSES = 91  # with background, and with the numbers that no class has
# What all builders hand on: the options of FasterRCNN. Its Modules among them are no plain values.
OPTIONS = frozenset(keywords_of(FasterRCNN)) - {"backbone", "num_classes"} | {*TRANSFORM_OPTIONS}
MODULES = ("rpn_head", "box_roi_pool", "box_head", "box_predictor")
PREDICTOR = "roi_heads.box_predictor."


def fasterrcnn_resnet50_fpn(
    n_fg_class: int | None = None,
    *,
    weights: Weights | None = None,
    num_classes: int | None = None,
    weights_backbone: Weights | None = None,
    trainable_backbone_layers: int | None = None,
    **options: Any,
) -> FasterRCNN:
    """Faster R-CNN over a ResNet-50 with a feature pyramid, as torchvision's function of that name.

    ``weights="COCO_V1"`` (or ``"DEFAULT"``) are torchvision's; all options are those of
    :func:`fasterrcnn_resnet_fpn`.

    >>> from oxidet.models.detection import fasterrcnn_resnet50_fpn
    >>> model = fasterrcnn_resnet50_fpn(weights="COCO_V1")                # doctest: +SKIP
    >>> model.predict("street.jpg")                                       # doctest: +SKIP
    """
    order = _Order("fasterrcnn_resnet50_fpn", "resnet50", weights, weights_backbone, options)
    order.classes(n_fg_class, num_classes)
    return order.build(trainable_backbone_layers)


def fasterrcnn_resnet50_fpn_v2(
    n_fg_class: int | None = None,
    *,
    weights: Weights | None = None,
    num_classes: int | None = None,
    weights_backbone: Weights | None = None,
    trainable_backbone_layers: int | None = None,
    **options: Any,
) -> FasterRCNN:
    """The better trained successor of :func:`fasterrcnn_resnet50_fpn`, as torchvision's.

    There are batch norms in the pyramid and in the head, which begins with four convolutions, and a
    second convolution in the region proposal network. Options are those of
    :func:`fasterrcnn_resnet_fpn`; ``norm_layer`` is ``"batch"`` by default, also with weights.

    >>> from oxidet.models.detection import fasterrcnn_resnet50_fpn_v2
    >>> model = fasterrcnn_resnet50_fpn_v2(num_classes=3)
    >>> sum(parameter.numel() for parameter in model.parameters())
    43261278
    """
    order = _Order("fasterrcnn_resnet50_fpn_v2", "resnet50", weights, weights_backbone, options)
    order.classes(n_fg_class, num_classes)
    return order.build(trainable_backbone_layers)


def fasterrcnn_resnet_fpn(
    n_fg_class: int | None = None,
    backbone: str = "resnet18",
    *,
    weights: Weights | None = None,
    num_classes: int | None = None,
    weights_backbone: Weights | None = None,
    trainable_backbone_layers: int | None = None,
    **options: Any,
) -> FasterRCNN:
    """Faster R-CNN over a ResNet with a feature pyramid.

    Parameters
    ----------
    n_fg_class, num_classes
        Number of classes, without and with background; one of the two is enough. By default those
        of the weights, else as many as there are ``class_names``, else the 90 of COCO.
    backbone
        ``"resnet18"`` to ``"resnet152"``, or a ResNeXt or wide ResNet.
    weights
        Of the whole detector: a file, such as a torchvision checkpoint, or its address.
    weights_backbone
        Of the backbone alone, as for :func:`oxidet.models.get_model` (``"IMAGENET1K_V1"``).
        None, the default, for fresh ones: unlike torchvision nothing is downloaded unasked.
    trainable_backbone_layers
        How many of layer4, layer3, layer2, layer1 and conv1 are trained, 0 to 5; by default 3 with
        weights and 5 without.

    Other Parameters
    ----------------
    new_classifier
        Leave the box predictor fresh, to train for other classes than those of ``weights``.
    norm_layer
        Of the backbone: ``"frozen"`` (by default with weights) or ``"batch"`` (without), or what
        makes a normalisation of a number of channels.
    norm_eps
        Added to variances by frozen norms; by default 1e-5, and 0 for the weights that were trained
        so (torchvision's ``COCO_V1``).
    anchor_sizes, aspect_ratios
        Of each of the five maps, see :class:`AnchorGenerator`.
    class_names
        Names of the foreground classes; by default those that come with the weights. Weights of 91
        classes without names are taken for ones of COCO.
    **options
        Those of :class:`FasterRCNN`.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection import fasterrcnn_resnet_fpn
    >>> model = fasterrcnn_resnet_fpn(class_names=("cat", "dog"), min_size=96, max_size=128)
    >>> model.predict(np.zeros((60, 80, 3), np.uint8)).class_names
    ('cat', 'dog')
    >>> model.eval()([np.zeros((3, 60, 80), np.float32)])[0]["labels"].dtype
    dtype('int64')
    """
    if backbone not in RESNETS:
        raise ValueError(f"backbone: expected one of {RESNETS}, got {backbone!r}")
    order = _Order("fasterrcnn_resnet_fpn", backbone, weights, weights_backbone, options)
    order.classes(n_fg_class, num_classes)
    return order.build(trainable_backbone_layers)


def faster_rcnn(
    n_fg_class: int | None = None,
    backbone: str | nn.Module = "resnet50",
    levels: str | int | Sequence[str | int] | None = None,
    *,
    weights_backbone: Weights | None = None,
    norm_layer: str | None = None,
    norm_eps: float | None = None,
    out_channels: int = 256,
    representation_size: int = FEATURES,
    anchor_sizes: Sequence[Any] | None = None,
    aspect_ratios: Sequence[Any] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> FasterRCNN:
    """Faster R-CNN over any network: over one of its maps, or a feature pyramid over several.

    Parameters
    ----------
    n_fg_class, num_classes
        As for :func:`fasterrcnn_resnet_fpn`.
    backbone
        Name of a network (see ``list_models``), or a network, whose layers are then the detector's.
        Layers behind the last level are left out.
    levels
        Layers, as ``create_feature_extractor`` names them, or strides in pixels, for each of which
        the last suitable layer is found; finest first. Over several there is a pyramid with one
        level more; over one a 1 x 1 convolution. By default one map of stride 16: ``"layer3"`` of a
        ResNet, ``"features.denseblock3"`` of a DenseNet, ``"inception4e"`` of GoogLeNet.
    weights_backbone
        Of a network given by name, as for :func:`oxidet.models.get_model`.
    norm_layer
        ``"frozen"`` turns the batch norms of the network into frozen ones, which is the default
        with ``weights_backbone``; ``"batch"`` leaves them as they are.
    norm_eps
        Added to variances by frozen norms, by default what the batch norms add.
    out_channels
        Channels that both stages see.
    representation_size
        Features of a region, from which its class and its box are told.
    anchor_sizes, aspect_ratios
        Of each map, see :class:`AnchorGenerator`. By default one map has all sizes from 32 to 512,
        and a level of stride s of a pyramid has 8 s.
    class_names
        Names of the foreground classes.
    **options
        Those of :class:`FasterRCNN`.

    Raises
    ------
    ValueError
        If there is no such network or layer, or a layer returns no map of one whole stride.

    Examples
    --------
    >>> from oxidet.models.detection import faster_rcnn
    >>> detector = faster_rcnn(2, "resnet18", [8, 16, 32], class_names=("cat", "dog"))
    >>> detector.backbone.layers
    ['layer2', 'layer3', 'layer4']
    >>> faster_rcnn(2, "resnet18", "layer2").backbone.neck
    Conv2d(128, 256, kernel_size=(1, 1), stride=(1, 1))
    """
    refuse_unknown("faster_rcnn", options, OPTIONS)
    options = _given(options)
    class_names = _arrays.optional_names(class_names, "class_names")
    classes = _count(n_fg_class, num_classes, class_names)
    if isinstance(backbone, str):
        network = get_model(backbone, weights=weights_backbone)
    elif weights_backbone is not None:
        raise ValueError("weights_backbone: expected None for a network that is given, got some")
    else:
        network = backbone
    if norm_layer is None:
        norm_layer = "batch" if weights_backbone is None else "frozen"
    if choice(norm_layer, "norm_layer", ("batch", "frozen")) == "frozen":
        if not isinstance(network, nn.Module):
            raise TypeError(f"backbone: expected a name or a Module, got {type(network).__name__}")
        freeze_batch_norms(network, norm_eps)
    maps = feature_maps(network, 16 if levels is None else levels)
    names = [str(i) for i in range(len(maps.layers))]
    body = TracedBackbone(maps, out_channels)
    if anchor_sizes is None:
        strides = [*maps.strides, 2 * maps.strides[-1]]
        one_map = (tuple(size for (size,) in ANCHOR_SIZES),)
        anchor_sizes = one_map if len(names) == 1 else tuple((8 * stride,) for stride in strides)
    integer(representation_size, "representation_size", 1)
    pool = options.get("box_roi_pool", MultiScaleRoIAlign(names, 7, 2))
    anchors = _anchors(anchor_sizes, aspect_ratios)
    parts: dict[str, Any] = {"rpn_anchor_generator": anchors, "box_roi_pool": pool}
    if isinstance(pool, MultiScaleRoIAlign):  # another is refused by FasterRCNN
        values = body.out_channels * math.prod(pool.output_size)
        parts["box_head"] = TwoMLPHead(values, representation_size)
    if "box_predictor" in options:
        parts["num_classes"] = _count(n_fg_class, num_classes, None)
    else:
        classes = COCO_CLASSES if classes is None else classes
        parts["box_predictor"] = FastRCNNPredictor(representation_size, classes)
    detector = FasterRCNN(body, class_names=class_names, **{**parts, **options})
    detector.built_with = {
        "model": "faster_rcnn",
        "backbone": backbone if isinstance(backbone, str) else type(network),
        "levels": body.layers if len(names) > 1 else body.layers[0],
        "weights_backbone": None,
        "norm_layer": norm_layer,
        "norm_eps": norm_eps,
        "out_channels": body.out_channels,
        "representation_size": representation_size,
        **_described(detector, options, representation_size),
    }
    return detector


def freeze_batch_norms(network: nn.Module, eps: float | None = None) -> None:
    """Put frozen batch norms with the same values in place of a network's batch norms."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(child.num_features, child.eps if eps is None else eps)
                frozen.load_state_dict(child.state_dict(), strict=False)
                module.add_module(name, frozen)


# What an order takes besides.
ORDERED = frozenset(
    ("new_classifier", "norm_layer", "norm_eps", "anchor_sizes", "aspect_ratios", "class_names")
)


class _Order:
    """What was asked for in a detector over a ResNet, and what follows from it."""

    def __init__(
        self,
        model: str,
        backbone: str,
        weights: Weights | None,
        weights_backbone: Weights | None,
        options: dict[str, Any],
    ) -> None:
        self.model, self.backbone = model, backbone
        self.v2 = model.endswith("_v2")
        self.weights, self.weights_backbone = weights, weights_backbone
        refuse_unknown(model, options, OPTIONS | ORDERED)
        options = _given(options)
        self.new_classifier: bool = options.pop("new_classifier", False)
        self.norm_layer: Norm = options.pop("norm_layer", None)
        self.norm_eps: float | None = options.pop("norm_eps", None)
        self.anchor_sizes = options.pop("anchor_sizes", ANCHOR_SIZES)
        self.aspect_ratios = options.pop("aspect_ratios", None)
        names = _arrays.optional_names(options.pop("class_names", None), "class_names")
        self.class_names: Sequence[str] | None = names
        self.num_classes: int | None = None
        self.options = options

    def classes(self, n_fg_class: int | None, num_classes: int | None) -> None:
        """How many classes were asked for."""
        self.num_classes = _count(n_fg_class, num_classes, self.class_names)

    def build(self, trainable: int | None) -> FasterRCNN:
        """The detector, with its weights."""
        if self.new_classifier and self.weights is None:
            raise ValueError("new_classifier: expected together with weights")
        state = None if self.weights is None else self._read(self.weights)
        trained = state is not None or self.weights_backbone is not None
        if trainable is None:
            trainable = 3 if trained else len(STAGES)
        integer(trainable, "trainable_backbone_layers", 0, len(STAGES))
        if self.norm_layer is None:
            self.norm_layer = "frozen" if trained and not self.v2 else "batch"
        norm = _norm(self.norm_layer, 1e-5 if self.norm_eps is None else self.norm_eps)
        network = get_model(
            self.backbone,
            weights=None if state is not None else self.weights_backbone,
            norm_layer=norm,
        )
        own = norm if self.v2 else None
        body = _resnet_fpn_extractor(network, trainable, norm_layer=own)
        anchors = self.options.get("rpn_anchor_generator")
        if anchors is None:
            anchors = _anchors(self.anchor_sizes, self.aspect_ratios)
        parts: dict[str, Any] = {"rpn_anchor_generator": anchors}
        if self.v2:
            count = anchors.num_anchors_per_location()[0]
            parts["rpn_head"] = RPNHead(body.out_channels, count, conv_depth=2)
            size = (body.out_channels, 7, 7)
            parts["box_head"] = FastRCNNConvFCHead(size, [256] * 4, [FEATURES], norm)
        if "box_predictor" not in self.options:
            if self.num_classes is None:
                self.num_classes, self.class_names = COCO_CLASSES, coco_classes()
            parts["num_classes"] = self.num_classes
        detector = FasterRCNN(body, class_names=self.class_names, **{**parts, **self.options})
        detector.built_with = {
            "model": self.model,
            **({"backbone": self.backbone} if self.model == "fasterrcnn_resnet_fpn" else {}),
            "weights": None,
            "new_classifier": False,
            "weights_backbone": None,
            "trainable_backbone_layers": trainable,
            **_described_norm(self.norm_layer, self.norm_eps),
            **_described(detector, self.options, FEATURES),
        }
        if state is not None:
            self._load(detector, state)
        return detector

    def _read(self, weights: Weights) -> Mapping[str, Any]:
        """The tensors of a file; what it says of classes and norms fills in what nobody gave."""
        from oxidet.weights import locate
        from oxidet.weights._files import read_weights

        origin = locate(weights, self.model)
        state, metadata = read_weights(origin.path)
        published = origin.published
        names: Sequence[str] | None = None
        if published is not None and published.detects:
            names = coco_classes()
            if self.norm_eps is None and not self.v2:
                self.norm_eps = 0.0
        elif "detector" in metadata:
            names, self.norm_eps = _from_recipe(metadata["detector"], self.norm_eps)
        logits = state.get(f"{PREDICTOR}cls_score.weight")
        if names is None and logits is not None and len(logits) == COCO_CLASSES:
            names = coco_classes()  # the published weights under another name, or trained further
        if logits is None or self.new_classifier:
            return state
        count = len(logits)
        if self.num_classes is None:
            self.num_classes = count
        if self.num_classes != count:
            raise nn.StateDictError(
                f"weights: expected {self.num_classes} classes with background, got {count}: "
                "leave num_classes, n_fg_class and class_names to the weights, or start with a "
                "fresh box predictor by new_classifier=True"
            )
        if self.class_names is None and names is not None and len(names) == count - 1:
            self.class_names = names
        return state

    def _load(self, detector: FasterRCNN, state: Mapping[str, Any]) -> None:
        if self.new_classifier:
            state = {key: value for key, value in state.items() if not key.startswith(PREDICTOR)}
            own = detector.state_dict()
            state.update({key: own[key] for key in own if key.startswith(PREDICTOR)})
        detector.load_state_dict(state)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options without the Modules that are None, which stands for the builder's own."""
    modules = ("rpn_anchor_generator", *MODULES)
    return {name: v for name, v in options.items() if v is not None or name not in modules}


def _count(
    n_fg_class: int | None, num_classes: int | None, class_names: Sequence[str] | None
) -> int | None:
    """Classes with background, by whatever was given of three."""
    if n_fg_class is not None:
        classes = integer(n_fg_class, "n_fg_class", 1) + 1
        if num_classes not in (None, classes):
            raise ValueError(f"num_classes: expected {classes}, by n_fg_class, got {num_classes}")
        return classes
    if num_classes is not None:
        return integer(num_classes, "num_classes", 2)
    return None if class_names is None else len(class_names) + 1


def _norm(norm_layer: Norm, eps: float) -> Callable[..., nn.Module]:
    if callable(norm_layer):
        return norm_layer
    if choice(norm_layer, "norm_layer", ("batch", "frozen")) == "batch":
        return nn.BatchNorm2d
    number(eps, "norm_eps", 0)
    return lambda channels: FrozenBatchNorm2d(channels, eps)


def _anchors(sizes: Sequence[Any], ratios: Sequence[Any] | None) -> AnchorGenerator:
    if ratios is None:
        ratios = (ANCHOR_RATIOS,) * len(sizes)
    return AnchorGenerator(sizes, ratios)


def _described_norm(norm_layer: Norm, eps: float | None) -> dict[str, Any]:
    """A norm's options, with the words for the layers that they make."""
    if norm_layer is nn.BatchNorm2d:
        norm_layer = "batch"
    elif norm_layer is FrozenBatchNorm2d:
        norm_layer, eps = "frozen", 1e-5
    return {"norm_layer": norm_layer, "norm_eps": eps}


def _described(detector: FasterRCNN, options: Mapping[str, Any], features: int) -> dict[str, Any]:
    """Anchors, and the classes of Modules that were given; for a predictor of as many features as
    the builder's own, nothing beyond the number of classes."""
    anchors = detector.rpn.anchor_generator
    described: dict[str, Any] = {
        "anchor_sizes": [list(sizes) for sizes in anchors.sizes],
        "aspect_ratios": [list(ratios) for ratios in anchors.aspect_ratios],
    }
    if type(anchors) is not AnchorGenerator:
        described["rpn_anchor_generator"] = type(anchors)
    for name in MODULES:
        module = options.get(name)
        if type(module) is FastRCNNPredictor and module.cls_score.in_features == features:
            continue
        if module is not None:
            described[name] = type(module)
    return described


def _from_recipe(text: str, eps: float | None) -> tuple[Sequence[str] | None, float | None]:
    """Class names and the frozen norms' eps that a file of ours carries."""
    import json

    try:
        recipe = json.loads(text)
        names, stored = recipe.get("class_names"), recipe.get("norm_eps")
    except (ValueError, AttributeError, RecursionError):
        return None, eps
    return names, stored if eps is None else eps
