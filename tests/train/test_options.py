"""What the trainer's options do, on a detector that computes next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import nn, weights
from oxidet.data import ItemError, Mosaic, RepeatFactorSampler
from oxidet.models.detection import Detector
from oxidet.models.detection.detector import Found
from oxidet.train import Trainer, load_checkpoint, read_log


class Brightness(Detector):
    """Learns the mean of images; finds one box in each, of the class of its rounded weight."""

    def __init__(self, found: Sequence[Any] = ()) -> None:
        super().__init__(("dark", "bright"))
        self.norm = nn.BatchNorm2d(3)
        self.level = nn.Parameter([0.0])
        self.calls: list[dict[str, Any]] = []

    def training_losses(
        self, images: Any, boxes: Any, labels: Any, *, rng: Any, min_size: int | None = None
    ) -> dict[str, Any]:
        self.calls.append(
            {"images": images, "boxes": boxes, "labels": labels, "min_size": min_size}
        )
        self.norm(images[0][None])
        target = float(np.mean([image.mean() for image in images]))
        difference = self.level - nn.Tensor([target])
        noise = float(rng.rand())
        return {
            "loss_level": (difference * difference).sum(),
            "loss_noise": self.level.sum() * 0.0 * noise,
        }

    def detect_images(
        self, images: Any, score_threshold: Any = None, nms_threshold: Any = None
    ) -> list[Found]:
        box = np.array([[2, 2, 8, 8]], np.float32)
        score = np.clip(np.asarray(self.level.data, np.float32), 0, 1)
        return [Found(box, np.array([0]), score) for _ in images]


def items(values: Sequence[float], size: int = 10) -> list[tuple[Any, ...]]:
    box = np.array([[2, 2, 8, 8]], np.float32)
    return [(np.full((3, size, size), value, np.float32), box, np.array([0])) for value in values]


def make(out: Path, dataset: Any, **options: Any) -> Trainer:
    settings: dict[str, Any] = {"epochs": 1, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    return Trainer(Brightness(), dataset, out, quiet=True, **{**settings, **options})


def level(trainer: Trainer) -> float:
    return float(trainer.model.level.data[0])


def steps(out: Path) -> list[dict[str, Any]]:
    return [record for record in read_log(out / "log.jsonl") if record["event"] == "step"]


def test_accumulation_averages_the_gradients_of_batches(tmp_path: Path) -> None:
    """Ten images in batches of two, three batches a step: two steps, the last of two batches."""
    values = np.arange(1.0, 11.0)
    trainer = make(tmp_path, items(values), batch_size=2, accumulate=3, lr=0.25)
    order = values[trainer.loader.order(0)].reshape(5, 2).mean(axis=1)
    trainer.run()
    expected = 0.0
    losses = []
    for group in (order[:3], order[3:]):
        losses.append(np.mean((expected - group) ** 2))
        expected -= 0.25 * 2 * (expected - group.mean())
    assert level(trainer) == pytest.approx(expected, rel=1e-5)
    log = steps(tmp_path)
    assert [record["iteration"] for record in log] == [1, 2]
    assert [record["loss_level"] for record in log] == pytest.approx(losses, rel=1e-5)
    assert [record["total_loss"] for record in log] == pytest.approx(losses, rel=1e-5)
    assert (trainer.iteration, trainer.steps_per_epoch) == (2, 2)


def test_a_schedule_by_name_is_as_long_as_the_run(tmp_path: Path) -> None:
    trainer = make(tmp_path, items(range(10)), epochs=2, accumulate=2, schedule="cosine", warmup=2)
    trainer.run()
    rates = [record["lr"] for record in steps(tmp_path)]
    assert len(rates) == 10
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[2] == pytest.approx(0.1)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_sizes_are_drawn_for_every_batch_from_the_trainers_own_stream(tmp_path: Path) -> None:
    sizes = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        np.random.seed(hash(name) % 1000)
        trainer = make(
            tmp_path / name, items(range(40)), batch_size=2, multi_scale=(8, 12, 16), seed=seed
        )
        trainer.run()
        sizes[name] = [call["min_size"] for call in trainer.model.calls]
    assert sizes["a"] == sizes["b"] != sizes["c"]
    assert set(sizes["a"]) == {8, 12, 16}
    with pytest.raises(ValueError, match="multi_scale: expected at least one length"):
        make(tmp_path / "d", items([1]), multi_scale=())


def test_boxes_are_turned_to_xyxy_and_marked_objects_left_out(tmp_path: Path) -> None:
    image = np.zeros((3, 20, 30), np.float32)
    boxes = np.array([[1, 2, 3, 4], [5, 6, 9, 12], [2, 2, 9, 9]], np.float32)
    labels = np.array([0, 1, 1], np.int32)
    difficult, crowd = np.array([False, True, False]), np.array([False, False, True])
    for name, item, options, kept in (
        ("plain", (image, boxes, labels), {}, [0, 1, 2]),
        ("difficult", (image, boxes, labels, difficult), {}, [0, 2]),
        ("crowd", (image, boxes, labels, difficult, crowd), {}, [0]),
        ("used", (image, boxes, labels, difficult, crowd), {"use_difficult": True}, [0, 1]),
        ("empty", (image, [], []), {}, []),
    ):
        trainer = make(tmp_path / name, [item], **options)
        trainer.run()
        [call] = trainer.model.calls
        np.testing.assert_array_equal(call["boxes"][0], boxes[kept][:, [1, 0, 3, 2]], name)
        np.testing.assert_array_equal(call["labels"][0], labels[kept], name)
        assert call["labels"][0].dtype == np.int64
        assert call["boxes"][0].dtype == np.float32
    # Areas, as chainercv's COCO data set can return in that place, are no marks.
    with pytest.raises(ItemError, match="difficult: expected bool"):
        make(tmp_path / "area", [(image, boxes, labels, np.ones(3, np.float32))]).run()


def test_what_augmentation_leaves_nothing_of_is_gone(tmp_path: Path) -> None:
    def squeeze(sample: Any, rng: np.random.Generator) -> Any:
        return sample._replace(bbox=sample.bbox * np.array([[0, 0, 0, 0], [1, 1, 1, 1]]))

    boxes = np.array([[1, 2, 3, 4], [5, 6, 9, 12]], np.float32)
    item = (np.zeros((3, 20, 20), np.float32), boxes, np.array([0, 1]))
    trainer = make(tmp_path, [item], augment=squeeze)
    trainer.run()
    assert trainer.model.calls[0]["labels"][0].tolist() == [1]


class Damaged:
    """Items of which some cannot be read, or learned from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good = items(range(8))
        self.box: dict[int, Any] = {}
        self.unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self.good)

    def image_path(self, index: int) -> Path:
        return self.folder / f"{index}.jpg"

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if index in self.unreadable:
            raise ValueError(f"{self.image_path(index)}: expected an image file, got a damaged one")
        image, box, label = self.good[index]
        return image, np.array([self.box.get(index, box[0])], np.float32), label


