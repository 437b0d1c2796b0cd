"""Digit scenes keep their promises: sizes, overlap, tightness, and the same bits every time."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("sklearn")

from oxidet.data import DigitScenes
from oxidet.data import scenes as module
from oxidet.data.scenes import Glyph, tight_box

SOME = range(60)


def pairs_iou(bbox: np.ndarray) -> list[float]:
    ious = []
    for a, b in itertools.combinations(bbox, 2):
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        shared = float(np.prod(np.maximum(sides, 0)))
        ious.append(shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))
    return ious


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_scene_is_as_described(split: str) -> None:
    scenes = DigitScenes(split, length=len(SOME))  # type: ignore[arg-type]
    counts, ious, heights = [], [], []
    for img, bbox, label, difficult in scenes:
        assert (img.shape, img.dtype) == ((3, 192, 256), np.float32)
        assert img.min() >= 0
        assert img.max() <= 255
        assert (img == np.rint(img)).all()
        assert (bbox.dtype, label.dtype, difficult.dtype) == (np.float32, np.int32, np.bool_)
        assert bbox.shape == (len(label), 4)
        assert len(difficult) == len(label)
        assert not difficult.any()
        assert ((label >= 0) & (label <= 9)).all()
        assert (bbox[:, :2] >= 0).all()
        assert (bbox[:, 2:] <= (192, 256)).all()
        counts.append(len(label))
        heights.extend(bbox[:, 2] - bbox[:, 0])
        ious.extend(pairs_iou(bbox))
    assert set(counts) == set(range(2, 9))
    assert (min(heights), max(heights)) >= (16, 50)
    assert max(heights) <= 56
    # Up to 0.3 is allowed, and crowding does occur.
    assert 0.1 < max(ious) <= 0.3


def test_boxes_are_tight_around_visible_ink() -> None:
    """Against the glyphs themselves: every edge of a box touches ink that nothing covers."""
    scenes = DigitScenes("test", length=30)
    seen: list[list[Glyph]] = []
    place = DigitScenes._place_digits

    def spy(self: DigitScenes, rng: np.random.Generator) -> list[Glyph]:
        seen.append(place(self, rng))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitScenes, "_place_digits", spy)
        boxes = [scenes[i][1] for i in range(len(scenes))]
    for glyphs, bbox in zip(seen, boxes, strict=True):
        top = np.full((192, 256), -1)
        for number, glyph in enumerate(glyphs):  # painter's order
            region = top[glyph.top : glyph.bottom, glyph.left : glyph.right]
            region[glyph.coverage > 0.5] = number
        for number, box in enumerate(bbox):
            assert tight_box(top == number, 0, 0) == tuple(box)


def test_ink_stands_out_from_the_background() -> None:
    """The grey level inside a box varies far more than the noise of the scene."""
    for img, bbox, _, _ in DigitScenes("validation", length=20):
        for y0, x0, y1, x1 in bbox.astype(int):
            grey = img[:, y0:y1, x0:x1].mean(axis=0)
            assert np.percentile(grey, 95) - np.percentile(grey, 5) > 35


def test_a_scene_depends_on_seed_split_and_index_only() -> None:
    scenes = DigitScenes("train", length=10)
    again = DigitScenes("train", length=1000)
    for index in (7, 0, 3):
        for a, b in zip(scenes[index], again[index], strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(scenes[-1][0], scenes[9][0])
    different = [
        scenes[3][0],
        scenes[4][0],
        DigitScenes("train", seed=1)[3][0],
        DigitScenes("test")[3][0],
    ]
    for a, b in itertools.combinations(different, 2):
        assert (a != b).mean() > 0.5


def test_the_test_scenes_are_what_they_have_always_been() -> None:
    # Whoever changes these makes every published figure incomparable.
    scenes = DigitScenes("test")
    labels, corners, level = [], [], []
    for index in range(3):
        img, bbox, label, _ = scenes[index]
        labels.append(label.tolist())
        corners.append(bbox[0].tolist())
        level.append(float(img.mean()))
    assert labels == [[7, 2, 5], [8, 0], [4, 7, 1, 8]]
    assert corners == [[148, 2, 165, 13], [37, 100, 88, 127], [68, 80, 115, 117]]
    assert level == pytest.approx([155.251, 161.622, 36.293], abs=0.01)


def test_threads_give_the_same_scenes() -> None:
    scenes = DigitScenes("test", length=24)
    expected = [scenes[i][0] for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        for a, (b, *_) in zip(expected, pool.map(scenes.__getitem__, range(24)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_digits_come_from_the_split_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = module.glyph_fields

    def spy(split: str) -> object:
        asked.append(split)
        return original(split)

    monkeypatch.setattr(module, "glyph_fields", spy)
    for index in range(3):
        DigitScenes("validation")[index]
    assert set(asked) == {"validation"}


def test_other_sizes() -> None:
    for size in ((64, 64), (33, 200), (300, 40)):
        for img, bbox, _, _ in DigitScenes("train", size=size, length=8):
            assert img.shape == (3, *size)
            assert (bbox[:, 2:] <= size).all()
    for _, bbox, _, _ in DigitScenes("train", length=10, digits=(3, 3), heights=(30, 30)):
        assert len(bbox) == 3
        assert (np.abs(bbox[:, 2] - bbox[:, 0] - 30) <= 1).all()
    for _, bbox, _, _ in DigitScenes("train", length=20, max_iou=0.0):
        assert max(pairs_iou(bbox)) == 0


def test_arguments() -> None:
    for arguments, words in (
        ({"split": "val"}, "split"),
        ({"length": -1}, "length"),
        ({"digits": (5, 2)}, "digits"),
        ({"heights": (40, 20)}, "heights"),
        ({"size": (20, 100)}, "size"),
    ):
        with pytest.raises(ValueError, match=words):
            DigitScenes(**arguments)  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        DigitScenes(length=3)[3]
    assert len(DigitScenes(length=3)) == 3
    assert "length=3" in repr(DigitScenes(length=3))
    assert DigitScenes.class_names[7] == "7"
