"""ProposalTargetCreator: the original's sample and targets, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from box_comparison import assert_bits, random_boxes
from conftest import golden
from oxidet.detection import ProposalTargetCreator, bbox2loc, bbox_iou

FAR = np.float32([[0, 0, 10, 10], [50, 50, 80, 90]])


@pytest.mark.parametrize("name", list(golden("proposal_targets")))
def test_original(name: str) -> None:
    case = golden("proposal_targets")[name]
    n_sample, *ratios = case["arguments"].tolist()
    np.random.seed(case["seed"])
    sample_roi, gt_roi_loc, gt_roi_label = ProposalTargetCreator(int(n_sample), *ratios)(
        case["roi"], case["bbox"], case["label"], tuple(case["mean"]), tuple(case["std"])
    )
    assert_bits(sample_roi, case["sample_roi"])
    assert gt_roi_label.dtype == case["gt_roi_label"].dtype
    assert gt_roi_label.tolist() == case["gt_roi_label"].tolist()
    assert gt_roi_loc.dtype == np.float32
    if case["mean"].any():  # a difference of nearly equal numbers has no meaningful last place
        np.testing.assert_allclose(gt_roi_loc, case["gt_roi_loc"], rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_max_ulp(gt_roi_loc, case["gt_roi_loc"], maxulp=4)


@pytest.mark.parametrize("seed", range(4))
def test_the_sample_follows_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bbox, label = random_boxes(rng, 6), rng.integers(0, 9, 6)
    roi = np.concatenate((random_boxes(rng, 200), bbox + rng.normal(0, 1, (6, 4)).astype("f4")))
    creator = ProposalTargetCreator(64, neg_iou_thresh_lo=0.05)
    sample, loc, got = creator(roi, bbox, label, (0, 0, 0, 0), (1, 1, 1, 1), rng=rng)
    iou = bbox_iou(sample, bbox)
    best, assigned = iou.max(axis=1), iou.argmax(axis=1)
    positives = int((got > 0).sum())
    assert 6 <= positives <= 16
    assert len(sample) <= 64
    assert (best[:positives] >= 0.5).all()
    assert ((best[positives:] < 0.5) & (best[positives:] >= np.float32(0.05))).all()
    assert got.tolist() == np.where(best >= 0.5, label[assigned] + 1, 0).tolist()
    assert_bits(loc, bbox2loc(sample, bbox[assigned]))
    assert len(np.unique(sample, axis=0)) == len(sample), "drawn without replacement"


def test_generators() -> None:
    rng = np.random.default_rng(0)
    bbox, roi = random_boxes(rng, 6), random_boxes(rng, 300)

    def sample(rng: object) -> list:
        creator = ProposalTargetCreator()
        return creator(roi, bbox, np.zeros(6, int), rng=rng)[0].tolist()  # type: ignore[arg-type]

    np.random.seed(3)
    assert sample(np.random.RandomState(3)) == sample(None)
    assert sample(np.random.default_rng(3)) == sample(np.random.default_rng(3))
    assert sample(np.random.default_rng(3)) != sample(np.random.default_rng(4))


def test_n_sample_none_takes_all() -> None:
    roi = np.concatenate((random_boxes(np.random.default_rng(0), 50), FAR))
    sample, _, label = ProposalTargetCreator(None, pos_ratio=1)(roi, FAR, [3, 4])
    assert len(sample) == len(roi) + len(FAR)
    assert sorted(set(label.tolist())) == [0, 4, 5]


def test_the_number_of_positives_rounds_half_to_even() -> None:
    # All proposals are positive, so their number is the limit: 2.5 becomes 2, 3.5 becomes 4.
    roi = np.repeat(FAR, 20, axis=0)
    for n_sample, expected in ((10, 2), (14, 4)):
        sample, _, label = ProposalTargetCreator(n_sample)(roi, FAR, [0, 1])
        assert len(sample) == (label > 0).sum() == expected


def test_without_objects_every_proposal_is_background() -> None:
    roi = random_boxes(np.random.default_rng(0), 200)
    for bbox, label in ((np.zeros((0, 4), np.float32), np.zeros(0, np.int32)), ([], [])):
        sample, loc, got = ProposalTargetCreator()(roi, bbox, label)
        assert sample.shape == loc.shape == (128, 4)
        assert got.dtype == np.int32
        assert not got.any()
        assert not loc.any()


def test_nothing_at_all() -> None:
    sample, loc, label = ProposalTargetCreator()([], [], [])
    assert (sample.shape, loc.shape, label.shape) == ((0, 4), (0, 4), (0,))


def test_types() -> None:
    for dtype in (np.int32, np.int64, np.uint32, np.uint64, ">i4"):
        label = ProposalTargetCreator()(FAR, FAR, np.array([1, 2], dtype))[2]
        assert label.dtype == np.dtype(dtype).newbyteorder("=")
        assert label.dtype.isnative
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, ">i2"):
        largest = np.iinfo(dtype).max
        label = ProposalTargetCreator()(FAR, FAR, np.array([largest, largest], dtype))[2]
        assert label.dtype == np.int32
        assert label.tolist() == [largest + 1] * len(label)
    sample, loc, _ = ProposalTargetCreator()(FAR.astype(np.float64), FAR, [1, 2])
    assert sample.dtype == loc.dtype == np.float64


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((FAR, [[0, 0, 0, 5]], [1]), ValueError, "bbox: expected finite boxes .* in row 0"),
        ((FAR, [[0, 0, 5, 5], [0, np.nan, 1, 1]], [1, 1]), ValueError, "bbox: .* in row 1"),
        ((FAR, FAR, [1]), ValueError, r"label: expected shape \(2,\), got \(1,\)"),
        ((FAR, FAR, [1, -2]), ValueError, "label: expected labels of 0 or above, got -2 in row 1"),
        ((FAR, FAR, [1.0, 2.0]), TypeError, "label: expected integers, got dtype float64"),
        (
            (FAR, FAR, np.array([1, 2**31 - 1], np.int32)),
            ValueError,
            "label: expected labels below 2147483647, got 2147483647",
        ),
        ((FAR[:, :3], FAR, [1, 2]), ValueError, r"roi: expected shape \(R, 4\), got \(2, 3\)"),
        ((FAR, FAR, [1, 2], (0, 0)), ValueError, r"loc_normalize_mean: expected shape \(4,\)"),
    ],
)
def test_bad_input_is_named(arguments: tuple, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ProposalTargetCreator()(*arguments)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_sample": -4}, ValueError, "n_sample: expected an integer of at least 0, got -4"),
        ({"n_sample": 2.5}, TypeError, "n_sample: expected an integer, got 2.5"),
        ({"pos_ratio": 1.5}, ValueError, "pos_ratio: expected a number from 0 to 1, got 1.5"),
        ({"neg_iou_thresh_lo": "0"}, TypeError, "neg_iou_thresh_lo: expected a number, got '0'"),
    ],
)
def test_bad_settings_are_named(settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ProposalTargetCreator(**settings)
