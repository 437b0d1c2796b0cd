"""What detectors do between their networks against the modules of torchvision's detectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from box_comparison import random_boxes
from oxidet.models.detection import _kernels

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torchvision.models.detection import roi_heads as theirs_heads  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.models.detection.rpn import (  # noqa: E402
    RegionProposalNetwork,
    concat_box_prediction_layers,
)

SIZES = ((32,), (64,), (128,), (256,), (512,))


def channels_last(array: Any) -> Any:
    """The same (N, C, H, W) array with the channels last in memory."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def close_boxes(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-3)


class Rpn:
    """Random outputs of an RPN over a pyramid, and torchvision's network for them."""

    def __init__(self, seed: int, images: int, padded: tuple[int, int], spread: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        strides = (4, 8, 16, 32, 64)
        self.grids = [(-(-padded[0] // s), -(-padded[1] // s)) for s in strides]
        self.images = ImageList(
            torch.zeros(images, 3, *padded),
            [(padded[0] - 3 * i, padded[1] - 11 * i) for i in range(images)],
        )
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        self.objectness = [spread * draw(images, 3, *grid) for grid in self.grids]
        self.deltas = [0.3 * draw(images, 12, *grid) for grid in self.grids]
        self.anchors = AnchorGenerator(SIZES, ((0.5, 1.0, 2.0),) * 5)

    def expected(self, pre: int, post: int, score: float, nms: float = 0.7) -> Any:
        limits = [{"training": n, "testing": n} for n in (pre, post)]
        rpn = RegionProposalNetwork(
            self.anchors, None, 0.7, 0.3, 256, 0.5, *limits, nms, score_thresh=score
        )
        anchors = self.anchors(self.images, self.objectness)
        counts = [3 * h * w for h, w in self.grids]
        logits, offsets = concat_box_prediction_layers(self.objectness, self.deltas)
        boxes = rpn.box_coder.decode(offsets, anchors).view(len(anchors), -1, 4)
        return rpn.filter_proposals(boxes, logits, self.images.image_sizes, counts)

    def got(self, pre: int, post: int, score: float, nms: float = 0.7) -> Any:
        height, width = self.images.tensors.shape[2:]
        return _kernels.rpn_proposals(
            [channels_last(x.numpy()) for x in self.objectness],
            [channels_last(x.numpy()) for x in self.deltas],
            [x.numpy() for x in self.anchors.cell_anchors],
            [(height // h, width // w) for h, w in self.grids],
            self.images.image_sizes,
            pre,
            post,
            nms,
            score,
        )


@pytest.mark.parametrize(
    ("images", "padded", "limits", "score", "nms"),
    [
        (1, (320, 256), (1000, 1000), 0.0, 0.7),
        (3, (128, 160), (200, 50), 0.0, 0.7),
        (2, (160, 96), (2000, 2000), 0.3, 0.3),
        (2, (64, 64), (7, 3), 0.0, 0.9),
        (1, (64, 64), (100, 100), 1.5, 0.5),
    ],
)
def test_proposals(
    images: int, padded: tuple[int, int], limits: tuple[int, int], score: float, nms: float
) -> None:
    rpn = Rpn(images + padded[0], images, padded, 2.0)
    boxes, scores = rpn.expected(*limits, score, nms)
    got = rpn.got(*limits, score, nms)
    assert len(got) == images
    for mine, box, s in zip(got, boxes, scores, strict=True):
        close_boxes(mine[0], box.numpy())
        np.testing.assert_allclose(mine[1], s.numpy(), atol=1e-6)
        assert (score > 1) == (len(box) == 0)


def test_proposals_of_nan_and_overflowing_outputs() -> None:
    """A NaN logit ranks first and takes a place, but is no proposal."""
    rpn = Rpn(5, 2, (64, 96), 2.0)
    rpn.objectness[0][0, 1, :4, :4] = np.nan
    rpn.objectness[1][1, 0, 2, 1] = np.inf
    rpn.deltas[0][1, 4, 2, :] = np.nan
    rpn.deltas[0][0, 2, 3, :] = 1e30
    rpn.deltas[2][0, 1, 1, 1] = -np.inf
    boxes, scores = rpn.expected(60, 100, 0.0)
    for mine, box, s in zip(rpn.got(60, 100, 0.0), boxes, scores, strict=True):
        close_boxes(mine[0], box.numpy())
        np.testing.assert_allclose(mine[1], s.numpy(), atol=1e-6)


def heads(**options: Any) -> Any:
    values = {"score": 0.05, "nms": 0.5, "most": 100, **options}
    return theirs_heads.RoIHeads(
        None, None, None, 0.5, 0.5, 512, 0.25, None, values["score"], values["nms"], values["most"]
    )


@pytest.mark.parametrize(
    ("counts", "classes", "options"),
    [
        ([300], 91, {}),
        ([120, 0, 77, 1], 5, {}),
        ([40, 60], 2, {"score": 0.5, "nms": 0.2}),
        ([400, 300], 11, {"score": 0.01, "nms": 0.7, "most": 20}),
        ([20], 1, {}),
        ([0, 0], 4, {}),
        ([30], 4, {"most": 0}),
        ([64], 3, {"score": 0.999}),
    ],
)
def test_detections(counts: list[int], classes: int, options: Any) -> None:
    rng = np.random.default_rng(sum(counts) + classes)
    total = sum(counts)
    logits = 3 * rng.standard_normal((total, classes)).astype(np.float32)
    offsets = rng.standard_normal((total, 4 * classes)).astype(np.float32)
    proposals = [random_boxes(rng, n, 200).astype(np.float32) for n in counts]
    sizes = [(150 + 10 * i, 170 - 7 * i) for i in range(len(counts))]
    expected = heads(**options).postprocess_detections(
        torch.from_numpy(logits),
        torch.from_numpy(offsets),
        [torch.from_numpy(p).reshape(-1, 4) for p in proposals],
        sizes,
    )
    names = {"score": "score_thresh", "nms": "nms_thresh", "most": "detections_per_img"}
    settings: Any = {names[name]: value for name, value in options.items()}
    got = _kernels.box_detections(logits, offsets, proposals, sizes, **settings)
    assert len(got) == len(counts)
    for mine, boxes, scores, labels in zip(got, *expected, strict=True):
        close_boxes(mine[0], boxes.numpy())
        assert mine[1].dtype == np.int64
        assert mine[1].tolist() == labels.tolist()
        np.testing.assert_allclose(mine[2], scores.numpy(), atol=1e-6)
    if classes > 1 and total and options.get("most") != 0 and options.get("score") != 0.999:
        assert sum(len(boxes) for boxes, _, _ in got) > 0


def test_detections_of_a_head_gone_wrong() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((30, 6)).astype(np.float32)
    offsets = rng.standard_normal((30, 24)).astype(np.float32)
    proposals = random_boxes(rng, 30, 100).astype(np.float32)
    logits[3, 2] = np.nan
    logits[5, 1] = np.inf
    offsets[7] = np.nan
    offsets[8, 6] = 1e30
    proposals[9] = 0
    expected = heads().postprocess_detections(
        torch.from_numpy(logits),
        torch.from_numpy(offsets),
        [torch.from_numpy(proposals)],
        [(90, 80)],
    )
    (mine,) = _kernels.box_detections(logits, offsets, [proposals], [(90, 80)])
    for got, (wanted,) in zip((mine[0], mine[2], mine[1]), expected, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-5, atol=1e-3)
