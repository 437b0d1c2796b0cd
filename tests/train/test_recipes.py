"""What the papers' recipes need of the trainer: auxiliary losses, optimisers, averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import oxidet
from conftest import assert_close
from oxidet import nn, optim, weights
from oxidet.models import Classifier
from oxidet.nn import functional as F
from oxidet.optim import lr_scheduler
from oxidet.train import AveragedModel, ClassifierTrainer, accuracy, load_checkpoint, read_log
from oxidet.train.loop import Score
from train.test_classifier import Stripes, noise


class Outputs(NamedTuple):
    logits: Any
    aux_logits: Any


class TwoHeads(Classifier):
    """A small network with batch norm, dropout and an auxiliary head."""

    auxiliary_weight = 0.4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.aux = nn.Linear(64, 2)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(64, 2)

    def forward(self, x: Any) -> Any:
        x = F.flatten(F.relu(self.bn(self.conv(x))), 1)
        logits = self.fc(self.dropout(x))
        return Outputs(logits, self.aux(x)) if self.training else logits


def make_trainer(out: Path, **changes: Any) -> ClassifierTrainer:
    oxidet.manual_seed(1)
    model = TwoHeads()
    optimizer = changes.pop("make_optimizer", None)
    options: dict[str, Any] = {
        "epochs": 4, "lr": 0.05, "augment": noise, "quiet": True, "checkpoint_every": 1,
        "optimizer": "sgd" if optimizer is None else optimizer(model.parameters()),
        "validation": Stripes(64, seed=1), **changes,
    }  # fmt: skip
    return ClassifierTrainer(model, Stripes(96), out, **options)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, 0.0, 0.7])
def test_auxiliary_losses(tmp_path: Path, smoothing: float, weight: float | None) -> None:
    trainer = make_trainer(tmp_path, label_smoothing=smoothing, auxiliary_weight=weight)
    batch = [Stripes(8)[i] for i in range(8)]
    images, labels = np.stack([b[0] for b in batch]), np.array([b[1] for b in batch])
    trainer.model.dropout.eval()
    losses = trainer.losses(batch)
    assert list(losses) == ["total_loss", "logits_loss", "aux_logits_loss"]
    outputs = trainer.model(images)
    targets = (1 - smoothing) * np.eye(2)[labels] + smoothing / 2
    expected = [
        float(-(targets * np.asarray(F.log_softmax(np.asarray(x), 1))).sum(axis=1).mean())
        for x in outputs
    ]
    assert [float(losses[k]) for k in ("logits_loss", "aux_logits_loss")] == pytest.approx(expected)
    share = 0.4 if weight is None else weight
    assert float(losses["total_loss"]) == pytest.approx(expected[0] + share * expected[1])

    losses["total_loss"].backward()
    got = np.array(trainer.model.aux.weight.grad)
    trainer.optimizer.zero_grad()
    F.cross_entropy(trainer.model(images)[1], labels, label_smoothing=smoothing).backward()
    assert_close(got, share * np.array(trainer.model.aux.weight.grad), 1e-5)


def test_a_head_that_is_off_and_a_plain_tuple(tmp_path: Path) -> None:
    class Off(TwoHeads):
        def forward(self, x: Any) -> Any:
            outputs = super().forward(x)
            return Outputs(outputs.logits, None) if self.training else outputs

    class Plain(TwoHeads):
        def forward(self, x: Any) -> Any:
            outputs = super().forward(x)
            return (*outputs, outputs[1]) if self.training else outputs

    batch = [Stripes(8)[i] for i in range(8)]
    for model, keys in [
        (Off(), ["total_loss"]),
        (Plain(), ["total_loss", "output0_loss", "output1_loss", "output2_loss"]),
    ]:
        trainer = ClassifierTrainer(model, Stripes(16), tmp_path, quiet=True)
        assert list(trainer.losses(batch)) == keys


RECIPES: dict[str, dict[str, Any]] = {
    "Adam": {"make_optimizer": lambda p: optim.Adam(p, 0.01, weight_decay=1e-3, amsgrad=True)},
    "AdamW, cosine": {
        "make_optimizer": lambda p: optim.AdamW(p, 0.01),
        "schedule": lambda o, steps: lr_scheduler.warmup_cosine(o, 2, steps),
    },
    "RMSprop, exponential": {
        "make_optimizer": lambda p: optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
        "schedule": lambda o, _: lr_scheduler.ExponentialLR(o, 0.94),
    },
    "TensorFlow's RMSprop, everything": {
        "make_optimizer": lambda p: optim.RMSprop(
            p, 0.05, alpha=0.9, eps=1.0, momentum=0.9, eps_inside=True
        ),
        "max_grad_norm": 2.0,
        "max_grad_value": 0.5,
        "label_smoothing": 0.1,
        "ema": 0.9,
        "after_step": nn.utils.clip_filter_rms_,
    },
    "Nesterov, polynomial": {
        "nesterov": True,
        "schedule": lambda o, steps: lr_scheduler.PolynomialLR(o, steps, 0.5),
    },
    "inverse decay": {"schedule": lambda o, _: lr_scheduler.InverseDecayLR(o, 0.1, 0.75)},
    "plateau": {
        "schedule": lambda o, _: lr_scheduler.ReduceLROnPlateau(
            o, "max", 0.5, patience=0, threshold=0.2
        ),
        "ema": 0.99,
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_learns_and_resumes_to_the_same_bits(tmp_path: Path, name: str) -> None:
    straight = make_trainer(tmp_path / "straight", **RECIPES[name])
    straight.run()
    log = [r for r in read_log(tmp_path / "straight" / "log.jsonl") if r["event"] == "step"]
    assert log[-1]["total_loss"] < 0.8 * log[0]["total_loss"]

    for stop in (2, 6):  # inside an epoch, and at the end of one
        out = tmp_path / f"stopped at {stop}"
        trainer = make_trainer(out, **RECIPES[name])
        step = trainer._step

        def counted(batch: list[Any], trainer: Any = trainer, step: Any = step) -> None:
            if trainer.iteration == stop:  # noqa: B023  (called inside this pass)
                raise RuntimeError("stopped")
            step(batch)

        trainer._step = counted  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="stopped"):
            trainer.run()
        make_trainer(out, resume=True, **RECIPES[name]).run()
        states = [load_checkpoint(path / "last.npz") for path in (tmp_path / "straight", out)]
        for state in states:
            del state["position"]["seconds"]
        assert flattened(states[0]) == flattened(states[1])


def flattened(tree: Any) -> Any:
    """Arrays as their bytes, so that == compares them exactly."""
    if isinstance(tree, dict):
        return {key: flattened(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [flattened(value) for value in tree]
    return (tree.dtype, tree.shape, tree.tobytes()) if isinstance(tree, np.ndarray) else tree


def test_the_rate_falls_on_a_plateau(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=5, **RECIPES["plateau"])
    scores = iter([0.5, 0.9, 0.9, 0.95, 0.9])
    trainer.score = lambda: Score(next(scores), {})  # type: ignore[method-assign]
    trainer.run()
    rates = [r["lr"] for r in read_log(tmp_path / "log.jsonl") if r["event"] == "step"]
    assert rates[::3] == [0.05, 0.05, 0.05, 0.025, 0.0125]
    for changes, message in [
        ({"validation": None}, "expected validation data for ReduceLROnPlateau"),
        ({"schedule": lambda o, _: lr_scheduler.ReduceLROnPlateau(o)}, "mode='max'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_trainer(tmp_path / "other", **{**RECIPES["plateau"], **changes})


def test_the_average_is_judged_and_saved(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=2, ema=0.5)
    best = trainer.run()
    assert trainer.average is not None
    assert trainer.judged is trainer.average.model
    assert trainer.average.updates == trainer.iteration == 6
    saved = TwoHeads()
    saved.load_state_dict(weights.load(tmp_path / "best.npz"))
    assert accuracy(saved, Stripes(64, seed=1)) == best
    assert np.abs(trainer.average.model.fc.weight.data - trainer.model.fc.weight.data).max() > 1e-4
    assert trainer.average.model.bn.num_batches_tracked.item() == 6


def test_an_average_by_hand() -> None:
    oxidet.manual_seed(0)
    model = TwoHeads()
    average = AveragedModel(model, decay=0.3)
    expected = {name: np.array(value, np.float64) for name, value in model.state_dict().items()}
    for update in range(6):
        for value in (*model.parameters(), model.bn.running_mean):
            value.update_(lambda v: np.multiply(v, 1.1, out=v))
        average.update(model)
        kept = min(0.3, (1 + update) / (10 + update))
        for name, value in model.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * np.asarray(value, np.float64)
    for name, value in average.model.state_dict().items():
        assert_close(value, expected[name], 1e-5, name)
    assert not average.model.training
    assert model.training
    with pytest.raises(ValueError, match="decay: expected a number from 0 to 1, got"):
        AveragedModel(model, 1.5)


def test_a_last_batch_of_one_can_be_left_out(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, batch_size=19, epochs=1, drop_last=True)  # 96 = 5 * 19 + 1
    trainer.run()
    assert trainer.iteration == 5


def test_refusals(tmp_path: Path) -> None:
    for changes, message in [
        ({"max_grad_value": 0}, "max_grad_value: expected a positive number, got 0"),
        ({"auxiliary_weight": -1}, "auxiliary_weight: expected a number of at least 0, got -1"),
        ({"ema": 2}, "decay"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_trainer(tmp_path, **changes)
    make_trainer(tmp_path, epochs=1).run()
    with pytest.raises(ValueError, match="ema was None and is"):
        make_trainer(tmp_path, ema=0.9, resume=True)
