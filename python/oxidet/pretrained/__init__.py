"""The weights that come with the package: small networks for handwritten digits and blood cells.

All were trained by this package alone, from random weights: on scikit-learn's scans of digits, and
on the photographs of the BCCD data set; ``docs/shipped-weights.md`` has the commands and figures.

::

    from oxidet import pretrained
    detector = pretrained.blood_cell_detector()
    detector.predict("smear.jpg")
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from oxidet import weights
from oxidet.models import LeNet5
from oxidet.models.detection import FasterRCNN as PyramidFasterRCNN
from oxidet.models.detection import load_detector
from oxidet.simple_faster_rcnn import FasterRCNN

__all__ = [
    "PRETRAINED",
    "Pretrained",
    "blood_cell_detector",
    "digit_classifier",
    "digit_detector",
]


class Pretrained(NamedTuple):
    """One of the weight files in the package."""

    path: Path
    description: str


_FOLDER = Path(__file__).parent

#: By the name that the command line's ``--weights`` takes.
PRETRAINED = {
    "blood-cells": Pretrained(
        _FOLDER / "faster_rcnn_resnet18_cells.npz",
        "Faster R-CNN over the first five blocks of ResNet-18 for photographs of blood smears",
    ),
    "digits": Pretrained(
        _FOLDER / "faster_rcnn_small_digits.npz",
        "small Faster R-CNN for handwritten digits in pictures of 192 x 256 pixels",
    ),
    "lenet5": Pretrained(
        _FOLDER / "lenet5_digits.npz",
        "LeNet-5 for single handwritten digits, see oxidet.data.lenet_input",
    ),
}


def digit_detector() -> FasterRCNN:
    """The small Faster R-CNN, trained on scenes of handwritten digits (``DigitScenes``).

    In evaluation mode; ``predict`` takes pictures. Labels are the digits themselves.

    >>> import numpy as np
    >>> from oxidet import pretrained
    >>> blank = np.full((192, 256, 3), 255, np.uint8)
    >>> len(pretrained.digit_detector().predict(blank))
    0
    """
    detector = load_detector(PRETRAINED["digits"].path)
    assert isinstance(detector, FasterRCNN)  # the file is ours
    return detector


def blood_cell_detector() -> PyramidFasterRCNN:
    """Faster R-CNN over a part of ResNet-18, trained on photographs of blood smears (BCCD).

    In evaluation mode; ``predict`` takes pictures, which it scales to 320 x 427 pixels. The classes
    are red cells (``"RBC"``), white cells (``"WBC"``) and ``"Platelets"``. A study object, not a
    medical device.
    """
    detector = load_detector(PRETRAINED["blood-cells"].path)
    assert isinstance(detector, PyramidFasterRCNN)  # the file is ours
    return detector


def digit_classifier() -> LeNet5:
    """LeNet-5, trained on the digit scans; in evaluation mode.

    Takes (N, 1, 32, 32) float32 as ``oxidet.data.lenet_input`` makes it, returns (N, 10) logits.

    >>> import numpy as np
    >>> from oxidet import data, pretrained
    >>> scan = np.zeros((1, 8, 8))
    >>> scan[0, 1:7, 4] = 16  # a stroke from top to bottom
    >>> pretrained.digit_classifier()(data.lenet_input(scan)).argmax(axis=1)
    array([1])
    """
    model = LeNet5()
    model.load_state_dict(weights.load(PRETRAINED["lenet5"].path))
    return model.eval()
