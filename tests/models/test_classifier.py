"""``Classifier.classify`` and what it returns."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import nn
from oxidet.classification import Classification
from oxidet.data import ImageError, read_image
from oxidet.models import Classifier
from oxidet.nn import functional as F
from oxidet.transforms import ImageClassification


class MeanColour(Classifier):
    """Logits are the mean of red, green and blue; in training mode something else."""

    preprocess = ImageClassification(8, resize_size=8, mean=0, std=1, scale=1)
    class_names = ("red", "green", "blue")

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Dropout(0.9))
        self.batches: list[int] = []

    def forward(self, x: Any) -> Any:
        return F.flatten(F.adaptive_avg_pool2d(self.inner(x), 1), 1)


def picture(*colour: int) -> np.ndarray:
    return np.full((10, 14, 3), colour, np.uint8)


def test_all_forms_of_a_picture_agree(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pillow = image_module.fromarray(array)
    pillow.save(tmp_path / "a.png")
    model = MeanColour()
    expected = model.classify(array)
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), pillow, array.astype(np.float32),
             array.transpose(2, 0, 1), (tmp_path / "a.png").read_bytes()]  # fmt: skip
    assert [model.classify(form) for form in forms] == [expected] * len(forms)
    assert model.classify(forms) == [expected] * len(forms)
    assert model.classify(tuple(forms[:2])) == [expected] * 2
    assert model.classify(np.stack([array, array])) == [expected] * 2
    assert model.classify([]) == []


def test_the_probabilities_are_the_softmax_in_falling_order() -> None:
    found = MeanColour().classify(picture(99, 101, 100))
    expected = np.exp([1.0, 0.0, -1.0]) / np.exp([1.0, 0.0, -1.0]).sum()
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6)
    assert found.names == ["green", "blue", "red"]
    assert found.labels.tolist() == [1, 2, 0]
    assert len(MeanColour().classify(picture(1, 2, 3), top=2)) == 2
    assert len(MeanColour().classify(picture(1, 2, 3), top=50)) == 3


def test_more_pictures_than_a_batch_come_back_in_order() -> None:
    images = [picture(*np.roll((101, 100, 100), i % 3)) for i in range(37)]
    found = MeanColour().classify(images, top=1)
    assert [row[0].label for row in found] == [i % 3 for i in range(37)]


def test_it_evaluates_and_restores_every_mode() -> None:
    model = MeanColour()
    model.inner.eval()
    model.classify(picture(1, 2, 3))
    assert [m.training for m in model.modules()] == [True, False, False]
    with pytest.raises(ValueError, match="top"):
        model.classify(picture(1, 2, 3), top=0)
    model.class_names = ("one",)
    with pytest.raises(ValueError, match="class_names: expected 3 names"):
        model.classify(picture(1, 2, 3))
    assert [m.training for m in model.modules()] == [True, False, False]


def test_recipe_and_names_can_be_those_of_one_model() -> None:
    model, other = MeanColour(), MeanColour()
    model.preprocess = ImageClassification(4, resize_size=4, mean=0, std=1, scale=1, channels="BGR")
    model.class_names = None
    assert model.classify(picture(102, 101, 100))[0] == (2, "2", pytest.approx(0.665, abs=1e-3))
    assert other.classify(picture(102, 101, 100))[0].name == "red"


def test_bad_input_is_named(tmp_path: Path) -> None:
    model = MeanColour()
    (tmp_path / "no.png").write_bytes(b"text")
    for image, error, message in [
        (tmp_path / "no.png", ImageError, "no.png"),
        ([picture(1, 2, 3), tmp_path / "no.png"], ImageError, r"image\[1\].*no.png"),
        ([picture(1, 2, 3)] * 20 + [np.zeros((5, 5, 7))], ImageError, r"image\[20\].*channels"),
        (tmp_path / "missing.png", OSError, "missing.png"),
        (3.5, TypeError, "image: expected a path"),
        (np.zeros((2, 2)).astype(str), TypeError, "image"),
    ]:
        with pytest.raises(error, match=message) as caught:
            model.classify(image)
        assert "\n" not in str(caught.value)

    class Broken(MeanColour):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * np.nan

    with pytest.raises(ValueError, match="Broken: expected finite logits"):
        Broken().classify(picture(1, 2, 3))


def test_the_result_is_a_sequence_that_does_not_change() -> None:
    found = Classification([2, 0, 1], [0.7, 0.2, 0.1], class_names=("a", "b", "c"))
    assert [row.name for row in found] == ["c", "a", "b"]
    assert found[-1] == (1, "b", 0.1)
    assert found[:2] == Classification([2, 0], [0.7, 0.2], class_names=("a", "b", "c"))
    assert found != Classification([2, 0, 1], [0.7, 0.2, 0.1])
    with pytest.raises(IndexError):
        found[3]
    with pytest.raises(AttributeError):
        found.labels = None  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        found.probabilities[0] = 1
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert other == found
    for arguments, message in [
        (([0, 1], [0.5]), r"labels: expected shape \(1,\), got \(2,\)"),
        (([-1], [0.5]), "labels"),
        (([3], [0.5]), "labels: expected 0 to 2, got one of 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            Classification(*arguments, class_names=("a", "b", "c"))


def test_text_and_html() -> None:
    found = Classification([1, 0], [0.75, 0.25], class_names=("<b>\n", "cat"))
    assert repr(found).splitlines() == [
        "Classification: cat (0.750)",
        "  label  name   probability",
        "      1  cat    0.750  ###############",
        "      0  <b>\\n  0.250  #####",
    ]
    assert repr(Classification([], [])) == "Classification: no classes\n  label  name  probability"
    assert "&lt;b&gt;" in found._repr_html_()
    assert "<b>" not in found._repr_html_()
    assert "<img" not in found._repr_html_()
    pytest.importorskip("PIL")
    shown = Classification([0], [1.0], image=picture(1, 2, 3))._repr_html_()
    assert shown.count("<img") == 1
    assert "<img" not in Classification([0], [1.0], image="missing.png")._repr_html_()


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 3, 3)])
def test_what_may_be_channels_first_or_last_can_be_said(shape: tuple[int, ...]) -> None:
    model = MeanColour()
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    with pytest.raises(ImageError, match=r"say which by oxidet\.data\.read_image\(image, layout="):
        model.classify(image)
    assert len(model.classify(read_image(image, layout="HWC")))
