"""What goes to TensorBoard: to an object with add_scalar, and to tensorboardX by its arguments."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from oxidet.train import Trainer
from train.runs import make_trainer
from train.tiny import Rectangles

SMALL: dict[str, Any] = {"dataset": Rectangles(4), "epochs": 1, "checkpoint_every": 1}


class Writer:
    """Keeps what it is given."""

    made: list[Writer]

    def __init__(self, folder: str = "", **options: Any) -> None:
        self.folder, self.options, self.closed = folder, options, False
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def close(self) -> None:
        self.closed = True


def test_an_object_with_add_scalar(tmp_path: Path) -> None:
    writer = Writer()
    best = make_trainer(tmp_path, tensorboard=writer, **SMALL).run()
    tags = {tag for tag, _, _ in writer.scalars}
    assert {"train/total_loss", "train/lr", "train/gradient_norm", "train/rpn_cls_loss"} <= tags
    assert {"validation/mean_ap", "validation/ap/bright", "validation/coco_AP"} <= tags
    assert not {"train/iteration", "train/epoch", "train/seconds"} & tags
    assert [step for tag, _, step in writer.scalars if tag == "train/lr"] == [1, 2]
    assert ("validation/mean_ap", best, 2) in writer.scalars
    assert not writer.closed
    with pytest.raises(TypeError, match="tensorboard: expected True, False or an object with"):
        make_trainer(tmp_path / "other", tensorboard="runs", **SMALL)


def test_event_files_go_on_where_the_checkpoint_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Writer] = []

    def summary_writer(folder: str, **options: Any) -> Writer:
        made.append(Writer(folder, **options))
        return made[-1]

    module = types.SimpleNamespace(SummaryWriter=summary_writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", module)  # type: ignore[arg-type]

    def start(epochs: int, **options: Any) -> Trainer:
        return make_trainer(tmp_path, tensorboard=True, **{**SMALL, "epochs": epochs}, **options)

    start(1).run()
    start(2, resume=True).run()
    assert [writer.options["purge_step"] for writer in made] == [None, 3]
    assert [writer.folder for writer in made] == [str(tmp_path / "tensorboard")] * 2
    assert all(writer.closed for writer in made)
    steps = [[s for tag, _, s in writer.scalars if tag == "train/lr"] for writer in made]
    assert steps == [[1, 2], [3, 4]]


def test_without_the_package_the_run_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match=r"pip install 'oxidet\[tensorboard\]'"):
        make_trainer(tmp_path / "run", tensorboard=True, **SMALL)
    assert not (tmp_path / "run").exists()


def test_tensorboardx_writes_what_can_be_read(tmp_path: Path) -> None:
    board = pytest.importorskip("tensorboardX")
    loader = pytest.importorskip("tensorboardX.proto.event_pb2")
    make_trainer(tmp_path, tensorboard=True, **SMALL).run()
    [path] = (tmp_path / "tensorboard").iterdir()
    content, at, tags = path.read_bytes(), 0, set()
    while at < len(content):  # length, its checksum, the event, its checksum
        length = int.from_bytes(content[at : at + 8], "little")
        event = loader.Event.FromString(content[at + 12 : at + 12 + length])
        tags |= {value.tag for value in event.summary.value}
        at += 16 + length
    assert {"train/total_loss", "validation/mean_ap"} <= tags, board.__version__
