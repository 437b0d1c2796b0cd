"""Resizing against torch's interpolate, in which torchvision's detectors scale their images."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import assert_close
from oxidet.transforms import resize

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((1, 1), (2, 3)),
        ((7, 9), (13, 4)),
        ((375, 500), (600, 800)),
        ((480, 640), (800, 1066)),
        ((500, 333), (901, 600)),
        ((1080, 1920), (749, 1333)),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_interpolate(old: tuple[int, int], new: tuple[int, int], channels_last: bool) -> None:
    img = np.random.default_rng(0).random((3, *old), np.float32) * 255
    if channels_last:
        img = np.ascontiguousarray(img.transpose(1, 2, 0)).transpose(2, 0, 1)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(img)[None], size=new, mode="bilinear", align_corners=False
    )
    # torch may or may not fuse the coordinate's product and sum; unfused, a weight differs by 3e-5.
    assert_close(resize(img, new, edge="clamp"), expected[0].numpy(), 5e-5)
