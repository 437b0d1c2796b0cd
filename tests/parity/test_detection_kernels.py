"""What detectors do between their networks against the modules of torchvision's detectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from box_comparison import random_boxes
from oxidet import nn, ops
from oxidet.models.detection import _kernels

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from torchvision.models.detection import roi_heads as theirs_heads  # noqa: E402
from torchvision.models.detection._utils import Matcher  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.models.detection.rpn import (  # noqa: E402
    RegionProposalNetwork,
    concat_box_prediction_layers,
)
from torchvision.models.detection.transform import GeneralizedRCNNTransform  # noqa: E402
from torchvision.ops import box_iou  # noqa: E402

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


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize(("objects", "boxes"), [(1, 1), (3, 300), (40, 5000), (100, 257)])
def test_matches(objects: int, boxes: int, low_quality: bool) -> None:
    rng = np.random.default_rng(objects)
    gt = random_boxes(rng, objects, 300).round().astype(np.float32)
    others = random_boxes(rng, boxes, 300).round().astype(np.float32)
    for thresholds in ((0.7, 0.3), (0.5, 0.5)):
        matcher = Matcher(*thresholds, low_quality)
        expected = matcher(box_iou(torch.from_numpy(gt), torch.from_numpy(others)))
        got = _kernels.match_boxes(gt, others, *thresholds, low_quality)
        assert got.dtype == np.int64
        assert got.tolist() == expected.tolist()


def test_matches_of_odd_boxes() -> None:
    """Points, inverted and infinite boxes, NaN, copies, and an object that no box reaches."""
    rng = np.random.default_rng(0)
    inf = np.inf
    odd = np.array(
        [[5, 5, 5, 5], [9, 9, 3, 3], [inf, 0, inf, 9], [-inf, 0, inf, 9], [0, 0, 1e30, 1e30]],
        np.float32,
    )
    nan = np.array([[np.nan, 0, 4, 4]], np.float32)
    plain = random_boxes(rng, 600, 50).round().astype(np.float32)
    far = np.array([[900, 900, 910, 910]], np.float32)
    join = np.concatenate
    for gt in (plain[:9], join((plain[:3], far)), odd, nan, join((nan, plain[:2]))):
        for boxes in (plain, join((plain, odd)), join((plain[:300], nan, plain))):
            matcher = Matcher(0.7, 0.3, True)
            expected = matcher(box_iou(torch.from_numpy(gt), torch.from_numpy(boxes)))
            assert _kernels.match_boxes(gt, boxes, 0.7, 0.3, True).tolist() == expected.tolist()


@pytest.mark.parametrize("counts", [[40], [30, 0, 25], [0, 0]])
@pytest.mark.parametrize("sampling", [2, 0])
def test_pooling_from_a_pyramid(counts: list[int], sampling: int) -> None:
    rng = np.random.default_rng(len(counts))
    shapes = [(32, 40), (16, 20), (8, 10)]
    maps = {
        str(i): channels_last(rng.standard_normal((len(counts), 24, *s)).astype(np.float32))
        for i, s in enumerate(shapes)
    }
    boxes = [random_boxes(rng, n, 150).astype(np.float32).reshape(-1, 4) for n in counts]
    if counts[0]:
        boxes[0][0] = [60, 60, 10, 80]  # negative area: no level
        boxes[0][1] = [5, 5, 5, 9]
        boxes[0][2] = [-40, -30, 300, 200]
    names = list(maps)
    mine = ops.MultiScaleRoIAlign(names, (7, 5), sampling, canonical_scale=60)
    theirs = torchvision.ops.MultiScaleRoIAlign(names, (7, 5), sampling, canonical_scale=60)
    inputs = {name: torch.from_numpy(value).requires_grad_() for name, value in maps.items()}
    expected = theirs(inputs, [torch.from_numpy(b) for b in boxes], [(128, 160)])
    tensors = {name: nn.Tensor(value, requires_grad=True) for name, value in maps.items()}
    got: Any = mine(tensors, boxes, [(128, 160)])
    np.testing.assert_allclose(got.numpy(), expected.detach().numpy(), atol=2e-5)
    gradient = rng.standard_normal(got.shape).astype(np.float32)
    expected.backward(torch.from_numpy(gradient))
    got.backward(gradient)
    for name, tensor in tensors.items():
        wanted = inputs[name].grad
        assert wanted is not None
        np.testing.assert_allclose(tensor.grad, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("shapes", "limits"),
    [
        ([(60, 80)], (80, 133)),
        ([(97, 60), (60, 97), (33, 200)], (64, 100)),
        ([(120, 90), (50, 50)], (37, 1333)),
        ([(64, 96)], (64, 96)),
    ],
)
@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images(shapes: Any, limits: tuple[int, int], planes: bool, dtype: Any) -> None:
    rng = np.random.default_rng(shapes[0][0])
    images: list[Any] = [rng.integers(0, 256, (3, *shape)).astype(dtype) for shape in shapes]
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    transform = GeneralizedRCNNTransform(*limits, mean, std)
    expected, _ = transform([torch.from_numpy(image / np.float32(255)) for image in images])
    if not planes:
        images = [np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1) for x in images]
    got = _kernels.batch_images(images, expected.image_sizes, mean, std, unit=255.0)
    assert got.transpose(0, 2, 3, 1).flags.c_contiguous
    assert got.shape == expected.tensors.shape
    np.testing.assert_allclose(got, expected.tensors.numpy(), atol=1e-5)
    for image, (height, width) in zip(got, expected.image_sizes, strict=True):
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
