"""Plots on light and dark paper: what is written and drawn stands out from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from oxidet import Detections, visualize
from oxidet.visualize.palette import contrast
from oxidet.visualize.themes import THEMES, ink, line_colours, paper, shades

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")
colours = pytest.importorskip("matplotlib.colors")


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    yield
    pyplot.close("all")


def rgb(colour: Any) -> tuple[int, int, int]:
    r, g, b = (round(255 * channel) for channel in colours.to_rgb(colour))
    return r, g, b


LOG = [
    {"event": "step", "iteration": i, "lr": 0.1, "loss_box": 1 / i, "total_loss": 2 / i}
    for i in range(1, 30)
] + [{"event": "evaluation", "iteration": 20, "mean_ap": 0.5, "ap": {"ant": 0.4, "bee": 0.6}}]
RISING = np.linspace(0.1, 1, 20)
CURVES = {f"class {i}": (1 - RISING / (i + 2), RISING) for i in range(12)}

PLOTS = {
    "training curves": lambda: visualize.training_curves(LOG),
    "precision and recall": lambda: [visualize.precision_recall(CURVES)],
    "confusion matrix": lambda: [
        visualize.confusion_matrix([[9, 1, 0], [3, 5, 2], [1, 0, 0]], ["ant", "bee"])
    ],
    "boxes": lambda: [visualize.vis_bbox(np.zeros((3, 40, 50)), [[5, 5, 20, 20]])],
}


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("plot", PLOTS)
def test_what_is_drawn_stands_out(theme: str, plot: str) -> None:
    with visualize.theme(theme):
        axes = PLOTS[plot]()
    for ax in axes:
        background = paper(ax)
        assert rgb(THEMES[theme][0]) == background
        labels = [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels()]
        if ax.get_legend() is not None:
            labels += ax.get_legend().get_texts()
        for label in labels:
            assert contrast(rgb(label.get_color()), background) >= 4.5, label
        for line in ax.get_lines():
            if (line.get_alpha() or 1) == 1:
                assert contrast(rgb(line.get_color()), background) >= 3, line
        for image in ax.images if plot == "confusion matrix" else ():
            for cell in ax.texts:
                column, row = (int(v) for v in cell.get_position())
                behind = image.to_rgba(image.get_array()[row, column])
                assert contrast(rgb(cell.get_color()), rgb(behind[:3])) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
def test_colours_on_axes(theme: str) -> None:
    with visualize.theme(theme):
        ax = pyplot.figure().add_subplot()
        assert ink(ax) == THEMES[theme][1]
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert line_colours(ax) == cycle
    assert len(cycle) >= 6
    background = paper(ax)
    assert all(contrast(rgb(colour), background) >= 3 for colour in cycle)
    ramp = shades(ax)
    assert rgb(ramp(0.0)) == background
    steps = [contrast(rgb(ramp(share)), background) for share in np.linspace(0, 1, 11)]
    assert steps == sorted(steps)
    assert steps[-1] > 10


def test_text_can_be_read_outside_the_theme_too() -> None:
    """Axes of one theme, drawn into under another."""
    with visualize.theme("dark"):
        ax = pyplot.figure().add_subplot()
    assert contrast(rgb(ink(ax)), paper(ax)) >= 4.5


def test_see_through_axes_are_as_bright_as_what_is_behind() -> None:
    figure = pyplot.figure(facecolor="black")
    ax = figure.add_subplot(facecolor="none")
    assert paper(ax) == (0, 0, 0)
    figure.set_facecolor("none")
    assert paper(ax) == (255, 255, 255)


def test_sheets_of_pictures_are_on_the_same_paper() -> None:
    pytest.importorskip("PIL")
    image = np.zeros((40, 60, 3), np.uint8)
    found = Detections([[5, 5, 30, 30]], [0], [0.9], class_names=["ant"])
    for name, (background, text, _) in THEMES.items():
        with visualize.theme(name):
            picture = visualize.annotated(image, found, scale=8)
            sheet = visualize.contact_sheet([picture], titles=["one"], width=600)
        for drawn in (picture, sheet):
            assert drawn.getpixel((0, drawn.height - 1)) == rgb(background)
            assert rgb(text) in {colour for _, colour in drawn.getcolors(2**24)}
    assert visualize.contact_sheet([image]).getpixel((0, 0)) == (255, 255, 255)


def test_settings_are_what_they_were() -> None:
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), visualize.theme("dark"):
        1 / 0  # noqa: B018
    assert dict(matplotlib.rcParams) == before


def test_unknown_theme() -> None:
    with (
        pytest.raises(ValueError, match=r"name: expected one of \['light', 'dark'\], got 'grey'"),
        visualize.theme("grey"),
    ):
        pass
