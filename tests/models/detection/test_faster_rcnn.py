"""torchvision's Faster R-CNN by itself: its contract, options, files, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oxidet
from oxidet import nn, ops, weights
from oxidet.models.detection import (
    AnchorGenerator,
    FasterRCNN,
    build_detector,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    fasterrcnn_resnet_fpn,
    load_detector,
    save_detector,
)
from oxidet.models.detection.backbone_utils import (
    BackboneWithFPN,
    IntermediateLayerGetter,
    resnet_fpn_backbone,
)
from oxidet.models.detection.coco import coco_classes
from oxidet.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from oxidet.models.detection.recognition import recognise_torchvision
from oxidet.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from oxidet.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

SIZES: dict[str, Any] = {"min_size": 64, "max_size": 96}


class Maps(nn.Module):
    """A backbone of two small maps."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=8, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x: Any) -> dict[str, Any]:
        fine = self.first(x)
        return {"fine": fine, "coarse": self.second(fine)}


def tiny(**options: Any) -> FasterRCNN:
    """A detector of which everything takes milliseconds, and whose scores differ."""
    given: dict[str, Any] = {
        "num_classes": 4,
        "rpn_anchor_generator": AnchorGenerator(((16, 32), (48, 64)), ((0.5, 1.0, 2.0),) * 2),
        "box_roi_pool": MultiScaleRoIAlign(["fine", "coarse"], 3, 2),
        "box_head": TwoMLPHead(8 * 9, 1024),
        "box_score_thresh": 0.1,
        **SIZES,
    }
    model = FasterRCNN(options.pop("backbone", None) or Maps(), **{**given, **options})
    rng = np.random.default_rng(0)
    for layer in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred):
        layer.weight = rng.standard_normal(layer.weight.shape) * 0.5
    predictor = model.roi_heads.box_predictor
    predictor.cls_score.weight = rng.standard_normal(predictor.cls_score.weight.shape) * 0.5
    return model


def images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.uniform(0, 1, (3, *size)).astype(np.float32) for size in sizes]


MIXED = images((40, 60), (60, 40), (64, 64), (30, 90), (41, 59))


# --- what is found


def test_called_as_torchvisions() -> None:
    model = tiny().eval()
    found = model(MIXED)
    assert len(found) == len(MIXED)
    for one, image in zip(found, MIXED, strict=True):
        assert {key: value.dtype for key, value in one.items()} == {
            "boxes": np.float32,
            "labels": np.int64,
            "scores": np.float32,
        }
        assert 0 < len(one["labels"]) <= 100
        assert set(one["labels"]) <= {1, 2, 3}
        assert (np.diff(one["scores"]) <= 0).all()
        assert (one["scores"] > 0.1).all()
        height, width = image.shape[1:]
        # The size of the network's input divided by its scale may be a rounding error more.
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= [width * 1.000001, height * 1.000001] * 2).all()
    tensors = model([nn.Tensor(image) for image in MIXED[:2]])
    np.testing.assert_allclose(tensors[0]["boxes"], model(MIXED[:2])[0]["boxes"], atol=1e-3)


def test_what_is_found_does_not_depend_on_the_other_images() -> None:
    model = tiny().eval()
    raw = [image * 255 for image in MIXED]
    together = model.detect_images(raw, 0.1)
    for image, found in zip(raw, together, strict=True):
        [alone] = model.detect_images([image], 0.1)
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one, other)
    assert model.detect_images([]) == []
    for batch_size in (1, 2, 5):
        listed = model.predict(
            [image.transpose(1, 2, 0).astype(np.uint8) for image in raw], batch_size=batch_size
        )
        assert [found.image_size for found in listed] == [image.shape[1:] for image in raw]


def test_as_a_detector_labels_count_from_0_and_white_is_255() -> None:
    model = tiny(class_names=("ant", "bee", "cat")).eval()
    [reference] = model(MIXED[:1])
    [found] = model.detect_images([MIXED[0] * 255], 0.1, 0.5)
    np.testing.assert_array_equal(found.labels, reference["labels"] - 1)
    np.testing.assert_allclose(found.boxes, reference["boxes"], atol=1e-3)
    np.testing.assert_allclose(found.scores, reference["scores"], atol=1e-5)
    [few] = model.detect_images([MIXED[0] * 255], 0.3, 0.2)
    assert 0 < len(few.labels) < len(found.labels)
    assert (few.scores > 0.3).all()


