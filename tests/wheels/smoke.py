"""The core of the package at work with NumPy alone: ``python tests/wheels/smoke.py``.

Runs in the fresh environments of ``environments.py`` and, with everything but NumPy hidden, in
``tests/test_imports.py``. ``scene.npz`` is the fifth test scene of ``oxidet.data.DigitScenes`` in
17 levels of grey, with its boxes (x1, y1, x2, y2) and labels from left to right.
"""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np

import oxidet
from oxidet import nn, ops
from oxidet.nn import functional as F
from oxidet.pretrained import digit_detector

SCENE = Path(__file__).with_name("scene.npz")


def check_convolution() -> None:
    """Against windows of the padded input, and its gradient against the sum it is."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 9, 11), np.float32)
    weight = rng.standard_normal((5, 3, 3, 3), np.float32)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, weight)
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    layer.load_state_dict({"weight": weight})
    result = layer(nn.Tensor(x))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-4)
    F.mse_loss(result, np.zeros_like(expected)).backward()
    gradient = np.einsum("nchwij,nohw->ocij", windows, expected) * 2 / expected.size
    np.testing.assert_allclose(layer.weight.grad, gradient, atol=1e-4)


def check_nms() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], np.float32)
    kept = ops.nms(boxes, np.array([0.8, 0.9, 0.7], np.float32), iou_threshold=0.5)
    assert kept.tolist() == [1, 2], kept


def check_detector() -> None:
    """Each digit of the scene is found once, where it is, and nothing else."""
    with np.load(SCENE) as scene:
        image, boxes, labels = scene["image"], scene["boxes"], scene["labels"]
    found = digit_detector().predict(np.repeat(image[None], 3, axis=0))
    found = found[found.boxes[:, 0].argsort()]
    assert found.labels.tolist() == labels.tolist(), found
    overlap = np.diag(ops.box_iou(found.boxes, boxes))
    assert overlap.min() > 0.7, overlap
    assert len(repr(found).splitlines()) == 2 + len(labels), found


def main() -> None:
    check_convolution()
    check_nms()
    check_detector()
    print(
        f"oxidet {oxidet.__version__} works: Python {platform.python_version()},"
        f" NumPy {np.__version__}"
    )


if __name__ == "__main__":
    main()
