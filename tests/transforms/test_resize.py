"""Resizing against formulas written out pixel by pixel; torch itself is in tests/parity."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conftest import assert_close
from oxidet.transforms import resize

SIZES = [
    ((1, 1), (1, 1)),
    ((1, 1), (3, 4)),
    ((1, 5), (4, 1)),
    ((2, 2), (5, 7)),
    ((5, 7), (2, 2)),
    ((5, 7), (5, 7)),
    ((6, 4), (7, 3)),
    ((9, 13), (20, 31)),
    ((33, 21), (12, 50)),
]


def bilinear(img: np.ndarray, size: tuple[int, int], edge: str) -> np.ndarray:
    """The definition in float64: one pixel at a time, each coordinate moved inside as asked."""

    def inside(position: float, length: int) -> float:
        if edge == "clamp":
            return min(max(position, 0.0), length - 1.0)
        if length == 1:
            return 0.0
        period = 2.0 * (length - 1)
        position = math.fmod(abs(position), period)
        return min(position, period - position)

    channels, height, width = img.shape
    out = np.empty((channels, *size))
    for i in range(size[0]):
        y = inside((i + 0.5) * height / size[0] - 0.5, height)
        y0, fy = int(y), y - int(y)
        y1 = min(y0 + 1, height - 1)
        for j in range(size[1]):
            x = inside((j + 0.5) * width / size[1] - 0.5, width)
            x0, fx = int(x), x - int(x)
            x1 = min(x0 + 1, width - 1)
            upper = img[:, y0, x0] * (1 - fx) + img[:, y0, x1] * fx
            lower = img[:, y1, x0] * (1 - fx) + img[:, y1, x1] * fx
            out[:, i, j] = upper * (1 - fy) + lower * fy
    return out


@pytest.mark.parametrize("edge", ["clamp", "mirror"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_definition(
    old: tuple[int, int], new: tuple[int, int], channels_last: bool, edge: str
) -> None:
    img = np.random.default_rng(0).random((3, *old), np.float32) * 255
    if channels_last:
        img = np.ascontiguousarray(img.transpose(1, 2, 0)).transpose(2, 0, 1)
    got = resize(img, new, edge=edge)  # type: ignore[arg-type]
    assert got.dtype == np.float32
    assert_close(got, bilinear(img, new, edge), 5e-6)


def test_skimage_rule_as_an_order_1_spline() -> None:
    """simple-faster-rcnn's back-end: skimage maps pixel centres and lets ndimage interpolate."""
    ndimage = pytest.importorskip("scipy.ndimage")
    img = np.random.default_rng(1).random((3, 37, 50)).astype(np.float32)
    for size in ((60, 81), (20, 33), (37, 100)):
        rows = (np.arange(size[0]) + 0.5) * 37 / size[0] - 0.5
        columns = (np.arange(size[1]) + 0.5) * 50 / size[1] - 0.5
        grid = np.meshgrid(rows, columns, indexing="ij")
        expected = [
            ndimage.map_coordinates(plane.astype(np.float64), grid, order=1, mode="mirror")
            for plane in img
        ]
        assert_close(resize(img, size, edge="mirror"), np.stack(expected), 1e-6)


def test_the_edges_differ_where_they_should() -> None:
    ramp = np.array([[[0.0, 8.0]]])
    assert resize(ramp, (1, 4)).ravel().tolist() == [0, 2, 6, 8]
    assert resize(ramp, (1, 4), edge="mirror").ravel().tolist() == [2, 2, 6, 6]
    shrunk = np.random.default_rng(0).random((3, 40, 40), np.float32)
    clamped = resize(shrunk, (13, 17), edge="clamp")
    assert_close(clamped, resize(shrunk, (13, 17), edge="mirror"), 5e-6)


def test_memory_order_and_ownership() -> None:
    img = np.random.default_rng(0).random((3, 8, 9), np.float32)
    last = np.ascontiguousarray(img.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert resize(img, (4, 5)).flags.c_contiguous
    assert resize(last, (4, 5)).transpose(1, 2, 0).flags.c_contiguous
    for source in (img, last):
        same = resize(source, (8, 9))
        assert not np.shares_memory(same, source)
        np.testing.assert_array_equal(same, img)


def test_any_number_of_channels_and_types() -> None:
    assert resize(np.zeros((0, 4, 5)), (2, 3)).shape == (0, 2, 3)
    for edge, dtype in ((None, np.uint8), ("clamp", np.float32), ("mirror", np.float32)):
        grey = resize(np.full((1, 4, 5), 200, np.uint8), (8, 9), edge=edge)  # type: ignore[arg-type]
        assert (grey.dtype, grey.min(), grey.max()) == (dtype, 200, 200)
    flipped = np.arange(20.0).reshape(1, 4, 5)[:, :, ::-1]
    assert_close(resize(flipped, (7, 6)), bilinear(flipped, (7, 6), "clamp"), 1e-6)


def test_arguments() -> None:
    img = np.zeros((3, 4, 5), np.float32)
    for arguments, error, words in (
        (((4, 5), (2, 2)), ValueError, "img"),
        ((np.zeros((3, 0, 5)), (2, 2)), ValueError, "at least one pixel"),
        ((img, (0, 2)), ValueError, "size"),
        ((img, (2.0, 2)), TypeError, "size"),
    ):
        with pytest.raises(error, match=words):
            resize(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="edge"):
        resize(img, (2, 2), edge="wrap")  # type: ignore[arg-type]
