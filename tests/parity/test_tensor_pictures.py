"""Pictures as torch tensors: the same numbers mean the same picture as to torchvision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import nn
from oxidet.data import ImageError, read_image
from oxidet.models import Classifier
from oxidet.models.detection import faster_rcnn_small
from oxidet.nn import init
from oxidet.simple_faster_rcnn import Preprocessing
from oxidet.transforms import ImageClassification

torch = pytest.importorskip("torch")

PICTURE = np.random.default_rng(0).integers(0, 256, (3, 20, 24), np.uint8)
RGBA = np.random.default_rng(1).integers(0, 256, (4, 20, 24), np.uint8)


def unit(array: np.ndarray) -> Any:
    """As torchvision's ``ToTensor`` has it."""
    return torch.from_numpy(array).float() / 255


@pytest.mark.parametrize(
    ("tensor", "array"),
    [
        (torch.from_numpy(PICTURE), PICTURE),
        (torch.from_numpy(PICTURE).long(), PICTURE),
        (torch.from_numpy(PICTURE)[:, ::2, 1:], PICTURE[:, ::2, 1:]),
        (torch.from_numpy(PICTURE).permute(1, 2, 0).contiguous().permute(2, 0, 1), PICTURE),
        (torch.from_numpy(PICTURE[0]), PICTURE[0]),
        (torch.from_numpy(PICTURE[:1]), PICTURE[:1]),
        (torch.from_numpy(RGBA), RGBA),
        (torch.from_numpy(PICTURE > 128), PICTURE > 128),
        # Both ends could be the channels of an array; of a tensor the first are.
        (torch.from_numpy(PICTURE[:, :, :3].copy()), PICTURE[:, :, :3]),
    ],
)
def test_integers_count_as_those_of_an_array(tensor: Any, array: np.ndarray) -> None:
    expected = read_image(array, layout="CHW" if array.ndim == 3 else None)
    np.testing.assert_array_equal(read_image(tensor), expected)


@pytest.mark.parametrize("array", [PICTURE, PICTURE[:1], PICTURE[0], RGBA])
def test_floats_count_from_0_to_1(array: np.ndarray, recwarn: pytest.WarningsRecorder) -> None:
    expected = read_image(array)
    for tensor in (unit(array), unit(array).double(), unit(array) + 1e-6):
        np.testing.assert_allclose(read_image(tensor), expected, atol=1e-2)
    np.testing.assert_allclose(read_image(unit(array).half()), expected, atol=0.1)
    assert read_image(unit(array)).max() <= 255
    # A dark picture is none in the wrong range.
    dark = read_image(unit(PICTURE) / 1000)
    np.testing.assert_allclose(dark, read_image(PICTURE) / 1000, atol=1e-2)
    last = unit(PICTURE).permute(1, 2, 0)
    np.testing.assert_allclose(read_image(last, layout="HWC"), read_image(PICTURE), atol=1e-2)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("tensor", "error", "message"),
    [
        (unit(PICTURE) * 255, ImageError, r"from 0 to 1 in a float tensor.* to 255; .* as uint8"),
        ((unit(PICTURE) - 0.5) / 0.2, ImageError, r"before normalisation, got -2\.5 to 2\.5"),
        (unit(PICTURE) * torch.nan, ImageError, "got nan to nan"),
        (unit(PICTURE).permute(1, 2, 0), ImageError, r"3 or 4 channels in CHW, got .*20, 24, 3"),
        (torch.zeros(3, 0, 5), ImageError, "at least one pixel"),
        (torch.zeros(1, 3, 4, 5), ImageError, r"got shape \(1, 3, 4, 5\)"),
        (unit(PICTURE).requires_grad_(), TypeError, r"^image: .*\.detach\(\)"),
        (unit(PICTURE).bfloat16(), TypeError, r"^image: .*\.float\(\)"),
        (unit(PICTURE).to("meta"), TypeError, r"^image: .*\.cpu\(\)"),
    ],
)
def test_other_tensors_are_refused(tensor: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_image(tensor)


def test_a_detector_predicts_them() -> None:
    detector = faster_rcnn_small(2, preprocessing=Preprocessing(32, 48)).eval()
    init.normal_(detector.head.score.weight, 0, 1)
    tensor = torch.from_numpy(PICTURE)
    expected = detector.predict(PICTURE, score_threshold=0.1)
    found = detector.predict(tensor, score_threshold=0.1)
    assert len(found) > 0
    assert found.image_size == (20, 24)
    assert found.image is tensor
    several = [
        [tensor, tensor],
        (tensor, PICTURE),
        torch.stack([tensor, tensor]),
        iter([tensor, tensor]),
    ]
    for given in several:
        both = detector.predict(given, score_threshold=0.1)
        assert type(both) is list
        assert len(both) == 2
        for one in both:
            np.testing.assert_array_equal(one.boxes, expected.boxes)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    close = detector.predict(unit(PICTURE), score_threshold=0.1)
    np.testing.assert_allclose(close.boxes, expected.boxes, atol=1e-2)


def test_a_classifier_classifies_them() -> None:
    class MeanColour(Classifier):
        preprocess = ImageClassification(8, resize_size=8, mean=0, std=1, scale=1)
        class_names = ("red", "green", "blue")

        def forward(self, x: Any) -> Any:
            return nn.functional.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)

    model, tensor = MeanColour(), unit(PICTURE)
    expected = model.classify(PICTURE)
    assert model.classify(tensor).labels.tolist() == expected.labels.tolist()
    assert len(model.classify(torch.stack([tensor, tensor]))) == 2
    assert len(model.classify([tensor, PICTURE])) == 2


def test_type_checkers_know_them() -> None:
    pytest.importorskip("mypy", reason="mypy comes with the extra lint")
    root = Path(__file__).resolve().parents[2]
    # The package is held to its own settings in `make lint`.
    strict = ["--strict", "--follow-imports=silent"]
    command = [sys.executable, "-m", "mypy", *strict, "tests/parity/tensor_types.py"]
    checked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
