"""Flips, normalisation and composition, with the boxes where the pixels went."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import assert_close
from oxidet.transforms import (
    Compose,
    Normalize,
    OnImage,
    RandomFlip,
    ResizeShortSide,
    Sample,
    flip,
    resize,
)


def marked(box: tuple[int, int, int, int], size: tuple[int, int] = (30, 40)) -> Sample:
    """A black image with a white rectangle in the box."""
    img = np.zeros((3, *size), np.float32)
    img[:, box[0] : box[2], box[1] : box[3]] = 255
    return Sample(img, np.array([box], np.float32), np.array([0], np.int32))


def found(img: np.ndarray) -> list[int]:
    """Where the white rectangle is."""
    rows, columns = np.nonzero(img[0] > 127)
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


def test_flip_is_a_view() -> None:
    img = np.arange(12.0).reshape(2, 2, 3)
    for y in (False, True):
        for x in (False, True):
            out = flip(img, y_flip=y, x_flip=x)
            assert np.shares_memory(out, img)
            np.testing.assert_array_equal(flip(out, y_flip=y, x_flip=x), img)
    np.testing.assert_array_equal(flip(img, y_flip=True)[:, 0], img[:, 1])
    np.testing.assert_array_equal(flip(img, x_flip=True)[:, :, 0], img[:, :, 2])
    with pytest.raises(ValueError, match="img"):
        flip(np.zeros((3, 3)))


@pytest.mark.parametrize("x", [0.0, 1.0])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_boxes_follow_the_pixels_of_a_flip(x: float, y: float) -> None:
    sample = marked((3, 5, 11, 22))
    out = RandomFlip(x=x, y=y)(sample, np.random.default_rng(0))
    assert out.bbox[0].tolist() == found(out.img)
    moved = [19 if y else 3, 18 if x else 5, 27 if y else 11, 35 if x else 22]
    assert out.bbox[0].tolist() == moved
    assert sample.bbox[0].tolist() == [3, 5, 11, 22]


def test_flips_come_from_the_generator() -> None:
    sample = marked((3, 5, 11, 22))

    def flips(transform: RandomFlip) -> list[tuple[bool, bool]]:
        boxes = [transform(sample, np.random.default_rng(k)).bbox[0] for k in range(400)]
        return [(box[0] != 3, box[1] != 5) for box in boxes]

    both = flips(RandomFlip(x=0.5, y=0.25))
    assert both == flips(RandomFlip(x=0.5, y=0.25))
    assert 0.4 < np.mean([x for _, x in both]) < 0.6
    assert 0.15 < np.mean([y for y, _ in both]) < 0.35
    # Switching one axis off leaves the other's draws as they were.
    assert [x for _, x in both] == [x for _, x in flips(RandomFlip(x=0.5, y=0))]
    with pytest.raises(ValueError, match="x: expected a probability"):
        RandomFlip(x=2)


def test_boxes_follow_the_pixels_of_a_resize() -> None:
    out = ResizeShortSide(60, 1000)(marked((4, 6, 12, 24)), np.random.default_rng(0))
    assert out.img.shape == (3, 60, 80)
    assert out.bbox.tolist() == [[8, 12, 24, 48]]
    assert out.bbox[0].tolist() == found(out.img)
    assert out.scale == 2


def test_resize_uses_the_rules_it_is_given() -> None:
    rng = np.random.default_rng(0)
    sample = Sample(rng.random((3, 33, 50), np.float32), np.zeros((0, 4)), np.zeros(0))
    chainer = ResizeShortSide(60, 100)(sample, rng)
    skimage = ResizeShortSide(60, 100, rounding="ceil", edge="mirror")(sample, rng)
    assert chainer.img.shape == (3, 60, 90)
    assert skimage.img.shape == (3, 60, 91)
    np.testing.assert_array_equal(skimage.img, resize(sample.img, (60, 91), edge="mirror"))
    assert chainer.bbox.shape == (0, 4)
    assert chainer.scale == pytest.approx(60 / 33)
    assert ResizeShortSide(30, 100)(chainer, rng).scale == pytest.approx(30 / 33)


def test_normalisations() -> None:
    img = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32) * 255
    red, green, blue = img.astype(np.float64)
    expected = {
        "torchvision": (
            Normalize.torchvision(),
            [
                (red / 255 - 0.485) / 0.229,
                (green / 255 - 0.456) / 0.224,
                (blue / 255 - 0.406) / 0.225,
            ],
        ),
        "caffe": (
            Normalize.caffe(),
            [blue - 122.7717, green - 115.9465, red - 102.9801],
        ),
        "caffe, its own order": (
            Normalize.caffe("bgr"),
            [blue - 102.9801, green - 115.9465, red - 122.7717],
        ),
        "chainercv": (
            Normalize.chainercv(),
            [red - 122.7717, green - 115.9465, blue - 102.9801],
        ),
    }
    for name, (normalize, values) in expected.items():
        out = normalize(img)
        assert out.dtype == np.float32
        assert_close(out, np.stack(values), 1e-6, name)
        assert_close(normalize.inverse(out), img, 1e-6, name)
    with pytest.raises(ValueError, match="mean_order"):
        Normalize.caffe("rbg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"img: expected 3 channels"):
        Normalize.chainercv()(np.zeros((1, 4, 5), np.float32))


def test_normalisation_keeps_memory_order() -> None:
    last = np.ones((4, 5, 3), np.float32).transpose(2, 0, 1)
    for normalize in (Normalize.torchvision(), Normalize.caffe()):
        assert normalize(last).transpose(1, 2, 0).flags.c_contiguous
    assert Normalize.caffe()(np.ones((3, 4, 5), np.float32)).flags.c_contiguous


def test_compose() -> None:
    sample = marked((3, 5, 11, 22))
    transform = Compose(
        [ResizeShortSide(60, 1000), RandomFlip(x=1), OnImage(Normalize.chainercv())]
    )
    for given in (sample, tuple(sample[:3])):
        out = transform(given, np.random.default_rng(0))
        assert isinstance(out, Sample)
        assert out.bbox.tolist() == [[6, 36, 22, 70]]
        assert found(out.img + 122.7717) == [6, 36, 22, 70]
        assert out.difficult is None
        assert out.scale == 2
    assert repr(transform).startswith("Compose([ResizeShortSide(min_size=60")
    order: list[str] = []

    def note(name: str) -> OnImage:
        return OnImage(lambda img: (order.append(name), img)[1])

    Compose([note("first"), note("second")])(sample, np.random.default_rng(0))
    assert order == ["first", "second"]
