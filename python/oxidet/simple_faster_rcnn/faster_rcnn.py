"""Faster R-CNN: an extractor, a region proposal network and a head, and what people call on them.

Ren et al., "Faster R-CNN: towards real-time object detection with region proposal networks" (arXiv
1506.01497). ``forward`` has simple-faster-rcnn's contract, ``predict`` takes pictures and returns
:class:`oxidet.Detections`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from oxidet import nn
from oxidet._arrays import F32, as_float32, number
from oxidet.data import ImageError, read_image
from oxidet.detection import loc2bbox, non_maximum_suppression
from oxidet.detection.non_maximum_suppression import NmsRule
from oxidet.detections import Detections
from oxidet.nn import functional as F
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import RegionProposalNetwork
from oxidet.simple_faster_rcnn.roi_head import RoIHead

# (nms_thresh, score_thresh)
PRESETS = {"visualize": (0.3, 0.7), "evaluate": (0.3, 0.05)}


class RoIOutput(NamedTuple):
    """``roi_cls_locs`` (R, 4 * n_class), ``roi_scores`` (R, n_class), ``rois`` (R, 4) yx,
    ``roi_indices`` (R,)."""

    roi_cls_locs: Any
    roi_scores: Any
    rois: Any
    roi_indices: Any


class FasterRCNN(nn.Module):
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
        Thresholds of :meth:`detect`; :meth:`use_preset` sets both.
    recipe
        What ``build_detector`` was called with, as plain values; None if it was not.
    """

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
        super().__init__()
        self.extractor = extractor
        self.rpn = rpn
        self.head = head
        self.loc_normalize_mean = tuple(float(v) for v in loc_normalize_mean)
        self.loc_normalize_std = tuple(float(v) for v in loc_normalize_std)
        names = tuple(str(i) for i in range(head.n_class - 1))
        self.class_names = names if class_names is None else tuple(class_names)
        if len(self.class_names) != head.n_class - 1:
            raise ValueError(
                f"class_names: expected {head.n_class - 1} names, got {len(self.class_names)}"
            )
        self.preprocessing = preprocessing or Preprocessing()
        self.nms_rule = nms_rule
        self.recipe: dict[str, Any] | None = None
        self.use_preset("evaluate")

    @property
    def n_class(self) -> int:
        """Number of classes, background included."""
        return self.head.n_class

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

    # --- pictures in, detections out

    @overload
    def predict(
        self,
        images: Sequence[Any],
        *,
        score_threshold: float = ...,
        nms_threshold: float | None = ...,
        on_error: Literal["raise", "skip"] = ...,
    ) -> list[Detections | None]: ...
    @overload
    def predict(
        self,
        images: Any,
        *,
        score_threshold: float = ...,
        nms_threshold: float | None = ...,
        on_error: Literal["raise", "skip"] = ...,
    ) -> Detections: ...
    def predict(
        self,
        images: Any,
        *,
        score_threshold: float = 0.5,
        nms_threshold: float | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Any:
        """Detect objects in one picture, or in each of a list.

        Parameters
        ----------
        images
            A path, a Pillow image or an array, or a list of them; see
            :func:`oxidet.data.read_image` for what an array may be.
        score_threshold
            Keep what scores above this, 0..1.
        nms_threshold
            IoU above which the lower-scoring of two boxes of a class is dropped; by default the
            model's ``nms_thresh``.
        on_error
            What an unreadable picture does: ``"raise"``, or ``"skip"``, which warns with its name
            and puts None in its place.

        Returns
        -------
        Detections, best first, or a list with one entry per picture. The model computes in
        evaluation mode and is left in the mode it was in.
        """
        if isinstance(images, (list, tuple)):
            results = self._predictions(images, score_threshold, nms_threshold, on_error)
            return list(results)
        results = self._predictions([images], score_threshold, nms_threshold, on_error)
        return next(iter(results))

    def iter_predict(
        self,
        images: Iterable[Any],
        *,
        score_threshold: float = 0.5,
        nms_threshold: float | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Iterator[Detections]:
        """Detect objects in a stream of pictures, one at a time.

        Arguments are those of :meth:`predict`; with ``on_error="skip"`` an unreadable picture is
        warned about and left out.
        """
        for result in self._predictions(images, score_threshold, nms_threshold, on_error):
            if result is not None:
                yield result

    def _predictions(
        self,
        images: Iterable[Any],
        score_threshold: float,
        nms_threshold: float | None,
        on_error: str,
    ) -> Iterator[Detections | None]:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
        nms = self.nms_thresh if nms_threshold is None else nms_threshold
        for name, value in (("score_threshold", score_threshold), ("nms_threshold", nms)):
            number(value, name, 0, 1)
        for image in images:
            try:
                pixels = read_image(image)
            except (ImageError, OSError) as error:
                if on_error == "raise":
                    raise
                warnings.warn(f"skipped: {error}", stacklevel=3)
                yield None
                continue
            bbox, label, score = self.detect(pixels, score_threshold, nms)
            order = np.argsort(-score, kind="stable")
            yield Detections(
                boxes=bbox[order][:, [1, 0, 3, 2]],
                labels=label[order],
                scores=score[order],
                class_names=self.class_names,
                image_size=pixels.shape[1:],
                image=image,
            )

    def detect(
        self, image: F32, score_thresh: float | None = None, nms_thresh: float | None = None
    ) -> tuple[F32, Any, F32]:
        """Detect objects in one image array, with simple-faster-rcnn's conventions.

        ``image`` is (3, H, W) RGB 0..255. Returns ``bbox`` (R, 4) float32 (y_min, x_min, y_max,
        x_max) in pixels of ``image``, ``label`` (R,) int32 from 0, ``score`` (R,) float32; grouped
        by label, best first within one. Thresholds default to the preset in use.
        """
        score_thresh = self.score_thresh if score_thresh is None else score_thresh
        nms_thresh = self.nms_thresh if nms_thresh is None else nms_thresh
        image = as_float32(image, "image", ndim=3, form="(3, H, W)")
        height, width = image.shape[1:]
        prepared = self.preprocessing(image)[None]
        scale = prepared.shape[3] / width
        with nn.evaluating(self), nn.no_grad():
            locs, scores, rois, _ = self.forward(prepared, scale)
        std = np.tile(np.asarray(self.loc_normalize_std, np.float32), self.n_class)
        mean = np.tile(np.asarray(self.loc_normalize_mean, np.float32), self.n_class)
        boxes = loc2bbox(rois / np.float32(scale), np.asarray(locs) * std + mean)
        boxes = boxes.reshape(-1, self.n_class, 4)
        boxes[..., 0::2] = boxes[..., 0::2].clip(0, height)
        boxes[..., 1::2] = boxes[..., 1::2].clip(0, width)
        return self._suppress(boxes, F.softmax(np.asarray(scores), dim=1), score_thresh, nms_thresh)

    def _suppress(
        self, boxes: F32, probabilities: F32, score_thresh: float, nms_thresh: float
    ) -> tuple[F32, Any, F32]:
        """Threshold and NMS per class: (R, n_class, 4) and (R, n_class) to bbox, label, score."""
        bbox, label = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int32)]
        score = [np.zeros(0, np.float32)]
        for cls in range(1, self.n_class):
            mask = probabilities[:, cls] > score_thresh
            cls_bbox, cls_score = boxes[mask, cls], probabilities[mask, cls]
            keep = non_maximum_suppression(
                np.ascontiguousarray(cls_bbox), nms_thresh, cls_score, nms_rule=self.nms_rule
            )
            bbox.append(cls_bbox[keep])
            label.append(np.full(len(keep), cls - 1, np.int32))
            score.append(cls_score[keep])
        return np.concatenate(bbox), np.concatenate(label), np.concatenate(score)
