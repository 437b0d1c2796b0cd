"""The flow of a two-stage detector over a pyramid, as torchvision's ``GeneralizedRCNN``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oxidet import _arrays, nn
from oxidet._arrays import F32
from oxidet._same_kind import same_kind
from oxidet.detection._sampling import Rng
from oxidet.models.detection.detector import I64, Detector, Found
from oxidet.models.detection.image_list import ImageList
from oxidet.models.detection.roi_heads import RoIHeads
from oxidet.models.detection.rpn import RegionProposalNetwork, named_maps
from oxidet.models.detection.stages import Level, Stages
from oxidet.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from oxidet.nn import functional as F

WHITE = 255.0  # in the images of a Detector; 1 in those of torchvision


class GeneralizedRCNN(Detector):
    """A backbone, a region proposal network and heads, between a transform and its inverse.

    Called with images (and targets), it does what torchvision's class does: images are float arrays
    in 0..1, labels count from 1. As a :class:`Detector` it takes images in 0..255, and labels count
    from 0.

    In evaluation mode the backbone and the head of the region proposal network run as one plan; set
    ``compiled = False`` if they do something that no plan can.

    Parameters
    ----------
    backbone
        Module from a batch (N, 3, H, W) to one map, or to maps by name, finest first.
    rpn, roi_heads
        The two stages.
    transform
        From images to the batch.
    class_names
        Names of the foreground classes; by default "0", "1", ...
    """

    compiled = True

    backbone: nn.Module
    rpn: RegionProposalNetwork
    roi_heads: RoIHeads
    transform: GeneralizedRCNNTransform
    recipe: dict[str, Any] | None

    def __init__(
        self,
        backbone: nn.Module,
        rpn: RegionProposalNetwork,
        roi_heads: RoIHeads,
        transform: GeneralizedRCNNTransform,
        class_names: Sequence[str] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.transform = transform
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        # Behind the heads, which know how many names there are to be.
        self.class_names = () if class_names is None else class_names

    @property
    def num_classes(self) -> int:
        """Number of classes that are told apart, background included.

        A box predictor without a layer ``cls_score`` tells as many apart as there are names.
        """
        layer = getattr(self.roi_heads.box_predictor, "cls_score", None)
        return len(self._names) + 1 if layer is None else int(layer.out_features)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the foreground classes.

        "0", "1", ... where nobody named them since the box predictor was replaced by one for
        another number of classes.
        """
        count = self.num_classes - 1
        return self._names if len(self._names) == count else tuple(map(str, range(count)))

    @class_names.setter
    def class_names(self, names: Sequence[str]) -> None:
        given = _arrays.names(names, "class_names")
        if given and hasattr(self.roi_heads.box_predictor, "cls_score"):
            given = _arrays.names(given, "class_names", self.num_classes - 1)
        self._names: tuple[str, ...] = given

    @property
    def nms_threshold(self) -> float:
        """``roi_heads.nms_thresh``."""
        return float(self.roi_heads.nms_thresh)

    @nms_threshold.setter
    def nms_threshold(self, threshold: float) -> None:
        self.roi_heads.nms_thresh = threshold

    @nn.compiled_method
    def convolve(self, x: Any) -> tuple[Mapping[str, Any], list[Any], list[Any]]:
        """All that is convolved: a batch to levels by name, and logits and corrections of anchors.

        ``x`` is (N, 3, H, W). Levels are (N, C, h, w), and for each of them there are logits
        (N, A, h, w) and corrections (N, 4 A, h, w).
        """
        levels = named_maps(self.backbone(x))
        logits, deltas = self.rpn.head(list(levels.values()))
        return levels, logits, deltas

    def forward(
        self,
        images: Sequence[Any],
        targets: Sequence[Mapping[str, Any]] | None = None,
        rng: Rng = None,
    ) -> Any:
        """Detections in evaluation mode, losses in training mode.

        Parameters
        ----------
        images
            (3, H, W) float arrays (or tensors) in 0..1, of any sizes. They form one batch, in which
            each is padded to the largest.
        targets
            In training, for each image a mapping with ``boxes`` (R, 4) float, (x1, y1, x2, y2) in
            its pixels, and ``labels`` (R,) int64 from 1. An image without objects has (0, 4) boxes.
        rng
            Where samples (and sizes) are drawn from in training; NumPy's global state by default.

        Returns
        -------
        In evaluation for each image ``{"boxes": (R, 4) float32 in its pixels, "labels": (R,) int64
        from 1, "scores": (R,) float32}``, best first; torch tensors for torch tensors. In training
        a dict of tensors: ``loss_classifier``, ``loss_box_reg``, ``loss_objectness``,
        ``loss_rpn_box_reg``.

        Raises
        ------
        TypeError
            Images hold integers, boxes no floats, or labels something other than int64.
        ValueError
            Shapes do not fit, targets are missing in training, or a box has no area.
        """
        if not self.training:
            return self._detect_batch(images)
        images = _arrays.listed(images, "images")
        if targets is None:
            raise ValueError("targets: expected boxes and labels in training mode, got None")
        targets = _arrays.listed(targets, "targets", "dicts")
        if len(targets) != len(images):
            raise ValueError(f"targets: expected {len(images)}, one per image, got {len(targets)}")
        checked = []
        for i, target in enumerate(targets):
            if not isinstance(target, Mapping):
                raise TypeError(f"targets[{i}]: expected a dict, got {type(target).__name__}")
            for key in ("boxes", "labels"):
                if key not in target:
                    raise ValueError(f"targets[{i}]: expected boxes and labels, got no {key!r}")
            names = f"targets[{i}]['boxes']", f"targets[{i}]['labels']"
            checked.append(self._checked(target["boxes"], target["labels"], names, 1))
        batch, scaled = self.transform(images, checked, rng=rng)
        return self._losses(batch, scaled, rng)

    @same_kind
    def _detect_batch(self, images: Sequence[Any]) -> list[dict[str, Any]]:
        arrays = [_arrays.as_array(image, f"images[{i}]") for i, image in enumerate(images)]
        batch, _ = self.transform(arrays)
        found = self._detect(batch)
        return self.transform.postprocess(
            found, batch.image_sizes, [array.shape[1:] for array in arrays]
        )

    def _detect(
        self,
        batch: ImageList,
        score_thresh: float | None = None,
        nms_thresh: float | None = None,
    ) -> list[dict[str, Any]]:
        """Detections in pixels of the batch."""
        levels, logits, deltas = self.convolve(batch.tensors)
        regions = self.rpn.propose(batch, logits, deltas)
        scores, codes = self.roi_heads.classify(levels, regions, batch.image_sizes)
        return self.roi_heads.postprocess_detections(
            scores, codes, regions, batch.image_sizes, score_thresh, nms_thresh
        )

    def _losses(
        self, batch: ImageList, targets: Sequence[Mapping[str, Any]], rng: Rng
    ) -> dict[str, Any]:
        """The losses of a batch, with boxes in its pixels."""
        boxes = [target["boxes"] for target in targets]
        labels = [target["labels"] for target in targets]
        for i, found in enumerate(boxes):
            _check_areas(found, f"targets[{i}]['boxes'] (scaled)")
        levels, logits, deltas = self.convolve(batch.tensors)
        regions = self.rpn.propose(batch, logits, deltas)
        anchors = self.rpn.anchors(batch, list(levels.values()))
        anchor_sample = self.rpn.sample(boxes, anchors, rng)
        region_sample = self.roi_heads.sample(regions, boxes, labels, rng)
        return {
            **self.roi_heads.losses(levels, region_sample, batch.image_sizes),
            **self.rpn.losses(logits, deltas, anchor_sample),
        }

    def _checked(
        self, boxes: Any, labels: Any, names: tuple[str, str], first: int
    ) -> dict[str, Any]:
        """Boxes as float32 (R, 4), and labels as int64 (R,) from 1, which were from ``first``."""
        boxes = _arrays.as_array(boxes, names[0])
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{names[0]}: expected shape (R, 4), got {boxes.shape}")
        if boxes.dtype.kind != "f":
            raise TypeError(f"{names[0]}: expected floats, got dtype {boxes.dtype}")
        _check_areas(boxes, names[0])
        labels = _arrays.numbers(labels, names[1], len(boxes))
        if labels.dtype != np.int64:
            raise TypeError(f"{names[1]}: expected int64, got dtype {labels.dtype}")
        last = self.num_classes - 2 + first
        wrong = (labels < first) | (labels > last)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"{names[1]}: expected {first} to {last}, got {labels[row]} in row {row}"
            )
        return {"boxes": _arrays.as_float32(boxes, names[0]), "labels": labels + (1 - first)}

    # --- as a Detector

    def detect_images(
        self,
        images: Sequence[F32],
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        *,
        scale: float = 1.0,
    ) -> list[Found]:
        """See :meth:`Detector.detect_images`.

        Images whose scaled sizes are padded to the same one form a batch, so that what is found in
        an image does not depend on the others.
        """
        nms = self.nms_threshold if nms_threshold is None else nms_threshold
        score = self.score_threshold if score_threshold is None else score_threshold
        arrays = [_image(image, f"images[{i}]") for i, image in enumerate(images)]
        sizes = [self.transform.scaled_size(*array.shape[1:], scale=scale) for array in arrays]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, size in enumerate(sizes):
            groups.setdefault(self.transform.padded_size([size]), []).append(i)
        results: dict[int, Found] = {}
        with nn.evaluating(self), nn.no_grad():
            for members in groups.values():
                batch = self.transform.batch(
                    [arrays[i] for i in members], [sizes[i] for i in members], WHITE
                )
                for i, found in zip(members, self._detect(batch, score, nms), strict=True):
                    boxes = resize_boxes(found["boxes"], sizes[i], arrays[i].shape[1:])
                    results[i] = Found(boxes, found["labels"] - 1, found["scores"])
        return [results[i] for i in range(len(arrays))]

    def detect_in_stages(
        self,
        image: F32,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> Stages:
        """See :meth:`Detector.detect_in_stages`."""
        nms = self.nms_threshold if nms_threshold is None else nms_threshold
        score = self.score_threshold if score_threshold is None else score_threshold
        array = _image(image, "image")
        original = array.shape[1:]
        size = self.transform.scaled_size(*original)

        with nn.evaluating(self), nn.no_grad():
            batch = self.transform.batch([array], [size], WHITE)
            maps, logits, deltas = self.convolve(batch.tensors)
            anchors = self.rpn.anchors(batch, list(maps.values()))
            [(regions, objectness)] = self.rpn.propose_with_scores(batch, logits, deltas)
            pooled = self.roi_heads.pool(maps, [regions], batch.image_sizes)
            scores, codes = self.roi_heads.predict_boxes(pooled)

            def boxes_of(nms_thresh: float, most: int | None = None) -> Found:
                [found] = self.roi_heads.postprocess_detections(
                    scores, codes, [regions], batch.image_sizes, score, nms_thresh, most
                )
                boxes = resize_boxes(found["boxes"], size, original)
                return Found(boxes, found["labels"] - 1, found["scores"])

            levels, start = [], 0
            for name, level in zip(maps, logits, strict=True):
                rated = F.sigmoid(np.asarray(level))[0].transpose(1, 2, 0)  # (h, w, A)
                boxes = resize_boxes(anchors[start : start + rated.size], size, original)
                levels.append(Level(name, boxes.reshape(*rated.shape, 4), rated))
                start += rated.size
            return Stages(
                levels=tuple(levels),
                proposals=resize_boxes(regions, size, original),
                proposal_scores=objectness,
                pooled=np.asarray(pooled),
                class_scores=F.softmax(np.asarray(scores), dim=1),
                candidates=boxes_of(1.0, scores.shape[0] * scores.shape[1]),
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
        """See :meth:`Detector.training_losses`; losses are named as in :meth:`forward`."""
        arrays = [_image(image, f"images[{i}]") for i, image in enumerate(images)]
        sizes = [self.transform.training_size(array.shape[1:], rng, min_size) for array in arrays]
        batch = self.transform.batch(arrays, sizes, WHITE)
        targets = []
        for i, (found, known) in enumerate(zip(boxes, labels, strict=True)):
            names = f"boxes[{i}]", f"labels[{i}]"
            target = self._checked(found, np.asarray(known, np.int64), names, 0)
            scaled = resize_boxes(target["boxes"], arrays[i].shape[1:], sizes[i])
            targets.append({**target, "boxes": scaled})
        return self._losses(batch, targets, rng)


def _image(image: Any, argument: str) -> F32:
    array = _arrays.as_float32(image, argument, 3, "(3, H, W)")
    if len(array) != 3 or 0 in array.shape:
        raise ValueError(f"{argument}: expected 3 channels of a pixel or more, got {array.shape}")
    return array


def _check_areas(boxes: F32, argument: str) -> None:
    """Refuse boxes of no area, and those with a NaN, which are of none either."""
    wrong = ~((boxes[:, 2:] > boxes[:, :2]) & np.isfinite(boxes[:, 2:] - boxes[:, :2])).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{argument}: expected x2 > x1 and y2 > y1, got {boxes[row].tolist()} in row {row}"
        )
