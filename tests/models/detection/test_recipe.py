"""Every detector that a builder makes from plain values can be saved, and comes back the same."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import nn, weights
from oxidet.models import detection, resnet18
from oxidet.models.detection import (
    AnchorGenerator,
    Detector,
    FastRCNNPredictor,
    load_detector,
    save_detector,
)
from oxidet.models.detection.backbone_utils import resnet_fpn_backbone
from oxidet.models.detection.detector_files import THRESHOLDS
from oxidet.nn import init
from oxidet.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from oxidet.simple_faster_rcnn import (
    FasterRCNNResNet,
    FasterRCNNSmall,
    FasterRCNNVGG16,
    Preprocessing,
    opt,
    resnet,
    vgg16,
)

PICTURE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
SMALL: dict[str, Any] = {"min_size": 64, "max_size": 96, "rpn_post_nms_top_n_test": 20}
PREPARED = Preprocessing(64, 96)

Build = Callable[[], Detector]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest networks with hardly any channels, under their own names."""

    def features(configuration: str) -> nn.Sequential:
        layers: list[nn.Module] = []
        for stage in range(5):
            layers += [nn.Conv2d(4 if stage else 3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2)]
        return nn.Sequential(*layers[:-1])

    def classifier(use_drop: bool) -> nn.Sequential:
        drop = [nn.Dropout()] if use_drop else []
        return nn.Sequential(nn.Linear(4 * 49, 8), nn.ReLU(), *drop)

    rpn, structure = vgg16.RegionProposalNetwork, sys.modules[detection.FasterRCNN.__module__]
    builders = sys.modules[detection.fasterrcnn_resnet50_fpn.__module__]
    monkeypatch.setattr(vgg16.vgg, "make_features", features)
    monkeypatch.setattr(vgg16, "_classifier", classifier)
    monkeypatch.setattr(vgg16, "RegionProposalNetwork", lambda a, b, **o: rpn(4, 4, **o))
    monkeypatch.setitem(resnet.BACKBONES, "resnet101", resnet.BACKBONES["resnet18"])
    monkeypatch.setattr(builders, "get_model", lambda name, weights, **o: resnet18(**o))
    for module in (structure, builders):
        monkeypatch.setattr(module, "FEATURES", 16)


def liven(detector: Detector) -> None:
    """Scores that differ, so that something is found."""
    heads = getattr(detector, "roi_heads", None)
    layer = detector.head.score if heads is None else heads.box_predictor.cls_score
    init.normal_(layer.weight, 0, 1)
    detector.eval()


def with_two_classes() -> Detector:
    detector = detection.fasterrcnn_resnet_fpn(num_classes=4, **SMALL)
    detector.roi_heads.box_predictor = FastRCNNPredictor(16, 3)
    return detector


