"""Networks by name."""

from __future__ import annotations

import inspect

import pytest

from oxidet import models
from oxidet.models import registry


def test_names() -> None:
    names = models.list_models()
    assert names == sorted(names)
    assert len(names) == len(set(names))
    expected = {
        "densenet121",
        "densenet161",
        "densenet169",
        "densenet201",
        "inception_resnet_v1",
        "inception_resnet_v2",
        "inception_v3",
        "inception_v4",
        "lenet5",
        "plain18",
        "plain34",
        "resnet18",
        "resnet152",
        "resnext101_64x4d",
        "vgg16",
        "wide_resnet101_2",
    }
    assert expected <= set(names)


def test_patterns() -> None:
    assert models.list_models("densenet*") == [f"densenet{d}" for d in (121, 161, 169, 201)]
    assert models.list_models(["plain??", "densenet1?1"]) == [
        "densenet121",
        "densenet161",
        "plain18",
        "plain34",
    ]
    assert models.list_models("densenet*", exclude=["*61", "*20?"]) == [
        "densenet121",
        "densenet169",
    ]
    assert models.list_models("no such") == []
    assert models.list_models("DenseNet*") == []


@pytest.mark.parametrize("name", models.list_models())
def test_every_builder_is_exported_and_documented(name: str) -> None:
    builder = registry._BUILDERS[name]
    assert getattr(models, builder.__name__) is builder
    assert builder.__name__ in models.__all__
    assert builder.__doc__
    assert "num_classes" in inspect.signature(builder).parameters


def test_options_go_to_the_builder() -> None:
    assert models.get_model("resnet18", num_classes=7).fc.out_features == 7
    with pytest.raises(TypeError, match="no_such_option"):
        models.get_model("resnet18", no_such_option=1)


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"name: .*\(near: resnet50, .*\), got 'resnet_50'"):
        models.get_model("resnet_50")
    with pytest.raises(ValueError, match=r"\(near: resnet18, .*\), got 'ResNet18'"):
        models.get_model("ResNet18")
    with pytest.raises(ValueError, match=r"^name: expected one of list_models\(\), got 'xyz'$"):
        models.get_model("xyz")
    with pytest.raises(TypeError, match="name: expected a str, got int"):
        models.get_model(18)  # type: ignore[arg-type]


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="name: expected a new model, got 'resnet18' a second"):
        models.register_model("resnet18")(models.resnet18)


@pytest.mark.parametrize("name", models.list_models())
def test_the_number_of_classes_is_named(name: str) -> None:
    for odd, error in [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError)]:
        message = f"^num_classes: expected an integer.*, got {odd!r}$"
        with pytest.raises(error, match=message):
            models.get_model(name, num_classes=odd)
        with pytest.raises(error, match=message):
            getattr(models, registry._BUILDERS[name].__name__)(odd)


def test_odd_patterns_are_named() -> None:
    with pytest.raises(TypeError, match=r"^include: expected a list of patterns, got int$"):
        models.list_models(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^exclude: expected patterns of names, got 5$"):
        models.list_models(exclude=[5])  # type: ignore[list-item]
