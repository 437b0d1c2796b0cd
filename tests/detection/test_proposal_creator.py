"""ProposalCreator: the original's proposals, both call styles, what gets dropped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from box_comparison import assert_bits, assert_ulp
from conftest import golden
from oxidet.detection import (
    ProposalCreator,
    enumerate_shifted_anchor,
    generate_anchor_base,
    loc2bbox,
    non_maximum_suppression,
)

CASES = [name for name in golden("proposals") if name]


def stored(name: str) -> tuple[dict, tuple]:
    cases = golden("proposals")
    case = cases[name]
    size = tuple(case["size"].tolist())
    loc = case["loc"].astype(np.float32)
    return case, (loc, case["score"], cases[""]["anchor"], size, case["scale"])


@pytest.mark.parametrize("name", CASES)
def test_original(name: str) -> None:
    case, call = stored(name)
    nms_thresh, *limits, min_size = case["arguments"].tolist()
    creator = ProposalCreator(
        None,
        nms_thresh,
        *map(int, limits),
        min_size=min_size,
        training=case["training"],
        force_cpu_nms=True,
        nms_rule="chainercv",
    )
    # A whole image away from 0 at most, so an ulp of the image's size is one of the corners'.
    assert_ulp(creator(*call), case["roi"])


@pytest.mark.parametrize("rule", ["torchvision", "chainercv"])
def test_the_steps_one_by_one(rule: Any) -> None:
    _, (loc, score, anchor, size, _) = stored("test")
    roi = np.clip(loc2bbox(anchor, loc), 0, np.float32([*size, *size]))
    keep = ((roi[:, 2:] - roi[:, :2]) >= 24).all(axis=1).nonzero()[0]
    order = keep[np.argsort(-score[keep], kind="stable")][:200]
    kept = order[non_maximum_suppression(roi[order], 0.6, nms_rule=rule)][:30]
    creator = ProposalCreator(nms_thresh=0.6, n_test_pre_nms=200, n_test_post_nms=30, nms_rule=rule)
    got, index = creator(loc, score, anchor, size, scale=1.5, return_index=True)
    assert index.tolist() == kept.tolist()
    assert_bits(got, roi[kept])
    assert_bits(got, creator(loc, score, anchor, size, 1.5))


def test_the_mode_chooses_the_limits() -> None:
    _, call = stored("test")
    limits = {"n_train_pre_nms": 100, "n_train_post_nms": 7, "n_test_post_nms": 3}
    model = SimpleNamespace(training=True)
    by_model = ProposalCreator(model, **limits)
    assert len(by_model(*call)) == 7
    model.training = False
    assert len(by_model(*call)) == 3
    assert len(ProposalCreator(**limits)(*call)) == 3
    stated = ProposalCreator(training=True, **limits)
    assert len(stated(*call)) == 7
    stated.training = False
    assert len(stated(*call)) == 3


def test_limits_of_0_or_below_mean_all() -> None:
    _, call = stored("test")
    everything = ProposalCreator(nms_thresh=1, n_test_pre_nms=0, n_test_post_nms=-1, min_size=0)
    assert len(everything(*call)) == len(call[0])


def test_nan_and_overflow() -> None:
    anchor = np.float32([[0, 0, 20, 20], [40, 40, 70, 70], [0, 60, 30, 90]])
    loc = np.zeros((3, 4), np.float32)
    loc[0] = np.nan
    loc[1, 2:] = 1000  # infinite, clipped to the image
    roi = ProposalCreator()(loc, [3, 2, 1], anchor, (100, 120))
    assert roi.tolist() == [[0, 0, 100, 120], [0, 60, 30, 90]]
    roi = ProposalCreator()(np.zeros((3, 4)), [1, 2, np.nan], anchor, (100, 120))
    assert roi[0].tolist() == [0, 60, 30, 90], "a NaN score ranks first"


def test_nothing_left() -> None:
    anchor = np.float32([[0, 0, 20, 20]])
    for creator, arguments in (
        (ProposalCreator(min_size=30), (np.zeros((1, 4), np.float32), [1.0], anchor, (90, 90))),
        (ProposalCreator(), (np.zeros((0, 4), np.float32), [], anchor[:0], (90, 90))),
    ):
        roi, index = creator(*arguments, return_index=True)
        assert (roi.shape, roi.dtype, index.shape) == ((0, 4), np.float32, (0,))


def test_inputs_are_left_alone_and_float64_stays() -> None:
    _, (loc, score, anchor, size, scale) = stored("test")
    copies = loc.copy(), score.copy(), anchor.copy()
    narrow = ProposalCreator()(loc, score, anchor, size, scale)
    for array, copy in zip((loc, score, anchor), copies, strict=True):
        assert_bits(array, copy)
    wide = ProposalCreator()(loc.astype(np.float64), score, anchor, size, scale)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, narrow, rtol=1e-5, atol=1e-4)


def test_the_size_of_the_paper() -> None:
    anchor = enumerate_shifted_anchor(generate_anchor_base(), 16, 37, 50)
    rng = np.random.default_rng(0)
    loc = rng.normal(0, 0.1, anchor.shape).astype(np.float32)
    score = rng.permutation(len(anchor)).astype(np.float32)
    for training, most in ((True, 2000), (False, 300)):
        creator = ProposalCreator(training=training)
        roi, index = creator(loc, score, anchor, (600, 800), return_index=True)
        assert 100 < len(roi) <= most
        assert (np.diff(score[index]) < 0).all()
        assert (roi[:, 2:] - roi[:, :2] >= 16).all()
        assert (roi >= 0).all()
        assert (roi[:, 2:] <= (600, 800)).all()
        assert len(non_maximum_suppression(roi, 0.7, nms_rule="torchvision")) == len(roi)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 4), (3,), (3, 4)), r"loc: expected shape \(3, 4\), one row for each anchor"),
        (((3, 4), (2,), (3, 4)), r"score: expected shape \(3,\), one for each anchor, got \(2,\)"),
        (((3, 4), (3,), (3, 5)), r"anchor: expected shape \(R, 4\), got \(3, 5\)"),
    ],
)
def test_bad_shapes_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProposalCreator()(*(np.zeros(shape) for shape in arguments), (90, 90))


def test_bad_construction_is_named() -> None:
    with pytest.raises(TypeError, match="parent_model: expected an object with an attribute"):
        ProposalCreator(0.7)
    with pytest.raises(ValueError, match="training: expected None with a parent_model"):
        ProposalCreator(SimpleNamespace(training=True), training=True)


def test_bad_limits_are_named_and_huge_ones_are_none() -> None:
    anchor, score = np.array([[0, 0, 20, 20], [40, 40, 60, 60]], np.float32), [0.5, 0.6]
    for limit in (-1, 0, 2, 2**70):
        creator = ProposalCreator(n_test_pre_nms=limit, n_test_post_nms=limit)
        assert creator(np.zeros((2, 4)), score, anchor, (90, 90)).shape == (2, 4)
    for bad in (None, 2.0):
        with pytest.raises(TypeError, match="n_test_post_nms: expected an integer, got"):
            ProposalCreator(n_test_post_nms=bad)(np.zeros((2, 4)), score, anchor, (90, 90))
    with pytest.raises(TypeError, match="scale: expected a number, got '1'"):
        ProposalCreator()(np.zeros((2, 4)), score, anchor, (90, 90), "1")
