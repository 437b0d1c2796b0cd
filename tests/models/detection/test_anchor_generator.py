"""AnchorGenerator: the table of cell anchors, the grid, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oxidet.models.detection import AnchorGenerator, ImageList

SIZES = ((32,), (64,), (128,), (256,), (512,))


def test_cell_anchors_are_rounded() -> None:
    generator = AnchorGenerator(SIZES, (0.5, 1.0, 2.0))
    halves = [
        [(23, 11), (16, 16), (11, 23)],
        [(45, 23), (32, 32), (23, 45)],
        [(91, 45), (64, 64), (45, 91)],
        [(181, 91), (128, 128), (91, 181)],
        [(362, 181), (256, 256), (181, 362)],
    ]
    for anchors, expected in zip(generator.cell_anchors, halves, strict=True):
        assert anchors.tolist() == [[-x, -y, x, y] for x, y in expected]


def test_the_pyramid_of_a_padded_batch() -> None:
    maps = [(200, 272), (100, 136), (50, 68), (25, 34), (13, 17)]
    generator = AnchorGenerator(SIZES, ((0.5, 1.0, 2.0),) * 5)
    images = ImageList(np.zeros((2, 1, 800, 1088), np.float32), [(800, 1088), (700, 900)])
    first, second = generator(images, [np.zeros((2, 1, *size), np.float32) for size in maps])
    assert first.shape == (217413, 4)
    assert (first == second).all()
    assert not np.shares_memory(first, second)
    # The last map has 13 rows and 17 columns, so cells are 61 and 64 pixels apart.
    assert first[-1].tolist() == [16 * 64 - 181, 12 * 61 - 362, 16 * 64 + 181, 12 * 61 + 362]


def test_bad_input_is_named() -> None:
    cases: list[tuple[Any, type, str]] = [
        ((((32, 0),),), ValueError, "sizes: expected positive finite numbers, got 0"),
        ((("32",),), TypeError, "sizes: expected a number, got '32'"),
        ((((32,),), ((-1.0,),)), ValueError, "aspect_ratios: expected positive"),
        ((32,), TypeError, "sizes: expected a tuple for each feature map, got 32"),
        (((),), TypeError, "sizes: expected a tuple for each"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            AnchorGenerator(*arguments)
    images = ImageList(np.zeros((1, 3, 8, 8)), [(8, 8)])
    with pytest.raises(ValueError, match="feature_maps: expected 1, as many as"):
        AnchorGenerator()(images, [np.zeros((1, 1, 2, 2))] * 2)
