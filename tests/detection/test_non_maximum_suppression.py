"""non_maximum_suppression: the original, a naive definition, ties, thresholds, arguments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from box_comparison import random_boxes
from conftest import golden
from oxidet.detection import bbox_iou, non_maximum_suppression

FOUR = np.float32([[0, 0, 4, 4], [1, 1, 5, 5], [2, 1, 6, 5], [4, 0, 8, 4]])


@pytest.mark.parametrize("case", list(golden("nms")))
def test_original(case: str) -> None:
    stored = golden("nms")[case]
    bbox, thresh, score = stored["bbox"], stored["thresh"], stored["score"]
    for got, expected in (
        (non_maximum_suppression(bbox, thresh, score), stored["with_score"]),
        (non_maximum_suppression(bbox, thresh), stored["without_score"]),
        (non_maximum_suppression(bbox, thresh, score, limit=stored["limit"]), stored["limited"]),
    ):
        assert got.dtype == expected.dtype == np.int32
        assert got.tolist() == expected.tolist()


def quadratic(bbox: np.ndarray, thresh: float, order: np.ndarray, strict: bool) -> list[int]:
    """The definition: keep a box unless a kept one overlaps it."""
    iou = bbox_iou(bbox, bbox)
    kept: list[int] = []
    for i in order:
        overlap = iou[kept, i]
        if not (overlap > thresh if strict else overlap >= iou.dtype.type(thresh)).any():
            kept.append(int(i))
    return kept


# Few distinct values make many ties, of scores as of IoUs with the threshold.
small = st.integers(0, 6)


@given(
    st.lists(st.tuples(small, small, st.integers(1, 5), st.integers(1, 5), small), max_size=40),
    st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.6, 0.7, 1.0]),
    st.sampled_from(["chainercv", "torchvision"]),
    st.sampled_from([np.float32, np.float64]),
)
def test_the_quadratic_definition(rows: list, thresh: float, rule: str, dtype: type) -> None:
    table = np.array(rows, dtype).reshape(-1, 5)
    bbox = np.concatenate((table[:, :2], table[:, :2] + table[:, 2:4]), axis=1)
    order = np.argsort(-table[:, 4], kind="stable")
    strict = rule == "torchvision"
    # In float64, as torchvision compares; float32 IoUs widen exactly.
    expected = quadratic(bbox, np.float64(thresh) if strict else thresh, order, strict)
    got = non_maximum_suppression(bbox, thresh, table[:, 4], nms_rule=rule)  # type: ignore[arg-type]
    assert got.tolist() == expected


def test_table_of_thresholds() -> None:
    table = {1: [0, 1, 2, 3], 0.5: [0, 1, 3], 0.3: [0, 2, 3], 0.2: [0, 3], 0: [0]}
    got = {t: non_maximum_suppression(FOUR, t).tolist() for t in table}
    assert got == table


def test_scores_equal_sorting_first() -> None:
    rng = np.random.default_rng(0)
    bbox, score = random_boxes(rng, 300), rng.permutation(300)
    order = np.argsort(-score)
    expected = order[non_maximum_suppression(bbox[order], 0.4)]
    assert non_maximum_suppression(bbox, 0.4, score).tolist() == expected.tolist()


def test_a_permutation_of_boxes_permutes_the_result() -> None:
    rng = np.random.default_rng(1)
    bbox, score = random_boxes(rng, 200), rng.permutation(200)
    shuffle = rng.permutation(200)
    kept = non_maximum_suppression(bbox[shuffle], 0.3, score[shuffle])
    assert shuffle[kept].tolist() == non_maximum_suppression(bbox, 0.3, score).tolist()


def test_suppressing_again_changes_nothing() -> None:
    bbox = random_boxes(np.random.default_rng(2), 500)
    kept = non_maximum_suppression(bbox, 0.3)
    assert 0 < len(kept) < 500
    assert non_maximum_suppression(bbox[kept], 0.3).tolist() == list(range(len(kept)))


def test_the_rules_differ_where_the_iou_meets_the_threshold() -> None:
    # IoU in float32: 0.2 is 0.200000003, 0.7 is 0.69999999, 0.5 is exact.
    kept = {}
    for thresh, side in ((0.2, 2), (0.7, 7), (0.5, 5)):
        pair = np.float32([[0, 0, 1, 10], [0, 0, 1, side]])
        kept[thresh] = tuple(
            len(non_maximum_suppression(pair, thresh, nms_rule=rule))
            for rule in ("chainercv", "torchvision")
        )
    assert kept == {0.2: (1, 1), 0.7: (1, 2), 0.5: (1, 2)}


def test_order_of_ties_and_nan_scores() -> None:
    apart = np.arange(6, dtype=np.float32)[:, None] * 10 + np.float32([0, 0, 5, 5])
    score = [1, np.nan, 3, 1, np.nan, -np.inf]
    assert non_maximum_suppression(apart, 0.5, score).tolist() == [1, 4, 2, 0, 3, 5]


def test_nan_boxes_and_boxes_without_area_stay() -> None:
    bbox = np.float32([[1, 1, 1, 1], [1, 1, 1, 1], [np.nan] * 4, [np.nan] * 4])
    assert non_maximum_suppression(bbox, 0.5).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="thresh: expected a number, got nan"):
        non_maximum_suppression(FOUR, np.nan)


def test_limit() -> None:
    for limit, expected in ((0, []), (1, [0]), (2, [0, 1]), (99, [0, 1, 3]), (2**70, [0, 1, 3])):
        assert non_maximum_suppression(FOUR, 0.5, limit=limit).tolist() == expected


def test_no_boxes() -> None:
    for empty in ([], np.zeros((0, 4)), np.zeros((0, 4), np.float32)):
        kept = non_maximum_suppression(empty, 0.5, score=[])
        assert kept.shape == (0,)
        assert kept.dtype == np.int32


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((np.zeros((2, 5)), 0.5), {}, r"bbox: expected shape \(R, 4\), got \(2, 5\)"),
        ((FOUR, 0.5, [1, 2]), {}, r"score: expected shape \(4,\), got \(2,\)"),
        ((FOUR, 0.5), {"limit": -1}, "limit: expected an integer of at least 0, got -1"),
        ((FOUR, 2**1025), {}, "thresh: expected a number that a float holds"),
        ((FOUR, 0.5), {"nms_rule": "caffe"}, "nms_rule: expected 'chainercv' or 'torchvision'"),
    ],
)
def test_bad_input_is_named(arguments, keywords, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        non_maximum_suppression(*arguments, **keywords)
