"""Colours that differ for any colour vision, and text that can be read on them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from oxidet.visualize import PALETTE, label_colour
from oxidet.visualize.palette import contrast, text_colour

# Machado, Oliveira and Fernandes (2009), the matrices of severity 1, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(colour: tuple[int, int, int], vision: str) -> np.ndarray:
    """CIELAB (D65) of an sRGB colour as somebody sees it."""
    c = np.array(colour) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.asarray(to_xyz) @ linear / (0.95047, 1, 1.08883)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ(vision: str) -> None:
    for one, other in itertools.combinations(PALETTE, 2):
        assert np.linalg.norm(seen(one, vision) - seen(other, vision)) > 16, (one, other)


def test_text_can_be_read_on_any_colour() -> None:
    for colour in itertools.product(range(0, 256, 15), repeat=3):
        assert contrast(text_colour(colour), colour) >= 4.5, colour


def test_contrast() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == contrast((255, 255, 255), (0, 0, 0)) == 21
    assert contrast((9, 9, 9), (9, 9, 9)) == 1
    # From WCAG's understanding documents: #767676 is the lightest grey for text on white.
    assert contrast((0x76, 0x76, 0x76), (255, 255, 255)) >= 4.5
    assert contrast((0x77, 0x77, 0x77), (255, 255, 255)) < 4.5


def test_labels_beyond_the_palette_begin_again() -> None:
    assert len(set(PALETTE)) == len(PALETTE) >= 14
    assert label_colour(len(PALETTE)) == label_colour(0)
