"""vis_bbox: chainercv's arguments, order, captions and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from oxidet.visualize import vis_bbox, voc_colormap

pytest.importorskip("matplotlib").use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

IMG = np.zeros((3, 40, 50), np.float32)
BBOX = np.array([[1, 2, 11, 22], [5, 6, 30, 40]], np.float32)


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    pyplot.close("all")


def captions(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_draws_into_the_given_axes_and_returns_them() -> None:
    _, ax = pyplot.subplots()
    assert vis_bbox(IMG, BBOX, ax=ax) is ax
    assert [p.get_xy() for p in ax.patches] == [(2, 1), (6, 5)]
    assert [(p.get_width(), p.get_height()) for p in ax.patches] == [(20, 10), (34, 25)]
    assert ax.images[0].get_array().shape == (40, 50, 3)
    assert captions(ax) == []


def test_captions() -> None:
    names = ("cat", "dog")
    for arguments, expected in (
        (
            {"label": [1, 0], "score": [0.125, 0.5], "label_names": names},
            ["dog: 0.12", "cat: 0.50"],
        ),
        ({"label": [1, 0], "label_names": names}, ["dog", "cat"]),
        ({"label": [1, 0]}, []),
        ({"score": [0.125, 0.999]}, ["0.12", "1.00"]),
    ):
        ax = vis_bbox(IMG, BBOX, **arguments)
        assert captions(ax) == expected
    assert ax.texts[0].get_position() == (2, 1)


def test_high_scores_are_drawn_last() -> None:
    ax = vis_bbox(IMG, BBOX, score=[0.9, 0.1])
    assert captions(ax) == ["0.10", "0.90"]
    ax = vis_bbox(IMG, BBOX, score=[0.9, 0.1], sort_by_score=False)
    assert captions(ax) == ["0.90", "0.10"]


def test_colours() -> None:
    ax = vis_bbox(IMG, BBOX)
    assert [p.get_edgecolor() for p in ax.patches] == [(1, 0, 0, 1)] * 2
    ax = vis_bbox(IMG, BBOX, instance_colors=[(0, 255, 0)], alpha=0.5, linewidth=7)
    assert ax.patches[1].get_edgecolor() == (0, 1, 0, 0.5)
    assert ax.patches[1].get_linewidth() == 7
    # A box keeps its colour wherever the order of scores puts it.
    ax = vis_bbox(IMG, BBOX, score=[0.9, 0.1], instance_colors=[(0, 255, 0), (0, 0, 255)])
    assert [p.get_edgecolor()[:3] for p in ax.patches] == [(0, 0, 1), (0, 1, 0)]


def test_without_image_or_boxes() -> None:
    ax = vis_bbox(None, BBOX)
    assert len(ax.images) == 0
    assert ax.yaxis_inverted()
    assert len(vis_bbox(IMG, np.zeros((0, 4))).patches) == 0
    assert len(vis_bbox(None, []).patches) == 0


def test_names_are_no_formulas() -> None:
    ax = vis_bbox(IMG, BBOX, label=[0, 0], label_names=["$5 and $10"])
    ax.figure.canvas.draw()
    assert ax.texts[0].get_text() == "$5 and $10"
    assert not ax.texts[0].get_parse_math()


def test_boxes_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bbox: expected shape \(R, 4\), got \(4, 2\)"):
        vis_bbox(IMG, np.zeros((4, 2)))
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"label": [1]}, "label: expected length 2 as bbox, got 1"),
        ({"score": [1, 2, 3]}, "score: expected length 2 as bbox, got 3"),
        ({"label": [0, 2], "label_names": ("a", "b")}, "label: expected 0 to 1, got 2"),
        ({"label": [0, -1], "label_names": ("a", "b")}, "label: expected 0 to 1, got -1"),
        ({"instance_colors": [1, 2, 3]}, "instance_colors"),
    ],
)
def test_errors_come_before_any_figure(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        vis_bbox(IMG, BBOX, **arguments)
    assert pyplot.get_fignums() == []


def test_voc_colormap() -> None:
    # The first colours of VOC's development kit, and the border's.
    expected = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    colours = voc_colormap(list(expected))
    assert (colours.dtype, colours.shape) == (np.float32, (9, 3))
    assert [tuple(colour) for colour in colours] == list(expected.values())
    assert voc_colormap([]).shape == (0, 3)
    with pytest.raises(ValueError, match="labels"):
        voc_colormap([-1])
