"""How objects look in a notebook: whole, folded, in any theme, and without anything foreign."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest

import tiny_detectors
from html_pages import Page
from known_networks import blank
from oxidet import Detections, nn, summary
from oxidet.classification import Classification
from oxidet.models.detection import Detector
from oxidet.visualize.html import fragments

NASTY = '<script>alert("1")</script>&<b>'


# --- modules


class Pair(nn.Module):
    """Uses one layer twice, and has one that it never uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.again = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.shared = self.again
        self.unused = nn.Linear(2, 2)
        self.empty = None

    def forward(self, x: Any) -> Any:
        return self.shared(self.again(self.first(x)))


def test_a_tree_with_parameters_and_multiply_adds() -> None:
    page = Page(Pair()._repr_html_())
    assert "Pair" in page.text[0]
    own, inner = 3 * 8 * 9, 8 * 8 * 9
    parameters = own + inner + 8 + 6
    macs = (own + 2 * inner) * 224 * 224
    assert (
        f": {parameters} parameters, {4 * parameters / 1e3:.1f} kB, {macs / 1e6:.1f} M MACs"
        in page.words
    )
    assert "(1, 3, 224, 224)" in page.words
    assert "in training mode" in page.words
    assert page.words.count("Conv2d") == 2  # the second module of a name is the first
    assert "shared Sequential the same as again" in page.words
    line = page.text.index("again")
    # A layer that runs twice works twice.
    assert page.text[line : line + 4] == [
        "again",
        "Sequential",
        "584",
        f"{2 * inner * 224**2 / 1e6:.1f} M",
    ]
    assert "(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)" in page.text
    assert page.unfolded == page.tags["details"] == 1
    assert "in evaluation mode" in Page(Pair().eval()._repr_html_()).words


def test_looking_changes_nothing() -> None:
    model = Pair()
    model.again.eval()
    before = {name: module.training for name, module in model.named_modules()}
    structure = {module._structure for module in model.modules()}
    model._repr_html_()
    assert {name: module.training for name, module in model.named_modules()} == before
    assert {module._structure for module in model.modules()} == structure


def test_frozen_parts_are_named_once() -> None:
    model = Pair()
    model.again.requires_grad_(False)
    page = Page(model._repr_html_())
    assert "(584 frozen)" in page.words
    assert page.words.count("frozen") == 2  # of the whole, and of the part but not of its layers


def test_a_layer_alone_has_no_tree() -> None:
    page = Page(nn.Linear(3, 4)._repr_html_())
    assert page.words.startswith(
        "Linear (in_features=3, out_features=4, bias=True) : 16 parameters, 64 B, 12 MACs"
    )
    assert page.tags["details"] == 0
    assert "0 parameters, in training mode" in Page(nn.ReLU()._repr_html_()).words


def test_networks_without_a_known_input_have_no_multiply_adds() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, x: Any) -> Any:
            raise KeyError("of its own")

    class Empty(nn.Module):
        pass

    for model in (nn.Sequential(nn.Conv2d(64, 4, 1)), Odd(), Empty(), Detector(("cat",))):
        page = Page(model._repr_html_())
        assert "MACs" not in page.words
        assert "parameters" in page.words


def test_names_and_arguments_are_escaped() -> None:
    class Loud(nn.Module):
        def extra_repr(self) -> str:
            return NASTY + "\n" + "x" * 1000

    model = nn.Module()
    model.add_module(NASTY.replace(".", ""), Loud())
    page = Page(model._repr_html_())
    assert page.words.count("<script>") == 2
    assert len(page.words) < 700


def test_names_of_classes_are_escaped() -> None:
    nasty = type("<b>Layer", (nn.Module,), {})
    page = nn.Sequential(nasty())._repr_html_()
    assert "<b>" not in page + nasty()._repr_html_()
    assert "<b>Layer" in Page(page).words


def test_what_cannot_describe_itself_is_shown_without_arguments() -> None:
    class Broken(nn.Module):
        def extra_repr(self) -> str:
            return f"{self.missing}"

    page = Page(nn.Sequential(Broken(), nn.ReLU())._repr_html_())
    assert "Broken" in page.words
    assert "ReLU" in page.words


@pytest.mark.parametrize("name", ["resnet152", "inception_resnet_v2"])
def test_large_networks_are_small_and_begin_folded(name: str) -> None:
    model = blank(name)
    fragment = model._repr_html_()
    page = Page(fragment)
    assert len(fragment) < 250_000
    assert page.unfolded == 0
    modules = list(model.modules())
    lines = page.tags["details"] + sum(not module._modules for module in modules)
    assert lines == len(modules) - 1


def test_a_tree_ends_somewhere() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.ReLU(), nn.Tanh()) for _ in range(1500)))
    fragment = model._repr_html_()
    assert "2,501 further modules have no line here" in Page(fragment).words
    assert len(fragment) < 500_000
    endless = nn.Sequential(nn.ReLU())
    endless.add_module("itself", nn.Sequential(endless[0]))
    assert "the same as 0" in Page(endless._repr_html_()).words


@pytest.mark.parametrize("name", tiny_detectors.STRUCTURES)
def test_detectors_tell_the_work_of_every_part(name: str) -> None:
    detector = tiny_detectors.make(name)
    page = Page(detector._repr_html_())
    assert "3 classes: ant, bee, cat" in page.words
    assert "predict keeps scores above 0.5" in page.words
    assert "pixels and" in page.words
    assert page.words.count(" MACs") >= 1
    top = [child for child, module in detector.named_children() if list(module.parameters())]
    for part in top:
        line = page.text[page.text.index(part) :][:5]
        assert any(re.fullmatch(r"[\d.]+ [kMG]", words) for words in line), line


# --- detections


