"""The sheet of a data set shows every class, in its colour, where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.data.bbox_dataset import Annotation
from oxidet.visualize import dataset_sheet, label_colour

Image = pytest.importorskip("PIL.Image")


class Plain:
    """Grey images with one object each, as files."""

    def __init__(self, folder: Path, labels: list[int], classes: int, size: Any = (60, 80)) -> None:
        self.class_names = tuple(f"class {k}" for k in range(classes))
        self.labels, self.folder = labels, folder
        for index in range(len(labels)):
            Image.new("RGB", size[::-1], (128, 128, 128)).save(self.image_path(index))

    def __len__(self) -> int:
        return len(self.labels)

    def image_path(self, index: int) -> Path:
        return self.folder / f"{index}.png"

    def annotation(self, index: int) -> Annotation:
        off = np.zeros(1, np.bool_)
        box = np.array([[10, 20, 50, 60]], np.float32)
        label = np.array([self.labels[index]], np.int32)
        return Annotation(box, label, off | (index == 3), off, np.array([1600], np.float32))


def colours(sheet: Any) -> set[tuple[int, ...]]:
    return {colour for _, colour in sheet.getcolors(10**7)}


def test_every_class_is_shown(tmp_path: Path) -> None:
    labels = [0] * 40 + [1] + [0] * 40 + [2, 2]
    sheet = dataset_sheet(Plain(tmp_path, labels, 4), 3, columns=3, width=600)
    assert sheet.width == 600
    assert {label_colour(k) for k in range(3)} <= colours(sheet)
    assert label_colour(3) not in colours(sheet)


def test_boxes_are_where_they_belong(tmp_path: Path) -> None:
    sheet = np.asarray(dataset_sheet(Plain(tmp_path, [0], 1), 1, width=800))
    found = (sheet == label_colour(0)).all(axis=2)
    rows = np.flatnonzero(found[:600].sum(axis=1) > 200)
    columns = np.flatnonzero(found[:600].sum(axis=0) > 200)
    # Ten times the size, but for the margin.
    assert rows[-1] - rows[0] == pytest.approx(400, rel=0.03)
    assert columns[0] == pytest.approx(200, rel=0.03)
    assert columns[-1] == pytest.approx(600, rel=0.03)


def test_odd_data(tmp_path: Path) -> None:
    data = Plain(tmp_path, list(range(20)), 20, (8, 200))  # captions, as colours repeat
    assert dataset_sheet(data, width=500).width == 500
    for index in range(19):
        data.image_path(index).unlink()
    assert dataset_sheet(data, width=500).width == 500
    data.image_path(19).write_bytes(b"no image")
    with pytest.raises(ValueError, match="dataset: expected an image that can be read"):
        dataset_sheet(data)
    with pytest.raises(ValueError, match="columns"):
        dataset_sheet(data, columns=0)


def test_a_data_set_without_files_is_refused() -> None:
    with pytest.raises(TypeError, match="dataset: expected one with annotation, such as"):
        dataset_sheet([])
