"""Overlap and offsets of boxes (y_min, x_min, y_max, x_max), in NumPy."""

from __future__ import annotations

import numpy as np


def bbox_iou(bbox_a: np.ndarray, bbox_b: np.ndarray) -> np.ndarray:
    """IoU of every box of the one list with every box of the other, (N, K)."""
    low = np.maximum(bbox_a[:, np.newaxis, :2], bbox_b[:, :2])
    high = np.minimum(bbox_a[:, np.newaxis, 2:], bbox_b[:, 2:])
    shared = np.prod(high - low, axis=2) * (low < high).all(axis=2)
    area_a = np.prod(bbox_a[:, 2:] - bbox_a[:, :2], axis=1)
    area_b = np.prod(bbox_b[:, 2:] - bbox_b[:, :2], axis=1)
    return shared / (area_a[:, np.newaxis] + area_b - shared)


def bbox2loc(src_bbox: np.ndarray, dst_bbox: np.ndarray) -> np.ndarray:
    """Offsets from source to destination boxes, (R, 4)."""
    height = src_bbox[:, 2] - src_bbox[:, 0]
    width = src_bbox[:, 3] - src_bbox[:, 1]
    centre_y = src_bbox[:, 0] + 0.5 * height
    centre_x = src_bbox[:, 1] + 0.5 * width
    goal_height = dst_bbox[:, 2] - dst_bbox[:, 0]
    goal_width = dst_bbox[:, 3] - dst_bbox[:, 1]
    goal_y = dst_bbox[:, 0] + 0.5 * goal_height
    goal_x = dst_bbox[:, 1] + 0.5 * goal_width
    eps = np.finfo(height.dtype).eps
    height = np.maximum(height, eps)
    width = np.maximum(width, eps)
    return np.vstack(
        (
            (goal_y - centre_y) / height,
            (goal_x - centre_x) / width,
            np.log(goal_height / height),
            np.log(goal_width / width),
        )
    ).transpose()


def loc2bbox(src_bbox: np.ndarray, loc: np.ndarray) -> np.ndarray:
    """Boxes that offsets make of source boxes, in the shape of ``loc``."""
    if len(src_bbox) == 0:
        return np.zeros((0, 4), loc.dtype)
    src = src_bbox.astype(src_bbox.dtype, copy=False)
    height = src[:, 2] - src[:, 0]
    width = src[:, 3] - src[:, 1]
    centre_y = src[:, 0] + 0.5 * height
    centre_x = src[:, 1] + 0.5 * width
    y = loc[:, 0::4] * height[:, np.newaxis] + centre_y[:, np.newaxis]
    x = loc[:, 1::4] * width[:, np.newaxis] + centre_x[:, np.newaxis]
    h = np.exp(loc[:, 2::4]) * height[:, np.newaxis]
    w = np.exp(loc[:, 3::4]) * width[:, np.newaxis]
    boxes = np.zeros(loc.shape, loc.dtype)
    boxes[:, 0::4] = y - 0.5 * h
    boxes[:, 1::4] = x - 0.5 * w
    boxes[:, 2::4] = y + 0.5 * h
    boxes[:, 3::4] = x + 0.5 * w
    return boxes
