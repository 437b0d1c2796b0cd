"""The detector's training loop: files, resume to the same bits, and what stops it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oxidet
from oxidet import weights
from oxidet.data import ItemError
from oxidet.models.detection import load_detector
from oxidet.optim import SGD
from oxidet.optim.lr_scheduler import CosineAnnealingLR
from oxidet.train import NonFiniteError, Trainer, read_log
from oxidet.train.checkpoint import load_checkpoint
from train.runs import assert_same_run, make_trainer
from train.tiny import Rectangles, tiny_detector

LOSSES = ("rpn_loc_loss", "rpn_cls_loss", "roi_loc_loss", "roi_cls_loss")


def cosine(optimizer: Any, steps: int) -> CosineAnnealingLR:
    return CosineAnnealingLR(optimizer, steps)


class Stop(Exception):
    """Stands for whatever ends a process."""


def run_until(trainer: Trainer, iteration: int) -> None:
    """Run, and break off after ``iteration`` steps without a chance to clean up."""
    step = trainer._step

    def counted(batch: list[Any]) -> None:
        if trainer.iteration == iteration:
            raise Stop
        step(batch)

    trainer._step = counted  # type: ignore[method-assign]
    with pytest.raises(Stop):
        trainer.run()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of four steps that nothing interrupted."""
    out = tmp_path_factory.mktemp("straight")
    make_trainer(out).run()
    return out


def test_a_run_leaves_log_checkpoint_and_best_detector(straight: Path) -> None:
    records = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    steps = [r for r in records if r["event"] == "step"]
    assert [r["iteration"] for r in steps] == list(range(1, 9))
    assert [r["epoch"] for r in steps] == [0] * 4 + [1] * 4
    for record in steps:
        total = sum(record[name] for name in LOSSES)
        assert record["total_loss"] == pytest.approx(total, rel=1e-6)
        assert record["images_per_second"] > 0
        assert record["lr"] == 0.01
    evaluations = [r for r in records if r["event"] == "evaluation"]
    assert [r["iteration"] for r in evaluations] == [4, 8]
    assert set(evaluations[0]["ap"]) == {"bright", "dark"}

    position = load_checkpoint(straight / "last.npz")["position"]
    assert (position["epoch"], position["batch"], position["iteration"]) == (2, 0, 8)
    assert position["best"] == max(r["mean_ap"] for r in evaluations)
    detector = load_detector(straight / "best.npz")
    assert detector.class_names == ("bright", "dark")


@pytest.mark.parametrize(
    ("every", "stop", "resumed_at"), [(None, 6, 4), (1, 2, 2), (3, 7, 6), (1, 5, 5)]
)
def test_resume_continues_to_the_same_bits(
    tmp_path: Path, straight: Path, every: int | None, stop: int, resumed_at: int
) -> None:
    run_until(make_trainer(tmp_path, checkpoint_every=every), stop)
    oxidet.manual_seed(99)
    np.random.seed(99)
    resumed = make_trainer(
        tmp_path, checkpoint_every=every, resume=True, detector=tiny_detector(seed=5), num_workers=0
    )
    assert resumed.iteration == resumed_at
    resumed.run()
    assert_same_run(tmp_path, straight)


def test_an_interrupt_leaves_a_checkpoint_of_where_it_was(tmp_path: Path, straight: Path) -> None:
    trainer = make_trainer(tmp_path)
    losses = trainer.losses

    def interrupted(batch: list[Any]) -> Any:
        if trainer.iteration == 2:
            signal.raise_signal(signal.SIGINT)  # in the middle of a step, which is finished
        return losses(batch)

    trainer.losses = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    resumed = make_trainer(tmp_path, resume=tmp_path / "last.npz")
    assert (resumed.epoch, resumed.batch, resumed.iteration) == (0, 3, 3)
    resumed.run()
    assert_same_run(tmp_path, straight)


def test_an_interrupted_evaluation_is_repeated(tmp_path: Path, straight: Path) -> None:
    trainer = make_trainer(tmp_path)

    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)

    trainer.score = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    make_trainer(tmp_path, resume=True).run()
    assert_same_run(tmp_path, straight)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path, straight: Path) -> None:
    make_trainer(tmp_path).run()
    before = (tmp_path / "last.npz").read_bytes()
    assert make_trainer(tmp_path, resume=True).run() is not None
    assert (tmp_path / "last.npz").read_bytes() == before
    assert_same_run(tmp_path, straight)


def test_the_number_of_threads_changes_nothing(tmp_path: Path, straight: Path) -> None:
    oxidet.set_num_threads(1)
    make_trainer(tmp_path, num_workers=3).run()
    assert_same_run(tmp_path, straight)


