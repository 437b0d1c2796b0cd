"""Faster R-CNN: an extractor, a region proposal network and a head, and what people call on them.

Ren et al., "Faster R-CNN: towards real-time object detection with region proposal networks" (arXiv
1506.01497). ``forward`` has simple-faster-rcnn's contract, ``predict`` is that of every
:class:`Detector`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, overload

import numpy as np

from oxidet import _arrays, nn
from oxidet._arrays import F32, as_float32
from oxidet.data.image import ImageSource
from oxidet.detection import resize_bbox
from oxidet.detection.non_maximum_suppression import NmsRule, is_chainercv
from oxidet.detections import Detections
from oxidet.models.detection._kernels import detect_per_class
from oxidet.models.detection.detector import I64, Detector, Found, OnError
from oxidet.models.detection.stages import Level, Stages
from oxidet.nn import functional as F
from oxidet.optim.optimizer import Optimizer
from oxidet.simple_faster_rcnn.config import opt
from oxidet.simple_faster_rcnn.objective import I32, Objective
from oxidet.simple_faster_rcnn.optimizer import adam, faster_rcnn_optimizer, scale_lr
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import RegionProposalNetwork
from oxidet.simple_faster_rcnn.roi_head import RoIHead

# (nms_thresh, score_thresh)
PRESETS = {"visualize": (0.3, 0.7), "evaluate": (0.3, 0.05)}


Self = TypeVar("Self", bound="FasterRCNN")


def class_count(n_fg_class: int | None, class_names: Sequence[str] | None, default: int) -> int:
    """How many foreground classes there are: as many as said, else as there are names."""
    if n_fg_class is not None:
        return n_fg_class
    return default if class_names is None else len(class_names)


class RoIOutput(NamedTuple):
    """``roi_cls_locs`` (R, 4 * n_class), ``roi_scores`` (R, n_class), ``rois`` (R, 4) yx,
    ``roi_indices`` (R,)."""

    roi_cls_locs: Any
    roi_scores: Any
    rois: Any
    roi_indices: Any


class FasterRCNN(Detector):
    """A two-stage detector.

    Parameters
    ----------
    extractor
        Module from images (N, 3, H, W) to one feature map (N, C, H', W').
    rpn, head
        The two stages.
    loc_normalize_mean, loc_normalize_std
        Mean and deviation of the head's corrections (ty, tx, th, tw).
    class_names
        Names of the foreground classes, in the order of their labels; by default "0", "1", ...
    preprocessing
        How images become the network's input.
    nms_rule
        ``"torchvision"`` suppresses above the threshold, as simple-faster-rcnn; ``"chainercv"``
        also at it.

    Attributes
    ----------
    nms_thresh, score_thresh
        Thresholds of :meth:`detect`; :meth:`use_preset` sets both. ``nms_thresh`` is simple-
        faster-rcnn's name for :class:`Detector`'s ``nms_threshold``.
    objective
        What training minimises.
    built_with
        Name of the function that builds such a detector, as ``model``, and its options besides
        class names and preprocessing; empty for a detector put together from modules.
    """

    loc_normalize_mean: tuple[float, ...]
    loc_normalize_std: tuple[float, ...]
    preprocessing: Preprocessing
    objective: Objective
    score_thresh: float
    _names: tuple[str, ...]
    built_with: dict[str, Any]

    def __init__(
        self,
        extractor: nn.Module,
        rpn: RegionProposalNetwork,
        head: RoIHead,
        loc_normalize_mean: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        loc_normalize_std: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        nms_rule: NmsRule = "torchvision",
    ) -> None:
        nn.Module.__init__(self)
        self.extractor = extractor
        self.rpn = rpn
        self.head = head
        # Behind the head, which knows how many names there are to be.
        self.class_names = range(head.n_class - 1) if class_names is None else class_names
        self.loc_normalize_mean = tuple(float(v) for v in loc_normalize_mean)
        self.loc_normalize_std = tuple(float(v) for v in loc_normalize_std)
        self.preprocessing = preprocessing or Preprocessing()
        self.nms_rule = nms_rule
        self.objective = Objective()
        self.built_with = {}
        self.use_preset("evaluate")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the foreground classes, as many as the head tells apart."""
        return self._names

    @class_names.setter
    def class_names(self, names: Sequence[Any]) -> None:
        self._names = _arrays.names(names, "class_names", self.n_class - 1)

    @property
    def n_class(self) -> int:
        """Number of classes, background included."""
        return self.head.n_class

    @property
    def nms_thresh(self) -> float:
        """``nms_threshold`` under the original's name."""
        return self.nms_threshold

    @nms_thresh.setter
    def nms_thresh(self, value: float) -> None:
        self.nms_threshold = value

    def use_preset(self, preset: str) -> None:
        """Set ``nms_thresh`` and ``score_thresh``: ``"visualize"`` (0.3, 0.7) shows few boxes,
        ``"evaluate"`` (0.3, 0.05) keeps what average precision needs."""
        if preset not in PRESETS:
            raise ValueError(f"preset: expected one of {sorted(PRESETS)}, got {preset!r}")
        self.nms_thresh, self.score_thresh = PRESETS[preset]

    def forward(self, x: Any, scale: float = 1.0) -> RoIOutput:
        """Both stages on preprocessed images.

        ``x`` is (N, 3, H, W); ``scale`` the factor by which the original images were scaled.
        Boxes are in pixels of ``x``, (y_min, x_min, y_max, x_max).
        """
        features = self.extractor(x)
        proposals = self.rpn(features, tuple(x.shape[2:]), scale)
        locs, scores = self.head(features, proposals.rois, proposals.roi_indices)
        return RoIOutput(locs, scores, proposals.rois, proposals.roi_indices)

    @overload
    def predict(
        self, images: Sequence[Any], sizes: Sequence[Any], visualize: bool | None = ...
    ) -> tuple[list[F32], list[I32], list[F32]]: ...
    @overload
    def predict(
        self, images: Sequence[Any], sizes: None = ..., *, visualize: bool
    ) -> tuple[list[F32], list[I32], list[F32]]: ...
    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is an iterable, too
        self,
        images: ImageSource,
        *,
        score_threshold: float | None = ...,
        nms_threshold: float | None = ...,
        batch_size: int = ...,
        on_error: Literal["raise"] = ...,
    ) -> Detections: ...
    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is an iterable, too
        self,
        images: ImageSource,
        *,
        score_threshold: float | None = ...,
        nms_threshold: float | None = ...,
        batch_size: int = ...,
        on_error: OnError,
    ) -> Detections | None: ...
    @overload
    def predict(
        self,
        images: Iterable[Any],
        *,
        score_threshold: float | None = ...,
        nms_threshold: float | None = ...,
        batch_size: int = ...,
        on_error: Literal["raise"] = ...,
    ) -> list[Detections]: ...
    @overload
    def predict(
        self,
        images: Iterable[Any],
        *,
        score_threshold: float | None = ...,
        nms_threshold: float | None = ...,
        batch_size: int = ...,
        on_error: OnError,
    ) -> list[Detections | None]: ...
    def predict(
        self,
        images: Any,
        sizes: Sequence[Any] | None = None,
        visualize: bool | None = None,
        **options: Any,
    ) -> Any:
        """:meth:`Detector.predict`, or with one of its arguments simple-faster-rcnn's.

        Parameters
        ----------
        images
            What :meth:`Detector.predict` takes. With ``visualize=True`` a list of images (3, H, W)
            RGB 0..255; with ``sizes`` a list of preprocessed ones.
        sizes
            (height, width) of the original of each preprocessed image.
        visualize
            Use the thresholds of the preset ``"visualize"``, in this call only.
        options
            Keyword arguments of :meth:`Detector.predict`.

        Returns
        -------
        Detections, or a list of them. With ``sizes`` or ``visualize`` three lists with an entry for
        each image: ``bbox`` (R, 4) float32 (y_min, x_min, y_max, x_max) in pixels of the original,
        ``label`` (R,) int32 from 0, and ``score`` (R,) float32; grouped by label. Unlike the
        original, the detector is left in the mode and with the preset that it had.
        """
        if sizes is None and visualize is None:
            return super().predict(images, **options)
        if options:
            raise TypeError(f"predict: expected no {next(iter(options))} with sizes or visualize")
        nms_thresh, score_thresh = self.nms_thresh, self.score_thresh
        if visualize:
            nms_thresh, score_thresh = PRESETS["visualize"]
            found = [self.detect(np.asarray(i), score_thresh, nms_thresh) for i in images]
        elif sizes is None:
            raise ValueError("sizes: expected those of the original images, got None")
        else:
            found = [
                self._detect_prepared(
                    np.asarray(image, np.float32),
                    (int(size[0]), int(size[1])),
                    score_thresh,
                    nms_thresh,
                )
                for image, size in zip(images, sizes, strict=True)
            ]
        bboxes, labels, scores = ([one[i] for one in found] for i in range(3))
        return bboxes, labels, scores

    def detect_images(
        self,
        images: Sequence[F32],
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        *,
        scale: float = 1.0,
    ) -> list[Found]:
        """Detect objects in image arrays, one after the other: see :class:`Detector`."""
        score = self.score_threshold if score_threshold is None else score_threshold
        found = (self.detect(image, score, nms_threshold, scale=scale) for image in images)
        return [
            Found(bbox[:, [1, 0, 3, 2]], label.astype(np.int64), score)
            for bbox, label, score in found
        ]

    def detect_in_stages(
        self,
        image: F32,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> Stages:
        """See :class:`Detector`."""
        score = self.score_threshold if score_threshold is None else score_threshold
        nms = self.nms_threshold if nms_threshold is None else nms_threshold
        image = as_float32(image, "image", ndim=3, form="(3, H, W)")
        size = image.shape[1], image.shape[2]
        prepared = self.preprocessing(image)
        scale = prepared.shape[2] / size[1]

        def original(boxes: F32) -> F32:
            """Boxes of the network's input, yx, in pixels of the original, xy."""
            return resize_bbox(boxes, prepared.shape[1:], size)[:, [1, 0, 3, 2]]

        with nn.evaluating(self), nn.no_grad():
            features = self.extractor(prepared[None])
            corrections, ratings, anchors = self.rpn.rate(features)
            rois, chosen = self.rpn.proposal_layer(
                np.asarray(corrections)[0],
                self.rpn.ranking(ratings)[0],
                anchors,
                prepared.shape[1:],
                scale=scale,
                return_index=True,
            )
            of_this_image = np.zeros(len(rois), np.int32)
            pooled = self.head.pool(features, rois, of_this_image)
            locs, scores = self.head(features, rois, of_this_image)

        def boxes_of(nms_thresh: float) -> Found:
            bbox, label, sure = self._boxes(locs, scores, rois, size, scale, score, nms_thresh)
            return Found(bbox[:, [1, 0, 3, 2]], label.astype(np.int64), sure)

        objectness = F.softmax(np.asarray(ratings), dim=-1)[0, :, 1]
        cells = (*features.shape[2:], len(self.rpn.anchor_base))
        level = Level("0", original(anchors).reshape(*cells, 4), objectness.reshape(cells))
        return Stages(
            levels=(level,),
            proposals=original(rois),
            proposal_scores=objectness[chosen],
            pooled=np.asarray(pooled),
            class_scores=F.softmax(np.asarray(scores), dim=1),
            candidates=boxes_of(1.0),
            found=boxes_of(nms),
        )

    def training_losses(
        self,
        images: Sequence[F32],
        boxes: Sequence[F32],
        labels: Sequence[I64],
        *,
        rng: np.random.RandomState,
        min_size: int | None = None,
    ) -> dict[str, Any]:
        """``rpn_loc_loss``, ``rpn_cls_loss``, ``roi_loc_loss`` and ``roi_cls_loss``.

        Arguments as of :class:`Detector`. The images must be scaled to one size; a batch of one
        takes any. ``objective`` says what is computed.
        """
        preprocessing = self.preprocessing
        if min_size is not None:
            preprocessing = dataclasses.replace(preprocessing, min_size=min_size)
        prepared = [preprocessing(image) for image in images]
        shapes = sorted({image.shape for image in prepared})
        if len(shapes) > 1:
            raise ValueError(
                "images: expected sizes that are scaled to one, or a batch of one, "
                f"got {len(prepared)} images that are scaled to {shapes}"
            )
        bboxes, scales = [], []
        for image, new, box in zip(images, prepared, boxes, strict=True):
            bbox = np.asarray(box, np.float32).reshape(-1, 4)[:, [1, 0, 3, 2]]
            bboxes.append(resize_bbox(bbox, image.shape[1:], new.shape[1:]))
            scales.append(new.shape[2] / image.shape[2])
        outcome = self.objective(
            self, np.stack(prepared), bboxes, [np.asarray(y) for y in labels], scales, rng=rng
        )
        losses = outcome.losses._asdict()
        del losses["total_loss"]
        return losses

    def get_optimizer(self) -> Optimizer:
        """A new optimiser of the trainable parameters, with simple-faster-rcnn's groups.

        SGD or Adam, with the rates of ``oxidet.simple_faster_rcnn.opt``. It is kept as
        ``optimizer``, for :meth:`scale_lr`.
        """
        if opt.use_adam:
            self.optimizer: Optimizer = adam(self, opt.lr, opt.weight_decay)
        else:
            self.optimizer = faster_rcnn_optimizer(self, opt.lr, weight_decay=opt.weight_decay)
        return self.optimizer

    def scale_lr(self, decay: float = 0.1) -> Optimizer:
        """Multiply every rate of the optimiser that :meth:`get_optimizer` made."""
        return scale_lr(self.optimizer, decay)

    def cuda(self: Self, *args: Any) -> Self:
        """The detector itself: it computes on the CPU, wherever a program sends it."""
        return self

    def settings(self) -> dict[str, Any]:
        """What a recipe states of this detector: see :class:`Detector`."""
        return {
            **super().settings(),
            "nms_threshold": self.nms_threshold,
            "preprocessing": self.preprocessing.to_dict(),
            **self.built_with,
        }

    def _remember(self, model: str, builder: type[FasterRCNN], **options: Any) -> None:
        """Keep the options of a builder; its name only in an instance of the class that it builds:
        one derived from that may be another network."""
        self.built_with = {"model": model, **options} if type(self) is builder else options

    def detect(
        self,
        image: F32,
        score_thresh: float | None = None,
        nms_thresh: float | None = None,
        *,
        scale: float = 1.0,
    ) -> tuple[F32, Any, F32]:
        """Detect objects in one image array, with simple-faster-rcnn's conventions.

        ``image`` is (3, H, W) RGB 0..255. Returns ``bbox`` (R, 4) float32 (y_min, x_min, y_max,
        x_max) in pixels of ``image``, ``label`` (R,) int32 from 0, ``score`` (R,) float32; grouped
        by label, best first within one. Thresholds default to the preset in use. ``scale``
        multiplies the sizes of ``preprocessing``.
        """
        score_thresh = self.score_thresh if score_thresh is None else score_thresh
        nms_thresh = self.nms_thresh if nms_thresh is None else nms_thresh
        image = as_float32(image, "image", ndim=3, form="(3, H, W)")
        height, width = image.shape[1:]
        prepared = self.preprocessing.scaled(scale)(image)
        return self._detect_prepared(prepared, (height, width), score_thresh, nms_thresh)

    def _detect_prepared(
        self, prepared: F32, size: tuple[int, int], score_thresh: float, nms_thresh: float
    ) -> tuple[F32, Any, F32]:
        """Detect objects in a preprocessed image, in pixels of the original of that size."""
        scale = prepared.shape[2] / size[1]
        with nn.evaluating(self), nn.no_grad():
            locs, scores, rois, _ = self.forward(prepared[None], scale)
        return self._boxes(locs, scores, rois, size, scale, score_thresh, nms_thresh)

    def _boxes(
        self,
        locs: Any,
        scores: Any,
        rois: F32,
        size: tuple[int, int],
        scale: float,
        score_thresh: float,
        nms_thresh: float,
    ) -> tuple[F32, Any, F32]:
        """What the head says about the regions of one image, as boxes in the original."""
        (found,) = detect_per_class(
            scores,
            locs,
            [rois],
            [size],
            [scale],
            self.loc_normalize_mean,
            self.loc_normalize_std,
            score_thresh,
            nms_thresh,
            inclusive=is_chainercv(self.nms_rule),
        )
        return found
