"""Properties of the transforms of images: sizes, ranges, reproducibility, distributions."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import assert_close
from oxidet import transforms as T

sides = st.integers(1, 40)
images = st.builds(
    lambda channels, height, width, dtype, last, seed: make(
        channels, height, width, dtype, last, seed
    ),
    st.sampled_from([1, 3]), sides, sides, st.sampled_from([np.uint8, np.float32]), st.booleans(),
    st.integers(0, 99),
)  # fmt: skip


def make(
    channels: int, height: int, width: int, dtype: Any = np.uint8, last: bool = False, seed: int = 0
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (channels, height, width)).astype(dtype)
    if last:
        image = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    return image


RANDOM: dict[str, Any] = {
    "crop": T.RandomCrop(3, padding=3, padding_mode="edge"),
    "crop of a pair": T.RandomCrop((2, 4), padding=(4, 3), fill=9),
    "resized crop": T.RandomResizedCrop(5),
    "resized crop, bicubic": T.RandomResizedCrop((4, 7), (0.5, 0.6), (1, 2), "bicubic"),
    "resize": T.RandomResize(3, 9),
    "horizontal": T.RandomHorizontalFlip(),
    "vertical": T.RandomVerticalFlip(0.3),
    "jitter": T.ColorJitter(0.4, 0.4, 0.4, 0.2),
    "jitter in ranges": T.ColorJitter((0.5, 0.9), (1, 2), 0.0, (-0.5, 0.5)),
    "pca": T.PCAColor(),
}


@settings(max_examples=60, deadline=None)
@given(images, st.sampled_from(sorted(RANDOM)), st.integers(0, 2**32))
def test_random_transforms(image: np.ndarray, name: str, seed: int) -> None:
    if name == "pca" and len(image) == 1:
        return
    transform = RANDOM[name]
    before = image.copy()
    out = transform(image, np.random.default_rng(seed))
    again = transform(image, np.random.default_rng(seed))
    assert out.tobytes() == again.tobytes()
    assert out.dtype == image.dtype
    assert out.shape[0] == image.shape[0]
    # Bicubic weights overshoot in floats.
    assert "bicubic" in name or (out.min() >= 0 and out.max() <= 255)
    np.testing.assert_array_equal(image, before)
    size = {"crop": (3, 3), "crop of a pair": (2, 4), "resized crop": (5, 5),
            "resized crop, bicubic": (4, 7)}  # fmt: skip
    if name == "resize":
        assert 3 <= min(out.shape[1:]) <= 9
    else:
        assert out.shape[1:] == size.get(name, image.shape[1:])
    assert repr(transform).startswith(type(transform).__name__ + "(")


@settings(max_examples=60, deadline=None)
@given(images, st.integers(1, 30), st.sampled_from(["bilinear", "bicubic", "nearest"]))
def test_resizing_keeps_type_order_and_constants(
    image: np.ndarray, size: int, interpolation: Any
) -> None:
    out = T.resize(image, size, interpolation)
    assert out.dtype == image.dtype
    assert out.shape[1:] == T.resized_size(image.shape[1:], size)
    assert not np.shares_memory(out, image)
    if len(image) > 1 and image.transpose(1, 2, 0).flags.c_contiguous:
        assert out.transpose(1, 2, 0).flags.c_contiguous
    constant = np.full_like(image, 77)
    assert_close(T.resize(constant, size, interpolation), np.full_like(out, 77), 1e-6)
    mirrored = T.hflip(T.resize(T.hflip(image), size, interpolation))
    if interpolation != "nearest":  # which looks to the left
        tolerance = 0 if image.dtype == np.uint8 else 1e-3
        assert np.abs(mirrored.astype(float) - out).max() <= tolerance + (image.dtype == np.uint8)


@settings(max_examples=60, deadline=None)
@given(images, sides, sides)
def test_the_centre_is_in_the_middle(image: np.ndarray, height: int, width: int) -> None:
    out = T.center_crop(image, (height, width))
    assert out.shape == (len(image), height, width)
    kept = [min(a, b) for a, b in zip(image.shape[1:], (height, width), strict=True)]
    middle = T.center_crop(image, tuple(kept))
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    inside = out[:, top : top + kept[0], left : left + kept[1]]
    np.testing.assert_array_equal(inside, middle)
    assert out.sum(dtype=np.float64) == middle.sum(dtype=np.float64)  # the border is black


def test_crops_beyond_the_image_are_black() -> None:
    image = make(3, 5, 6)
    for top, left, size in [(-20, 50, (3, 4)), (9, 9, (2, 2)), (-3, -4, (3, 4)), (-1, -1, (9, 9))]:
        out = T.crop(image, top, left, *size)
        assert out.shape == (3, *size)
        padded = np.pad(image, ((0, 0), (60, 60), (60, 60)))
        window = padded[:, 60 + top : 60 + top + size[0], 60 + left : 60 + left + size[1]]
        np.testing.assert_array_equal(out, window)


def test_ten_crops() -> None:
    image = make(3, 9, 11)
    crops = T.ten_crop(image, (4, 5))
    np.testing.assert_array_equal(crops[0], image[:, :4, :5])
    np.testing.assert_array_equal(crops[3], image[:, 5:, 6:])
    np.testing.assert_array_equal(crops[4], image[:, 2:6, 3:8])  # round(2.5) is 2
    np.testing.assert_array_equal(crops[5], image[:, :4, :-6:-1])
    np.testing.assert_array_equal(crops[7], crops[3][:, :, ::-1])
    assert T.FiveCrop((4, 5))(image)[1].tobytes() == crops[1].tobytes()
    assert len(T.TenCrop(3, vertical_flip=True)(image)) == 10


def test_random_crops_reach_every_place_alike() -> None:
    """AlexNet's 224 of 256 in small: 33 x 33 places there, 3 x 4 here."""
    image = np.arange(6 * 7, dtype=np.float32).reshape(1, 6, 7)
    rng = np.random.default_rng(0)
    counts = np.zeros((6, 7), int)
    for _ in range(6000):
        first = int(T.RandomCrop(4)(image, rng)[0, 0, 0])
        counts[divmod(first, 7)] += 1
    assert counts[:3, :4].sum() == 6000
    assert counts[:3, :4].min() > 400  # 500 each, deviation 21


