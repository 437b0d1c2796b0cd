"""AnchorTargetCreator: the original's labels and offsets, a plain definition, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import oxidet
from box_comparison import assert_bits, random_boxes
from conftest import golden
from oxidet.detection import (
    AnchorTargetCreator,
    bbox2loc,
    bbox_iou,
    enumerate_shifted_anchor,
    generate_anchor_base,
)


def anchors_of(size: tuple[int, int], stride: int = 16, scales: tuple = (2, 4, 8)) -> np.ndarray:
    height, width = (-(-s // stride) for s in size)
    return enumerate_shifted_anchor(
        generate_anchor_base(anchor_scales=scales), stride, height, width
    )


@pytest.mark.parametrize("name", list(golden("anchor_targets")))
def test_original(name: str) -> None:
    case = golden("anchor_targets")[name]
    n_sample, pos, neg, ratio = case["arguments"].tolist()
    size = tuple(case["size"].tolist())
    anchor = anchors_of(size, case["stride"], tuple(case["scales"].tolist()))
    np.random.seed(case["seed"])
    creator = AnchorTargetCreator(int(n_sample), pos, neg, ratio)
    loc, label = creator(case["bbox"], anchor, size)
    assert label.dtype == np.int32
    assert label.tolist() == case["label"].tolist()
    rows, expected = case["rows"], case["loc"]
    assert_bits(loc[rows, :2], np.ascontiguousarray(expected[:, :2]))
    np.testing.assert_array_max_ulp(loc[rows], expected, maxulp=4)


def test_candidates_follow_the_definition() -> None:
    """With room for every candidate nothing is drawn, and the labels are the rule itself."""
    rng = np.random.default_rng(0)
    anchor, size = anchors_of((200, 300)), (200, 300)
    bbox = random_boxes(rng, 7, 150)
    creator = AnchorTargetCreator(n_sample=10**6, pos_iou_thresh=0.6, neg_iou_thresh=0.25)
    state = np.random.get_state()[1].copy()
    loc, label = creator(bbox, anchor, size)
    assert (np.random.get_state()[1] == state).all()

    inside = (anchor[:, :2] >= 0).all(axis=1) & (anchor[:, 2:] <= size).all(axis=1)
    iou = bbox_iou(anchor[inside], bbox)
    expected = np.full(inside.sum(), -1)
    expected[iou.max(axis=1) < np.float32(0.25)] = 0
    expected[(iou == iou.max(axis=0)).any(axis=1)] = 1
    expected[iou.max(axis=1) >= np.float32(0.6)] = 1
    assert label[inside].tolist() == expected.tolist()
    assert (label[~inside] == -1).all()
    assert_bits(loc[inside], bbox2loc(anchor[inside], bbox[iou.argmax(axis=1)]))
    assert not loc[~inside].any()


@pytest.mark.parametrize("seed", range(5))
def test_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bbox = random_boxes(rng, 1 + 4 * seed, 150)
    creator = AnchorTargetCreator(n_sample=64, pos_iou_thresh=0.3, pos_ratio=0.25)
    _, label = creator(bbox, anchors_of((200, 300)), (200, 300), rng=rng)
    positives, negatives = (label == 1).sum(), (label == 0).sum()
    assert 0 < positives <= 16
    assert positives + negatives == 64


def test_generators() -> None:
    bbox, anchor = random_boxes(np.random.default_rng(0), 5, 150), anchors_of((200, 300))

    def labels(rng: object) -> list[int]:
        return AnchorTargetCreator()(bbox, anchor, (200, 300), rng=rng)[1].tolist()  # type: ignore[arg-type]

    np.random.seed(3)
    assert labels(np.random.RandomState(3)) == labels(None)
    state = np.random.get_state()[1].copy()
    assert labels(np.random.default_rng(3)) == labels(np.random.default_rng(3))
    assert labels(np.random.default_rng(3)) != labels(np.random.default_rng(4))
    assert (np.random.get_state()[1] == state).all(), "the global state is left alone"
    with pytest.raises(TypeError, match="rng: expected a numpy Generator, a RandomState or None"):
        labels(3)


def test_an_unreached_object() -> None:
    anchor = enumerate_shifted_anchor(generate_anchor_base(), 16, 37, 50)
    reached = np.float32([[100, 200, 300, 450]])
    both = np.concatenate((np.float32([[0, 0, 4, 4]]), reached))
    _, label = AnchorTargetCreator()(both, anchor, (600, 800))
    assert [(label == v).sum() for v in (1, 0)] == [128, 0], "the original's trap"
    rng = np.random.RandomState
    lenient = AnchorTargetCreator(ignore_unreached=True)
    _, label = lenient(both, anchor, (600, 800), rng=rng(0))
    _, expected = AnchorTargetCreator()(reached, anchor, (600, 800), rng=rng(0))
    assert label.tolist() == expected.tolist()


def test_without_objects_every_inside_anchor_is_background() -> None:
    anchor = enumerate_shifted_anchor(generate_anchor_base(), 16, 37, 50)
    for empty in (np.zeros((0, 4), np.float32), []):
        loc, label = AnchorTargetCreator(n_sample=10**6)(empty, anchor, (600, 800))
        assert [(label == v).sum() for v in (1, 0, -1)] == [0, 5834, 16650 - 5834]
        assert not loc.any()
        _, label = AnchorTargetCreator()(empty, anchor, (600, 800))
        assert (label == 0).sum() == 256


def test_without_inside_anchors_all_are_ignored() -> None:
    bbox = np.float32([[0, 0, 4, 4]])
    loc, label = AnchorTargetCreator()(bbox, np.float32([[-1, 0, 9, 9], [0, 0, 9, 11]]), (10, 10))
    assert label.tolist() == [-1, -1]
    assert not loc.any()
    loc, label = AnchorTargetCreator()(bbox, np.zeros((0, 4), np.float32), (10, 10))
    assert (loc.shape, label.shape) == ((0, 4), (0,))


def test_float64_stays_float64() -> None:
    bbox = random_boxes(np.random.default_rng(0), 5, 150, np.float64)
    anchor = anchors_of((200, 300)).astype(np.float64)
    loc, label = AnchorTargetCreator(10**6)(bbox, anchor, (200, 300))
    narrow = AnchorTargetCreator(10**6)(bbox.astype(np.float32), anchor, (200, 300))
    assert loc.dtype == np.float64
    assert narrow[0].dtype == np.float64, "mixed types are computed in the wider one"
    loc32, label32 = AnchorTargetCreator(10**6)(
        bbox.astype(np.float32), anchor.astype(np.float32), (200, 300)
    )
    assert loc32.dtype == np.float32
    assert (label != label32).sum() <= 3, "best anchors that tie in one type only"
    np.testing.assert_allclose(loc32, loc, atol=1e-5)


def test_the_number_of_threads_does_not_matter() -> None:
    bbox, anchor = random_boxes(np.random.default_rng(0), 9, 150), anchors_of((200, 300))
    results = []
    for threads in (1, 3):
        oxidet.set_num_threads(threads)
        results.append(AnchorTargetCreator(10**6)(bbox, anchor, (200, 300)))
    assert_bits(results[0][0], results[1][0])
    assert_bits(results[0][1].astype(np.float32), results[1][1].astype(np.float32))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[0, 0, 4, 4], [5, 5, 5, 9]], r"bbox: expected finite boxes with min < max .* in row 1"),
        ([[0, 0, np.nan, 4]], r"bbox: expected finite boxes .* in row 0"),
        ([[0, 0, 4, 4], [1, 1, 2, 2], [0, 0, np.inf, 4]], "in row 2"),
        ([[0, 5, 4, 4]], "in row 0"),
        ([[0, 0, 4]], r"bbox: expected shape \(R, 4\), got \(1, 3\)"),
    ],
)
def test_a_bad_object_is_named(bad: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnchorTargetCreator()(bad, anchors_of((200, 300)), (200, 300))


def test_a_bad_size_is_named() -> None:
    with pytest.raises(ValueError, match="img_size: expected two finite numbers"):
        AnchorTargetCreator()([[0, 0, 4, 4]], anchors_of((64, 64)), (64,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_sample": -4}, ValueError, "n_sample: expected an integer of at least 0, got -4"),
        ({"n_sample": "9"}, TypeError, "n_sample: expected an integer, got '9'"),
        ({"pos_ratio": np.nan}, ValueError, "pos_ratio: expected a number from 0 to 1, got nan"),
        ({"pos_iou_thresh": None}, TypeError, "pos_iou_thresh: expected a number, got None"),
    ],
)
def test_bad_settings_are_named(settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        AnchorTargetCreator(**settings)
