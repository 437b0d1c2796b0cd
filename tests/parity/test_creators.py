"""The creators against the originals' rules in NumPy: the same seed gives the same sample."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from box_comparison import assert_ulp, random_boxes
from oxidet.detection import (
    AnchorTargetCreator,
    ProposalCreator,
    ProposalTargetCreator,
    enumerate_shifted_anchor,
    generate_anchor_base,
)

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
# Behind the tests, whose modules have some of the names there.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benches" / "peers"))

from originals import creators as originals  # noqa: E402

SIZE = (220, 300)
ANCHOR = enumerate_shifted_anchor(generate_anchor_base(anchor_scales=(2, 4, 8)), 16, 14, 19)


def objects(rng: np.random.Generator, seed: int) -> np.ndarray:
    bbox = random_boxes(rng, 1 + seed % 12, 200)
    # Whole numbers meet anchors and thresholds more often.
    return np.round(bbox) if seed % 3 == 0 else bbox


@pytest.mark.parametrize("seed", range(100))
def test_anchor_targets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bbox = objects(rng, seed)
    settings: Any = [(), (32, 0.5, 0.4, 0.25), (600, 0.3, 0.1, 0.1), (8, 0.2, 0.2, 1.0)][seed % 4]
    np.random.seed(seed)
    loc, label = AnchorTargetCreator(*settings)(bbox, ANCHOR, SIZE)
    after = np.random.random()
    np.random.seed(seed)
    expected_loc, expected = originals.AnchorTargetCreator(*settings)(bbox, ANCHOR, SIZE)
    assert label.dtype == expected.dtype
    assert label.tolist() == expected.tolist()
    np.testing.assert_allclose(loc, expected_loc, rtol=1e-6, atol=1e-6)
    assert after == np.random.random(), "as many numbers were drawn"


@pytest.mark.parametrize("seed", range(100))
def test_proposal_targets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bbox = objects(rng, seed)
    near = np.repeat(bbox, 10, axis=0) + rng.normal(0, 8, (10 * len(bbox), 4)).astype("f4")
    roi = np.concatenate((random_boxes(rng, 50 * (seed % 7), 200), near[: 17 * (seed % 5)]))
    label = rng.integers(0, 20, len(bbox)).astype(np.int32)
    settings: Any = [(), (64, 0.5, 0.6, 0.5, 0.1), (16, 0.0), (400, 1.0, 0.3, 0.6)][seed % 4]
    mean = (0.0, 0.0, 0.0, 0.0) if seed % 2 else (0.1, -0.1, 0.2, 0.0)
    np.random.seed(seed)
    sample, loc, got = ProposalTargetCreator(*settings)(roi, bbox, label, mean)
    after = np.random.random()
    np.random.seed(seed)
    creator = originals.ProposalTargetCreator(*settings)
    expected_sample, expected_loc, expected = creator(roi, bbox, label, mean)
    assert sample.tolist() == expected_sample.tolist()
    assert got.dtype == expected.dtype
    assert got.tolist() == expected.tolist()
    np.testing.assert_allclose(loc, expected_loc, rtol=1e-5, atol=1e-5)
    assert after == np.random.random(), "as many numbers were drawn"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", range(50))
def test_proposals(seed: int, training: bool) -> None:
    rng = np.random.default_rng(seed)
    loc = rng.normal(0, [0.05, 0.2, 0.6][seed % 3], ANCHOR.shape).astype(np.float32)
    # Distinct scores: the original leaves the order of equal ones open.
    score = rng.permutation(len(ANCHOR)).astype([np.float32, np.float64][seed % 2])
    limits = [(12000, 2000, 6000, 300), (500, 20, 300, 1), (-1, 0, 900, 250)][seed % 3]
    arguments = (loc, score, ANCHOR, SIZE, 0.5 + seed % 4)
    original = originals.ProposalCreator(training)
    pre, post = limits[:2] if training else limits[2:]
    original.n_pre_nms = pre if pre > 0 else None
    original.n_post_nms = post if post > 0 else None
    got = ProposalCreator(None, 0.7, *limits, training=training)(*arguments)
    assert_ulp(got, original(loc, score.astype(np.float32), *arguments[2:]), ulp=8)


def test_tensors_give_tensors() -> None:
    rng = np.random.default_rng(0)
    bbox, roi = random_boxes(rng, 5, 200), random_boxes(rng, 200, 200)
    label, loc = np.arange(5), rng.normal(0, 0.1, ANCHOR.shape).astype(np.float32)
    score = rng.random(len(ANCHOR), np.float32)
    for creator, arguments, rest in (
        (AnchorTargetCreator(), (bbox, ANCHOR), (SIZE,)),
        (ProposalCreator(), (loc, score, ANCHOR), (SIZE, 2.0)),
        (ProposalTargetCreator(), (roi, bbox, label), ()),
    ):
        results = []
        for convert in (np.asarray, torch.from_numpy):
            np.random.seed(0)
            result: Any = creator(*map(convert, arguments), *rest)
            results.append(result if isinstance(result, tuple) else (result,))
        for array, tensor in zip(*results, strict=True):
            assert isinstance(tensor, torch.Tensor)
            assert tensor.tolist() == array.tolist()
        with pytest.raises(TypeError, match="convert one kind into the other"):
            creator(torch.from_numpy(arguments[0]), *arguments[1:], *rest)
