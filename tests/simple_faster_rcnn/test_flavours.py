"""The rules that weights do not tell: presets of them, their place in files, files of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import torch_writer
from oxidet import nn, weights
from oxidet.models.detection import build_detector, load_detector, save_detector
from oxidet.ops import RoIPool
from oxidet.simple_faster_rcnn import (
    FLAVOURS,
    Config,
    FasterRCNNVGG16,
    Preprocessing,
    opt,
    vgg16,
)
from oxidet.simple_faster_rcnn.checkpoints import fit_classifier, read_checkpoint, recognise

WIDTH = 4


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG-16 with its layers and their names, but hardly any channels."""

    def features(configuration: str) -> nn.Sequential:
        layers: list[nn.Module] = []
        before = 3
        for stage in (2, 2, 3, 3, 3):
            for _ in range(stage):
                layers += [nn.Conv2d(before, WIDTH, 3, padding=1), nn.ReLU()]
                before = WIDTH
            layers.append(nn.MaxPool2d(2, 2))
        return nn.Sequential(*layers)

    def classifier(use_drop: bool) -> nn.Sequential:
        drop = [nn.Dropout()] if use_drop else []
        fc6, fc7 = nn.Linear(WIDTH * 49, 8), nn.Linear(8, 8)
        return nn.Sequential(fc6, nn.ReLU(), *drop, fc7, nn.ReLU(), *drop)

    rpn = vgg16.RegionProposalNetwork
    monkeypatch.setattr(vgg16.vgg, "make_features", features)
    monkeypatch.setattr(vgg16, "_classifier", classifier)
    monkeypatch.setattr(
        vgg16, "RegionProposalNetwork", lambda a, b, **options: rpn(WIDTH, WIDTH, **options)
    )