def test_plans_and_layers_agree_and_plans_stay() -> None:
    model = tiny().eval()
    planned = model(MIXED)
    plans = dict(model.__dict__["_plan_cache"].plans)
    assert len(plans) == 1
    assert "_plan_cache" in model.roi_heads.__dict__
    model(MIXED)
    assert model.__dict__["_plan_cache"].plans == plans  # the same, not made again
    with nn.eager():
        eager = model(MIXED)
    for one, other in zip(planned, eager, strict=True):
        np.testing.assert_array_equal(one["labels"], other["labels"])
        np.testing.assert_allclose(one["boxes"], other["boxes"], atol=1e-2)


def test_a_backbone_of_one_map() -> None:
    class One(Maps):
        def forward(self, x: Any) -> Any:
            return self.first(x)

    model = tiny(
        backbone=One(),
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
    ).eval()
    assert len(model(MIXED)[0]["labels"]) > 0


def test_nothing_to_be_found() -> None:
    model = tiny(box_score_thresh=1.0).eval()
    [found] = model(MIXED[:1])
    assert (found["boxes"].shape, found["labels"].shape) == ((0, 4), (0,))
    nowhere = tiny(rpn_score_thresh=1.0).eval()
    found = nowhere(MIXED)  # without any region
    assert [len(one["scores"]) for one in found] == [0] * len(MIXED)
    assert len(nowhere.predict(np.zeros((9, 9, 3), np.uint8))) == 0


# --- training


def targets(*counts: int) -> list[dict[str, Any]]:
    boxes = np.array([[2, 3, 20, 25], [10, 8, 35, 30], [5, 5, 15, 39]], np.float32)
    return [{"boxes": boxes[:n], "labels": np.arange(1, n + 1)} for n in counts]


LOSSES = ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"]


def test_losses() -> None:
    model = tiny()
    losses = model(MIXED[:3], targets(3, 0, 1), rng=np.random.RandomState(0))
    assert list(losses) == LOSSES
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert np.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_samples_come_from_the_generator() -> None:
    model = tiny(rpn_batch_size_per_image=8, box_batch_size_per_image=8)

    def values(rng: Any) -> list[float]:
        found = [i * 255 for i in MIXED[:2]], [t["boxes"] for t in targets(3, 2)]
        labels = [t["labels"] - 1 for t in targets(3, 2)]
        losses = model.training_losses(*found, labels, rng=rng)
        assert list(losses) == LOSSES
        return [float(loss) for loss in losses.values()]

    assert values(np.random.RandomState(0)) == values(np.random.RandomState(0))
    assert values(np.random.RandomState(0)) != values(np.random.RandomState(1))
    called = model(MIXED[:2], targets(3, 2), rng=np.random.RandomState(0))
    np.testing.assert_allclose(
        values(np.random.RandomState(0)), [float(loss) for loss in called.values()], rtol=1e-4
    )


def test_images_without_objects() -> None:
    losses = tiny()(MIXED[:2], targets(0, 0), rng=np.random.RandomState(0))
    assert float(losses["loss_box_reg"]) == float(losses["loss_rpn_box_reg"]) == 0
    assert float(losses["loss_classifier"]) > 0
    sum(losses.values()).backward()


def test_sizes_of_training() -> None:
    model = tiny(min_size=(32, 64))
    seen: list[Any] = []
    batch = model.transform.batch

    def record(arrays: Any, sizes: Sequence[Any], unit: float = 1.0) -> Any:
        seen.extend(min(size) for size in sizes)
        return batch(arrays, sizes, unit)

    object.__setattr__(model.transform, "batch", record)
    square = images((50, 50)) * 12
    model(square, targets(*[1] * 12), rng=np.random.RandomState(0))
    assert set(seen) == {32, 64}
    boxes, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    rng = np.random.RandomState(0)
    model.training_losses(square[:1], boxes, labels, rng=rng, min_size=48)
    assert seen.pop() == 48
    model.eval()(square[:1])
    assert seen.pop() == 64


