"""Random transforms of images with boxes: the boxes stay on the pixels, all columns follow."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oxidet.data import DataLoader, Mosaic
from oxidet.transforms import (
    ColorJitter,
    Compose,
    OnImage,
    RandomFlip,
    RandomIoUCrop,
    RandomPhotometricDistort,
    RandomShortestSize,
    RandomZoomOut,
    ResizeShortSide,
    Sample,
    ScaleJitter,
    resize,
)

SIZE = (90, 120)


def crowded(objects: int = 12, seed: int = 0) -> Sample:
    """An image whose channels say of every pixel where it came from, and boxes all over it."""
    rng = np.random.default_rng(seed)
    img = np.empty((3, *SIZE), np.float32)
    img[0] = np.linspace(0, 255, SIZE[0])[:, None]
    img[1] = np.linspace(0, 255, SIZE[1])
    img[2] = 128
    low = rng.uniform(0, np.array(SIZE) - 20, (objects, 2))
    high = np.minimum(low + rng.uniform(2, 60, (objects, 2)), SIZE)
    return Sample(
        img,
        np.concatenate([low, high], 1).astype(np.float32),
        np.arange(objects, dtype=np.int32),
        np.arange(objects) % 2 == 0,
        np.arange(objects) % 3 == 0,
    )


TRANSFORMS: dict[str, Callable[..., Sample]] = {
    "flip": RandomFlip(0.5, 0.5),
    "crop": RandomIoUCrop(),
    "crop, never whole": RandomIoUCrop(min_overlaps=(0.1, 0.5)),
    "jitter": ScaleJitter(),
    "jitter to a size": ScaleJitter((0.1, 2.0), size=(70, 64)),
    "zoom out": RandomZoomOut(),
    "shortest": RandomShortestSize((40, 60, 100), 110),
    "colours": RandomPhotometricDistort(),
    "colour jitter": OnImage(ColorJitter(0.4, 0.4, 0.4, 0.1), random=True),
    "mosaic": lambda s, rng: Mosaic([s, crowded(5, 1), crowded(0)], p=0.8).random_item(0, rng),
    "several": Compose([RandomFlip(), RandomZoomOut(), RandomIoUCrop(), ScaleJitter(size=50)]),
}
GEOMETRIC = [name for name in TRANSFORMS if not name.startswith("colour") and name != "several"]


@pytest.fixture(params=TRANSFORMS, name="transform")
def _transform(request: pytest.FixtureRequest) -> Callable[..., Sample]:
    return TRANSFORMS[request.param]


def test_boxes_stay_valid_and_columns_follow(transform: Callable[..., Sample]) -> None:
    for seed in range(40):
        out = transform(crowded(), np.random.default_rng(seed))
        height, width = out.img.shape[1:]
        assert out.img.dtype == out.bbox.dtype == np.float32
        assert 0 <= out.img.min() <= out.img.max() <= 255
        assert out.bbox.shape == (len(out.label), 4)
        assert (out.bbox >= 0).all()
        assert (out.bbox[:, 2:] <= (height, width)).all()
        assert (out.bbox[:, 2:] - out.bbox[:, :2] >= 0.99).all()
        assert out.difficult is not None
        assert out.crowd is not None
        np.testing.assert_array_equal(out.difficult, out.label % 2 == 0)
        np.testing.assert_array_equal(out.crowd, out.label % 3 == 0)


def test_all_comes_from_the_generator(transform: Callable[..., Sample]) -> None:
    seen = set()
    for seed in range(12):
        a, b = (transform(crowded(), np.random.default_rng(seed)) for _ in range(2))
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)
        seen.add(a.img.tobytes())
    assert len(seen) >= 3


def test_the_input_is_left_alone(transform: Callable[..., Sample]) -> None:
    sample, untouched = crowded(), crowded()
    for column in sample[:5]:
        column.flags.writeable = False
    for seed in range(12):
        transform(sample, np.random.default_rng(seed))
    for column, expected in zip(sample, untouched, strict=True):
        np.testing.assert_array_equal(column, expected)


def test_images_without_objects(transform: Callable[..., Sample]) -> None:
    for seed in range(12):
        sample = crowded(0)
        out = transform(sample, np.random.default_rng(seed))
        assert out.bbox.shape == (len(out.label), 4)
        bare = transform(Sample(*sample[:3]), np.random.default_rng(seed))
        np.testing.assert_array_equal(bare.img, out.img)


@pytest.mark.parametrize("name", GEOMETRIC)
def test_boxes_stay_on_their_pixels(name: str) -> None:
    """The image says where each pixel was; so must the edges of a box that was not cut."""
    checked = 0
    for seed in range(30):
        sample = crowded()
        out = TRANSFORMS[name](sample, np.random.default_rng(seed))
        if name == "mosaic" and len(set(out.label)) < len(out.label):
            continue  # the same objects several times
        for box, label in zip(out.bbox, out.label, strict=True):
            inner = box[0] > 0.01, box[1] > 0.01, box[2] < out.img.shape[1] - 0.01
            if not all(inner) or box[3] > out.img.shape[2] - 0.01 or label >= 12:
                continue
            y, x = (int((box[k] + box[k + 2]) / 2) for k in (0, 1))
            where = out.img[:2, y, x] / 255 * (np.array(SIZE) - 1) + 0.5
            old = sample.bbox[label]
            if name == "mosaic":
                assert (old[:2] - 3 <= where).all()
                assert (where <= old[2:] + 3).all()
            else:
                centre = (old[:2] + old[2:]) / 2
                scale = (old[2:] - old[:2]) / (box[2:] - box[:2])
                assert np.abs(where - centre).max() < 1.5 * max(1.0, scale.max()), seed
            checked += 1
    assert checked > 20


def test_overlaps_of_crops() -> None:
    """Every part that is cut has the overlap it was asked for, and the shape."""
    from oxidet.detection import bbox_iou

    sample = crowded(3)
    for least in (0.1, 0.3, 0.5):
        crop, parts = RandomIoUCrop(min_overlaps=(least,)), []
        for seed in range(60):
            window = crop.draw(*SIZE, sample.bbox, np.random.default_rng(seed))
            if window is None:
                continue
            top, left, height, width = window
            assert 0.5 <= width / height <= 2
            assert min(height / SIZE[0], width / SIZE[1]) > 0.28
            assert top + height <= SIZE[0]
            assert left + width <= SIZE[1]
            part = [[top, left, top + height, left + width]]
            parts.append(float(bbox_iou(sample.bbox, part).max()))
        assert len(parts) > 5
        assert min(parts) >= least


def test_crops_keep_what_has_its_centre_inside() -> None:
    sample = crowded()
    for seed in range(40):
        crop = RandomIoUCrop(min_overlaps=(0.0,))
        window = crop.draw(*SIZE, sample.bbox, np.random.default_rng(seed))
        assert window is not None
        top, left, height, width = window
        centres = (sample.bbox[:, :2] + sample.bbox[:, 2:]) / 2 - (top, left)
        inside = ((centres > 0) & (centres < (height, width))).all(axis=1)
        out = crop(sample, np.random.default_rng(seed))
        assert out.label.tolist() == sample.label[inside].tolist()
        np.testing.assert_array_equal(
            out.img, sample.img[:, top : top + height, left : left + width]
        )
    assert RandomIoUCrop(min_overlaps=(1.0,))(sample, np.random.default_rng(0)) is sample
    impossible = RandomIoUCrop(scale=(0.3, 0.3), min_overlaps=(0.99,))
    assert impossible(sample, np.random.default_rng(0)) is sample


def test_scale_jitter_is_a_resize_cut_or_filled_up() -> None:
    sample = crowded()
    rng = np.random.default_rng(0)
    smaller = ScaleJitter((0.5, 0.5), fill=(1, 2, 3))(sample, rng)
    assert smaller.img.shape == sample.img.shape
    assert smaller.scale == 0.5
    filled = (smaller.img == np.array([1, 2, 3], np.float32)[:, None, None]).all(axis=0)
    rows, columns = np.nonzero(~filled)
    top, left = rows.min(), columns.min()
    np.testing.assert_array_equal(
        smaller.img[:, top : top + 45, left : left + 60], resize(sample.img, (45, 60))
    )
    assert filled.sum() == 90 * 120 - 45 * 60
    shift = np.array([top, left, top, left])
    np.testing.assert_allclose(smaller.bbox, sample.bbox / 2 + shift, atol=1e-4)

    larger = ScaleJitter((2, 2), min_visible=0.6)(sample, rng)
    assert larger.img.shape == sample.img.shape
    assert larger.scale == 2
    whole = resize(sample.img, (180, 240))
    places = [
        (y, x)
        for y in range(91)
        for x in range(121)
        if np.array_equal(whole[:, y, x], larger.img[:, 0, 0])
    ]
    assert len(places) == 1
    y, x = places[0]
    np.testing.assert_array_equal(whole[:, y : y + 90, x : x + 120], larger.img)
    window = np.array([y, x, y, x])
    cut = np.clip(sample.bbox * 2 - window, 0, [90, 120, 90, 120])
    sides, old = cut[:, 2:] - cut[:, :2], (sample.bbox[:, 2:] - sample.bbox[:, :2]) * 2
    stays = sides.prod(axis=1) >= 0.6 * old.prod(axis=1)
    assert 0 < stays.sum() < len(stays)
    assert larger.label.tolist() == sample.label[stays].tolist()
    np.testing.assert_allclose(larger.bbox, cut[stays], atol=1e-4)


def test_small_remains_are_dropped() -> None:
    sample = crowded()
    small = ScaleJitter((0.1, 0.1), min_size=2)(sample, np.random.default_rng(0))
    sides = (sample.bbox[:, 2:] - sample.bbox[:, :2]) / 10
    assert small.label.tolist() == sample.label[(sides >= 2).all(axis=1)].tolist()


def test_zooming_out_leaves_pixels_as_they_are() -> None:
    sample = crowded()
    out = RandomZoomOut((3, 3), p=1)(sample, np.random.default_rng(0))
    assert out.img.shape == (3, 270, 360)
    top, left = (out.bbox[0] - sample.bbox[0])[:2].round().astype(int)
    np.testing.assert_array_equal(out.img[:, top : top + 90, left : left + 120], sample.img)
    np.testing.assert_allclose(out.img[:, 0, 0], [123.675, 116.28, 103.53], rtol=1e-6)
    assert RandomZoomOut(p=0)(sample, np.random.default_rng(0)) is sample


def test_shortest_sizes() -> None:
    transform = RandomShortestSize((30, 60), 100)
    shapes = {transform(crowded(), np.random.default_rng(k)).img.shape for k in range(20)}
    assert shapes == {(3, 30, 40), (3, 60, 80)}
    one = RandomShortestSize(90, 60)(crowded(), np.random.default_rng(0))
    assert one.img.shape == (3, 45, 60)
    assert one.scale == 0.5


def test_colours_by_probability() -> None:
    image = crowded().img
    same = RandomPhotometricDistort(p=0)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(same, image)
    only_channels = RandomPhotometricDistort((1, 1), (1, 1), (1, 1), (0, 0), p=1)
    orders = {
        tuple(np.round(only_channels(image, np.random.default_rng(k))[:, 5, 5]).astype(int))
        for k in range(60)
    }
    assert len(orders) == 6
    grey = RandomPhotometricDistort(p=1)(image[:1], np.random.default_rng(0))
    assert grey.shape == (1, *SIZE)


def test_mosaics_are_made_of_four() -> None:
    """Four images of one colour each: the quarters meet at one point, and have their boxes."""
    items = []
    for level in (10, 60, 110, 160):
        whole = np.array([[0, 0, 40, 60]], np.float32)
        img = np.full((3, 40, 60), level, np.float32)
        items.append((img, whole, np.array([level], np.int32), np.array([level == 60])))
    mosaic = Mosaic(items, p=1.0, min_visible=0)
    assert mosaic[2] is items[2]
    for seed in range(20):
        out = mosaic.random_item(2, np.random.default_rng(seed))
        assert out.img.shape == (3, 40, 60)
        assert out.label[0] == 110
        assert out.difficult is not None
        assert out.difficult.tolist() == [k == 60 for k in out.label]
        assert out.crowd is None
        assert len(out.label) == 4
        areas = (out.bbox[:, 2:] - out.bbox[:, :2]).prod(axis=1)
        assert areas.sum() == 40 * 60
        for box, level in zip(out.bbox.astype(int), out.label, strict=True):
            quarter = out.img[:, box[0] : box[2], box[1] : box[3]]
            np.testing.assert_allclose(quarter, level, rtol=1e-5)
        assert 12 <= out.bbox[0, 2] <= 28
    assert mosaic.random_item(0, np.random.default_rng(0)).img.transpose(1, 2, 0).flags.c_contiguous
    sized = Mosaic(items, p=1.0, size=(30, 31)).random_item(0, np.random.default_rng(0))
    assert sized.img.shape == (3, 30, 31)
    plain = Mosaic(items, p=0.0).random_item(3, np.random.default_rng(0))
    assert plain.label.tolist() == [160]


def test_a_mosaic_is_its_data_set_in_all_else() -> None:
    class Named(list):
        class_names = ("cat",)

    mosaic = Mosaic(Named([tuple(crowded())]))
    assert len(mosaic) == 1
    assert mosaic.class_names == ("cat",)
    assert not hasattr(mosaic, "image_ids")
    copied = pickle.loads(pickle.dumps(Mosaic([tuple(crowded())], p=1.0, size=20)))
    assert copied.random_item(0, np.random.default_rng(0)).img.shape == (3, 20, 20)
    assert "p=0.5" in repr(mosaic)


def test_mosaics_in_a_loader() -> None:
    items = [(np.full((3, 20, 30), k, np.float32), np.zeros((0, 4)), np.zeros(0)) for k in range(5)]
    single = list(DataLoader(items, batch_size=2, seed=3))
    assert single[0][0][0].max() == 0

    def images(workers: int, start: int = 0) -> list[np.ndarray]:
        loader = DataLoader(Mosaic(items, p=0.5), seed=3, num_workers=workers, shuffle=True)
        loader.set_epoch(1, start=start)
        return [sample.img for [sample] in loader]

    for a, b in zip(images(0)[2:], images(3, start=2), strict=True):
        np.testing.assert_array_equal(a, b)
    mixed = [len(np.unique(image)) > 1 for image in images(0)]
    assert any(mixed)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomIoUCrop(scale=(0, 1)), "scale: expected 0 < low <= high <= 1"),
        (lambda: RandomIoUCrop(scale=(0.5, 2)), "scale: expected"),
        (lambda: RandomIoUCrop(ratio=(-1, 1)), "ratio: expected 0 < low"),
        (lambda: RandomIoUCrop(min_overlaps=()), "min_overlaps: expected at least one"),
        (lambda: RandomIoUCrop(trials=0), "trials: expected"),
        (lambda: ScaleJitter((0, 1)), "scale: expected 0 < low"),
        (lambda: ScaleJitter(fill=300), "fill: expected"),
        (lambda: ScaleJitter(min_visible=2), "min_visible: expected"),
        (lambda: RandomZoomOut((0.5, 2)), "side_range: expected 1 <= low"),
        (lambda: RandomZoomOut(p=2), "p: expected"),
        (lambda: RandomShortestSize(()), "min_size: expected at least one"),
        (lambda: RandomPhotometricDistort(hue=(-1, 1)), "hue: expected a range"),
        (lambda: Mosaic([], centre=(0, 1)), "centre: expected"),
        (lambda: Mosaic([], zoom=(0.5, 1)), "zoom: expected 1 <= low"),
    ],
)
def test_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_fills_of_other_images() -> None:
    grey = Sample(np.zeros((1, 9, 9), np.float32), np.zeros((0, 4), np.float32), np.zeros(0, int))
    rng = np.random.default_rng(0)
    assert RandomZoomOut((2, 2), 1, fill=7)(grey, rng).img.max() == 7
    with pytest.raises(ValueError, match="fill: expected a number, or one for each of 1 channels"):
        RandomZoomOut((2, 2), 1)(grey, rng)


def test_the_generator_is_checked() -> None:
    for transform in (RandomIoUCrop(), ScaleJitter(), RandomZoomOut(), RandomPhotometricDistort()):
        with pytest.raises(TypeError, match=r"rng: expected a numpy\.random\.Generator"):
            transform(crowded(), np.random.RandomState(0))  # type: ignore[operator]


def test_plain_tuples_are_samples() -> None:
    item = tuple(crowded())[:4]
    for transform in (RandomIoUCrop(), ScaleJitter(), RandomZoomOut(), RandomShortestSize(30)):
        assert isinstance(transform(item, np.random.default_rng(0)), Sample)  # type: ignore
    resized = ResizeShortSide(30, 100)(crowded(), np.random.default_rng(0))
    assert resized.crowd is not None