def test_bad_items_stop_the_run_with_one_line_that_names_the_file(tmp_path: Path) -> None:
    nan = float("nan")
    for name, box in {
        "nan": [nan, 1, 2, 3],
        "zero": [3, 3, 3, 9],
        "inverted": [9, 1, 3, 4],
    }.items():
        dataset = Damaged(tmp_path)
        dataset.box[5] = box
        with pytest.raises(ItemError, match=r"5\.jpg\): ValueError: bbox: .* in row 0") as caught:
            make(tmp_path / name, dataset).run()
        assert "\n" not in str(caught.value)
    dataset = Damaged(tmp_path)
    dataset.good[5][0][:] = nan
    with pytest.raises(ItemError, match=r"5\.jpg\): ValueError: img: expected finite values"):
        make(tmp_path / "pixels", dataset).run()


def test_bad_items_are_replaced_reported_once_and_counted(
    tmp_path: Path,
) -> None:
    def start(name: str, **options: Any) -> Trainer:
        dataset = Damaged(tmp_path)
        dataset.box[5] = [3, 3, 3, 9]
        dataset.unreadable = {2}
        return make(
            tmp_path / name, dataset, validation=dataset, epochs=3, batch_size=2,
            checkpoint_every=1, on_error="skip", **options,
        )  # fmt: skip

    trainer = start("run")
    trainer.run()
    assert sorted(trainer.skipped) == [2, 5]
    used = [image.mean() for call in trainer.model.calls for image in call["images"]]
    assert len(used) == 24
    assert not {2, 5} & set(used)
    for number, text in ((2, "expected an image file"), (5, "bbox: expected finite")):
        assert f"{number}.jpg: {text}" in trainer.skipped[number]
    messages = [r["message"] for r in read_log(tmp_path / "run" / "log.jsonl") if "message" in r]
    assert len(messages) == len(set(messages))
    assert sum("5.jpg" in message for message in messages) == 1

    resumed = start("stopped")
    resumed.epochs = 1
    resumed.run()
    resumed = start("stopped", resume=True)
    assert sorted(resumed.skipped) == [2, 5]
    resumed.run()
    assert level(resumed) == level(trainer)

    nothing = Damaged(tmp_path)
    nothing.unreadable = set(range(8))
    with pytest.raises(ItemError, match=r"\.jpg: expected an image file"):
        make(tmp_path / "nothing", nothing, on_error="skip").run()


def test_the_run_ends_early_and_stays_so(tmp_path: Path) -> None:
    """The score is 1 from the first evaluation on."""
    options: dict[str, Any] = {"validation": items([0, 0]), "epochs": 9, "early_stop": 3}
    trainer = make(tmp_path, items([1, 1]), **options)
    assert trainer.run() == 1
    assert (trainer.epoch, trainer.iteration, trainer.stale) == (4, 8, 3)
    again = make(tmp_path, items([1, 1]), resume=True, **options)
    assert again.stopped_early
    again.run()
    assert again.iteration == 8
    with pytest.raises(ValueError, match="early_stop: expected validation data"):
        make(tmp_path / "other", items([1]), early_stop=1)


