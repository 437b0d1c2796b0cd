"""The classifier's training loop shares the detector's; here is what is its own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oxidet
from oxidet import nn, optim, weights
from oxidet.models import LeNet5
from oxidet.train import ClassifierTrainer, accuracy, read_log
from oxidet.train.checkpoint import load_checkpoint
from oxidet.transforms import ImageClassification


class Stripes:
    """Noisy 6x6 images with a bright row (class 0) or column (class 1)."""

    def __init__(self, length: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.images = rng.normal(0, 0.3, (length, 1, 6, 6)).astype(np.float32)
        self.labels = rng.integers(0, 2, length)
        for image, label, at in zip(
            self.images, self.labels, rng.integers(0, 6, length), strict=True
        ):
            line = image[0, at] if label == 0 else image[0, :, at]
            line += 2

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.images[index], self.labels[index]


def make_model() -> nn.Module:
    oxidet.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 2)
    )


def noise(image: Any, rng: np.random.Generator) -> Any:
    return image + rng.normal(0, 0.1, image.shape).astype(np.float32)


def make_trainer(out: Path, **changes: Any) -> ClassifierTrainer:
    options: dict[str, Any] = {"epochs": 4, "lr": 0.1, "augment": noise, "quiet": True, **changes}
    return ClassifierTrainer(
        make_model(), Stripes(96), out, validation=Stripes(64, seed=1), **options
    )


def test_an_infinite_limit_is_none(tmp_path: Path) -> None:
    no_limit = {"max_grad_norm": np.inf, "max_grad_value": np.inf}
    make_trainer(tmp_path, epochs=1, checkpoint_every=1, **no_limit).run()
    assert load_checkpoint(tmp_path / "last.npz")["config"]["max_grad_norm"] is None
    make_trainer(tmp_path, epochs=2, resume=True).run()


def test_it_learns_and_keeps_the_best(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=20)
    best = trainer.run()
    assert best is not None
    assert best > 0.9
    model = make_model()
    model.load_state_dict(weights.load(tmp_path / "best.npz"))
    assert accuracy(model, Stripes(64, seed=1)) == best
    assert model.training
    scores = [r["accuracy"] for r in read_log(tmp_path / "log.jsonl") if r["event"] == "evaluation"]
    assert max(scores) == best


def test_the_best_weights_bring_recipe_and_names(tmp_path: Path) -> None:
    model = LeNet5(num_classes=2)
    model.preprocess = ImageClassification(32, channels="L", mean=0, std=1)
    model.class_names = ("row", "column")
    items = [(np.zeros((1, 32, 32), np.float32), label) for label in (0, 1)]
    trainer = ClassifierTrainer(model, items, tmp_path, validation=items, epochs=1, quiet=True)
    trainer.run()
    read = LeNet5(num_classes=2)
    weights.load_into(read, tmp_path / "best.npz")
    assert read.class_names == ("row", "column")
    assert read.preprocess == model.preprocess


def test_refusals(tmp_path: Path) -> None:
    small, large = np.zeros((1, 6, 6), np.float32), np.zeros((1, 6, 7), np.float32)
    for items, message in [
        ([(small, 0), (large, 0)], r"items: expected equal shapes in field 0, got \(1, 6, 6\) and"),
        ([(small, 0, 1)], r"dataset: expected items \(image, label\), got one of 3 values"),
        ([small], r"dataset: expected items \(image, label\), got one of ndarray"),
    ]:
        with pytest.raises(ValueError, match=message):
            ClassifierTrainer(make_model(), items, tmp_path / "a", quiet=True).run()
        with pytest.raises(ValueError, match=message):
            accuracy(make_model(), items)
        (tmp_path / "a" / "log.jsonl").unlink()
    with pytest.raises(ValueError, match="label_smoothing: expected a number from 0 to 1, got 2"):
        make_trainer(tmp_path / "b", label_smoothing=2)
    others = optim.SGD(make_model().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="optimizer: expected one of the model's parameters"):
        make_trainer(tmp_path / "b", optimizer=others)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_dropout_and_augmentation_resume_to_the_same_bits(tmp_path: Path, stop: int) -> None:
    make_trainer(tmp_path / "straight", checkpoint_every=1).run()
    trainer = make_trainer(tmp_path / "stopped", checkpoint_every=1)
    step = trainer._step

    def counted(batch: list[Any]) -> None:
        if trainer.iteration == stop:
            raise RuntimeError("stopped")
        step(batch)

    trainer._step = counted  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="stopped"):
        trainer.run()
    make_trainer(tmp_path / "stopped", checkpoint_every=1, resume=True).run()
    states = [load_checkpoint(tmp_path / name / "last.npz") for name in ("straight", "stopped")]
    for name, array in states[0]["model"].items():
        assert states[1]["model"][name].tobytes() == array.tobytes(), name
    assert states[0]["random"] == states[1]["random"]


def test_a_detectors_checkpoint_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    state = trainer.state_dict()
    with pytest.raises(ValueError, match="loop was 'Trainer' and is 'ClassifierTrainer'"):
        trainer.load_state_dict({**state, "loop": "Trainer"})
    with pytest.raises(ValueError, match="dataset: expected at least one item"):
        accuracy(trainer.model, [])


def test_the_options_of_the_loop_are_the_classifiers_too(tmp_path: Path) -> None:
    class Holey(Stripes):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            if index in (3, 50):
                raise ValueError(f"{index}.jpg: expected an image file, got a damaged one")
            return super().__getitem__(index)

    def start(**changes: Any) -> ClassifierTrainer:
        options: dict[str, Any] = {
            "optimizer": "adamw", "lr": 0.01, "schedule": "one_cycle", "epochs": 12,
            "batch_size": 8, "accumulate": 2, "ema": 0.9, "early_stop": 3, "freeze": "0",
            "on_error": "skip", "augment": noise, "quiet": True,
        }  # fmt: skip
        validation = Holey(64, seed=1)
        return ClassifierTrainer(
            make_model(), Holey(96), tmp_path, validation=validation, **{**options, **changes}
        )

    trainer = start()
    before = np.array(trainer.model[0].weight.data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best = trainer.run()
    assert best is not None
    assert best > 0.9
    assert sorted(trainer.skipped) == [3, 50]
    assert np.array_equal(trainer.model[0].weight.data, before)
    records = read_log(tmp_path / "log.jsonl")
    assert sum(record["event"] == "skipped" for record in records) == 2
    assert trainer.iteration == 6 * trainer.epoch
    with pytest.raises(ValueError, match=r"ema was 0\.9 and is None"):
        start(ema=None, resume=True)