BUILT: dict[str, Build] = {
    "fasterrcnn_resnet50_fpn": lambda: detection.fasterrcnn_resnet50_fpn(num_classes=4, **SMALL),
    "fasterrcnn_resnet50_fpn_v2": lambda: detection.fasterrcnn_resnet50_fpn_v2(
        2, class_names=("ant", "bee"), anchor_sizes=((16,), (32,), (64,), (96,), (128,)), **SMALL
    ),
    "a norm by its class": lambda: detection.fasterrcnn_resnet_fpn(
        2, norm_layer=nn.BatchNorm2d, **SMALL
    ),
    "a frozen norm by its class": lambda: detection.fasterrcnn_resnet_fpn(
        2, norm_layer=FrozenBatchNorm2d, trainable_backbone_layers=0, **SMALL
    ),
    "anchors": lambda: detection.fasterrcnn_resnet50_fpn_v2(
        2,
        rpn_anchor_generator=AnchorGenerator(((16, 24),) * 5, ((0.5, 1.0),) * 5),
        box_nms_thresh=np.float32(0.25),
        **SMALL,
    ),
    "a predictor": lambda: detection.fasterrcnn_resnet_fpn(
        box_predictor=FastRCNNPredictor(16, 3), box_head=None, **SMALL
    ),
    "another predictor": with_two_classes,
    "faster_rcnn": lambda: detection.faster_rcnn(2, "resnet18", "layer2", out_channels=16, **SMALL),
    "faster_rcnn over levels": lambda: detection.faster_rcnn(
        2, "resnet18", [8, 16], out_channels=16, norm_layer="frozen", norm_eps=1e-3, **SMALL
    ),
    "faster_rcnn with anchors": lambda: detection.faster_rcnn(
        2, "resnet18", "layer2", rpn_anchor_generator=AnchorGenerator(((16, 32),), ((1.0,),)),
        out_channels=16, rpn_post_nms_top_n_test=20, _skip_resize=True,
    ),
    "faster_rcnn_vgg16": lambda: detection.faster_rcnn_vgg16(
        2, flavour="chainercv", preprocessing=PREPARED, ratios=(0.5, 1), roi_rounding="even"
    ),
    "FasterRCNNVGG16": lambda: FasterRCNNVGG16(
        3, (1, 2), np.array([1, 2]), preprocessing=PREPARED, use_drop=True
    ),
    "faster_rcnn_resnet": lambda: detection.faster_rcnn_resnet(
        2, "resnet18", preprocessing=PREPARED
    ),
    "faster_rcnn_resnet101": lambda: detection.faster_rcnn_resnet101(
        2, anchor_scales=(1, 2), preprocessing=PREPARED
    ),
    "FasterRCNNResNet": lambda: FasterRCNNResNet(2, "resnet101", preprocessing=PREPARED),
    "faster_rcnn_small": lambda: detection.faster_rcnn_small(2, ratios=(1.0,)),
    "FasterRCNNSmall": lambda: FasterRCNNSmall(2, anchor_scales=(1.0, 2.0)),
}  # fmt: skip


@pytest.mark.parametrize("which", list(BUILT))
def test_saved_and_loaded_it_predicts_the_same(narrow: None, tmp_path: Path, which: str) -> None:
    detector = BUILT[which]()
    liven(detector)
    detector.score_threshold, detector.nms_threshold = 0.0625, 0.75
    path = tmp_path / "detector.npz"
    save_detector(path, detector)
    loaded = load_detector(path)
    assert (loaded.score_threshold, loaded.nms_threshold) == (0.0625, 0.75)
    assert type(loaded) is type(detector)
    assert loaded.recipe == detector.recipe
    expected, found = (d.predict(PICTURE, score_threshold=0.0) for d in (detector, loaded))
    assert len(expected) > 0
    assert found.class_names == expected.class_names
    for name in ("boxes", "labels", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    "which",
    [
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "faster_rcnn_vgg16",
        "faster_rcnn_small",
        "another predictor",
        "a frozen norm by its class",
    ],
)
def test_a_file_named_rightly_is_loaded_as_it_says(
    narrow: None, tmp_path: Path, which: str
) -> None:
    detector = BUILT[which]()
    detector.class_names = tuple(f"class {k}" for k in range(len(detector.class_names)))
    detector.score_threshold, detector.nms_threshold = 0.0625, 0.75
    path = tmp_path / "detector.npz"
    save_detector(path, detector)
    model = str(detector.settings()["model"])
    loaded = load_detector(path, model)
    assert loaded.recipe == detector.recipe
    assert not loaded.training
    told = load_detector(path, model, score_threshold=0.25)
    assert (told.score_threshold, told.nms_threshold) == (0.25, 0.75)
    for other in {"fasterrcnn_resnet_fpn", "faster_rcnn_vgg16"} - {model}:
        with pytest.raises(
            ValueError, match=f"^model: expected '{model}', as .*detector.npz is .*, got '{other}'$"
        ):
            load_detector(path, other)


