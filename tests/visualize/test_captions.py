"""Captions stand inside the picture, not on each other, and hide little; in pictures and plots."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oxidet import Detections
from oxidet.visualize import draw, vis_bbox
from oxidet.visualize._captions import Captions, Rect, place, shared_area

Image = pytest.importorskip("PIL.Image")
ImageDraw = pytest.importorskip("PIL.ImageDraw")

corner = st.integers(-30, 330)
extent = st.sampled_from([0, 1, 2, 40, 90, 300])
rects = st.lists(
    st.tuples(corner, corner, extent, extent).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])),
    max_size=30,
)


def check_apart(taken: list[Rect], picture: tuple[int, int]) -> None:
    for rect in taken:
        assert min(rect) >= 0
        assert rect[2] <= picture[0]
        assert rect[3] <= picture[1]
    for one, other in itertools.combinations(taken, 2):
        assert shared_area(one, other) == 0


@settings(deadline=None, max_examples=60)
@given(rects, st.sampled_from([(300, 300), (300, 40), (25, 300), (1, 1)]))
def test_in_any_crowd(boxes: list[Rect], size: tuple[int, int]) -> None:
    """Boxes of a pixel, of none, on the border and beyond it among them."""
    canvas = ImageDraw.Draw(Image.new("RGB", size))
    runs = []
    for _ in range(2):
        captions = Captions(canvas, size, 11, boxes)
        for index, box in enumerate(boxes):
            captions.add(box, (f"a name of class {index}: 0.93", f"class {index}"), (0, 0, 0))
        check_apart(captions.taken, size)
        runs.append(captions.taken)
    assert runs[0] == runs[1]


def test_every_caption_has_room_where_boxes_do_not_crowd() -> None:
    size = (400, 300)
    boxes = [(x, y, x + 40, y + 20) for x in range(10, 400, 80) for y in range(20, 280, 50)]
    captions = Captions(ImageDraw.Draw(Image.new("RGB", size)), size, 11, boxes)
    assert all(captions.add(box, ("cat 0.9",), (0, 0, 0)) for box in boxes)
    hidden = [shared_area(rect, box) for rect in captions.taken for box in boxes]
    assert max(hidden) == 0


def test_another_box_is_not_hidden_if_there_is_another_place() -> None:
    box, above = (100, 100, 160, 140), (100, 80, 160, 100)
    assert place(box, (50, 12), (300, 300), []) == (100, 88, 150, 100)
    elsewhere = place(box, (50, 12), (300, 300), [], [box, above])
    assert elsewhere == (100, 140, 150, 152)
    # A sliver of it may be.
    sliver = (100, 88, 101, 100)
    assert place(box, (50, 12), (300, 300), [], [box, sliver]) == (100, 88, 150, 100)


def test_a_name_longer_than_the_picture_is_cut() -> None:
    picture = Image.new("RGB", (60, 60))
    captions = Captions(ImageDraw.Draw(picture), picture.size, 11)
    assert captions.add((0, 0, 60, 60), ("a name that goes on and on",), (255, 255, 255))
    [rect] = captions.taken
    assert 40 < rect[2] - rect[0] <= 60


@pytest.mark.parametrize("size", [(100, 100), (4000, 6000)])
def test_captions_can_be_read_in_pictures_of_any_size(size: tuple[int, int]) -> None:
    height, width = size
    image = np.full((height, width, 3), 128, np.uint8)
    # A box at the lower edge: what is drawn above it is the caption.
    box = [0.1 * width, 0.9 * height, 0.9 * width, height]
    out = np.asarray(draw(image, Detections([box], [0], [0.9], class_names=["cat"])))
    rows = np.flatnonzero((out != image).any(axis=(1, 2)))
    caption = 0.9 * height - rows[0]
    # Shown at most 600 pixels high, as high as the letters of a page, and no banner.
    assert 9 <= caption * min(600 / height, 1) <= 40


def captions_of(ax: Any) -> list[Any]:
    renderer = ax.figure.canvas.get_renderer()
    return [
        text.get_bbox_patch().get_window_extent(renderer)
        for text in ax.texts
        if text.get_visible()
    ]  # fmt: skip


@pytest.mark.parametrize(("inches", "dpi"), [((6.4, 4.8), 100), ((3, 2), 60), ((12, 9), 150)])
def test_in_plots_of_any_size(inches: tuple[float, float], dpi: int) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 180, (40, 2))
    bbox = np.hstack([corners, corners + rng.choice([1, 20, 60], (40, 2))])
    bbox[:4] = [[0, 0, 1, 1], [199, 239, 200, 240], [0, 0, 200, 240], [-50, -50, 300, 300]]
    figure = pyplot.figure(figsize=inches, dpi=dpi)
    ax = figure.add_subplot()
    vis_bbox(
        rng.uniform(0, 255, (3, 200, 240)), bbox, np.arange(40) % 3, np.linspace(0.3, 1, 40),
        ("ant", "bumblebee", "cat"), ax=ax,
    )  # fmt: skip
    figure.canvas.draw()
    shown = captions_of(ax)
    assert len(shown) >= 5
    frame = ax.get_window_extent()
    for extent in shown:
        assert extent.x0 >= frame.x0 - 1.5
        assert extent.x1 <= frame.x1 + 1.5
        assert extent.y0 >= frame.y0 - 1.5
        assert extent.y1 <= frame.y1 + 1.5
    for one, other in itertools.combinations(shown, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        down = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, down) < 1.5  # the width of a line
    before = [extent.extents.tolist() for extent in shown]
    figure.canvas.draw()
    after = [extent.extents.tolist() for extent in captions_of(ax)]
    np.testing.assert_allclose(after, before, atol=0.01)
    pyplot.close("all")
