"""Colours that people with any kind of colour vision tell apart, and VOC's own colour map."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32

Colour = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design" (2008), without black; then, for the labels from 7 on,
# those that differ most from all before, from black and from white, for normal vision and in
# Machado's simulations of protanopia, deuteranopia and tritanopia ("A physiologically-based model
# for simulation of color vision deficiency", 2009). The closest two are 16 apart in CIELAB.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
    (0, 114, 178),  # blue
    (136, 0, 255),  # violet
    (102, 51, 17),  # brown
    (17, 34, 136),  # navy
    (170, 255, 136),  # light green
    (85, 51, 102),  # plum
    (136, 187, 102),  # leaf green
    (187, 85, 255),  # light violet
    (136, 34, 68),  # crimson
    (0, 238, 170),  # mint
)


def label_colour(label: int) -> Colour:
    """The colour of a class, by its label from 0; repeats after ``len(PALETTE)``."""
    return PALETTE[label % len(PALETTE)]


def luminance(colour: Colour) -> float:
    """Relative luminance, 0 of black to 1 of white, as WCAG 2 defines it."""
    channels = np.array(colour, np.float64) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: Colour, other: Colour) -> float:
    """Contrast ratio of WCAG 2, 1 to 21; text should have 4.5.

    >>> contrast((0, 0, 0), (255, 255, 255))
    21.0
    """
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def text_colour(behind: Colour) -> Colour:
    """Black or white, whichever has more contrast; that is at least 4.5 on any colour."""
    return _text_colour(tuple(behind))


@functools.lru_cache(maxsize=1024)
def _text_colour(behind: Colour) -> Colour:
    # Contrast with black is (L + 0.05) / 0.05, with white 1.05 / (L + 0.05); equal at L = 0.179.
    return (0, 0, 0) if luminance(behind) > 0.179 else (255, 255, 255)


def voc_colormap(labels: NDArray[np.integer] | list[int]) -> F32:
    """PASCAL VOC's colours of labels, ``(N,)`` to ``(N, 3)`` float32 RGB 0..255.

    The bits of a label, three at a time from the lowest, are the next lower bits of red, green and
    blue, from the highest.

    Examples
    --------
    >>> from oxidet.visualize import voc_colormap
    >>> voc_colormap([0, 1, 15]).tolist()
    [[0.0, 0.0, 0.0], [128.0, 0.0, 0.0], [192.0, 128.0, 128.0]]
    """
    rest = np.asarray(labels, np.int64)
    if rest.ndim != 1 or (rest < 0).any():
        raise ValueError(f"labels: expected non-negative labels (N,), got shape {rest.shape}")
    colours = np.zeros((len(rest), 3), np.int64)
    for bit in range(7, -1, -1):
        colours |= (rest[:, None] >> np.arange(3) & 1) << bit
        rest = rest >> 3
    return colours.astype(np.float32)
