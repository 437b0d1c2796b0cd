"""Suppression and proposals against torchvision.ops.nms, which simple-faster-rcnn calls."""

from __future__ import annotations

import numpy as np
import pytest

from box_comparison import assert_bits, random_boxes
from oxidet.detection import ProposalCreator, loc2bbox, non_maximum_suppression

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")


def torch_nms(bbox: np.ndarray, score: np.ndarray, thresh: float) -> np.ndarray:
    kept = torchvision.ops.nms(torch.from_numpy(bbox), torch.from_numpy(score), thresh)
    return kept.numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("thresh", [0.0, 0.2, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_suppression(seed: int, thresh: float, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    # Whole numbers and few scores: overlaps that meet the threshold, and ties.
    bbox = np.round(random_boxes(rng, 400, 40)).astype(dtype)
    score = rng.integers(0, 50, 400).astype(dtype)
    got = non_maximum_suppression(bbox, thresh, score, nms_rule="torchvision")
    assert got.tolist() == torch_nms(bbox, score, thresh).tolist()


def test_proposals() -> None:
    rng = np.random.default_rng(0)
    anchor = random_boxes(rng, 3000, 300)
    loc = rng.normal(0, 0.2, anchor.shape).astype(np.float32)
    score = rng.permutation(3000).astype(np.float32)
    roi = np.clip(loc2bbox(anchor, loc), 0, np.float32([250, 300, 250, 300]))
    keep = np.flatnonzero((roi[:, 2:] - roi[:, :2] >= 16).all(axis=1))
    order = keep[np.argsort(-score[keep], kind="stable")][:2000]
    kept = order[torch_nms(roi[order], score[order], 0.7)][:300]
    creator = ProposalCreator(n_test_pre_nms=2000)
    got, index = creator(loc, score, anchor, (250, 300), return_index=True)
    assert index.tolist() == kept.tolist()
    assert_bits(got, roi[kept])