def test_labels_that_are_no_numbers_of_classes_and_other_bad_targets() -> None:
    model = tiny()
    image = MIXED[:1]
    good = targets(1)[0]

    def given(**changes: Any) -> list[dict[str, Any]]:
        return [{**good, **changes}]

    no_area = np.array([[1, 2, 3, 4], [5, 6, 5, 9]], np.float32)
    for error, message, target in [
        (ValueError, "targets: expected boxes and labels in training mode", None),
        (ValueError, "targets: expected 1, one per image, got 2", targets(1, 1)),
        (TypeError, r"targets\[0\]: expected a dict", [3]),
        (ValueError, r"targets\[0\]: .* no 'labels'", [{"boxes": good["boxes"]}]),
        (ValueError, r"\['boxes'\]: expected shape \(R, 4\), got \(0,\)", given(boxes=np.zeros(0))),
        (TypeError, r"\['boxes'\]: expected floats, got dtype int64", given(boxes=[[1, 2, 3, 4]])),
        (TypeError, r"\['labels'\]: expected int64, got dtype int32", given(labels=np.int32([1]))),
        (ValueError, r"\['labels'\]: expected shape \(1,\)", given(labels=np.array([1, 2]))),
        (ValueError, "expected 1 to 3, got 0 in row 0", given(labels=np.array([0]))),
        (ValueError, "expected 1 to 3, got 4 in row 0", given(labels=np.array([4]))),
        (
            ValueError,
            r"x2 > x1 and y2 > y1, got \[5.0, 6.0, 5.0, 9.0\] in row 1",
            given(boxes=no_area, labels=np.array([1, 1])),
        ),
        (ValueError, "in row 0", given(boxes=np.array([[0, 0, np.nan, 4]], np.float32))),
    ]:
        with pytest.raises(error, match=message):
            model(image, target)
    rng = np.random.RandomState(0)
    with pytest.raises(ValueError, match=r"labels\[0\]: expected 0 to 2, got 3 in row 0"):
        model.training_losses(image, [good["boxes"]], [np.array([3])], rng=rng)
    with pytest.raises(TypeError, match=r"images\[0\]: expected floats in 0..1, got dtype uint8"):
        model([np.zeros((3, 8, 8), np.uint8)], targets(1))
    for shape in ((8, 8), (1, 8, 8), (3, 0, 8)):
        with pytest.raises(ValueError, match=r"images\[0\]"):
            model.eval()([np.zeros(shape, np.float32)])
        with pytest.raises(ValueError, match=r"images\[0\]"):
            model.detect_images([np.zeros(shape, np.float32)])
    with pytest.raises(ValueError, match="images: expected at least one"):
        model.eval()([])


# --- structure


def test_arguments() -> None:
    with pytest.raises(ValueError, match="out_channels"):
        FasterRCNN(nn.ReLU(), num_classes=2)
    with pytest.raises(ValueError, match="either this or box_predictor, got neither"):
        FasterRCNN(Maps())
    with pytest.raises(ValueError, match="either this or box_predictor, got both"):
        FasterRCNN(Maps(), num_classes=2, box_predictor=FastRCNNPredictor(1024, 2))
    with pytest.raises(TypeError, match="rpn_anchor_generator: expected AnchorGenerator or None"):
        FasterRCNN(Maps(), num_classes=2, rpn_anchor_generator=nn.ReLU())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="box_roi_pool: expected MultiScaleRoIAlign or None"):
        FasterRCNN(Maps(), num_classes=2, box_roi_pool=nn.ReLU())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 2"):
        FasterRCNN(Maps(), num_classes=1)
    with pytest.raises(ValueError, match="class_names: expected 3 names, got 1"):
        tiny(class_names=["one"])
    with pytest.raises(TypeError, match="mask_head"):
        tiny(mask_head=None)
    two = tiny(rpn_anchor_generator=AnchorGenerator(((16,),), ((1.0,),))).eval()
    with pytest.raises(ValueError, match="features: expected 1 maps, as many as there are sizes"):
        two(MIXED[:1])


