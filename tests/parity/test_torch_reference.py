"""The torch Faster R-CNN that oxidet is compared with: does it say what the specification says?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from parity import torch_faster_rcnn as reference  # noqa: E402
from parity import torch_training as training  # noqa: E402
from parity import torch_weights as weights  # noqa: E402

CONVOLUTIONS = {  # extractor index: (out, in)
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
DENSE = {
    "rpn.conv1": (512, 512, 3, 3),
    "rpn.score": (18, 512, 1, 1),
    "rpn.loc": (36, 512, 1, 1),
    "head.classifier.0": (4096, 25088),
    "head.classifier.2": (4096, 4096),
    "head.cls_loc": (84, 4096),
    "head.score": (21, 4096),
}


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def vgg() -> reference.FasterRCNN:
    with torch.device("meta"):
        return reference.FasterRCNN()


@pytest.fixture
def tiny() -> reference.FasterRCNN:
    image = weights.random_image(160, 224)
    return weights.spread_out(reference.tiny_faster_rcnn(), image)


def test_state_dict(vgg: reference.FasterRCNN) -> None:
    layers = {f"extractor.{i}": (o, c, 3, 3) for i, (o, c) in CONVOLUTIONS.items()} | DENSE
    expected = {}
    for name, shape in layers.items():
        expected[f"{name}.weight"] = shape
        expected[f"{name}.bias"] = shape[:1]
    got = {key: tuple(value.shape) for key, value in vgg.state_dict().items()}
    assert got == expected
    assert list(got) == list(expected)
    assert sum(value.numel() for value in vgg.state_dict().values()) == 137_078_239


def test_optimiser_groups(vgg: reference.FasterRCNN) -> None:
    groups = training.Trainer(vgg).optimizer.param_groups
    assert len(groups) == 32
    for group in groups:
        (parameter,) = group["params"]
        bias = parameter.ndim == 1
        assert group["lr"] == (2e-3 if bias else 1e-3)
        assert group["weight_decay"] == (0 if bias else 0.0005)
        assert group["momentum"] == 0.9


def test_anchors() -> None:
    base = reference.anchor_base()
    np.testing.assert_allclose(base[0], [-37.254833, -82.50967, 53.254833, 98.50967])
    np.testing.assert_array_equal(base[5], [-248, -248, 264, 264])
    anchors = reference.shifted_anchors(base, 16, 37, 50)
    assert anchors.shape == (16650, 4)
    assert anchors.dtype == np.float32
    np.testing.assert_allclose(anchors[-1], [221.96133, 610.98065, 946.0387, 973.01935])
    bbox = np.array([[100, 100, 300, 300]], np.float32)
    locs, labels = training.anchor_targets(bbox, anchors, (600, 800))
    inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= [600, 800]).all(1)
    assert np.count_nonzero(inside) == 5834
    np.testing.assert_array_equal((locs != 0).any(axis=1), inside)
    assert np.count_nonzero(labels >= 0) == 256


def test_offsets() -> None:
    src, dst = np.array([[10, 20, 30, 60], [12, 16, 40, 50]], np.float32)[:, None]
    loc = training.bbox2loc(src, dst)
    np.testing.assert_allclose(loc, [[0.3, -0.175, 0.33647224, -0.1625189]], rtol=1e-6)
    np.testing.assert_allclose(reference.loc2bbox(src, loc), dst, rtol=1e-6)
    np.testing.assert_allclose(reference.bbox_iou(src, dst), [[0.44554454]], rtol=1e-6)


def test_smooth_l1() -> None:
    points = [0.05, 0.1, 1 / 9, 0.5, 1, 2]
    for sigma, expected in [
        (1, [0.00125, 0.005, 0.006173, 0.125, 0.5, 1.5]),
        (3, [0.01125, 0.045, 0.055556, 0.444444, 0.944444, 1.944444]),
    ]:
        for point, value in zip(points, expected, strict=True):
            pred = torch.tensor([[point, 0, 0, 0], [9, 9, 9, 9]])
            label = torch.tensor([1, -1])
            loss = training.loc_loss(pred, torch.zeros(2, 4), label, sigma)
            np.testing.assert_allclose(loss, value, rtol=1e-4)


def test_resize_of_equal_size_and_of_a_ramp() -> None:
    ramp = np.arange(8.0).reshape(1, 1, 8).repeat(3, axis=1)
    np.testing.assert_allclose(reference.resize(ramp, (3, 8)), ramp)
    # Positions -0.25, 0.25, ..., 7.25: the border mirrors to 0.25 and 6.75.
    doubled = reference.resize(ramp, (3, 16))[0, 0]
    np.testing.assert_allclose(doubled, [0.25, *np.arange(0.25, 7, 0.5), 6.75])


def test_preprocess_sizes_round() -> None:
    for size, expected in [((333, 500), (600, 901)), ((281, 300), (600, 641))]:
        got = reference.preprocess(np.zeros((3, *size), np.float32))
        assert got.shape == (3, *expected)
        assert got.dtype == np.float32
    white = reference.preprocess(np.full((3, 60, 80), 255, np.float32), caffe=True)
    np.testing.assert_allclose(white[:, 0, 0], 255 - np.array([122.7717, 115.9465, 102.9801]))


def test_spread_out_scores_rank_anchors_and_classes(tiny: reference.FasterRCNN) -> None:
    image = weights.random_image(160, 224)
    with torch.no_grad():
        trace = tiny.eval().trace(torch.from_numpy(image[None]))
    assert trace.features.shape == (1, 16, 10, 14)
    assert trace.rpn_locs.shape == (1, 1260, 4)
    assert trace.rpn_scores.shape == (1, 1260, 2)
    assert 0.1 < trace.rpn_probs.std() < 0.4
    assert trace.rpn_probs.max() < 0.999
    assert 20 < len(trace.rois) <= 300
    assert trace.roi_cls_locs.shape == (len(trace.rois), 24)
    assert trace.roi_scores.std() > 1
    boxes, probs = tiny.decode(trace, (160, 224), 1.0)
    bbox, label, score = tiny.select(boxes, probs)
    assert len(bbox) > 10
    assert (np.diff(label) >= 0).all()
    assert (np.diff(score)[np.diff(label) == 0] <= 0).all()
    assert (score > 0.05).all()


def test_predict(tiny: reference.FasterRCNN) -> None:
    tiny.proposals.n_test_post_nms = 20
    raw = np.random.default_rng(0).uniform(0, 255, (3, 60, 80)).astype(np.float32)
    bboxes, labels, scores = tiny.predict([raw], visualize=True)
    assert tiny.training
    assert (tiny.nms_thresh, tiny.score_thresh) == (0.3, 0.05)
    again = tiny.predict([reference.preprocess(raw)], [(60, 80)])
    for loose, strict in zip(again, (bboxes, labels, scores), strict=True):
        assert len(loose[0]) >= len(strict[0])
    bbox, label, score = (column[0] for column in again)
    assert bbox.dtype == np.float32
    assert label.dtype == np.int32
    assert score.dtype == np.float32
    assert bbox.shape == (len(label), 4)
    assert (bbox >= 0).all()
    assert (bbox[:, 2:] <= [60, 80]).all()


def test_steps_follow_recorded_choices(tiny: reference.FasterRCNN) -> None:
    image = weights.random_image(160, 224)
    bbox = np.array([[20, 30, 120, 140], [60, 100, 150, 220]], np.float32)
    label = np.array([0, 3], np.int32)
    follower = reference.tiny_faster_rcnn()
    follower.load_state_dict(tiny.state_dict())
    first, second = training.Trainer(tiny), training.Trainer(follower)
    frozen = tiny.extractor[0].weight.clone()
    losses = []
    for _ in range(4):
        losses.append(first.step(image, bbox, label, 1.0))
        assert first.samples is not None
        assert 32 < len(first.samples.sample_roi) <= 128
        followed = second.step(image, bbox, label, 1.0, rois=first.rois, samples=first.samples)
        assert followed == losses[-1]
    assert losses[-1]["total_loss"] < losses[0]["total_loss"]
    parts = [losses[0][name] for name in list(losses[0])[:4]]
    np.testing.assert_allclose(sum(parts), losses[0]["total_loss"], rtol=1e-6)
    np.testing.assert_array_equal(tiny.extractor[0].weight, frozen)
