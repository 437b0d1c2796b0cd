"""Files damaged at random: an error in one line that names the file, never anything else."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.data import BboxDataset, COCODetection, VOCBboxDataset, check_data

Image = pytest.importorskip("PIL.Image")

XML = (
    b"<annotation><size><width>32</width><height>24</height></size><object><name>cat</name>"
    b"<difficult>0</difficult><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>20</xmax><ymax>21</ymax>"
    b"</bndbox></object><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>32"
    b"</xmax><ymax>24</ymax></bndbox></object></annotation>"
)
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.img", "height": 24, "width": 32}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [3, 2, 17, 19], "area": 100, "iscrowd": 0}
        ],
        "categories": [{"id": 7, "name": "cat"}],
    }
).encode()
PIECES = (b"<", b"&x;", b"null", b"-1", b"1e999", b"NaN", b"[", b"{", b'"', b"]", b"\0", b"9" * 30)


def picture(form: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format=form)
    return file.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, lost, moved or put in."""
    out, kind = bytearray(data), int(rng.integers(4))
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(len(out)))
        if kind == 0:
            out[place] = int(rng.integers(256))
        elif kind == 1:
            del out[place : place + int(rng.integers(1, 9))]
        elif kind == 2:
            other = int(rng.integers(len(out)))
            out[place : place + 10] = out[other : other + 10]
        else:
            out[place : place + int(rng.integers(3))] = PIECES[int(rng.integers(len(PIECES)))]
        if not out:
            return b" "
    return bytes(out)


def use(dataset: BboxDataset) -> list[str]:
    """Read everything and check it; what was said of damages."""
    messages = []
    for index in range(len(dataset)):
        for read in (dataset.annotation, dataset.__getitem__):
            try:
                assert np.isfinite(read(index)[1 if read == dataset.__getitem__ else 0]).all()
            except (ValueError, OSError) as error:
                messages.append(str(error))
    report = check_data(dataset, num_workers=1)
    json.dumps(report.to_dict(), allow_nan=False)
    assert len(str(report)) > 20
    return messages + [fault.message for fault in report.problems]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_nothing_but_errors_with_names(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(len(form))
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    image = tmp_path / "JPEGImages" / "a.jpg"
    good, messages = picture(form), []

    def voc(on_error: Any) -> BboxDataset:
        return VOCBboxDataset(
            tmp_path, "train", class_names=("cat", "dog"), outside="clip", on_error=on_error
        )

    def coco(on_error: Any) -> BboxDataset:
        return COCODetection(tmp_path / "JPEGImages", tmp_path / "a.json", on_error=on_error)

    for number in range(60):
        image.write_bytes(damaged(good, rng) if number % 3 == 0 else good)
        (tmp_path / "JPEGImages" / "a.img").write_bytes(image.read_bytes())
        (tmp_path / "Annotations" / "a.xml").write_bytes(damaged(XML, rng) if number % 3 else XML)
        (tmp_path / "a.json").write_bytes(damaged(COCO, rng) if number % 3 else COCO)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for make in (voc, coco):
                for on_error in ("raise", "skip"):
                    try:
                        dataset = make(on_error)
                    except ValueError as error:  # of a file of COCO's form that is none at all
                        messages.append(str(error))
                        continue
                    messages += use(dataset)
    assert len(messages) > 60
    assert all(str(tmp_path) in message for message in messages)
    assert not any("\n" in message for message in messages)
