"""What the tests of the command line run, and run it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import oxidet
from oxidet import pretrained, weights
from oxidet.models import LeNet5
from oxidet.models.detection import build_detector, save_detector

DIGITS = tuple("0123456789")


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def oxidet_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command in this process, as ``oxidet`` with these arguments."""
    from oxidet.cli import main

    def run(*arguments: Any) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def random_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the small detector of digits, not trained: every score is about 0.1."""
    oxidet.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.npz"
    save_detector(path, build_detector("faster_rcnn_small", class_names=DIGITS))
    return path


@pytest.fixture
def cell_detector(tmp_path: Path) -> Path:
    """A file with a small detector that has more classes than ``voc``, not trained."""
    path = tmp_path / "cells.npz"
    names = ("cell", "dust", "speck")
    save_detector(path, build_detector("faster_rcnn_small", n_fg_class=3, class_names=names))
    return path


@pytest.fixture
def random_pretrained(
    random_detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of shipped weights stand for untrained networks."""
    lenet = tmp_path / "lenet.npz"
    weights.save(lenet, LeNet5().state_dict())
    for name, path in (("digits", random_detector), ("lenet5", lenet)):
        entry = pretrained.PRETRAINED[name]._replace(path=path)
        monkeypatch.setitem(pretrained.PRETRAINED, name, entry)


@pytest.fixture
def make_image() -> Callable[..., Path]:
    """Writes a picture of noise to a path; its ending chooses the format."""
    from PIL import Image

    def make(path: Path, height: int = 96, width: int = 128) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(height * 1000 + width)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        return path

    return make


@pytest.fixture
def voc(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    """A directory in VOC's layout: classes "cell" and "speck", images of two sizes."""
    root = tmp_path / "voc"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    boxes = ((10, 12, 60, 70, "cell"), (70, 20, 100, 52, "speck"))
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2, name in boxes
    )
    for number in range(4):
        make_image(root / "JPEGImages" / f"{number}.png", 96 + 16 * (number % 2), 128)
        (root / "Annotations" / f"{number}.xml").write_text(f"<annotation>{objects}</annotation>")
    for split, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
        lines = "".join(f"{number}\n" for number in numbers)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(lines)
    return root