def found(count: int = 3, **rest: Any) -> Detections:
    corners = np.arange(count)[:, None] % 20 + [0, 0, 9, 9]
    labels = np.arange(count) % 3
    arguments = {"class_names": ("ant", NASTY, "猫"), "image_size": (40, 50), **rest}
    return Detections(corners, labels, np.linspace(1, 0.1, count), **arguments)


def test_detections_have_counts_and_a_table() -> None:
    page = Page(found(8)._repr_html_())
    assert page.text[0] == "8 objects in 40 x 50 pixels (height x width)"
    # The most frequent first, equal ones in the order of labels.
    assert page.text[1:7] == ["ant:", "3", f"{NASTY}:", "3", "猫:", "2"]
    assert page.rows == [9] * 9
    assert page.tags["img"] == page.tags["details"] == 0
    assert {"1.000", "9.0", "81"} <= set(page.text)


def test_many_detections_fold() -> None:
    page = Page(found(30)._repr_html_())
    assert len(page.rows) == 1 + 10 + 1 + 20
    assert (page.tags["details"], page.unfolded) == (1, 0)
    assert "... 20 more" in page.text
    fragment = found(5000)._repr_html_()
    assert len(Page(fragment).rows) == 1 + 10 + 1 + 190
    assert "and 4800 that are not shown" in Page(fragment).text
    assert len(fragment) < 100_000
    classes = Detections(np.zeros((40, 4)), np.arange(40))
    assert "and 20 of 20 other classes" in Page(classes._repr_html_()).words


def test_no_detections() -> None:
    page = Page(found(0)._repr_html_())
    assert page.text == ["0 objects in 40 x 50 pixels (height x width)"]


def test_photographs_are_kept_as_jpeg_and_drawings_as_png() -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    for image, kind in ((noise, "JPEG"), (np.zeros((600, 800, 3), np.uint8), "PNG")):
        fragment = found(image=image)._repr_html_()
        assert Page(fragment).tags["img"] == 1
        data = base64.b64decode(fragment.split("base64,")[1].split('"')[0])
        picture = Image.open(io.BytesIO(data))
        assert (picture.format, picture.size) == (kind, (800, 600))
        assert 'width="560"' in fragment


def test_boxes_stay_in_place_in_a_photograph_that_is_shown_smaller() -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    image = np.zeros((2000, 3000, 3), np.uint8)
    box = Detections([[1500, 1000, 2400, 1600]], [0], image=image)
    data = base64.b64decode(box._repr_html_().split("base64,")[1].split('"')[0])
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert picture.shape == (747, 1120, 3)
    scale = 1120 / 3000
    y, x = round(1300 * scale), round(2400 * scale)
    assert picture[y, x - 2].max() > 100  # the frame's right side
    assert picture[y, x - 30].max() == picture[y, x + 30].max() == 0


def test_a_picture_has_the_best_boxes_alone() -> None:
    pytest.importorskip("PIL")
    image = np.zeros((40, 50, 3), np.uint8)
    many, best = (found(1000, image=image)[:count] for count in (1000, 300))
    images = [re.findall("src=.*?>", part._repr_html_()) for part in (many[::-1], best[::-1])]
    assert images[0] == images[1]
    line = "the 300 of highest score of 1000"
    assert line in Page(many._repr_html_()).text
    assert line not in Page(many.replace(image=None)._repr_html_()).text
    assert "of highest score" not in best._repr_html_()


def test_a_picture_of_any_shape_is_shown() -> None:
    pytest.importorskip("PIL")
    for shape in ((2, 3000, 3), (3000, 2, 3), (2, 5000)):
        image = np.zeros(shape, np.uint8)
        assert Page(found(image=image)._repr_html_()).tags["img"] == 1, shape


# --- classifications


def test_classifications() -> None:
    names = ("a", NASTY, "b")
    page = Page(Classification([1, 0], [0.75, 0.25], class_names=names)._repr_html_())
    assert page.text[0] == f"{NASTY} (0.750)"
    assert page.rows == [4, 4, 4]
    many = Classification(np.arange(30), np.linspace(1, 0, 30))
    assert "... 10 more" in Page(many._repr_html_()).text
    assert "no classes" in Page(Classification([], [])._repr_html_()).text


# --- summaries, plans and profiles


def test_a_long_profile_begins_with_what_is_slowest() -> None:
    model = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(70))).eval()
    report = model.profile(np.zeros((1, 1, 4, 4), np.float32), repeats=1)
    page = Page(report._repr_html_())
    assert page.rows == [9] * (1 + 12 + 1 + 1 + 70 + 1)
    assert "The 12 slowest of 70 steps:" in page.text
    assert (page.tags["details"], page.unfolded) == (1, 0)
    slowest = max(report, key=lambda row: row.seconds)
    table = page.text.index("output") + 1
    assert page.text[table] == slowest.name
    plan = Page(model.plan((1, 1, 4, 4))._repr_html_())
    assert plan.rows == [8] * (1 + 70 + 1)
    assert (plan.tags["details"], plan.unfolded) == (1, 0)


def test_a_summary_of_a_small_network_begins_unfolded() -> None:
    page = Page(summary(blank("lenet5"))._repr_html_())
    assert page.unfolded == page.tags["details"] == 2


# --- the pieces


def test_bars_stay_within_their_cell() -> None:
    for share, width in ((0.25, "25%"), (7, "100%"), (1 / 3, "33.3%")):
        assert f'width:{width}"' in fragments.bar(share)
    for share in (0, -1, np.nan):
        assert "width" not in fragments.bar(share)


def test_text_is_escaped_once() -> None:
    assert fragments.text("<&>") == "&lt;&amp;&gt;"
    assert fragments.text(fragments.text("<&>")) == "&lt;&amp;&gt;"
    assert fragments.text(1.5) == "1.5"
