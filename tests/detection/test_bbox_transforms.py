"""resize, flip, translate, rotate, crop of boxes, and random_flip."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from box_comparison import assert_bits, random_boxes
from conftest import golden
from oxidet.detection import (
    crop_bbox,
    flip_bbox,
    random_flip,
    resize_bbox,
    rotate_bbox,
    translate_bbox,
)

SIZE = (200, 300)
CALLS: dict[str, Any] = {
    "resize": lambda b: resize_bbox(b, SIZE, (333, 217)),
    "flip_y": lambda b: flip_bbox(b, SIZE, y_flip=True),
    "flip_x": lambda b: flip_bbox(b, SIZE, x_flip=True),
    "flip_both": lambda b: flip_bbox(b, SIZE, y_flip=True, x_flip=True),
    "translate": lambda b: translate_bbox(b, y_offset=12.5, x_offset=-7),
    "crop": lambda b: crop_bbox(b, slice(40, 150), slice(60, 200)),
    "crop_centre": lambda b: crop_bbox(b, slice(40, 150), slice(60, 200), False),
    "crop_open": lambda b: crop_bbox(b, slice(None, 100), None),
} | {f"rotate{a}": lambda b, a=a: rotate_bbox(b, a, SIZE) for a in (0, 90, 180, 270, -90, 450)}


@pytest.mark.parametrize("name", CALLS)
def test_original(name: str) -> None:
    stored = golden("transforms")[""]
    before = stored["bbox"].copy()
    assert_bits(CALLS[name](stored["bbox"]), stored[name])
    assert_bits(stored["bbox"], before)


@pytest.mark.parametrize("name", ["crop", "crop_centre", "crop_open"])
def test_original_crop_indices(name: str) -> None:
    stored = golden("transforms")[""]
    slices = (slice(None, 100), None) if name == "crop_open" else (slice(40, 150), slice(60, 200))
    _, param = crop_bbox(stored["bbox"], *slices, name != "crop_centre", return_param=True)
    assert param["index"].tolist() == stored[f"{name}_index"].tolist()
    assert param["truncated_index"].tolist() == stored[f"{name}_truncated"].tolist()


@pytest.mark.parametrize("name", CALLS)
def test_no_boxes_and_types(name: str) -> None:
    call = CALLS[name]
    assert call([]).shape == (0, 4)
    for dtype in (np.float32, np.float64, np.int64):
        assert call(np.zeros((0, 4), dtype)).dtype == dtype
        assert call(np.array([[50, 70, 90, 100]], dtype)).dtype == dtype


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_shape_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"bbox: expected shape \(R, 4\), got \(3, 5\)"):
        CALLS[name](np.zeros((3, 5)))


def test_inverses() -> None:
    # Multiples of 1/4 make every step exact.
    bbox = np.round(random_boxes(np.random.default_rng(0), 30) * 4) / 4
    for flips in ({"y_flip": True}, {"x_flip": True}, {"y_flip": True, "x_flip": True}):
        assert_bits(flip_bbox(flip_bbox(bbox, SIZE, **flips), SIZE, **flips), bbox)
    assert_bits(translate_bbox(translate_bbox(bbox, 3, -4), -3, 4), bbox)
    assert_bits(resize_bbox(resize_bbox(bbox, SIZE, (400, 150)), (400, 150), SIZE), bbox)
    turned, size = bbox, SIZE
    for _ in range(4):
        turned, size = rotate_bbox(turned, 90, size), size[::-1]
    assert_bits(turned, bbox)
    assert_bits(rotate_bbox(bbox, 180, SIZE), flip_bbox(bbox, SIZE, True, True))
    assert_bits(crop_bbox(bbox), bbox)


def test_rotation_refuses_other_angles() -> None:
    with pytest.raises(ValueError, match="angle: expected a multiple of 90, got 45"):
        rotate_bbox(np.zeros((1, 4)), 45, SIZE)


def test_bad_sizes_and_slices_are_named() -> None:
    with pytest.raises(ValueError, match="in_size: expected positive numbers"):
        resize_bbox(np.zeros((1, 4)), (0, 10), (5, 5))
    with pytest.raises(ValueError, match="size: expected two finite numbers"):
        flip_bbox(np.zeros((1, 4)), (10, np.nan))
    with pytest.raises(TypeError, match="y_slice: expected a slice or None, got int"):
        crop_bbox(np.zeros((1, 4)), 3)  # type: ignore[arg-type]


def test_random_flip_draws_as_the_original() -> None:
    random.seed(3)
    image = np.zeros((3, 4, 5), np.float32)
    drawn = [random_flip(image, True, True, return_param=True)[1] for _ in range(20)]
    flips = [[p["y_flip"], p["x_flip"]] for p in drawn]
    assert flips == golden("transforms")[""]["flips"].tolist()


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_random_flip_with_a_generator(make: Any) -> None:
    image = np.arange(60).reshape(3, 4, 5)
    state = random.getstate()
    results = [random_flip(image, True, True, True, rng=make(seed)) for seed in range(40)]
    assert random.getstate() == state
    seen = set()
    for flipped, param in results:
        expected = image[:, :: -1 if param["y_flip"] else 1, :: -1 if param["x_flip"] else 1]
        assert flipped.tolist() == expected.tolist()
        seen.add((param["y_flip"], param["x_flip"]))
    assert len(seen) == 4


def test_random_flip_copies_only_when_asked() -> None:
    image = np.zeros((3, 4, 5))
    assert np.shares_memory(random_flip(image, True, True), image)
    assert not np.shares_memory(random_flip(image, True, True, copy=True), image)
    assert random_flip(image) is image
    with pytest.raises(ValueError, match=r"img: expected shape \(C, H, W\), got \(4, 5\)"):
        random_flip(image[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda b: resize_bbox(b, (5, 5), (-5, 5)), ValueError, "out_size: expected numbers of at"),
        (lambda b: rotate_bbox(b, "90", (5, 5)), TypeError, "angle: expected a number, got '90'"),
        (lambda b: rotate_bbox(b, 45, (5, 5)), ValueError, "angle: expected a multiple of 90"),
        (lambda b: translate_bbox(b, None), TypeError, "y_offset: expected a number, got None"),
    ],
)
def test_bad_settings_are_named(call: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.array([[1.0, 2.0, 3.0, 4.0]]))


def test_translation_adds_in_the_type_of_the_boxes() -> None:
    bbox = random_boxes(np.random.default_rng(0), 200)
    expected = bbox.copy()
    expected[:, 0::2] += np.float32(0.1)
    expected[:, 1::2] += np.float32(-7.3)
    assert_bits(translate_bbox(bbox, 0.1, -7.3), expected)
