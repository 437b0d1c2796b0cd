"""What holds for every plot: axes in, the same axes out, and nothing else happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from oxidet import models, visualize
from tiny_detectors import make, random_picture

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

PICTURE = random_picture(32, 32)
BATCH = PICTURE.mean(axis=0)[None, None] / 255
BBOX = np.array([[2, 3, 20, 30]], np.float32)
MATRIX = np.array([[5, 1], [2, 0]])
CURVE = [np.array([1.0, 0.5])], [np.array([0.5, 1.0])]
GIVEN: tuple[np.ndarray, ...] = (PICTURE, BATCH, BBOX, MATRIX, CURVE[0][0], CURVE[1][0])

Plot = Callable[..., Any]


@pytest.fixture(scope="module")
def plots() -> dict[str, Plot]:
    network = models.LeNet5().eval()
    explained = visualize.explain(make("simple"), PICTURE, score_threshold=0.3)

    def of(function: Any, *arguments: Any) -> Plot:
        return lambda ax=None: function(*arguments, ax=ax)

    found = {
        "vis_image": of(visualize.vis_image, PICTURE),
        "vis_bbox": of(visualize.vis_bbox, PICTURE, BBOX),
        "confusion_matrix": of(visualize.confusion_matrix, MATRIX),
        "precision_recall": of(visualize.precision_recall, *CURVE),
        "feature_maps": of(visualize.feature_maps, network, BATCH, "features.0"),
        "filters": of(visualize.filters, network, "features.0"),
        "guided_backprop": of(visualize.guided_backprop, network, BATCH),
        "deconvolution": of(visualize.deconvolution, network, BATCH, "features.0"),
        "architecture": of(visualize.architecture, network),
    }
    for stage in ("anchors", "objectness", "proposals", "regions", "class_scores", "boxes"):
        found[stage] = of(getattr(visualize, stage), explained)
    return found


@pytest.fixture(autouse=True)
def nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def show(*_: Any, **__: Any) -> None:
        raise AssertionError("show was called")

    monkeypatch.setattr(pyplot, "show", show)
    yield
    pyplot.close("all")


def test_axes_are_given_back_and_arrays_left_alone(plots: dict[str, Plot]) -> None:
    before = [array.copy() for array in GIVEN]
    for array in GIVEN:
        array.setflags(write=False)
    wrong = []
    for name, plot in plots.items():
        figure = pyplot.figure()
        ax = figure.add_subplot()
        if plot(ax=ax) is not ax or pyplot.get_fignums() != [figure.number]:
            wrong.append(name)
        figure.canvas.draw()
        pyplot.close("all")
    assert not wrong
    for array, copied in zip(GIVEN, before, strict=True):
        np.testing.assert_array_equal(array, copied)


def test_new_figures_have_a_layout(plots: dict[str, Plot]) -> None:
    wrong = []
    for name, plot in plots.items():
        ax = plot()
        if not isinstance(ax, matplotlib.axes.Axes) or ax.figure.get_layout_engine() is None:
            wrong.append(name)
        pyplot.close("all")
    assert not wrong


def test_something_else_than_axes_is_refused(plots: dict[str, Plot]) -> None:
    for plot in plots.values():
        with pytest.raises(TypeError, match="ax: expected the axes of a figure or None, got list"):
            plot(ax=[1])


def test_every_function_that_takes_axes_is_here(plots: dict[str, Plot]) -> None:
    import inspect

    taking = {
        name
        for name in visualize.__all__
        if callable(getattr(visualize, name))
        and "ax" in inspect.signature(getattr(visualize, name)).parameters
    }
    assert taking == set(plots)