def test_classes_follow_the_predictor() -> None:
    model = tiny(class_names=("ant", "bee", "cat"))
    assert (model.num_classes, model.class_names) == (4, ("ant", "bee", "cat"))
    in_features = model.roi_heads.box_predictor.cls_score.in_features
    model.roi_heads.box_predictor = FastRCNNPredictor(in_features, 3)
    assert (model.num_classes, model.class_names) == (3, ("0", "1"))
    assert len(model.eval()(MIXED[:1])) == 1
    model.class_names = ["x", "y"]
    assert model.class_names == ("x", "y")
    assert model.settings()["n_fg_class"] == 2
    with pytest.raises(ValueError, match="class_names: expected 2 names, got 3"):
        model.class_names = ("x", "y", "z")
    with pytest.raises(TypeError, match="class_names: expected a list of names, got 'xy'"):
        model.class_names = "xy"  # type: ignore[assignment]
    for build in (oxidet.models.detection.faster_rcnn, fasterrcnn_resnet_fpn):
        with pytest.raises(TypeError, match="class_names: expected a list of names, got 'cat'"):
            build(class_names="cat")
    model.nms_threshold = 0.25
    assert model.roi_heads.nms_thresh == model.nms_threshold == 0.25


def test_heads() -> None:
    head = FastRCNNConvFCHead((8, 7, 7), [16], [32, 8], norm_layer=nn.BatchNorm2d)
    assert [name for name, _ in head.named_parameters()] == [
        *("0.0.weight", "0.1.weight", "0.1.bias"),
        *("2.weight", "2.bias", "4.weight", "4.bias"),
    ]
    scores, codes = FastRCNNPredictor(8, 3).eval()(np.zeros((5, 8, 1, 1), np.float32))
    assert (scores.shape, codes.shape) == ((5, 3), (5, 12))
    with pytest.raises(ValueError, match=r"x: expected one value of a feature"):
        FastRCNNPredictor(8, 3).eval()(np.zeros((5, 8, 2, 1), np.float32))


def test_backbones() -> None:
    with pytest.raises(ValueError, match="backbone_name: expected one of"):
        resnet_fpn_backbone(backbone_name="vgg16")
    with pytest.raises(ValueError, match="trainable_layers: expected an integer from 0 to 5"):
        resnet_fpn_backbone(backbone_name="resnet18", trainable_layers=6)
    with pytest.raises(ValueError, match="returned_layers: expected an integer from 1 to 4"):
        resnet_fpn_backbone(backbone_name="resnet18", returned_layers=[5])
    with pytest.raises(ValueError, match="return_layers: expected children of this Maps"):
        IntermediateLayerGetter(Maps(), {"third": "0"})
    backbone = resnet_fpn_backbone(backbone_name="resnet18", returned_layers=[2, 4]).eval()
    assert isinstance(backbone, BackboneWithFPN)
    assert "layer4" in backbone.body
    levels = backbone(np.zeros((1, 3, 64, 96), np.float32))
    assert {name: level.shape[1:] for name, level in levels.items()} == {
        "0": (256, 8, 12),
        "1": (256, 2, 3),
        "pool": (256, 1, 2),
    }


def test_transform_refuses() -> None:
    for options, message in [
        ({"min_size": 0}, "min_size: expected a length of at least 1"),
        ({"min_size": ()}, "min_size: expected at least one length"),
        ({"max_size": 0}, "max_size: expected a length of at least 1"),
        ({"image_mean": ()}, "image_mean: expected a number for each channel"),
        ({"image_std": (1, 1)}, "image_std: expected 3 values, as image_mean has, got 2"),
        ({"image_std": (1, 0, 1)}, "image_std: expected values above 0"),
        ({"size_divisible": 0}, "size_divisible"),
        ({"fixed_size": (0, 3)}, "fixed_size"),
    ]:
        arguments: dict[str, Any] = {"min_size": 8, "max_size": 9, "image_mean": (0, 0, 0)}
        arguments |= {"image_std": (1, 1, 1), **options}
        with pytest.raises(ValueError, match=message):
            GeneralizedRCNNTransform(**arguments)
    skips = GeneralizedRCNNTransform(8, 9, (0,), (1,), _skip_resize=True)
    batch, _ = skips([np.ones((1, 30, 40), np.float32)])
    assert (batch.image_sizes, batch.tensors.shape) == ([(30, 40)], (1, 1, 32, 64))
    assert batch.tensors[0, 0, 30:].sum() == batch.tensors[0, 0, :, 40:].sum() == 0
    assert resize_boxes(np.zeros((0, 4)), (5, 5), (9, 9)).shape == (0, 4)
    # A picture of one row, scaled by its length, keeps a row.
    assert GeneralizedRCNNTransform(8, 9, (0,), (1,)).scaled_size(1, 1000) == (1, 9)