def chainercv_keys(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state_dict of ours under chainercv's names."""
    layers = [
        f"extractor/conv{stage}_{i}/conv"
        for stage, count in enumerate((2, 2, 3, 3, 3), 1)
        for i in range(1, count + 1)
    ]
    layers += ["rpn/conv1", "rpn/score", "rpn/loc", "head/fc6", "head/fc7"]
    layers += ["head/cls_loc", "head/score"]
    names = [f"{layer}/{letter}" for layer in layers for letter in "Wb"]
    return dict(zip(names, state.values(), strict=True))


def rules(detector: FasterRCNNVGG16) -> dict[str, Any]:
    """What the parts of a detector do, asked of the parts."""
    return {
        "ceil": {m.ceil_mode for m in detector.extractor if isinstance(m, nn.MaxPool2d)},
        "rank": detector.rpn.rank_by,
        "nms": (detector.nms_rule, detector.rpn.proposal_layer.nms_rule),
        "frozen": sum(not p.requires_grad for p in detector.parameters()),
        "preprocessing": detector.preprocessing,
        "pool": type(detector.head.roi),
    }


EXPECTED: dict[str, dict[str, Any]] = {
    "simple-faster-rcnn": {
        "ceil": {False}, "rank": "probability", "nms": ("torchvision", "torchvision"),
        "frozen": 8, "pool": RoIPool,
        "preprocessing": Preprocessing(600, 1000, "round", "mirror", "torchvision"),
    },
    "simple-faster-rcnn-caffe": {
        "ceil": {False}, "rank": "probability", "nms": ("torchvision", "torchvision"),
        "frozen": 8, "pool": RoIPool,
        "preprocessing": Preprocessing(600, 1000, "round", "mirror", "caffe"),
    },
    "chainercv": {
        "ceil": {True}, "rank": "logit", "nms": ("chainercv", "chainercv"),
        "frozen": 0, "pool": RoIPool,
        "preprocessing": Preprocessing(600, 1000, "trunc", "clamp", "chainercv"),
    },
}  # fmt: skip


@pytest.mark.parametrize("flavour", list(FLAVOURS))
def test_a_flavour_reaches_every_part_and_comes_back_from_a_file(
    narrow: None, tmp_path: Path, flavour: str
) -> None:
    detector = build_detector("faster_rcnn_vgg16", n_fg_class=3, flavour=flavour)
    assert rules(detector) == EXPECTED[flavour]  # type: ignore[arg-type]
    path = tmp_path / "detector.npz"
    save_detector(path, detector)
    loaded = load_detector(path)
    assert rules(loaded) == EXPECTED[flavour]  # type: ignore[arg-type]
    # The file states each rule by itself, so it means the same when a flavour's definition grows.
    recipe = json.loads(weights.load_metadata(path)["detector"])
    assert recipe["flavour"] == flavour
    assert recipe["ceil_mode"] is (flavour == "chainercv")
    assert {"rank_by", "nms_rule", "roi_rounding", "use_drop", "preprocessing"} <= recipe.keys()
    out = loaded(np.zeros((1, 3, 100, 100), np.float32))
    assert out.roi_scores.shape[1] == 4


def test_single_rules_can_be_set(narrow: None, tmp_path: Path) -> None:
    older = {"min_size": 300, "max_size": 500, "rounding": "ceil"}  # an old skimage
    options = {"nms_rule": "chainercv", "roi_rounding": "even", "preprocessing": older}
    detector = build_detector("faster_rcnn_vgg16", n_fg_class=2, **options)
    expected = {
        **EXPECTED["simple-faster-rcnn"],
        "nms": ("chainercv", "chainercv"),
        "pool": vgg16.ChainerRoIPool,
        "preprocessing": Preprocessing(300, 500, "ceil"),
    }
    assert rules(detector) == expected  # type: ignore[arg-type]
    save_detector(tmp_path / "a.npz", detector)
    assert rules(load_detector(tmp_path / "a.npz")) == expected  # type: ignore[arg-type]
    # What is given to load_detector is instead of what the file says.
    changed = load_detector(tmp_path / "a.npz", preprocessing={"min_size": 100})
    assert changed.preprocessing == Preprocessing(100)  # type: ignore[attr-defined]
    for name, value in {"flavour": "caffe", "roi_rounding": "up", "rank_by": "score"}.items():
        with pytest.raises(ValueError, match=f"{name}: expected"):
            build_detector("faster_rcnn_vgg16", **{name: value})


def test_the_class_reads_the_options_of_the_process_and_the_builder_does_not(narrow: None) -> None:
    try:
        opt._parse({"caffe_pretrain": True, "use_drop": True})
        by_class, by_name = FasterRCNNVGG16(3), build_detector("faster_rcnn_vgg16", n_fg_class=3)
    finally:
        opt._parse(Config()._state_dict())
    assert by_class.preprocessing.normalization == "caffe"
    assert "head.classifier.3.weight" in by_class.state_dict()
    assert by_name.recipe is not None
    assert by_name.recipe["preprocessing"]["normalization"] == "torchvision"
    assert "head.classifier.2.weight" in by_name.state_dict()


@pytest.mark.parametrize("use_drop", [False, True])
@pytest.mark.parametrize("caffe", [False, True, None])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_checkpoints_of_simple_faster_rcnn(
    narrow: None, tmp_path: Path, form: str, caffe: bool | None, use_drop: bool
) -> None:
    """Without any argument: classes, dropout, sizes and normalisation are in the file."""
    theirs = FasterRCNNVGG16(5, use_drop=use_drop).state_dict()
    config = {"min_size": 480, "max_size": 900, "caffe_pretrain": caffe, "use_drop": use_drop}
    content: dict[str, Any] = {"model": theirs, "config": config, "other_info": {"best_map": 0.7}}
    if caffe is None:
        content = dict(theirs)  # a bare state_dict
    path = tmp_path / "fasterrcnn_12222105_0.7"
    torch_writer.save(path, content, zip_form=form == "zip")
    detector = load_detector(path)
    assert isinstance(detector, FasterRCNNVGG16)
    assert len(detector.class_names) == 5
    for key, value in detector.state_dict().items():
        np.testing.assert_array_equal(value, theirs[key], key)
    prepared = detector.preprocessing
    assert prepared.normalization == ("caffe" if caffe else "torchvision")
    sizes = (600, 1000) if caffe is None else (480, 900)
    assert (prepared.min_size, prepared.max_size) == sizes
    assert detector.recipe is not None
    assert detector.recipe["use_drop"] is use_drop
    # Dropout can be left out or put in: its layers hold no weights.
    other = load_detector(path, use_drop=not use_drop)
    key = f"head.classifier.{2 if use_drop else 3}.weight"
    np.testing.assert_array_equal(
        other.state_dict()[key], theirs[f"head.classifier.{3 if use_drop else 2}.weight"]
    )
    chosen = load_detector(path, flavour="simple-faster-rcnn-caffe", class_names=list("abcde"))
    assert chosen.preprocessing.normalization == "caffe"  # type: ignore[attr-defined]
    assert chosen.class_names == tuple("abcde")


def test_checkpoints_of_chainercv(narrow: None, tmp_path: Path) -> None:
    ours = FasterRCNNVGG16(20).state_dict()
    path = tmp_path / "faster_rcnn_vgg16_voc07_trained.npz"
    np.savez(path, **chainercv_keys(ours))
    for arguments in ({}, {"model": "faster_rcnn_vgg16", "flavour": "chainercv"}):
        detector = load_detector(path, **arguments)  # type: ignore[arg-type]
        assert rules(detector) == EXPECTED["chainercv"]  # type: ignore[arg-type]
        assert detector.class_names[14] == "person"
        for key, value in detector.state_dict().items():
            np.testing.assert_array_equal(value, ours[key], key)
    # Images in BGR need the first layer turned round.
    caffe = load_detector(path, flavour="simple-faster-rcnn-caffe")
    first = caffe.state_dict()["extractor.0.weight"]
    np.testing.assert_array_equal(first, ours["extractor.0.weight"][:, ::-1])
    with pytest.raises(ValueError, match="flavour: expected 'chainercv' or"):
        load_detector(path, flavour="simple-faster-rcnn")


def test_files_that_are_no_detector_are_described(tmp_path: Path) -> None:
    wide = {"features.0.weight": np.zeros(1), "features.28.weight": np.zeros(1)}
    cases = {
        "vgg": (wide, "those of a VGG-16 classifier, with which .*vgg16_to_faster_rcnn"),
        "resnet": (
            {"conv1.weight": np.zeros(1), "layer4.0.conv1.weight": np.zeros(1)},
            "those of a ResNet classifier",
        ),
        "other": ({"a": np.zeros(1), "b": np.zeros(1)}, "weights such as 'a', 'b'"),
        "none": ({}, "no weights"),
    }
    for name, (state, message) in cases.items():
        weights.save(tmp_path / f"{name}.npz", state)
        with pytest.raises(ValueError, match=rf"expected one of .*{name}\.npz .*{message}"):
            load_detector(tmp_path / f"{name}.npz")


def test_odd_options_in_a_checkpoint_are_left_alone(narrow: None, tmp_path: Path) -> None:
    """A file may say anything; what makes no sense is as if it were not there."""
    state = FasterRCNNVGG16(2).state_dict()
    for config in (None, 7, {"min_size": "big", "max_size": -1, "caffe_pretrain": "no"}):
        path = tmp_path / "odd.pth"
        torch_writer.save(path, {"model": state, "config": config}, zip_form=True)
        found = recognise(read_checkpoint(path))
        assert found is not None
        assert found.options == {"flavour": "simple-faster-rcnn", "use_drop": False}


def test_the_place_of_the_second_linear_layer() -> None:
    with_drop = {"head.classifier.3.weight": np.ones(1), "head.classifier.3.bias": np.ones(1)}
    without = {"head.classifier.2.weight": np.ones(1), "head.classifier.2.bias": np.ones(1)}
    assert fit_classifier(with_drop, without).keys() == without.keys()
    assert fit_classifier(without, with_drop).keys() == with_drop.keys()
    for state in (with_drop, without, {"other": np.ones(1)}):
        assert fit_classifier(state, state) == state
