"""Every network of the zoo takes steps with the trainer; those with auxiliary heads also resume."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oxidet
from oxidet import optim
from oxidet.models import get_model, list_models
from oxidet.train import ClassifierTrainer, load_checkpoint, read_log

# Channels and side of the smallest images that a family can be trained on, or nearly.
IMAGES = {
    "lenet": (1, 28), "lenet5*": (1, 32), "*_cifar10": (3, 16), "nin_cifar10": (3, 32),
    "nin": (3, 67), "alexnet": (3, 67), "alexnet_2012": (3, 227), "zfnet*": (3, 224),
    "vgg*": (3, 32), "googlenet": (3, 32), "googlenet_paper": (3, 224), "inception_v2": (3, 64),
    "inception_v3": (3, 299), "inception_*": (3, 107), "densenet*": (3, 64),
    "resne*": (3, 48), "plain*": (3, 48), "wide*": (3, 48),
}  # fmt: skip
LIGHT = ("lenet*", "*20_cifar10", "nin_cifar10", "googlenet", "resnet18", "densenet121")


def image_size(name: str) -> tuple[int, int]:
    if name in IMAGES:
        return IMAGES[name]
    return next(size for pattern, size in IMAGES.items() if fnmatch.fnmatch(name, pattern))


def make_trainer(name: str, out: Path, **options: Any) -> ClassifierTrainer:
    oxidet.manual_seed(0)
    config = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = get_model(name, num_classes=10, **config)
    rng, (channels, side) = np.random.default_rng(0), image_size(name)
    data = [(rng.standard_normal((channels, side, side), np.float32), i % 3) for i in range(4)]
    make_optimizer = options.pop("make_optimizer", lambda parameters: "sgd")
    return ClassifierTrainer(
        model,
        data,
        out,
        batch_size=2,
        quiet=True,
        optimizer=make_optimizer(model.parameters()),
        **options,
    )


def names() -> list[Any]:
    light = {name for pattern in LIGHT for name in fnmatch.filter(list_models(), pattern)}
    marks = [() if name in light else pytest.mark.slow for name in list_models()]
    return [pytest.param(n, marks=m) for n, m in zip(list_models(), marks, strict=True)]


@pytest.mark.parametrize("name", names())
def test_two_steps(name: str, tmp_path: Path) -> None:
    trainer = make_trainer(name, tmp_path, epochs=1, lr=1e-3, nesterov=True, label_smoothing=0.1)
    before = {n: np.array(p.data) for n, p in trainer.model.named_parameters()}
    trainer.run()
    unmoved = [n for n, p in trainer.model.named_parameters() if np.array_equal(p.data, before[n])]
    assert not unmoved
    steps = [r for r in read_log(tmp_path / "log.jsonl") if r["event"] == "step"]
    assert len(steps) == 2
    heads = {"googlenet": 2, "googlenet_paper": 2, "inception_v3": 1}.get(name, 0)
    losses = [value for key, value in steps[0].items() if key.endswith("_loss")]
    assert len(losses) == (2 + heads if heads else 1)
    if heads:
        share = 0.4 if name == "inception_v3" else 0.3
        assert losses[0] == pytest.approx(losses[1] + share * sum(losses[2:]), rel=1e-5)


OPTIMIZERS = {
    "Adam": optim.Adam,
    "TensorFlow's RMSprop": lambda parameters: optim.RMSprop(
        parameters, 0.045, alpha=0.9, eps=1.0, momentum=0.9, eps_inside=True
    ),
}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("googlenet", "TensorFlow's RMSprop"),
        pytest.param("googlenet", "Adam", marks=pytest.mark.slow),
        pytest.param("inception_v3", "TensorFlow's RMSprop", marks=pytest.mark.slow),
    ],
)
def test_auxiliary_networks_resume_to_the_same_bits(
    name: str, optimizer: str, tmp_path: Path
) -> None:
    """One epoch of two, then the other from the checkpoint, against two at a stretch."""
    options = {
        "make_optimizer": OPTIMIZERS[optimizer],
        "max_grad_norm": 2.0,
        "label_smoothing": 0.1,
    }
    make_trainer(name, tmp_path / "straight", epochs=2, **options).run()
    make_trainer(name, tmp_path / "stopped", epochs=1, **options).run()
    make_trainer(name, tmp_path / "stopped", epochs=2, resume=True, **options).run()
    straight, resumed = (
        load_checkpoint(tmp_path / which / "last.npz") for which in ("straight", "stopped")
    )
    assert straight["position"]["iteration"] == resumed["position"]["iteration"] == 4
    for key, value in straight["model"].items():
        assert value.tobytes() == resumed["model"][key].tobytes(), key