def test_random_resized_crop_draws_what_the_rule_says() -> None:
    rng = np.random.default_rng(0)
    drawn = [T.RandomResizedCrop(5).draw(300, 400, rng) for _ in range(3000)]
    for top, left, height, width in drawn:
        assert 0 <= top <= 300 - height
        assert 0 <= left <= 400 - width
        assert 0.07 < height * width / (300 * 400) <= 1.001
        assert 0.74 < width / height < 1.35
    shares = np.array([h * w for _, _, h, w in drawn]) / (300 * 400)
    # Uniform below the area where a try may fail to fit.
    small = shares[shares < 0.56]
    assert abs(np.mean(small < (0.08 + 0.56) / 2) - 0.5) < 0.03
    logs = np.log([w / h for _, _, h, w in drawn])
    assert abs(logs[shares < 0.5].mean()) < 0.02


@pytest.mark.parametrize(
    ("size", "part"),
    [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))],
)
def test_random_resized_crop_falls_back_to_the_centre(
    size: tuple[int, int], part: tuple[int, int, int, int]
) -> None:
    cut = T.RandomResizedCrop(5, scale=(1.0, 1.0))
    assert cut.draw(*size, np.random.default_rng(0)) == part
    whole = T.RandomResizedCrop(5, scale=(4.0, 4.0))
    assert whole.draw(30, 36, np.random.default_rng(0)) == (0, 0, 30, 36)


def test_flips_come_with_their_probability() -> None:
    image, rng = np.array([[[0, 1], [2, 3]]], np.uint8), np.random.default_rng(0)
    for transform, mirrored in [
        (T.RandomHorizontalFlip(0.3), [1, 0, 3, 2]),
        (T.RandomVerticalFlip(0.3), [2, 3, 0, 1]),
    ]:
        seen = [transform(image, rng).ravel().tolist() for _ in range(2000)]
        assert 500 < seen.count(mirrored) < 700
        assert seen.count([0, 1, 2, 3]) == 2000 - seen.count(mirrored)


def test_scale_jitter_includes_both_ends() -> None:
    rng, image = np.random.default_rng(0), np.zeros((1, 4, 5), np.uint8)
    seen = {T.RandomResize(3, 6)(image, rng).shape[1] for _ in range(100)}
    assert seen == {3, 4, 5, 6}