# --- builders and files


def small(**options: Any) -> FasterRCNN:
    return fasterrcnn_resnet_fpn(**{"n_fg_class": 2, **SIZES, **options})


def test_options_of_builders() -> None:
    model = small(norm_layer="frozen", norm_eps=0.25, anchor_sizes=[[8], [16], [32], [64], [99]])
    frozen = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(frozen) == 20
    assert {module.eps for module in frozen} == {0.25}
    assert model.rpn.anchor_generator.sizes == [[8], [16], [32], [64], [99]]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert fasterrcnn_resnet_fpn(num_classes=5).num_classes == 5
    assert fasterrcnn_resnet_fpn(class_names=["a", "b"]).num_classes == 3
    assert fasterrcnn_resnet_fpn().num_classes == 91
    v2 = fasterrcnn_resnet50_fpn_v2(1, norm_layer="frozen", trainable_backbone_layers=0)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in v2.modules())
    assert not any(p.requires_grad for p in v2.backbone.body.parameters())
    assert len(v2.rpn.head.conv) == 2
    group = fasterrcnn_resnet_fpn(1, norm_layer=lambda channels: ops.FrozenBatchNorm2d(channels, 2))
    assert group.backbone.body.bn1.eps == 2
    for options, error, message in [
        ({"backbone": "vgg16"}, ValueError, "backbone: expected one of"),
        ({"norm_layer": "group"}, ValueError, "norm_layer: expected one of"),
        ({"num_classes": 5}, ValueError, "num_classes: expected 3, by n_fg_class, got 5"),
        ({"new_classifier": True}, ValueError, "new_classifier: expected together with weights"),
        ({"weights": "COCO_V1"}, ValueError, "none of fasterrcnn_resnet_fpn are published"),
        ({"weights": "nowhere.pth"}, OSError, "nowhere"),
        ({"minimum": 3}, TypeError, "minimum"),
    ]:
        with pytest.raises(error, match=message):
            small(**options)


def test_recipes_and_files(tmp_path: Path) -> None:
    model = build_detector(
        "fasterrcnn_resnet_fpn",
        class_names=("ant", "bee"),
        backbone="resnet18",
        norm_layer="frozen",
        trainable_backbone_layers=2,
        box_detections_per_img=7,
        image_mean=(0.1, 0.2, 0.3),
        **SIZES,
    )
    assert model.recipe == json.loads(json.dumps(model.recipe))
    assert model.recipe is not None
    assert model.recipe["min_size"] == [64]
    assert model.recipe["image_mean"] == [0.1, 0.2, 0.3]
    assert model.recipe["trainable_backbone_layers"] == 2
    path = tmp_path / "detector.safetensors"
    save_detector(path, model)
    loaded = load_detector(path)
    assert isinstance(loaded, FasterRCNN)
    assert (loaded.recipe, loaded.class_names) == (model.recipe, ("ant", "bee"))
    assert loaded.roi_heads.detections_per_img == 7
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    assert trained == {name: p.requires_grad for name, p in loaded.named_parameters()}
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    assert loaded.predict(picture, score_threshold=0) == model.predict(picture, score_threshold=0)


def test_a_file_says_what_the_detector_is_now(tmp_path: Path) -> None:
    """Names given, a predictor replaced and sizes set after the detector was built."""
    model = build_detector("fasterrcnn_resnet_fpn", num_classes=3, **SIZES)
    assert isinstance(model, FasterRCNN)
    pieces: Any = oxidet.models.detection.faster_rcnn  # a function, and a name of torchvision's
    model.roi_heads.box_predictor = pieces.FastRCNNPredictor(1024, 5)
    model.class_names = ("ant", "bee", "cow", "dog")
    model.transform.min_size = (48,)
    model.nms_threshold = 0.25
    save_detector(tmp_path / "detector.npz", model)
    loaded = load_detector(tmp_path / "detector.npz")
    assert isinstance(loaded, FasterRCNN)
    assert (loaded.num_classes, loaded.class_names) == (5, ("ant", "bee", "cow", "dog"))
    assert (loaded.transform.min_size, loaded.nms_threshold) == ((48,), 0.25)
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    assert loaded.predict(picture, score_threshold=0) == model.predict(picture, score_threshold=0)