def test_the_average_is_judged_and_saved(tmp_path: Path) -> None:
    trainer = make(tmp_path, items([1, 3, 5]), epochs=2, ema=0.5, validation=items([0]))
    trainer.run()
    assert trainer.average is not None
    kept = trainer.average.model
    assert trainer.judged is kept
    assert kept.level.data[0] != trainer.model.level.data[0]
    best = weights.load(tmp_path / "best.npz")
    state = load_checkpoint(tmp_path / "last.npz")
    assert best["level"][0] == pytest.approx(state["average"]["model"]["level"][0], abs=2)
    assert not kept.training


@pytest.mark.parametrize("metric", ["voc", "voc07", "coco"])
def test_the_metric_chooses_the_score(tmp_path: Path, metric: str) -> None:
    shifted = [
        (image, box + np.array([[0, 0, 0, 1]]), label) for image, box, label in items([1, 1])
    ]
    best = make(tmp_path, items([1]), validation=shifted, metric=metric).run()
    record = read_log(tmp_path / "log.jsonl")[-1]
    # The box is 6 by 6 and what is found 6 by 7: right up to an IoU of 0.85.
    assert best == record["mean_ap"] == pytest.approx(0.8 if metric == "coco" else 1.0, abs=1e-6)
    assert record["coco_AP"] == pytest.approx(0.8, abs=1e-6)
    assert record["coco_AP50"] == pytest.approx(1.0, abs=1e-6)
    assert set(record["ap"]) == {"dark", "bright"}
    with pytest.raises(ValueError, match="metric: expected one of"):
        make(tmp_path / "other", items([1]), metric="map")


def test_a_sampler_and_mosaics(tmp_path: Path) -> None:
    data = items(range(4), size=32)
    sampler = RepeatFactorSampler([[0], [0], [0], [0, 1]], threshold=1.0)
    trainer = make(tmp_path / "sampler", data, sampler=sampler, epochs=2, batch_size=5)
    trainer.run()
    assert trainer.iteration == 2
    used = [sorted(float(i.mean()) for i in call["images"]) for call in trainer.model.calls]
    assert used == [[0, 1, 2, 3, 3]] * 2
    trainer = make(tmp_path / "mosaic", Mosaic(data, p=1.0), batch_size=4)
    trainer.run()
    assert any(len(np.unique(image)) > 1 for image in trainer.model.calls[0]["images"])


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    for name, options, still in (
        ("all", {}, False),
        ("prefix", {"freeze": ["norm"]}, True),
        ("norms", {"freeze_batch_norm": True}, True),
    ):
        trainer = make(tmp_path / name, items([1, 2, 3]), **options)
        before = np.array(trainer.model.norm.running_mean.data)
        trainer.run()
        after = trainer.model.norm.running_mean.data
        assert np.array_equal(before, after) is still, name
        assert trainer.model.norm.weight.requires_grad is not still
        assert trainer.model.norm.training is not still
        assert level(trainer) != 0
    with pytest.raises(ValueError, match="freeze: expected something left to learn"):
        make(tmp_path / "none", items([1]), freeze=["norm", "level"])
    with pytest.raises(ValueError, match=r"freeze: expected names .* got 'nor'"):
        make(tmp_path / "none", items([1]), freeze="nor")


def test_unknown_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="learning_rate"):
        make(tmp_path, items([1]), learning_rate=0.1)
    for options, message in (
        ({"accumulate": 0}, "accumulate: expected an integer of at least 1, got 0"),
        ({"on_error": "ignore"}, "on_error: expected one of"),
        ({"optimizer": "adagrad"}, "optimizer: expected 'sgd', 'adam', 'adamw'"),
        ({"schedule": "plateau"}, "schedule: expected 'cosine', 'step', 'one_cycle'"),
        ({"warmup": 9}, "warmup: expected fewer than the 1 steps of the run, got 9"),
    ):
        with pytest.raises(ValueError, match=message):
            make(tmp_path, items([1]), **options)
    assert not (tmp_path / "last.npz").exists()


def test_resume_refuses_other_options(tmp_path: Path) -> None:
    make(tmp_path, items([1, 2]), accumulate=2).run()
    for options, named in (
        ({"accumulate": 1}, "accumulate was 2 and is 1"),
        ({"accumulate": 2, "ema": 0.9}, "ema was None and is 0.9"),
        ({"accumulate": 2, "multi_scale": (8,)}, r"multi_scale was None and is \[8\]"),
        ({"accumulate": 2, "metric": "coco"}, "metric was 'voc' and is 'coco'"),
        ({"accumulate": 2, "freeze": "norm"}, r"freeze was \[\] and is \['norm'\]"),
    ):
        with pytest.raises(ValueError, match=named):
            make(tmp_path, items([1, 2]), resume=True, **options)
