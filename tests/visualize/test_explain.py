"""The stages of detectors: as arrays, as plots, in a notebook."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
import pytest

from oxidet import _extras, nn, visualize
from oxidet.models.detection import Detector
from oxidet.visualize import Explanation, explain
from oxidet.visualize.stages import STAGES
from tiny_detectors import CLASSES, STRUCTURES, make, random_picture

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def no_figures_left() -> Any:
    yield
    pyplot.close("all")


def explained(structure: str = "pyramid", height: int = 90, width: int = 120) -> Explanation:
    return explain(make(structure), random_picture(height, width), score_threshold=0.3)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_end_is_what_predict_returns(structure: str) -> None:
    image = random_picture()
    before = image.copy()
    detector = make(structure)
    result = explain(detector, image, score_threshold=0.3, nms_threshold=0.4)
    expected = detector.predict(image, score_threshold=0.3, nms_threshold=0.4)
    assert len(expected) > 0
    for name in ("boxes", "labels", "scores"):
        got = getattr(result.detections, name)
        np.testing.assert_array_equal(got, getattr(expected, name))
    assert result.detections.class_names == CLASSES
    assert len(result.candidates) > len(result.detections)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(result.image, np.rint(image).transpose(1, 2, 0))
    assert not result.image.flags.writeable


@pytest.mark.parametrize("structure", ["pyramid", "simple"])
def test_every_stage_is_drawn(structure: str) -> None:
    axes = explained(structure).plot()
    assert axes.shape == (2, 3)
    titles = [ax.get_title() for ax in axes.flat]
    words = ("anchors", "objectness", "proposals", "regions", "class scores", "boxes")
    for title, word in zip(titles, words, strict=True):
        assert title.startswith(word)
    for ax in (*axes[0], axes[1, 2]):
        assert ax.get_xlabel() == "x (pixels)"
        assert ax.get_xlim() == (0, 120)
        assert ax.get_ylim() == (90, 0)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_stage_is_drawn_into_given_axes(stage: Any) -> None:
    result = explained()
    _, ax = pyplot.subplots()
    assert stage(result, ax=ax) is ax
    assert len(pyplot.get_fignums()) == 1
    assert stage(result) is not ax
    assert len(pyplot.get_fignums()) == 2
    with pytest.raises(TypeError, match="ax: expected the axes of a figure or None, got str"):
        stage(result, ax="here")


@pytest.mark.parametrize("size", [(1, 7), (1, 300), (2500, 30)])
def test_odd_pictures_are_drawn(size: tuple[int, int]) -> None:
    figure = pyplot.figure(figsize=(4, 3))
    explained("simple", *size).plot(figure.subplots(2, 3))
    figure.canvas.draw()


def test_nothing_is_drawn_of_no_proposals() -> None:
    detector = make("simple")
    detector.rpn.proposal_layer.min_size = 1000
    result = explain(detector, random_picture())
    assert len(result.proposals) == len(result.pooled) == len(result.detections) == 0
    figure = pyplot.figure(figsize=(4, 3))
    result.plot(figure.subplots(2, 3))
    figure.canvas.draw()


def test_the_heat_lies_where_the_anchors_do() -> None:
    result = explained("simple", 64, 96)
    level = result.levels[0]
    level.objectness[:] = 0
    level.objectness[2, 3] = 1
    x, y = (level.anchors[2, 3, 0, :2] + level.anchors[2, 3, 0, 2:]) / 2
    heat = visualize.objectness(result).images[-1].get_array()
    rows, columns = np.nonzero(heat)
    scale = 96 / heat.shape[1]
    assert abs((columns.mean() + 0.5) * scale - x) < 1
    assert abs((rows.mean() + 0.5) * scale - y) < 1


def test_one_level_at_a_time() -> None:
    result = explained()
    for level in ("coarse", 1):
        assert visualize.objectness(result, level=level).get_title() == "objectness: level coarse"
    with pytest.raises(ValueError, match=r"level: expected one of \['fine', 'coarse'\], got 'x'"):
        visualize.objectness(result, level="x")
    with pytest.raises(ValueError, match="level"):
        visualize.objectness(result, level=2)


def test_anchors_of_given_places() -> None:
    result = explained("simple")
    ax = visualize.anchors(result, places=[(30, 40)])
    frames = [path.vertices for group in ax.collections for path in group.get_paths()]
    drawn = {(*corners[0], *corners[2]) for corners in np.round(frames, 3).tolist()}
    level = result.levels[0]
    centres = (level.anchors[:, :, 0, :2] + level.anchors[:, :, 0, 2:]) / 2
    row, column = np.unravel_index(
        np.linalg.norm(centres - (30, 40), axis=2).argmin(), centres.shape[:2]
    )
    assert drawn == {
        tuple(box) for box in level.anchors[row, column].astype(float).round(3).tolist()
    }
    sizes = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sizes == ["23 px", "45 px"]  # 16 and 32, on a picture scaled by 64 / 90


def test_the_scores_in_the_table() -> None:
    result = explained()
    ax = visualize.class_scores(result, most=5, most_classes=3)
    assert ax.images[0].get_array().shape == (5, 3)
    np.testing.assert_array_equal(ax.images[0].get_array()[:, 0], result.class_scores[:5, 0])
    assert ax.get_xticklabels()[0].get_text() == "background"


def test_in_a_notebook() -> None:
    result = explained()
    html = result._repr_html_()
    assert "proposals" in html
    [data] = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert base64.b64decode(data)[:3] == b"\xff\xd8\xff"
    assert pyplot.get_fignums() == []  # or notebooks would show it twice
    assert len(repr(result).splitlines()) == 7


def test_in_a_notebook_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    result = explained("simple")

    def missing(module: str, extra: str) -> Any:
        raise ImportError(f"this needs the package {module!r}")

    monkeypatch.setattr(_extras, "require", missing)
    html = result._repr_html_()
    assert "<img" not in html
    assert "proposals" in html


def test_six_axes_are_wanted() -> None:
    _, axes = pyplot.subplots(1, 2)
    with pytest.raises(ValueError, match="axes: expected 6, got 2"):
        explained().plot(axes)


def test_other_models_are_refused() -> None:
    with pytest.raises(TypeError, match="model: expected a Faster R-CNN, got Linear"):
        explain(nn.Linear(2, 3), random_picture())
    with pytest.raises(TypeError, match="defines detect_in_stages, got Detector"):
        explain(Detector(["ant"]), random_picture())


@pytest.mark.parametrize("name", ["score_threshold", "nms_threshold"])
def test_thresholds_are_checked_as_by_predict(name: str) -> None:
    detector, image = make("pyramid"), random_picture()
    wrong: list[tuple[Any, type[Exception]]]
    wrong = [(1.5, ValueError), (float("nan"), ValueError), ("0.5", TypeError)]
    for given, error in wrong:
        with pytest.raises(error, match=f"^{name}: expected a number"):
            detector.predict(image, **{name: given})
        with pytest.raises(error, match=f"^{name}: expected a number"):
            explain(detector, image, **{name: given})
    setattr(detector, name, -1.0)
    with pytest.raises(ValueError, match=f"^{name}: expected a number from 0 to 1, got -1"):
        explain(detector, image)


def test_an_error_from_within_a_detector_stays_its_own() -> None:
    class Unfinished(Detector):
        def detect_in_stages(self, *arguments: Any) -> Any:
            raise NotImplementedError("no deformable stages")

    with pytest.raises(NotImplementedError, match="no deformable stages"):
        visualize.explain(Unfinished(["a"]), np.zeros((8, 8, 3), np.uint8))
