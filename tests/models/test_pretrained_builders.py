"""Builders that load weights: by file, by address, by published name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from http_server import Site, serve
from oxidet import nn, weights
from oxidet.models import get_model, lenet5, registry
from oxidet.models.classifier import Classifier
from oxidet.transforms import ImageClassification
from oxidet.weights import _published


class Tiny(Classifier):
    def __init__(self, num_classes: int, transform_input: bool, aux_logits: bool) -> None:
        super().__init__()
        self.transform_input = transform_input
        self.aux1 = nn.Linear(2, num_classes) if aux_logits else None
        self.fc = nn.Linear(3, num_classes)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A builder in the registry, with published weights of 1000 classes on a server here."""
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))

    @registry.register_model()
    def tiny(
        num_classes: int = 1000, transform_input: bool = False, aux_logits: bool = True
    ) -> Tiny:
        """A small network."""
        return Tiny(num_classes, transform_input, aux_logits)

    return tiny


@pytest.fixture
def site(tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    pytest.importorskip("pooch")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OXIDET_CACHE", str(tmp_path / "cache"))
    weights.save(tmp_path / "tiny.npz", tiny().state_dict())
    with serve((tmp_path / "tiny.npz").read_bytes()) as site:
        monkeypatch.setattr(_published, "_TORCHVISION", site.url.removesuffix("net.npz"))
        files = (
            ("tiny", "IMAGENET1K_V1", "tiny_old", site.sha256[:8], 256),
            ("tiny", "IMAGENET1K_V2", "tiny", site.sha256[:8], 232),
        )
        monkeypatch.setattr(_published, "_FILES", files)
        options = {"tiny": {"transform_input": True, "aux_logits": False, "unknown": 1}}
        monkeypatch.setattr(_published, "_OPTIONS", options)
        _published._table.cache_clear()
        yield site
    _published._table.cache_clear()


@pytest.mark.parametrize("name", ["DEFAULT", "IMAGENET1K_V2", "tiny", "Tiny_Weights.DEFAULT"])
def test_published_weights_come_with_everything_they_need(
    site: Site, tiny: Any, tmp_path: Path, name: str
) -> None:
    model = tiny(weights=name)
    expected = weights.load(tmp_path / "tiny.npz")
    np.testing.assert_array_equal(model.fc.weight.data, expected["fc.weight"])
    assert model.transform_input is True
    assert model.aux1 is None
    assert model.preprocess == ImageClassification(224, resize_size=232)
    assert model.class_names == weights.imagenet_classes()
    assert model.training
    tiny(weights="DEFAULT")
    assert len(site.requests) == 1


def test_options_given_stay(site: Site, tiny: Any) -> None:
    model = tiny(1000, False, weights="IMAGENET1K_V1", aux_logits=True)
    assert model.transform_input is False
    assert model.aux1 is not None
    assert model.preprocess == ImageClassification(224)


def test_other_classes(site: Site, tiny: Any) -> None:
    with pytest.raises(nn.StateDictError, match=r"expected 7 classes in fc .* new_classifier=True"):
        get_model("tiny", weights="DEFAULT", num_classes=7)
    model = get_model("tiny", weights="DEFAULT", num_classes=7, new_classifier=True)
    assert model.fc.out_features == 7
    assert model.class_names is None
    assert model.preprocess.resize_size == 232


def test_a_published_file_is_known_by_its_name(site: Site, tiny: Any, tmp_path: Path) -> None:
    path = tmp_path / f"tiny_old-{site.sha256[:8]}.pth"
    (tmp_path / "tiny.npz").rename(path)
    model = tiny(weights=path)
    assert model.transform_input
    assert model.class_names is not None
    model = tiny(weights=f"{site.url.removesuffix('net.npz')}{path.name}")
    assert model.transform_input


def test_files_and_addresses(tiny: Any, site: Site, tmp_path: Path) -> None:
    for given in (tmp_path / "tiny.npz", str(tmp_path / "tiny.npz"), site.url):
        model = tiny(weights=given)
        assert (model.transform_input, model.class_names) == (False, None)
        np.testing.assert_array_equal(
            model.fc.weight.data, weights.load(tmp_path / "tiny.npz")["fc.weight"]
        )


def test_a_lenet_file_with_its_names(tmp_path: Path) -> None:
    first = lenet5()
    first.preprocess = ImageClassification(32, resize_size=32, mean=0.1, std=1, channels="L")
    first.class_names = tuple("0123456789")
    weights.save_from(first, tmp_path / "lenet.npz")
    second = lenet5(weights=tmp_path / "lenet.npz")
    assert second.class_names == first.class_names
    picture = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    assert str(second.classify(picture)) == str(first.classify(picture))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"weights": "V7"},
            ValueError,
            "expected one of IMAGENET1K_V1, IMAGENET1K_V2 for resnet50",
        ),
        ({"weights": "vgg16.DEFAULT"}, ValueError, "weights of resnet50, got 'vgg16.DEFAULT'"),
        ({"weights": "here.pth"}, FileNotFoundError, "here.pth"),
        ({"weights": 3}, TypeError, "weights: expected a path"),
        ({"new_classifier": True}, ValueError, "new_classifier: expected together with weights"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        get_model("resnet50", **options)


def test_a_network_of_which_nothing_is_published() -> None:
    with pytest.raises(ValueError, match="none of lenet5 are published, got 'DEFAULT'"):
        lenet5(weights="DEFAULT")


def test_a_wrong_argument_is_told_before_anything_is_fetched(site: Site, tiny: Any) -> None:
    with pytest.raises(TypeError, match="'classes'"):
        tiny(weights="DEFAULT", classes=3)
    assert site.requests == []


def test_options_that_a_builder_hands_on(site: Site, tmp_path: Path) -> None:
    @registry.register_model("tiny2")
    def build(num_classes: int = 1000, **options: Any) -> Tiny:
        options.pop("unknown", None)
        return Tiny(num_classes, **{"transform_input": False, "aux_logits": True, **options})

    assert list(inspect.signature(build).parameters) == [
        "num_classes", "weights", "new_classifier", "options",
    ]  # fmt: skip
    path = tmp_path / f"tiny-{site.sha256[:8]}.pth"
    (tmp_path / "tiny.npz").rename(path)
    model = build(weights=path)
    assert (model.transform_input, model.aux1) == (True, None)
    assert build(weights=path, transform_input=False).transform_input is False


def test_every_published_network_takes_what_its_weights_need() -> None:
    for entry in weights.list_published():
        if entry.detects:
            continue
        parameters = inspect.signature(registry._BUILDERS[entry.model]).parameters
        assert {"weights", "new_classifier", "num_classes"} <= set(parameters)
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        assert open_ended or set(entry.options) <= set(parameters), entry.name
