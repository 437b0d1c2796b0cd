"""The table of published weights says what torchvision and timm say."""

from __future__ import annotations

import pytest

from oxidet import weights
from oxidet.models.detection.coco import coco_classes
from oxidet.weights._published import find_published

models = pytest.importorskip("torchvision.models")

FAMILIES = ("alexnet", "vgg", "googlenet", "inception", "resn", "wide_resnet", "densenet")


def test_the_table_is_complete_and_right() -> None:
    known = {entry.name: entry for entry in weights.list_published() if not entry.detects}
    for model in models.list_models(module=models):
        if not model.startswith(FAMILIES):
            continue
        enum = models.get_model_weights(model)
        for theirs in enum:
            ours = known.pop(f"{model}.{theirs.name}")
            assert ours.url == theirs.url
            assert ours.file == theirs.url.rsplit("/", 1)[1]
            assert ours.sha256 in ours.file
            recipe = theirs.transforms()
            assert recipe.crop_size == [ours.recipe["crop_size"]]
            assert recipe.resize_size == [ours.recipe["resize_size"]]
            assert (tuple(recipe.mean), tuple(recipe.std)) == (
                ours.recipe["mean"],
                ours.recipe["std"],
            )
            assert recipe.interpolation.value == "bilinear"
            classes = theirs.meta["categories"]
            assert classes is None or tuple(classes) == weights.imagenet_classes()
            assert ours.classifies == (classes is not None)
            assert find_published(str(theirs)) == ours
        assert find_published(model).version == enum.DEFAULT.name
    assert sorted(known) == ["inception_resnet_v2.TF_IN1K", "inception_v4.TF_IN1K"]


def test_detectors() -> None:
    entries = [entry for entry in weights.list_published() if entry.detects]
    assert [entry.name for entry in entries] == [
        "fasterrcnn_resnet50_fpn.COCO_V1",
        "fasterrcnn_resnet50_fpn_v2.COCO_V1",
    ]
    for entry in entries:
        (theirs,) = models.get_model_weights(entry.model)
        assert entry.url == theirs.url
        assert entry.file == theirs.url.rsplit("/", 1)[1]
        assert entry.sha256 is not None
        assert f"-{entry.sha256}." in entry.file
        assert tuple(theirs.meta["categories"][1:]) == coco_classes()
        assert find_published(str(theirs)) == entry
        assert find_published(f"{theirs.__class__.__name__}.DEFAULT") == entry


@pytest.mark.parametrize("model", ["inception_v4", "inception_resnet_v2"])
def test_timm(model: str) -> None:
    timm = pytest.importorskip("timm")
    config = timm.models.get_pretrained_cfg(f"{model}.tf_in1k")
    ours = find_published(model)
    size = config.input_size[1]
    assert ours.url == f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    assert ours.recipe == {
        "crop_size": size,
        "resize_size": int(size / config.crop_pct),
        "mean": config.mean,
        "std": config.std,
        "interpolation": config.interpolation,
    }
    assert config.num_classes == 1000