def test_a_directory_with_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1, dataset=Rectangles(2), validation=None).run()
    assert not (tmp_path / "best.npz").exists()
    with pytest.raises(FileExistsError, match="resume=True"):
        make_trainer(tmp_path)
    make_trainer(tmp_path, epochs=1, dataset=Rectangles(4), validation=None, overwrite=True).run()
    assert [r["iteration"] for r in read_log(tmp_path / "log.jsonl")] == [1, 2]


def test_overwriting_leaves_nothing_of_the_old_run_to_resume(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).run()
    run_until(make_trainer(tmp_path, overwrite=True), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
    with pytest.raises(FileNotFoundError):
        make_trainer(tmp_path, resume=True)


def test_resume_wins_over_overwrite(tmp_path: Path, straight: Path) -> None:
    run_until(make_trainer(tmp_path, checkpoint_every=1), 5)
    make_trainer(tmp_path, resume=True, overwrite=True).run()
    assert_same_run(tmp_path, straight)


def test_two_runs_cannot_share_a_directory(tmp_path: Path) -> None:
    trainer, second = make_trainer(tmp_path), make_trainer(tmp_path)
    losses = trainer.losses

    def meanwhile(batch: list[Any]) -> Any:
        with pytest.raises(BlockingIOError, match=r"log\.jsonl: .* got one in use"):
            second.run()
        return losses(batch)

    trainer.losses = meanwhile  # type: ignore[method-assign]
    trainer.run()
    assert len(read_log(tmp_path / "log.jsonl")) == 10


@pytest.mark.parametrize("what", ["dataset", "validation"])
def test_an_unreadable_item_costs_no_finished_step(
    tmp_path: Path, straight: Path, what: str
) -> None:
    broken = True

    class Unreadable(Rectangles):
        def __getitem__(self, i: int) -> tuple[Any, ...]:
            if broken and i == bad:
                raise ValueError("not an image")
            return super().__getitem__(i)

    items = Unreadable(8 if what == "dataset" else 3)
    trainer = make_trainer(tmp_path, **{what: items})
    bad = trainer.loader.order(0)[6] if what == "dataset" else 1
    with pytest.raises(ItemError, match=f"item {bad} of Unreadable: ValueError: not an image"):
        trainer.run()
    broken = False
    resumed = make_trainer(tmp_path, resume=True, **{what: items})
    assert resumed.iteration == (3 if what == "dataset" else 4)
    resumed.run()
    assert_same_run(tmp_path, straight)


def test_validation_data_without_items_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validation: expected at least one item"):
        make_trainer(tmp_path, validation=[])


def test_a_detector_without_recipe_leaves_weights_alone(tmp_path: Path) -> None:
    detector = tiny_detector()
    detector.built_with = {}
    make_trainer(tmp_path, detector=detector, epochs=1).run()
    assert weights.load_metadata(tmp_path / "best.npz") == {}
    tiny_detector(seed=1).load_state_dict(weights.load(tmp_path / "best.npz"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed was 4 and is 5"),
        ({"batch_size": 1}, "batch_size was 2 and is 1"),
        ({"dataset": Rectangles(9)}, "items was 8 and is 9"),
        ({"augment": None}, "augment was 'RandomFlip"),
        ({"lr": 0.02}, "lr was [0.01] and is [0.02]"),
        ({"max_grad_norm": None}, "max_grad_norm was 5.0 and is None"),
        ({"schedule": cosine}, "schedule was None and is 'CosineAnnealingLR'"),
    ],
)
def test_resume_refuses_another_run(straight: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        make_trainer(straight, resume=True, **change)


def test_a_run_can_be_prolonged_unless_its_schedule_has_an_end(tmp_path: Path) -> None:
    small = {"dataset": Rectangles(2), "validation": None}
    make_trainer(tmp_path / "plain", epochs=1, **small).run()
    make_trainer(tmp_path / "plain", epochs=2, resume=True, **small).run()
    assert len(read_log(tmp_path / "plain" / "log.jsonl")) == 2
    make_trainer(tmp_path / "cosine", epochs=1, schedule=cosine, **small).run()
    with pytest.raises(ValueError, match="epochs was 1 and is 2"):
        make_trainer(tmp_path / "cosine", epochs=2, schedule=cosine, resume=True, **small)


def test_an_augmentation_without_a_repr_of_its_own_can_be_resumed(tmp_path: Path) -> None:
    def make() -> Any:
        return lambda sample, rng: sample

    small = {"dataset": Rectangles(2), "validation": None, "epochs": 1}
    first, second = make(), make()
    make_trainer(tmp_path, augment=first, **small).run()
    assert repr(first) != repr(second)  # they contain addresses
    assert make_trainer(tmp_path, augment=second, resume=True, **small).iteration == 1


def broken(index: int, row: int, box: list[float], label: int = 0) -> Any:
    class Broken(Rectangles):
        def __getitem__(self, i: int) -> tuple[Any, ...]:
            img, bbox, labels, difficult = super().__getitem__(i)
            if i == index:
                bbox = np.array([[1, 1, 20, 20]] * row + [box], np.float32)
                labels = np.array([0] * row + [label], np.int32)
                difficult = np.zeros(row + 1, bool)
            return img, bbox, labels, difficult

    return Broken(4)


@pytest.mark.parametrize(
    ("box", "label", "named"),
    [
        ([1, 2, 3, float("nan")], 0, "bbox"),
        ([1, 2, float("inf"), 5], 0, "bbox"),
        ([4, 4, 4, 9], 0, "bbox"),
        ([9, 4, 4, 9], 1, "bbox"),
        ([1, 1, 9, 9], 2, "label"),
        ([1, 1, 9, 9], -1, "label"),
    ],
)
def test_impossible_ground_truth_is_named(
    tmp_path: Path, box: list[float], label: int, named: str
) -> None:
    trainer = make_trainer(tmp_path, dataset=broken(2, 1, box, label), augment=None)
    with pytest.raises(ItemError, match=rf"item 2 of Broken: ValueError: {named}: .* in row 1"):
        trainer.run()


def test_images_without_objects_are_trained_on(tmp_path: Path) -> None:
    class Empty(Rectangles):
        def __getitem__(self, i: int) -> tuple[Any, ...]:
            img, *_ = super().__getitem__(i)
            return img, np.zeros((0, 4), np.float32), np.zeros(0, np.int32)

    make_trainer(tmp_path, dataset=Empty(2), validation=None, epochs=1).run()
    [record] = read_log(tmp_path / "log.jsonl")
    assert record["rpn_loc_loss"] == record["roi_loc_loss"] == 0


def test_validation_without_objects_has_no_best(tmp_path: Path) -> None:
    image = np.full((3, 48, 64), 128, np.float32)
    nothing = [(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int32))]
    trainer = make_trainer(tmp_path, dataset=Rectangles(2), validation=nothing, epochs=1)
    assert trainer.run() is None
    assert not (tmp_path / "best.npz").exists()
    assert read_log(tmp_path / "log.jsonl")[-1]["mean_ap"] is None
    assert (
        make_trainer(
            tmp_path, dataset=Rectangles(2), validation=nothing, epochs=1, resume=True
        ).best
        is None
    )


def test_mixed_sizes_need_batches_of_one(tmp_path: Path) -> None:
    class Mixed(Rectangles):
        def __getitem__(self, i: int) -> tuple[Any, ...]:
            img, bbox, *rest = super().__getitem__(i)
            return (img, bbox, *rest) if i % 2 else (img[:, :40], bbox.clip(0, 39), *rest)

    with pytest.raises(ValueError, match=r"images: expected sizes that are scaled to one"):
        make_trainer(tmp_path, dataset=Mixed(2), epochs=1).run()
    make_trainer(tmp_path, dataset=Mixed(2), epochs=1, batch_size=1).run()
    assert len(read_log(tmp_path / "log.jsonl")) == 3


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, batch_size=1, checkpoint_every=1, dataset=Rectangles(4))
    losses = trainer.losses

    def poisoned(batch: list[Any]) -> Any:
        values = dict(losses(batch))
        if trainer.iteration == 2:
            values["total_loss"] = values["total_loss"] * float("inf")
        return values

    trainer.losses = poisoned  # type: ignore[method-assign]
    image = trainer.loader.order(0)[2]
    with pytest.raises(
        NonFiniteError, match=rf"iteration 3, image {image}: .*total_loss = (inf|nan)"
    ):
        trainer.run()
    state = load_checkpoint(tmp_path / "last.npz")
    assert state["position"]["iteration"] == 2
    assert all(np.isfinite(array).all() for array in state["model"].values())


def test_the_gradient_norm_is_limited(tmp_path: Path) -> None:
    taken = []

    class Spy(SGD):
        def step(self) -> None:
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            taken.append(np.sqrt(sum(float(np.square(g).sum()) for g in gradients)))
            super().step()

    detector = tiny_detector()
    optimizer = Spy(detector.parameters(), lr=0.01)
    make_trainer(
        tmp_path, detector=detector, optimizer=optimizer, max_grad_norm=0.5, epochs=1
    ).run()
    logged = [r["gradient_norm"] for r in read_log(tmp_path / "log.jsonl") if r["event"] == "step"]
    assert max(logged) > 0.5
    np.testing.assert_allclose(taken, np.minimum(logged, 0.5), rtol=1e-5)


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """A short training from scratch finds the rectangles of images it has not seen."""
    trainer = make_trainer(
        tmp_path, dataset=Rectangles(64), validation=_shifted(24), epochs=6, lr=0.02
    )
    assert trainer.run() > 0.8


def _shifted(length: int) -> Any:
    class Others(Rectangles):
        def __getitem__(self, index: int) -> tuple[Any, ...]:
            return super().__getitem__(index + 10_000)

    return Others(length)
