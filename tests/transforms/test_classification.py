"""The recipe of a classification network, step by step."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet.transforms import ImageClassification, center_crop, resize
from oxidet.transforms.resize import resize_middle

PICTURE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
PLAIN: dict[str, Any] = {"mean": 0, "std": 1, "scale": 1}


def test_channels_and_range() -> None:
    colour = np.empty((9, 9, 3), np.uint8)
    colour[:] = 200, 100, 50
    for recipe, expected in [
        (ImageClassification(5, resize_size=None, **PLAIN), [200, 100, 50]),
        (ImageClassification(5, resize_size=None, channels="BGR", **PLAIN), [50, 100, 200]),
        (ImageClassification(5, resize_size=None, channels="L", **PLAIN), [124]),
        (ImageClassification.caffe(5), [50 - 104, 100 - 117, 200 - 123]),
        (ImageClassification(5, mean=0.5, std=0.5), [145 / 255, -55 / 255, -155 / 255]),
        (ImageClassification(5, mean=0, std=1, scale=1 / 256, channels="L"), [124 / 256]),
        (ImageClassification(5, mean=(1, 2, 3), std=(2, 4, 5), scale=1), [99.5, 24.5, 9.4]),
    ]:  # fmt: skip
        x = recipe(colour)
        assert x.dtype == np.float32
        assert x.shape == (len(expected), 5, 5)
        assert x.transpose(1, 2, 0).flags.c_contiguous
        assert_close(x, np.broadcast_to(np.array(expected)[:, None, None], x.shape), 1e-6)
        back = recipe.inverse(x)
        assert_close(back[:, 0, 0], [200, 100, 50] if len(back) == 3 else [124], 1e-5)


def test_lenet_of_1998_has_its_background_around() -> None:
    recipe = ImageClassification(32, resize_size=28, mean=0.1 / 1.275, std=1 / 1.275, channels="L")
    x = recipe(np.full((28, 28), 255, np.uint8))
    assert_close(x[0, 2:30, 2:30], np.full((28, 28), 1.175), 1e-6)
    assert_close(x[0, 0], np.full(32, -0.1), 1e-6)


@pytest.mark.parametrize(
    ("resize", "crop", "seen"),
    [(16, 16, (16, 22)), ((20, 30), 12, (20, 30)), (None, (37, 53), (37, 53)), (20, 24, (20, 28))],
)
def test_sizes(resize: Any, crop: Any, seen: tuple[int, int]) -> None:
    image_module = pytest.importorskip("PIL.Image")
    x = ImageClassification(crop, resize_size=resize, **PLAIN)(PICTURE)
    resized = np.asarray(
        image_module.fromarray(PICTURE).resize(seen[::-1], image_module.Resampling.BILINEAR)
    )
    h, w = (crop, crop) if isinstance(crop, int) else crop
    top, left = round((seen[0] - h) / 2), round((seen[1] - w) / 2)
    inside = x[:, max(-top, 0) : h + min(top, 0), :]
    expected = resized[max(top, 0) : max(top, 0) + h, left : left + w].transpose(2, 0, 1)
    np.testing.assert_array_equal(inside, expected)
    assert x.sum() == expected.sum(dtype=np.float64)


def test_what_it_reads(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    recipe = ImageClassification(16, resize_size=20)
    expected = recipe(PICTURE)
    image_module.fromarray(PICTURE).save(tmp_path / "a.png")
    for form in (tmp_path / "a.png", image_module.fromarray(PICTURE), PICTURE.transpose(2, 0, 1)):
        np.testing.assert_array_equal(recipe(form), expected)
    assert recipe(PICTURE, np.random.default_rng(0)).tobytes() == expected.tobytes()
    grey = recipe(image_module.fromarray(PICTURE).convert("L"))
    assert grey.shape == (3, 16, 16)


def test_text_is_the_call() -> None:
    recipes = [
        ImageClassification(224),
        ImageClassification(299, resize_size=342, mean=0.5, std=0.5, interpolation="bicubic"),
        ImageClassification.caffe((227, 227), resize_size=None),
        ImageClassification(28, resize_size=28, mean=0, std=1, scale=1 / 256, channels="L"),
        ImageClassification(28, mean=[1, 2, 3], std=[1, 1, 1], antialias=False),  # type: ignore[arg-type]
    ]
    for recipe in recipes:
        assert eval(repr(recipe)) == recipe
    assert repr(recipes[3]).endswith("channels='L', scale=1/256)")
    assert len(set(recipes)) == len(recipes)


def test_refusals() -> None:
    for arguments, error, message in [
        ({"crop_size": 0}, ValueError, "crop_size: expected an integer of at least 1, got 0"),
        ({"crop_size": "224"}, TypeError, "crop_size: expected an integer, got '224'"),
        ({"crop_size": (1, 2, 3)}, TypeError, "crop_size: expected an integer or a pair"),
        ({"crop_size": 4, "resize_size": -1}, ValueError, "resize_size"),
        ({"crop_size": 4, "mean": (1, 2)}, ValueError, "mean: expected a number or 3 for channels"),
        ({"crop_size": 4, "std": (1, 2, 0)}, ValueError, "std: expected positive numbers, got 0"),
        ({"crop_size": 4, "channels": "RBG"}, ValueError, "channels: expected one of"),
        ({"crop_size": 4, "interpolation": "cubic"}, ValueError, "interpolation: expected one of"),
        ({"crop_size": 4, "channels": "L"}, ValueError, "mean: expected a number or 1"),
        ({"crop_size": 4, "mean": None}, TypeError, "mean: expected a number, got None"),
        ({"crop_size": 4, "mean": (1, math.nan, 2)}, ValueError, "mean: expected finite numbers"),
        ({"crop_size": 4, "std": math.inf}, ValueError, "std: expected positive numbers, got inf"),
        ({"crop_size": 4, "scale": "1/255"}, TypeError, "scale: expected a number, got '1/255'"),
        ({"crop_size": 4, "scale": 0}, ValueError, "scale: expected positive numbers, got 0"),
        ({"crop_size": 4, "scale": (1, 1, 1)}, TypeError, "scale: expected a number"),
    ]:
        with pytest.raises(error, match=message):
            ImageClassification(**arguments)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_kept_as_pythons() -> None:
    given: Any = ImageClassification(
        np.int64(8), resize_size=[9, np.int32(9)], mean=np.arange(3), std=np.float32(0.5)
    )
    same = ImageClassification(8, resize_size=(9, 9), mean=(0, 1, 2), std=0.5)
    assert given == same
    assert repr(given) == repr(same)
    assert hash(given) == hash(same)
    assert json.dumps(dataclasses.asdict(given)) == json.dumps(dataclasses.asdict(same))


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (5, 40), (40, 5), (37, 53), (3, 3)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "nearest-exact"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_middle_alone_is_resized_to_the_same_pixels(
    shape: tuple[int, int], interpolation: Any, dtype: Any
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype(dtype)
    for size, crop in itertools.product((7, 20, 3, (6, 11), (11, 6)), (7, 3, 12, (4, 30), (30, 4))):
        for antialias in (True, False):
            whole = resize(image, size, interpolation, antialias=antialias)
            part = resize_middle(image, size, crop, interpolation, antialias)
            np.testing.assert_array_equal(center_crop(part, crop), center_crop(whole, crop))


def test_a_sliver_takes_no_more_memory_than_its_crop() -> None:
    # All of 256 x 25,600,000 pixels would be 20 GB, and their crop is 224 x 224.
    image = np.zeros((2, 200_000, 3), np.uint8)
    image[:, 99_998:100_002] = 255
    tracemalloc.start()
    try:
        x = ImageClassification(224, **PLAIN)(image)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert x.shape == (3, 224, 224)
    assert (x == 255).all()