def test_weights_of_a_file(tmp_path: Path) -> None:
    model = small(n_fg_class=4)
    path = tmp_path / "weights.npz"
    weights.save(path, model.state_dict())
    loaded = fasterrcnn_resnet_fpn(weights=path, **SIZES)
    assert loaded.num_classes == 5
    assert isinstance(loaded.backbone.body.bn1, FrozenBatchNorm2d)
    body = {name: p.requires_grad for name, p in loaded.backbone.body.named_parameters()}
    assert not body["conv1.weight"]
    assert not body["layer1.0.conv1.weight"]
    assert body["layer2.0.conv1.weight"]
    np.testing.assert_array_equal(
        loaded.roi_heads.box_head.fc6.weight, model.roi_heads.box_head.fc6.weight
    )
    other = fasterrcnn_resnet_fpn(2, weights=path, new_classifier=True)
    assert other.num_classes == 3
    np.testing.assert_array_equal(other.rpn.head.cls_logits.bias, model.rpn.head.cls_logits.bias)
    with pytest.raises(nn.StateDictError, match="expected 3 classes with background, got 5"):
        fasterrcnn_resnet_fpn(2, weights=path)
    # Without a name it is known by its keys.
    assert recognise_torchvision(model.state_dict()) == {
        "model": "fasterrcnn_resnet_fpn",
        "backbone": "resnet18",
    }
    found = load_detector(path, **SIZES)
    assert isinstance(found, FasterRCNN)
    assert not found.training
    assert found.recipe is not None
    assert (found.recipe["n_fg_class"], found.recipe["weights"]) == (4, None)
    resnet = oxidet.models.resnet18().state_dict()
    assert recognise_torchvision(resnet) is None


def test_ninety_one_classes_are_those_of_coco(tmp_path: Path) -> None:
    """By default, and in a checkpoint whatever its name."""
    model = fasterrcnn_resnet_fpn(**SIZES)
    assert model.class_names == coco_classes()
    weights.save(tmp_path / "renamed.npz", model.state_dict())
    assert load_detector(tmp_path / "renamed.npz").class_names == coco_classes()
    own = tuple(f"own {i}" for i in range(90))
    assert load_detector(tmp_path / "renamed.npz", class_names=own).class_names == own
    fresh = fasterrcnn_resnet_fpn(90, weights=tmp_path / "renamed.npz", new_classifier=True)
    assert fresh.class_names[0] == "0"


def test_a_published_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torchvision's name for it, from the cache, with what belongs to it."""
    monkeypatch.setenv("OXIDET_CACHE", str(tmp_path))
    monkeypatch.setattr("oxidet.weights._fetch._is_right", lambda path, digest: path.is_file())
    fresh = fasterrcnn_resnet50_fpn(norm_layer="frozen")
    file = tmp_path / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    weights.save(tmp_path / "weights.npz", fresh.state_dict(), dtype="float16")
    (tmp_path / "weights.npz").rename(file)
    model = build_detector(
        "fasterrcnn_resnet50_fpn", weights="FasterRCNN_ResNet50_FPN_Weights.COCO_V1"
    )
    assert isinstance(model, FasterRCNN)
    assert model.class_names == coco_classes()
    assert model.backbone.body.bn1.eps == 0
    assert model.recipe is not None
    assert model.recipe["norm_eps"] == 0
    assert model.recipe["weights"] is None
    assert model.recipe["trainable_backbone_layers"] == 3


def test_coco_classes_and_the_numbers_between_them() -> None:
    names = coco_classes()
    assert (len(names), names.count("N/A"), len(set(names))) == (90, 10, 81)
    assert names[0] == "person"
    assert names[16] == "cat"
    assert names[89] == "toothbrush"
