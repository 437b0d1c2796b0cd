"""What a detector does between its networks, one call for all levels and images of a batch.

Private: the layer between the modules of detectors, which hold thresholds and random choices, and
the kernels. Maps come as networks return them, shaped (N, C, H, W) with the channels last in
memory, and are then not copied. Images of a batch are worked on in parallel; no result depends on
the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _arrays, _core
from oxidet._arrays import F32

# Largest logarithm of a size ratio that is decoded: 16 pixels become 1000.
BBOX_XFORM_CLIP = math.log(1000.0 / 16)
# Beyond the number of boxes that any memory holds.
_ALL = 2**63


def batch_images(
    images: Sequence[Any],
    sizes: Sequence[tuple[int, int]],
    mean: Sequence[float],
    std: Sequence[float],
    size_divisible: int = 32,
    *,
    unit: float = 1.0,
) -> F32:
    """Images normalised, resized and padded to one batch, as ``GeneralizedRCNNTransform``.

    Bilinear with half-pixel centres, without antialiasing, as torch's ``interpolate`` with
    ``recompute_scale_factor``. Each image lies in the upper left corner; the rest is 0.

    Parameters
    ----------
    images
        (C, H, W) each, uint8 or floating, planes or channels-last in memory. At least one.
    sizes
        (height, width) that each is resized to.
    mean, std
        Of each channel, for ``image / unit``.
    size_divisible
        Height and width of the batch are the largest of ``sizes``, rounded up to a multiple.
    unit
        The value that counts as 1: 255 for images of 0 to 255 and statistics of 0 to 1.

    Returns
    -------
    (N, C, H, W) float32, channels last in memory.

    Raises
    ------
    ValueError
        No images, one without pixels or of another number of channels than ``mean``, a size below
        1, or another number of sizes.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection._kernels import batch_images
    >>> picture = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    >>> batch_images([picture], [(2, 3)], [1.0], [0.5], 4)[0, 0]
    array([[-2., -1.,  0.,  0.],
           [ 2.,  3.,  4.,  0.],
           [ 0.,  0.,  0.,  0.],
           [ 0.,  0.,  0.,  0.]], dtype=float32)
    """
    pictures = [_picture(image, f"images[{i}]") for i, image in enumerate(images)]
    if not pictures:
        raise ValueError("images: expected at least one, got 0")
    means = [_arrays.number(value, "mean") for value in mean]
    deviations = [_arrays.number(value, "std") for value in std]
    if len(means) != len(deviations):
        raise ValueError(f"std: expected {len(means)} numbers, as mean, got {len(deviations)}")
    if 0 in deviations or unit == 0:
        raise ValueError(f"std, unit: expected no zeros, got {_arrays.shown(std)} and {unit}")
    for i, (picture, planes) in enumerate(pictures):
        channels = picture.shape[0 if planes else 2]
        if channels != len(means):
            raise ValueError(
                f"images[{i}]: expected {len(means)} channels, as mean has, got {channels}"
            )
    batch = _core.batch_images(
        pictures,
        [_arrays.pair(size, f"sizes[{i}]") for i, size in enumerate(sizes)],
        [1 / (deviation * _arrays.number(unit, "unit")) for deviation in deviations],
        [-m / deviation for m, deviation in zip(means, deviations, strict=True)],
        _arrays.extent(size_divisible, "size_divisible"),
    )
    return _arrays.nchw(batch)


def _picture(image: Any, argument: str) -> tuple[NDArray[Any], bool]:
    """A (C, H, W) image as it lies in memory, and whether that is plane by plane."""
    array = _arrays.as_array(image, argument)
    if array.ndim != 3:
        raise ValueError(f"{argument}: expected shape (C, H, W), got {array.shape}")
    if array.dtype != np.uint8:
        array = _arrays.as_float32(array, argument)
    channels_last = array.transpose(1, 2, 0)
    if channels_last.flags.c_contiguous:
        return channels_last, False
    return np.ascontiguousarray(array), True


def rpn_proposals(
    objectness: Sequence[Any],
    deltas: Sequence[Any],
    cell_anchors: Sequence[Any],
    strides: Sequence[tuple[float, float]],
    image_sizes: Sequence[tuple[int, int]],
    pre_nms_top_n: int,
    post_nms_top_n: int,
    nms_thresh: float = 0.7,
    score_thresh: float = 0.0,
    min_size: float = 1e-3,
) -> list[tuple[F32, F32]]:
    """Proposals of every image, as torchvision's ``RegionProposalNetwork.filter_proposals``.

    Of each level the ``pre_nms_top_n`` best anchors by logit (NaN first, equal ones in order) are
    decoded, clipped to the image, dropped if a side is below ``min_size`` or the score below
    ``score_thresh``, and suppressed at an IoU above ``nms_thresh`` within the level. The
    ``post_nms_top_n`` best of all levels remain.

    Parameters
    ----------
    objectness, deltas
        For each level logits (N, A, H, W) and offsets (N, 4 A, H, W), as the RPN's two convolutions
        return them.
    cell_anchors
        For each level the anchors around the origin, (A, 4); an
        ``AnchorGenerator`` keeps them under this name.
    strides
        For each level the distance of neighbouring cells in pixels, (down, across).
    image_sizes
        (height, width) of each image without padding.

    Returns
    -------
    For each image boxes (R, 4), (x1, y1, x2, y2) float32, and scores (R,) float32, best first.

    Raises
    ------
    ValueError
        Shapes or the numbers of levels or images do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection._kernels import rpn_proposals
    >>> logits = np.array([[[[2.0, -1.0]]]], np.float32)  # one anchor in each of two cells
    >>> still = np.zeros((1, 4, 1, 2), np.float32)
    >>> anchor = np.array([[-8.0, -8.0, 8.0, 8.0]], np.float32)
    >>> rpn_proposals([logits], [still], [anchor], [(16, 16)], [(16, 32)], 10, 10)[0][0]
    array([[ 0.,  0.,  8.,  8.],
           [ 8.,  0., 24.,  8.]], dtype=float32)
    """
    cells = [_boxes(anchors, f"cell_anchors[{i}]") for i, anchors in enumerate(cell_anchors)]
    return _core.rpn_proposals(
        [_arrays.nhwc(level, f"objectness[{i}]") for i, level in enumerate(objectness)],
        [_arrays.nhwc(level, f"deltas[{i}]") for i, level in enumerate(deltas)],
        cells,
        [_arrays.real_pair(stride, f"strides[{i}]") for i, stride in enumerate(strides)],
        _sizes(image_sizes, "image_sizes"),
        (_limit(pre_nms_top_n, "pre_nms_top_n"), _limit(post_nms_top_n, "post_nms_top_n")),
        _arrays.number(nms_thresh, "nms_thresh"),
        _arrays.number(score_thresh, "score_thresh"),
        _arrays.number(min_size, "min_size"),
    )


def box_detections(
    class_logits: Any,
    box_regression: Any,
    proposals: Sequence[Any],
    image_sizes: Sequence[tuple[int, int]],
    weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
    score_thresh: float = 0.05,
    nms_thresh: float = 0.5,
    detections_per_img: int = 100,
    min_size: float = 1e-2,
) -> list[tuple[F32, NDArray[np.int64], F32]]:
    """Objects of every image, as torchvision's ``RoIHeads.postprocess_detections``.

    A box is decoded where the softmax of a class but the first, the background, is above
    ``score_thresh``; then clipped to the image, dropped if a side is below ``min_size``, and
    suppressed at an IoU above ``nms_thresh`` within the class. The ``detections_per_img`` best of
    all classes remain.

    Parameters
    ----------
    class_logits, box_regression
        (R, C) and (R, 4 C) for the proposals of all images.
    proposals
        For each image its proposals, (r, 4); R together.
    image_sizes
        (height, width) of each image without padding.
    weights
        Of the box coder.

    Returns
    -------
    For each image boxes (K, 4), (x1, y1, x2, y2) float32, labels (K,) int64 from 1 and scores (K,)
    float32, best first; equal scores in the order of the proposals, then of the classes.

    Raises
    ------
    ValueError
        Shapes or the number of images do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection._kernels import box_detections
    >>> logits = np.array([[0.0, 3.0, 1.0]], np.float32)
    >>> proposals = [np.array([[2.0, 2.0, 8.0, 6.0]], np.float32)]
    >>> ((boxes, labels, scores),) = box_detections(
    ...     logits, np.zeros((1, 12), np.float32), proposals, [(10, 10)]
    ... )
    >>> boxes
    array([[2., 2., 8., 6.],
           [2., 2., 8., 6.]], dtype=float32)
    >>> labels, scores.round(2)
    (array([1, 2]), array([0.84, 0.11], dtype=float32))
    """
    together, counts = _of_images(proposals, "proposals")
    return _core.box_detections(
        _rows(class_logits, "class_logits"),
        _rows(box_regression, "box_regression"),
        together,
        counts,
        _sizes(image_sizes, "image_sizes"),
        _quadruple(weights, "weights"),
        BBOX_XFORM_CLIP,
        _arrays.number(score_thresh, "score_thresh"),
        _arrays.number(nms_thresh, "nms_thresh"),
        _limit(detections_per_img, "detections_per_img"),
        _arrays.number(min_size, "min_size"),
    )


def detect_per_class(
    roi_scores: Any,
    roi_cls_locs: Any,
    rois: Sequence[Any],
    sizes: Sequence[tuple[int, int]],
    scales: Sequence[float],
    mean: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
    std: Sequence[float] = (0.1, 0.1, 0.2, 0.2),
    score_thresh: float = 0.05,
    nms_thresh: float = 0.3,
    *,
    inclusive: bool = False,
) -> list[tuple[F32, NDArray[np.int32], F32]]:
    """Objects of every image, as simple-faster-rcnn's and chainercv's ``predict`` find them.

    A box is decoded where the softmax of a class but the first, the background, is above
    ``score_thresh``, in the coordinates of the original image, to which it is clipped; boxes of a
    class suppress each other. There is no limit of the exponent, of the size of a box, nor of the
    number of boxes.

    Parameters
    ----------
    roi_scores, roi_cls_locs
        Logits (R, L + 1) and normalised offsets (R, 4 (L + 1)) for the regions of all images.
    rois
        For each image its regions, (r, 4) (y_min, x_min, y_max, x_max) in pixels of the network's
        input; R together.
    sizes, scales
        (height, width) of each original image, and the pixels of the input for one of its pixels.
    mean, std
        With which the offsets (ty, tx, th, tw) were normalised.
    inclusive
        False suppresses at an IoU above ``nms_thresh``, as torchvision's NMS; True also at it,
        rounded to float32, as chainercv's.

    Returns
    -------
    For each image boxes (K, 4), yx float32, labels (K,) int32 from 0 and scores (K,) float32;
    class after class, best first within one.

    Raises
    ------
    ValueError
        Shapes or the number of images do not fit.
    """
    together, counts = _of_images(rois, "rois")
    factors = [_arrays.number(scale, f"scales[{i}]") for i, scale in enumerate(scales)]
    pairs = _sizes(sizes, "sizes")
    if len(factors) != len(pairs):
        raise ValueError(f"scales: expected {len(pairs)}, one for each size, got {len(factors)}")
    return _core.detect_per_class(
        _rows(roi_scores, "roi_scores"),
        _rows(roi_cls_locs, "roi_cls_locs"),
        together,
        counts,
        [(*size, factor) for size, factor in zip(pairs, factors, strict=True)],
        _quadruple(mean, "mean"),
        _quadruple(std, "std"),
        _arrays.number(score_thresh, "score_thresh"),
        _arrays.threshold_number(nms_thresh, "nms_thresh"),
        inclusive,
    )


def match_boxes(
    gt_boxes: Any,
    boxes: Any,
    high_threshold: float,
    low_threshold: float,
    allow_low_quality_matches: bool = False,
) -> NDArray[np.int64]:
    """What ``Matcher`` makes of the IoU of objects and boxes, without that matrix.

    Parameters
    ----------
    gt_boxes, boxes
        M objects and N boxes, (M, 4) and (N, 4), in either order of the axes.
    high_threshold, low_threshold, allow_low_quality_matches
        As of :class:`Matcher`.

    Returns
    -------
    int64 (N,): index of the object, -1 (below ``low_threshold``) or -2 (between the thresholds).
    Without objects all -1.

    Raises
    ------
    ValueError
        A shape is wrong, or ``low_threshold`` above ``high_threshold``.

    Examples
    --------
    >>> from oxidet.models.detection._kernels import match_boxes
    >>> match_boxes([[0, 0, 4, 4]], [[0, 0, 4, 3], [0, 0, 4, 2], [2, 2, 4, 4]], 0.7, 0.3)
    array([ 0, -2, -1])
    """
    high = _arrays.number(high_threshold, "high_threshold")
    low = _arrays.number(low_threshold, "low_threshold")
    if not low <= high:
        raise ValueError(f"low_threshold: expected at most high_threshold, {high}, got {low}")
    objects, others = _arrays.boxes(gt_boxes=gt_boxes, boxes=boxes)
    matches: NDArray[np.int64] = _arrays.kernel("match_boxes", others)(
        objects, others, high, low, bool(allow_low_quality_matches)
    )
    return matches


def _rows(value: Any, argument: str) -> F32:
    return np.ascontiguousarray(_arrays.as_float32(value, argument, ndim=2, form="(R, K)"))


def _boxes(value: Any, argument: str) -> F32:
    """(R, 4) contiguous float32."""
    array = _arrays.box_shape(_arrays.as_array(value, argument), argument)
    return np.ascontiguousarray(_arrays.as_float32(array, argument))


def _of_images(values: Sequence[Any], argument: str) -> tuple[F32, list[int]]:
    """Boxes of all images together, and how many there are in each."""
    arrays = [_boxes(value, f"{argument}[{i}]") for i, value in enumerate(values)]
    together = arrays[0] if len(arrays) == 1 else np.concatenate([np.empty((0, 4), "f4"), *arrays])
    return together, [len(array) for array in arrays]


def _sizes(values: Sequence[Any], argument: str) -> list[tuple[float, float]]:
    return [_arrays.real_pair(value, f"{argument}[{i}]") for i, value in enumerate(values)]


def _quadruple(values: Sequence[float], argument: str) -> list[float]:
    numbers = [_arrays.number(value, argument) for value in values]
    if len(numbers) != 4:
        raise ValueError(f"{argument}: expected four numbers, got {_arrays.shown(values)}")
    return numbers


def _limit(value: int, argument: str) -> int:
    return min(_arrays.integer(value, argument, 0), _ALL)
