"""What a two-stage detector computed on its way from one image to its boxes.

Filled in by the detectors themselves, from the same parts that detect; looked at by
:func:`oxidet.visualize.explain`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from oxidet._arrays import F32
from oxidet.models.detection.detector import Found


class Level(NamedTuple):
    """One feature map, of h x w cells, as the region proposal network sees it."""

    name: str
    """As the backbone names the map; "0" where there is but one."""
    anchors: F32
    """(h, w, A, 4) float32, (x1, y1, x2, y2) in pixels of the image; not clipped to it."""
    objectness: F32
    """(h, w, A) float32, probability 0..1 that an anchor holds an object of any class."""


@dataclass(frozen=True)
class Stages:
    """All stages of one image. Boxes are (x1, y1, x2, y2) in its pixels, float32."""

    levels: tuple[Level, ...]
    """Anchors and what was thought of them, finest map first."""
    proposals: F32
    """(P, 4): the anchors that were kept, corrected, in the order in which they are ranked."""
    proposal_scores: F32
    """(P,) float32: their objectness, 0..1."""
    pooled: F32
    """(P, C, h, w) float32: what the second stage sees of each proposal."""
    class_scores: F32
    """(P, K + 1) float32, probabilities of each proposal; background comes first."""
    candidates: Found
    """The boxes above the score threshold, before they suppress each other."""
    found: Found
    """The boxes that remain: what ``detect_images`` returns."""
