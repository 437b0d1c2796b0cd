"""A detector that looks at every image several times: mirrored, and in several sizes.

What it finds each time is fused. It costs as many times the work as there are looks, and finds a
little more, and more exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from oxidet._arrays import F32, number
from oxidet.models.detection.detector import Detector, Found
from oxidet.ops import weighted_boxes_fusion

FLIPS = {"": (1, 1), "x": (1, -1), "y": (-1, 1), "xy": (-1, -1)}  # steps along rows and columns
LOWEST = 0.01  # of the scores that take part: looks that agree may each be unsure


class AugmentedDetector(Detector):
    """A trained detector with test-time augmentation.

    The detections of all looks are fused by :func:`oxidet.ops.weighted_boxes_fusion` (Solovyev et
    al., 2019): boxes are means weighted by scores, and scores means over the looks, so they are
    lower than the detector's own where not every look agrees.

    Parameters
    ----------
    detector
        What looks. It is used as it is, not copied.
    flips
        The mirror images: some of ``""`` (as it is), ``"x"`` (left and right changed), ``"y"`` (top
        and bottom) and ``"xy"`` (turned by half).
    scales
        Sizes of the network's input, as multiples of the detector's own.
    iou_thresh
        Overlap from which on boxes of different looks are one object, 0..1.

    Raises
    ------
    TypeError
        ``detector`` is none.
    ValueError
        There is no flip or scale, an unknown flip, or a scale that is not positive.

    Examples
    --------
    >>> from oxidet.data import DigitScenes
    >>> from oxidet.models.detection import AugmentedDetector
    >>> from oxidet.pretrained import digit_detector
    >>> careful = AugmentedDetector(digit_detector(), flips=("",), scales=(0.9, 1, 1.1))
    >>> careful.predict(DigitScenes("test")[4][0]).names
    ['2', '6', '2', '1', '7', '9']
    """

    detector: Detector
    flips: tuple[str, ...]
    scales: tuple[float, ...]
    iou_thresh: float

    def __init__(
        self,
        detector: Detector,
        flips: Sequence[str] = ("", "x"),
        scales: Sequence[float] = (1.0,),
        iou_thresh: float = 0.55,
    ) -> None:
        if not isinstance(detector, Detector):
            raise TypeError(f"detector: expected a Detector, got {type(detector).__name__}")
        unknown = [flip for flip in flips if flip not in FLIPS]
        if unknown or not len(flips):
            got = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"flips: expected some of {list(FLIPS)}, got {got}")
        if not len(scales) or not all(0 < scale < np.inf for scale in scales):
            raise ValueError(f"scales: expected positive numbers, at least one, got {scales!r}")
        super().__init__(detector.class_names)
        self.detector = detector
        self.flips, self.scales = tuple(flips), tuple(float(scale) for scale in scales)
        self.iou_thresh = number(iou_thresh, "iou_thresh", 0, 1)
        self.score_threshold: float = detector.score_threshold
        self.nms_threshold: float = detector.nms_threshold

    def detect_images(
        self,
        images: Sequence[F32],
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        *,
        scale: float = 1.0,
    ) -> list[Found]:
        """See :meth:`Detector.detect_images`."""
        least = self.score_threshold if score_threshold is None else score_threshold
        nms = self.nms_threshold if nms_threshold is None else nms_threshold
        looks: list[list[Found]] = [[] for _ in images]
        for factor, flip in itertools.product(self.scales, self.flips):
            rows, columns = FLIPS[flip]
            views = [np.ascontiguousarray(image[:, ::rows, ::columns]) for image in images]
            # A detector of somebody's own need not know of sizes to be mirrored.
            size = {} if scale * factor == 1 else {"scale": scale * factor}
            found = self.detector.detect_images(views, min(least, LOWEST), nms, **size)
            for look, image, one in zip(looks, images, found, strict=True):
                look.append(_turned_back(one, flip, *image.shape[1:]))
        return [
            self._fused(look, image.shape[1:], least)
            for look, image in zip(looks, images, strict=True)
        ]

    def _fused(self, looks: Sequence[Found], shape: tuple[int, ...], least: float) -> Found:
        """What all looks at an image of (height, width) come to."""
        height, width = shape
        size = np.array([width, height, width, height], np.float64)
        boxes, scores, labels = weighted_boxes_fusion(
            [found.boxes / size for found in looks],
            [found.scores for found in looks],
            [found.labels for found in looks],
            iou_thr=self.iou_thresh,
        )
        keep = scores > least
        return Found(
            (boxes[keep] * size).astype(np.float32), labels[keep], scores[keep].astype(np.float32)
        )

    def extra_repr(self) -> str:
        return f"flips={self.flips}, scales={self.scales}, iou_thresh={self.iou_thresh:g}"


def _turned_back(found: Found, flip: str, height: int, width: int) -> Found:
    """What was found in a mirrored image, in pixels of the image."""
    x1, y1, x2, y2 = found.boxes.T
    if "x" in flip:
        x1, x2 = width - x2, width - x1
    if "y" in flip:
        y1, y2 = height - y2, height - y1
    return found._replace(boxes=np.stack([x1, y1, x2, y2], axis=1))