def test_pca_colour() -> None:
    image = make(3, 5, 5, np.float32) / 4 + 90
    alpha = np.array([0.1, -0.2, 0.05])
    shift = T.pca_color(image, alpha) - image
    values = np.array([0.2175, 0.0188, 0.0045]) * alpha
    red = 255 * (-0.5675 * values[0] + 0.7192 * values[1] + 0.4009 * values[2])
    assert_close(shift[0], np.full((5, 5), red), 1e-4)
    rng = np.random.default_rng(0)
    grey = np.full((3, 1, 1), 128, np.float32)
    shifts = np.array([T.PCAColor()(grey, rng)[:, 0, 0] - 128 for _ in range(4000)])
    vectors = np.array(T.PCAColor().eigenvectors)
    expected = vectors @ np.diag((25.5 * np.array([0.2175, 0.0188, 0.0045])) ** 2) @ vectors.T
    assert_close(np.cov(shifts.T), expected, 0.1)


def test_colour_components() -> None:
    rng = np.random.default_rng(0)
    mixing = np.array([[20, 5, 0], [18, 0, 4], [22, -4, -3.0]])
    images = [(mixing @ rng.standard_normal((3, 600)) + 128).reshape(3, 20, 30) for _ in range(9)]
    values, vectors = T.color_components(images)
    pixels = np.concatenate([i.reshape(3, -1) for i in images], axis=1) / 255
    covariance = np.cov(pixels, bias=True)
    assert values[0] > values[1] > values[2] > 0
    assert_close(vectors @ np.diag(values) @ vectors.T, covariance, 1e-5)
    assert_close(vectors.T @ vectors, np.eye(3), 1e-6)


@settings(max_examples=40, deadline=None)
@given(npst.arrays(np.uint8, (3, 4, 5)), st.floats(-0.5, 0.5))
def test_hues_keep_brightest_and_darkest(image: np.ndarray, turn: float) -> None:
    out = T.adjust_hue(image.astype(np.float32), turn)
    assert np.abs(out.max(axis=0) - image.max(axis=0)).max() < 0.01
    assert np.abs(out.min(axis=0) - image.min(axis=0)).max() < 0.01
    assert np.abs(T.adjust_hue(out, -turn) - image).max() < 0.05
    np.testing.assert_array_equal(T.adjust_hue(image, 0.0), image)


def test_a_recipe_of_training() -> None:
    """Transforms of an image in a row, as a data set of a classifier takes them."""
    steps = (T.RandomResize(20, 30), T.RandomCrop(16), T.RandomHorizontalFlip(), T.PCAColor())
    recipe = T.Compose([*steps, T.Grayscale(3), T.Resize(8), T.CenterCrop(6), T.Pad(1)])
    image = make(3, 24, 40)
    out = recipe(image, np.random.default_rng(3))
    assert out.shape == (3, 8, 8)
    assert out.tobytes() == recipe(image, np.random.default_rng(3)).tobytes()
    assert out.tobytes() != recipe(image, np.random.default_rng(4)).tobytes()


