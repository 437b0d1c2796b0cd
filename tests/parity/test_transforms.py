"""Transforms of images against Pillow and torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import transforms as ours

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
image_module = pytest.importorskip("PIL.Image")
theirs = pytest.importorskip("torchvision.transforms.v2.functional")
Modes = torchvision.transforms.InterpolationMode

MODES = {
    "bilinear": (Modes.BILINEAR, image_module.Resampling.BILINEAR),
    "bicubic": (Modes.BICUBIC, image_module.Resampling.BICUBIC),
    "nearest-exact": (Modes.NEAREST_EXACT, image_module.Resampling.NEAREST),
    "nearest": (Modes.NEAREST, None),
}
SIZES = [tuple(map(int, sizes)) for sizes in np.random.default_rng(0).integers(1, 70, (60, 4))]
SIZES += [(375, 500, 256, 341), (224, 224, 299, 299), (7, 500, 7, 30), (300, 5, 40, 5)]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest-exact"])
def test_resize_gives_pillows_pixels(mode: Any) -> None:
    wrong = []
    for height, width, *size in SIZES:
        img = noise(height, width, 3)
        want = np.asarray(image_module.fromarray(img).resize(size[::-1], MODES[mode][1]))
        got = ours.resize(img.transpose(2, 0, 1), size, mode).transpose(1, 2, 0)
        if not np.array_equal(got, want):
            wrong.append((img.shape, size, np.abs(got.astype(int) - want).max()))
    # An older Pillow may take the axes in another order, which rounds differently.
    version = tuple(map(int, image_module.__version__.split(".")[:1]))
    assert not wrong or version < (13,), wrong


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("antialias", [False, True])
def test_resize_of_floats_is_torchs(mode: Any, antialias: bool) -> None:
    for height, width, *size in SIZES:
        if size[1] == 1:
            continue  # torch's antialiasing to a single column is not the average of all columns
        img = noise(3, height, width).astype(np.float32)
        want = theirs.resize(
            torch.from_numpy(img), size, interpolation=MODES[mode][0], antialias=antialias
        )
        got = ours.resize(img, size, mode, antialias=antialias)
        assert_close(got, want.numpy(), 1e-4, f"{img.shape} to {size}")


@pytest.mark.parametrize("size", [256, 64, [64], (40, 100)])
@pytest.mark.parametrize("max_size", [None, 90])
def test_sizes_are_torchvisions(size: Any, max_size: int | None) -> None:
    if max_size is not None and (isinstance(size, tuple) or size == 256):
        pytest.skip("torchvision refuses these together")
    for height, width in ((48, 64), (64, 48), (50, 50), (375, 500), (333, 77), (77, 333)):
        want = theirs.resize(torch.zeros(3, height, width), size, max_size=max_size)
        got = ours.resize(np.zeros((3, height, width), np.uint8), size, max_size=max_size)
        assert got.shape == tuple(want.shape)


GEOMETRY: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "center_crop": ((13,), {}),
    "center_crop larger": (((60, 9),), {}),
    "center_crop even": (((10, 11),), {}),
    "crop": ((3, 5, 10, 7), {}),
    "crop beyond": ((-4, 30, 50, 40), {}),
    "five_crop": ((11,), {}),
    "ten_crop": (((12, 9),), {}),
    "ten_crop vertical": ((9,), {"vertical_flip": True}),
    "pad": ((3,), {"fill": 7}),
    "pad pair": (([1, 4],), {}),
    "pad four": (([1, 2, 3, 4],), {"fill": [1, 2, 3]}),
    "pad reflect": (([1, 2, 3, 4],), {"padding_mode": "reflect"}),
    "pad symmetric": (([5, 4],), {"padding_mode": "symmetric"}),
    "pad edge": ((2,), {"padding_mode": "edge"}),
    "hflip": ((), {}),
    "vflip": ((), {}),
    "resized_crop": ((3, 5, 20, 25, (12, 13)), {}),
}


@pytest.mark.parametrize("case", GEOMETRY)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels_last", [False, True])
def test_geometry(case: str, dtype: Any, channels_last: bool) -> None:
    name = case.split()[0]
    arguments, options = GEOMETRY[case]
    renamed = {
        "center_crop": "center_crop", "five_crop": "five_crop", "ten_crop": "ten_crop",
        "hflip": "horizontal_flip", "vflip": "vertical_flip",
    }  # fmt: skip
    img = noise(3, 31, 44).astype(dtype)
    if channels_last:
        img = np.ascontiguousarray(img.transpose(1, 2, 0)).transpose(2, 0, 1)
    reference = torch.from_numpy(np.ascontiguousarray(img))
    listed = [list(a) if isinstance(a, tuple) else a for a in arguments]
    want = getattr(theirs, renamed.get(name, name))(reference, *listed, **options)
    got = getattr(ours, name)(img, *arguments, **options)
    if not isinstance(want, (list, tuple)):
        got, want = [got], [want]
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == dtype
        assert one.shape == tuple(other.shape)
        tolerance = 1 if name == "resized_crop" and dtype == np.uint8 else 1e-3
        assert np.abs(one.astype(float) - other.numpy()).max() <= tolerance


def colours() -> np.ndarray:
    img = noise(3, 40, 41)
    img[:, :3] = np.array([0, 1, 128, 254, 255] * 9, np.uint8)[:41]  # greys
    img[0, 5:9] = img[1, 5:9]  # two equal channels
    return img


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_colours_are_pillows(name: str) -> None:
    img = colours()
    picture = image_module.fromarray(img.transpose(1, 2, 0))
    for factor in (0, 0.4, 0.6, 0.99, 1, 1.4, 3):
        want = np.asarray(getattr(theirs, name)(picture, factor)).transpose(2, 0, 1)
        got = getattr(ours, name)(img, factor)
        assert np.abs(got.astype(int) - want).max() <= 1, factor


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_colours_are_torchvisions(name: str, dtype: Any) -> None:
    img = colours()
    turns, factors = (-0.5, -0.3, -0.01, 0.0, 0.1, 1 / 3, 0.5), (0, 0.4, 0.6, 1, 1.4)
    for factor in turns if name == "hue" else factors:
        function = getattr(theirs, f"adjust_{name}")
        if dtype == np.uint8:
            want = function(torch.from_numpy(img), factor).numpy().astype(float)
        else:  # torchvision's floats are of 0..1
            want = function(torch.from_numpy(img.astype(np.float32) / 255), factor).numpy() * 255
        got = getattr(ours, f"adjust_{name}")(img.astype(dtype), factor)
        assert got.dtype == dtype
        # torchvision's grey has .2989 for .299.
        assert np.abs(got - want).max() <= (1 if dtype == np.uint8 else 0.06), factor


def test_grey() -> None:
    img = noise(3, 50, 51)
    for channels in (1, 3):
        got = ours.grayscale(img, channels).astype(int)
        want = theirs.rgb_to_grayscale(torch.from_numpy(img), channels).numpy()
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= 1
    pillow = np.asarray(image_module.fromarray(img.transpose(1, 2, 0)).convert("L"))
    np.testing.assert_array_equal(ours.grayscale(img)[0], pillow)


def test_normalize() -> None:
    img = noise(3, 5, 6).astype(np.float32) / 255
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    want = theirs.normalize(torch.from_numpy(img), mean, std).numpy()
    assert_close(ours.normalize(img, mean, std), want, 1e-6)


@pytest.mark.parametrize(
    ("crop", "resize", "mode"),
    [(224, 256, "bilinear"), (224, 232, "bilinear"), (299, 342, "bilinear"), (299, 341, "bicubic")],
)
@pytest.mark.parametrize("size", [(375, 500), (301, 250), (64, 90), (256, 256), (700, 233)])
def test_preset(crop: int, resize: int, mode: Any, size: tuple[int, int]) -> None:
    presets = pytest.importorskip("torchvision.transforms._presets")
    picture = image_module.fromarray(noise(*size, 3))
    preset = presets.ImageClassification(
        crop_size=crop, resize_size=resize, interpolation=MODES[mode][0]
    )
    got = ours.ImageClassification(crop, resize_size=resize, interpolation=mode)(picture)
    assert_close(got, preset(picture).numpy(), 1e-6)
