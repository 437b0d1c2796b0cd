"""What torchvision's detectors decide, replayed on two sets of numbers that differ by rounding.

A proposal is kept or not, a box suppressed or not, by comparing numbers; where torch's own number
lies within ``MARGIN`` of the threshold, oxidet's side of it is as good. Everywhere else torch's
decision counts, and the replay says what oxidet must return, in oxidet's numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torchvision.ops import box_iou

MARGIN = 1e-4


def undecided(theirs: np.ndarray, ours: np.ndarray, threshold: float) -> np.ndarray:
    """``theirs > threshold``, or ``ours > threshold`` where theirs is within MARGIN of it."""
    return np.where(np.abs(theirs - threshold) <= MARGIN, ours > threshold, theirs > threshold)


def order(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Our descending order, which must be theirs but for near ties."""
    ranks = np.argsort(-ours, kind="stable")
    ranked = theirs[ranks]
    late = (np.maximum.accumulate(ranked[::-1])[::-1] - ranked).max(initial=0)
    assert late <= MARGIN, f"torch scores another one higher by {late}"
    return ranks


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()


def nms(
    boxes: tuple[np.ndarray, np.ndarray],
    scores: tuple[np.ndarray, np.ndarray],
    threshold: float,
    limit: int | None = None,
) -> list[int]:
    """Indices that greedy suppression keeps; each pair is (theirs, ours), in float32."""
    kept: list[int] = []
    for i in order(*scores):
        overlaps = [overlap(b[i : i + 1], b[kept])[0] for b in boxes]
        if not undecided(*overlaps, threshold).any():
            kept.append(int(i))
            if len(kept) == limit:
                break
    return kept


def count_matches(ours: np.ndarray, theirs: np.ndarray, pixels: float) -> int:
    """How many boxes have a partner of their own within ``pixels`` on every edge."""
    free = np.ones(len(theirs), bool)
    for box in ours:
        distance = np.where(free, np.abs(theirs - box).max(axis=1), np.inf)
        nearest = distance.argmin()
        if distance[nearest] <= pixels:
            free[nearest] = False
    return int((~free).sum())