def test_refusals() -> None:
    image, rng, pair = make(3, 5, 6), np.random.default_rng(0), (8, 8)
    sample = T.Sample(image.astype(np.float32), np.zeros((0, 4)), np.zeros(0))
    for call, error, message in [
        (lambda: T.center_crop(image[0], 3), ValueError, r"img: expected 3 dimensions \(C, H, W\)"),
        (lambda: T.resize(sample, 4), TypeError, "img: expected an array .* got Sample"),
        (lambda: T.five_crop(image, 6), ValueError, r"size: expected at most the image's \(5, 6\)"),
        (lambda: T.RandomCrop(7)(image, rng), ValueError, r"at least \(7, 7\) pixels, got"),
        (lambda: T.crop(image, 0, 0, 0, 3), ValueError, "height"),
        (lambda: T.pad(image, (1, 2, 3)), ValueError, "padding: expected one, two or four widths"),
        (lambda: T.pad(image, -1), ValueError, "padding"),
        (lambda: T.pad(image, 1, fill=(1, 2)), ValueError, "fill: expected a number, or one for"),
        (lambda: T.pad(image, 1, padding_mode="wrap"), ValueError, "padding_mode"),
        (lambda: T.grayscale(make(1, 2, 2), 2), ValueError, "num_output_channels"),
        (lambda: T.grayscale(np.zeros((2, 4, 4))), ValueError, "expected 1 or 3 channels"),
        (lambda: T.adjust_hue(image, 0.6), ValueError, "hue_factor: expected a number from -0.5"),
        (lambda: T.adjust_contrast(image, -1), ValueError, "contrast_factor"),
        (lambda: T.ColorJitter(hue=0.7), ValueError, "hue: expected a range within"),
        (lambda: T.ColorJitter(brightness=(2, 1)), ValueError, "brightness"),
        (lambda: T.RandomHorizontalFlip(1.5), ValueError, "p: expected a number from 0 to 1"),
        (lambda: T.RandomResizedCrop(5, scale=(0, 1)), ValueError, "scale"),
        (lambda: T.RandomResizedCrop(5, ratio=(2, 1)), ValueError, "ratio"),
        (lambda: T.RandomResize(9, 8), ValueError, "max_size"),
        (lambda: T.resize(image, 8, max_size=8), ValueError, "max_size: expected more than"),
        (lambda: T.resize(image, (8, 8), max_size=9), ValueError, "max_size: expected None"),
        (lambda: T.resize(image, pair, "bicubic", edge="clamp"), ValueError, "edge: expected None"),
        (lambda: T.resize(image, 8, "lanczos"), ValueError, "interpolation: expected one of"),
        (lambda: T.normalize(image, (0, 0), (1, 1)), ValueError, "mean: expected shape"),
        (lambda: T.normalize(image, (0, 0, 0), (1, 0, 1)), ValueError, "std: expected numbers"),
        (lambda: T.pca_color(image, (1, 2)), ValueError, r"alpha: expected shape \(3,\)"),
        (lambda: T.color_components([]), ValueError, "images: expected at least one"),
        (lambda: T.pad(image, 1.5), TypeError, "padding: expected an integer, got 1.5"),
        (lambda: T.pad(image, 1, fill=256), ValueError, "fill: expected 0 to 255 for uint8"),
        (lambda: T.pad(image, 1, fill=(0, -1, 0)), ValueError, "fill: expected 0 to 255 for uint8"),
        (lambda: T.pad(image, 1, fill=None), TypeError, "fill: expected an array of numbers"),
        (lambda: T.pad(image, 1, fill="red"), TypeError, "fill: expected an array of numbers"),
        (lambda: T.center_crop(image, 2**31 - 1), MemoryError, "padding: the result of shape"),
        (lambda: T.ColorJitter((1,)), TypeError, r"brightness: expected a pair \(low, high\)"),
        (lambda: T.ColorJitter(np.inf), ValueError, "brightness: expected a range within"),
        (lambda: T.RandomResizedCrop(5, scale=1), TypeError, r"scale: expected a pair"),
        (lambda: T.RandomResizedCrop(5, ratio=(1, np.inf)), ValueError, "ratio: expected finite"),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            call()
    for mode in ("edge", "reflect", "symmetric"):
        with pytest.raises(ValueError, match=r"img: expected at least one pixel, got shape \(3, 0"):
            T.pad(image[:, :0], 1, padding_mode=mode)
    with pytest.raises(ValueError, match="img: expected at least one pixel"):
        T.RandomResizedCrop(5)(image[:, :0], rng)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("rng", [None, 0, np.random, np.random.RandomState(0)])
def test_only_a_generator_is_drawn_from(name: str, rng: Any) -> None:
    with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator, got"):
        RANDOM[name](make(3, 8, 8), rng)


def test_an_empty_image_has_no_contrast_to_change() -> None:
    assert T.adjust_contrast(make(3, 4, 4)[:, :0], 0.5).shape == (3, 0, 4)


def test_brightness_of_a_mean_is_exact() -> None:
    image = make(3, 7, 9)
    assert T.adjust_brightness(image, 0).max() == 0
    for function in (T.adjust_brightness, T.adjust_contrast, T.adjust_saturation):
        np.testing.assert_array_equal(function(image, 1.0), image)
    flat = T.adjust_contrast(image, 0)
    assert flat.min() == flat.max() == math.floor(T.grayscale(image).mean())
    grey = T.adjust_saturation(image, 0)
    np.testing.assert_array_equal(grey, T.grayscale(image, 3))


def test_an_impossible_size_is_refused_when_constructed() -> None:
    for kind in ("Resize", "RandomCrop", "CenterCrop", "FiveCrop", "TenCrop"):
        for odd in (0, (4, -1)):
            with pytest.raises(ValueError, match=r"^size: expected .* at least 1, got"):
                getattr(T, kind)(odd)