@pytest.mark.parametrize("recipe", ["{", "[]", "{}", '{"model": "of another time"}', "[" * 100000])
def test_a_name_helps_where_the_recipe_does_not(tmp_path: Path, recipe: str) -> None:
    path = tmp_path / "detector.npz"
    state = detection.faster_rcnn_small(2).state_dict()
    weights.save(path, state, metadata={"detector": recipe})
    with pytest.raises(ValueError, match="expected the recipe of a detector"):
        load_detector(path)
    loaded = load_detector(path, "faster_rcnn_small")
    assert len(loaded.class_names) == 2
    for key, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value, state[key])


def test_a_fresh_classifier_keeps_the_sizes_and_thresholds_of_a_file(
    narrow: None, tmp_path: Path
) -> None:
    detector = BUILT["fasterrcnn_resnet50_fpn_v2"]()
    detector.score_threshold = 0.0625
    path = tmp_path / "detector.npz"
    save_detector(path, detector)
    for model in (None, "fasterrcnn_resnet50_fpn_v2"):
        fresh = load_detector(path, model, new_classifier=True, class_names=("x", "y", "z"))
        expected = {**detector.settings(), "n_fg_class": 3, "class_names": ["x", "y", "z"]}
        assert fresh.settings() == expected
        for key, value in fresh.state_dict().items():
            if "box_predictor" not in key:
                np.testing.assert_array_equal(value, detector.state_dict()[key])


@pytest.mark.parametrize("build", [detection.faster_rcnn_small, detection.fasterrcnn_resnet_fpn])
def test_a_file_without_thresholds_has_those_of_the_builder(tmp_path: Path, build: Any) -> None:
    detector = build(2)
    path = tmp_path / "detector.npz"
    recipe = {k: v for k, v in detector.recipe.items() if k not in THRESHOLDS}
    weights.save(path, detector.state_dict(), metadata={"detector": json.dumps(recipe)})
    loaded = load_detector(path)
    for name in THRESHOLDS:
        assert getattr(loaded, name) == getattr(detector, name)
    told = load_detector(path, score_threshold=0.25, nms_threshold=0.125)
    assert (told.score_threshold, told.nms_threshold) == (0.25, 0.125)


@pytest.mark.parametrize("name", ["score_threshold", "nms_threshold"])
def test_a_threshold_that_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected a number, got '0.5'$"):
        detection.build_detector("faster_rcnn_small", n_fg_class=2, **{name: "0.5"})


def test_a_run_goes_on_whatever_the_thresholds_of_predict(tmp_path: Path) -> None:
    from oxidet.data import DigitScenes
    from oxidet.train import Trainer

    configs: list[Any] = []
    for threshold in (0.5, 0.25):
        detector = detection.faster_rcnn_small(10)
        detector.score_threshold = detector.nms_threshold = threshold
        configs.append(Trainer(detector, DigitScenes("test"), tmp_path).config)
    assert configs[0] == configs[1]
    assert not {"score_threshold", "nms_threshold"} & {*configs[0]["detector"]}


def test_the_options_of_simple_faster_rcnn_are_in_the_recipe(
    narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opt, "caffe_pretrain", True)
    monkeypatch.setattr(opt, "use_drop", True)
    recipe = FasterRCNNVGG16().recipe
    assert recipe is not None
    assert recipe["model"] == "faster_rcnn_vgg16"
    assert (recipe["flavour"], recipe["use_drop"]) == ("simple-faster-rcnn-caffe", True)
    assert recipe["class_names"][:2] == ["aeroplane", "bicycle"]


class Derived(FasterRCNNSmall):
    """Might be any network."""


def pooling() -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(["0", "1"], 7, 2)


def norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=0.1)


