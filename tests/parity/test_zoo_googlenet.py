"""GoogLeNet against torchvision: logits, and a step of training with its auxiliary heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import models

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from parity import zoo  # noqa: E402


def googlenets(aux_logits: bool, **options: Any) -> tuple[Any, Any]:
    return zoo.twins(
        lambda: models.googlenet(aux_logits=aux_logits, init_weights=False, **options),
        lambda: torchvision.models.googlenet(
            weights=None, aux_logits=aux_logits, init_weights=False, **options
        ),
    )


@pytest.mark.parametrize("aux_logits", [False, True])
def test_logits_of_googlenet(aux_logits: bool) -> None:
    ours, theirs = googlenets(aux_logits)
    zoo.compare_logits(ours, theirs, (1, 3, 224, 224))
    zoo.compare_logits(ours, theirs, (2, 3, 97, 131))


@pytest.mark.slow
def test_logits_of_three_images() -> None:
    zoo.compare_logits(*googlenets(True), (3, 3, 224, 224))


def test_logits_of_googlenet_with_transformed_input() -> None:
    ours, theirs = googlenets(False, transform_input=True)
    zoo.compare_logits(ours, theirs, (3, 3, 64, 64))


@pytest.mark.parametrize("aux_logits", [False, True])
def test_a_training_step_of_googlenet(aux_logits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = googlenets(aux_logits)
    zoo.keep_from_kinks(ours, theirs, monkeypatch)
    auxiliary = (0.3, 0.3) if aux_logits else ()
    zoo.compare_training_step(ours, theirs, (4, 3, 64, 64), auxiliary)


def test_the_heads_come_in_torchvisions_order() -> None:
    ours, theirs = googlenets(True)
    zoo.without_dropout(ours, theirs)
    x = zoo.images(2, 3, 64, 64)
    got, expected = ours.train()(x), theirs.train()(torch.tensor(x))
    assert type(got).__name__ == type(expected).__name__ == "GoogLeNetOutputs"
    assert got._fields == expected._fields
    for name in got._fields:
        assert_close(np.asarray(getattr(got, name)), getattr(expected, name).detach(), 1e-3, name)


def test_heads_can_be_dropped_after_loading() -> None:
    ours, theirs = googlenets(True)
    ours.aux1 = ours.aux2 = None
    ours.aux_logits = False
    assert "(aux1): None" in str(ours)
    assert len(ours.state_dict()) == 344
    zoo.compare_logits(ours, theirs, (1, 3, 64, 64))