UNSAVED: dict[str, tuple[Build, str]] = {
    "backbone": (
        lambda: detection.faster_rcnn(2, resnet18(), "layer2", out_channels=16),
        "got one with ResNet as backbone",
    ),
    "norm": (
        lambda: detection.fasterrcnn_resnet_fpn(2, norm_layer=norm),
        "got one with norm as norm_layer",
    ),
    "pooling": (
        lambda: detection.fasterrcnn_resnet_fpn(2, box_roi_pool=pooling()),
        "got one with MultiScaleRoIAlign as box_roi_pool",
    ),
    "class": (
        lambda: detection.FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18"), 2),
        "got a FasterRCNN put together otherwise",
    ),
    "derived": (lambda: Derived(2), "got a Derived put together otherwise"),
}


@pytest.mark.parametrize("which", list(UNSAVED))
def test_what_only_a_program_can_build_is_refused(narrow: None, tmp_path: Path, which: str) -> None:
    build, got = UNSAVED[which]
    detector = build()
    assert detector.recipe is None
    with pytest.raises(ValueError, match=f"^detector: expected .*{got}.*oxidet.weights.save$"):
        save_detector(tmp_path / "no.npz", detector)
    assert list(tmp_path.iterdir()) == []
    weights.save(tmp_path / "weights.npz", detector.state_dict())
    build().load_state_dict(weights.load(tmp_path / "weights.npz"))


@pytest.mark.parametrize(
    "name",
    [
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_resnet_fpn",
        "faster_rcnn",
        "faster_rcnn_vgg16",
        "faster_rcnn_resnet",
        "faster_rcnn_resnet101",
        "faster_rcnn_small",
    ],
)
def test_an_unknown_option_names_the_builder(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'sizes'"):
        getattr(detection, name)(2, sizes=3)
    with pytest.raises(TypeError, match=r"'class_name', did you mean 'class_names'\?$"):
        getattr(detection, name)(2, class_name=("ant", "bee"))


def test_modules_have_torchvisions_names() -> None:
    """As attributes, and to import from."""
    for name, pieces in {
        "anchor_utils": ("AnchorGenerator", "ImageList"),
        "backbone_utils": ("BackboneWithFPN", "resnet_fpn_backbone"),
        "faster_rcnn": (
            "AnchorGenerator", "FasterRCNN", "FastRCNNConvFCHead", "FastRCNNPredictor",
            "TwoMLPHead", "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2",
        ),
        "generalized_rcnn": ("GeneralizedRCNN",),
        "image_list": ("ImageList",),
        "roi_heads": ("RoIHeads", "fastrcnn_loss"),
        "rpn": ("AnchorGenerator", "RPNHead", "RegionProposalNetwork"),
        "transform": ("GeneralizedRCNNTransform", "resize_boxes"),
    }.items():  # fmt: skip
        module = importlib.import_module(f"oxidet.models.detection.{name}")
        for piece in pieces:
            assert getattr(module, piece) is getattr(getattr(detection, name), piece), piece


def test_the_arguments_of_builders_are_named_as_they_are_called() -> None:
    with pytest.raises(ValueError, match=r"^trainable_backbone_layers: expected .* from 0 to 5"):
        detection.fasterrcnn_resnet50_fpn(trainable_backbone_layers=7)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1))
    backbone.out_channels = 4
    with pytest.raises(
        TypeError,
        match=r"^FasterRCNN\(\) got an unexpected .* 'min_sizes', did you mean 'min_size'",
    ):
        detection.FasterRCNN(backbone, 2, min_sizes=3)
    with pytest.raises(TypeError, match=r"^faster_rcnn_resnet101\(\) got .* 'backbone'"):
        detection.faster_rcnn_resnet101(backbone="resnet18")
    with pytest.raises(ValueError, match=r"num_classes: expected either .* got both"):
        detection.faster_rcnn(2, "resnet18", box_predictor=FastRCNNPredictor(16, 3))


def test_a_new_classifier_is_for_networks_of_torchvision(tmp_path: Path) -> None:
    path = tmp_path / "small.npz"
    save_detector(path, detection.faster_rcnn_small(n_fg_class=2))
    with pytest.raises(ValueError, match=r"^new_classifier: expected .* is of faster_rcnn_small$"):
        load_detector(path, new_classifier=True)
