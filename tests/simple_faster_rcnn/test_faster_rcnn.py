"""Faster R-CNN: structure, names, presets, and what predict promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn, weights
from oxidet.data import ImageError
from oxidet.detections import Detections
from oxidet.models.detection import build_detector, load_detector, save_detector
from oxidet.nn import init
from oxidet.ops import RoIPool
from oxidet.simple_faster_rcnn import (
    FasterRCNN,
    FasterRCNNSmall,
    FasterRCNNVGG16,
    Preprocessing,
    RegionProposalNetwork,
    RoIHead,
)


class TinyDetector(FasterRCNN):
    """A dummy extractor with a real RPN and head: the glue without the cost."""

    def __init__(self, n_fg_class: int = 3) -> None:
        extractor = nn.Conv2d(3, 8, 3, stride=16, padding=1)
        rpn = RegionProposalNetwork(
            8, 8, anchor_scales=(1, 2), proposal_creator_params={"n_test_post_nms": 20}
        )
        classifier = nn.Sequential(nn.Linear(8 * 4, 16), nn.ReLU())
        head = RoIHead(n_fg_class + 1, RoIPool((2, 2), 1 / 16), classifier, 16)
        super().__init__(
            extractor,
            rpn,
            head,
            class_names=["ant", "bee", "cat"][:n_fg_class],
            preprocessing=Preprocessing(min_size=64, max_size=128),
        )
        # Scores far from each other, so that something is detected.
        init.normal_(self.head.score.weight, 0, 3)
        init.normal_(self.rpn.score.weight, 0, 3)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, 90, 120)).astype(np.float32)


@pytest.fixture
def detector() -> TinyDetector:
    return TinyDetector().eval()


def vgg16_keys() -> dict[str, tuple[int, ...]]:
    """The state_dict of simple-faster-rcnn's FasterRCNNVGG16 with 20 classes."""
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    indices = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for index, width in zip(indices, widths, strict=True):
        shapes[f"extractor.{index}"] = (width, channels, 3, 3)
        channels = width
    shapes["rpn.conv1"] = (512, 512, 3, 3)
    shapes["rpn.score"] = (18, 512, 1, 1)
    shapes["rpn.loc"] = (36, 512, 1, 1)
    shapes["head.classifier.0"] = (4096, 25088)
    shapes["head.classifier.2"] = (4096, 4096)
    shapes["head.cls_loc"] = (84, 4096)
    shapes["head.score"] = (21, 4096)
    keys: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        keys[f"{name}.weight"], keys[f"{name}.bias"] = shape, shape[:1]
    return keys


def test_the_vgg16_detector_has_the_originals_keys_in_their_order() -> None:
    model = FasterRCNNVGG16()
    state = model.state_dict()
    assert [(k, v.shape) for k, v in state.items()] == list(vgg16_keys().items())
    assert len(state) == 40
    assert sum(v.size for v in state.values()) == 137_078_239
    frozen = [k for k, p in model.named_parameters() if not p.requires_grad]
    assert frozen == [f"extractor.{i}.{k}" for i in (0, 2, 5, 7) for k in ("weight", "bias")]
    assert model.class_names[14] == "person"
    assert model.n_class == 21
    dropping = FasterRCNNVGG16(use_drop=True).state_dict()
    assert "head.classifier.3.weight" in dropping
    assert "head.classifier.2.weight" not in dropping
    # The deviations of the original's initialisation.
    for name, deviation in (("rpn.conv1", 0.01), ("head.cls_loc", 0.001), ("head.score", 0.01)):
        assert abs(state[f"{name}.weight"].std() / deviation - 1) < 0.05
        assert not state[f"{name}.bias"].any()


def test_presets() -> None:
    model = TinyDetector()
    assert (model.nms_thresh, model.score_thresh) == (0.3, 0.05)
    model.use_preset("visualize")
    assert (model.nms_thresh, model.score_thresh) == (0.3, 0.7)
    with pytest.raises(ValueError, match=r"preset: expected one of .* got 'fast'"):
        model.use_preset("fast")


def test_forward_returns_boxes_inside_the_picture(detector: TinyDetector) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 64, 96)).astype(np.float32)
    out = detector(x)
    count = len(out.rois)
    assert out.roi_cls_locs.shape == (count, 16)
    assert out.roi_scores.shape == (count, 4)
    assert out.roi_indices.dtype == np.int32
    assert set(out.roi_indices) == {0, 1}
    assert (out.rois >= 0).all()
    assert (out.rois <= [64, 96, 64, 96]).all()
    # A batch of two is two batches of one.
    for i in range(2):
        single, of_batch = detector(x[i : i + 1]), out.roi_indices == i
        assert_close(single.rois, out.rois[of_batch], 1e-5)
        assert_close(single.roi_scores, out.roi_scores[of_batch], 1e-4)


def test_no_proposals_give_empty_results(detector: TinyDetector, picture: np.ndarray) -> None:
    detector.rpn.proposal_layer.min_size = 10_000
    out = detector(np.zeros((1, 3, 64, 64), np.float32))
    assert out.roi_cls_locs.shape == (0, 16)
    assert out.roi_scores.shape == (0, 4)
    bbox, label, score = detector.detect(picture)
    assert (bbox.shape, label.shape, score.shape) == ((0, 4), (0,), (0,))
    assert (bbox.dtype, label.dtype, score.dtype) == (np.float32, np.int32, np.float32)
    assert len(detector.predict(picture)) == 0


def test_predict_agrees_with_detect(detector: TinyDetector, picture: np.ndarray) -> None:
    found = detector.predict(picture, score_threshold=0.3)
    assert isinstance(found, Detections)
    bbox, label, score = detector.detect(picture, 0.3)
    assert len(found) == len(bbox) > 0
    order = np.argsort(-score, kind="stable")
    np.testing.assert_array_equal(found.boxes, bbox[order][:, [1, 0, 3, 2]])
    np.testing.assert_array_equal(found.labels, label[order])
    np.testing.assert_array_equal(found.scores, score[order])
    assert (np.diff(found.scores) <= 0).all()
    assert found.class_names == ("ant", "bee", "cat")
    assert tuple(found.image_size) == (90, 120)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [120, 90, 120, 90]).all()


def test_higher_thresholds_keep_less(detector: TinyDetector, picture: np.ndarray) -> None:
    counts = [len(detector.predict(picture, score_threshold=t)) for t in (0.0, 0.3, 0.6, 1.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0
    kept = [len(detector.predict(picture, nms_threshold=t)) for t in (1.0, 0.5, 0.0)]
    assert kept == sorted(kept, reverse=True)


def test_predict_leaves_the_mode_and_the_tape_alone(picture: np.ndarray) -> None:
    model = TinyDetector().train()
    model.extractor.eval()
    model.predict(picture)
    assert model.training
    assert model.head.training
    assert not model.extractor.training
    assert all(p.grad is None for p in model.parameters())


def test_lists_streams_and_pictures_that_are_none(
    detector: TinyDetector, picture: np.ndarray, tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image")
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    image.fromarray(picture.transpose(1, 2, 0).astype(np.uint8)).save(good)
    bad.write_bytes(b"this is no picture")
    with pytest.raises(ImageError, match=r"bad\.png"):
        detector.predict([good, bad, good])
    with pytest.warns(UserWarning, match=r"skipped: .*bad\.png"):
        results = detector.predict([good, bad, good], on_error="skip")
    assert results[1] is None
    np.testing.assert_array_equal(results[0].boxes, results[2].boxes)
    with pytest.warns(UserWarning, match=r"bad\.png"):
        assert len(list(detector.iter_predict([bad, good], on_error="skip"))) == 1
    with pytest.warns(UserWarning, match=r"skipped: .*nowhere\.png"):
        assert detector.predict(tmp_path / "nowhere.png", on_error="skip") is None
    assert detector.predict([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 2}, "score_threshold: expected a number from 0 to 1, got 2"),
        ({"nms_threshold": -1}, "nms_threshold: expected a number from 0 to 1, got -1"),
        ({"on_error": "ignore"}, "on_error: expected 'raise' or 'skip', got 'ignore'"),
    ],
)
def test_bad_options_are_named(
    detector: TinyDetector, picture: np.ndarray, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        detector.predict(picture, **options)


def test_a_detector_file_needs_nothing_but_its_path(tmp_path: Path, picture: np.ndarray) -> None:
    names = ["ant", "bee"]
    model = build_detector("faster_rcnn_small", n_fg_class=2, class_names=names).eval()
    init.normal_(model.head.score.weight, 0, 1)
    for suffix in (".npz", ".safetensors"):
        path = tmp_path / f"detector{suffix}"
        save_detector(path, model)
        loaded = load_detector(path)
        assert isinstance(loaded, FasterRCNNSmall)
        assert loaded.class_names == ("ant", "bee")
        assert loaded.preprocessing == model.preprocessing
        assert not loaded.training
        for a, b in zip(loaded.detect(picture, 0.0), model.detect(picture, 0.0), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "recipe",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        '{"model": "yolo"}',
        '{"model": ["faster_rcnn_small"]}',
        '{"model": "faster_rcnn_small", "n_fg_class": -1}',
        '{"model": "faster_rcnn_small", "n_fg_class": "a"}',
        '{"model": "faster_rcnn_small", "unheard": 1}',
        '{"model": "faster_rcnn_small", "preprocessing": {"unheard": 1}}',
    ],
)
def test_a_recipe_that_describes_no_detector_is_named(tmp_path: Path, recipe: str) -> None:
    path = tmp_path / "odd.npz"
    weights.save(path, {"w": np.zeros(1)}, metadata={"detector": recipe})
    with pytest.raises(ValueError, match=r"odd\.npz: expected the recipe of a detector"):
        load_detector(path)


def test_options_may_be_numpy_numbers(tmp_path: Path) -> None:
    names = np.array(["ant", "bee"])
    detector = build_detector("faster_rcnn_small", n_fg_class=np.int64(2), class_names=names)
    save_detector(tmp_path / "a.npz", detector)
    assert load_detector(tmp_path / "a.npz").recipe == detector.recipe


def test_a_detector_file_without_recipe_needs_a_name(tmp_path: Path) -> None:
    from oxidet import weights

    path = tmp_path / "bare.npz"
    weights.save(path, build_detector("faster_rcnn_small", n_fg_class=2).state_dict())
    with pytest.raises(ValueError, match=r"model: expected one of .*bare\.npz does not say"):
        load_detector(path)
    assert load_detector(path, "faster_rcnn_small", n_fg_class=2).n_class == 3
    with pytest.raises(ValueError, match="model: expected one of"):
        load_detector(path, "yolo")
    with pytest.raises(ValueError, match="expected one made by a function of"):
        save_detector(path, TinyDetector())


def test_over_a_resnet() -> None:
    model = build_detector("faster_rcnn_resnet", n_fg_class=2, backbone="resnet18")
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.training
    keys = list(model.state_dict())
    assert keys[0] == "extractor.conv1.weight"
    assert "head.classifier.layer4.1.bn2.running_var" in keys
    out = model.eval()(np.zeros((1, 3, 64, 96), np.float32))
    assert out.roi_scores.shape[1] == 3
    with pytest.raises(ValueError, match="backbone: expected one of"):
        build_detector("faster_rcnn_resnet", backbone="vgg")


def test_over_resnet101() -> None:
    """ "C4": regions are pooled from conv4_23 and pass through conv5 (He et al., appendix A)."""
    model = build_detector("faster_rcnn_resnet101", n_fg_class=2, preprocessing={"min_size": 48})
    keys = model.state_dict().keys()
    assert "extractor.layer3.22.conv3.weight" in keys
    assert not any(key.startswith("extractor.layer4") for key in keys)
    assert model.state_dict()["head.classifier.layer4.0.conv1.weight"].shape == (512, 1024, 1, 1)
    assert model.state_dict()["head.cls_loc.weight"].shape == (12, 2048)
    assert model.state_dict()["rpn.conv1.weight"].shape == (512, 1024, 3, 3)
    model.rpn.proposal_layer.n_test_post_nms = 4
    model.rpn.proposal_layer.min_size = 0
    out = model.eval()(np.zeros((1, 3, 48, 64), np.float32))
    assert out.roi_scores.shape == (len(out.rois), 3)
    assert 0 < len(out.rois) <= 4


def test_the_number_of_classes_is_in_the_weights(tmp_path: Path) -> None:
    model = build_detector("faster_rcnn_small", n_fg_class=3)
    weights.save(tmp_path / "bare.npz", model.state_dict())
    bare = load_detector(tmp_path / "bare.npz", "faster_rcnn_small")
    assert bare.class_names == ("0", "1", "2")
    for key, value in bare.state_dict().items():
        np.testing.assert_array_equal(value, model.state_dict()[key], key)


def test_preprocessing_sizes_and_normalisation() -> None:
    rules = {
        "round": Preprocessing(),
        "trunc": Preprocessing(rounding="trunc", edge="clamp", normalization="chainercv"),
    }
    assert [rules[r].size(333, 500) for r in ("round", "trunc")] == [(600, 901), (600, 900)]
    image = np.full((3, 300, 400), 100.0, np.float32)
    assert_close(rules["trunc"](image)[:, 0, 0], [-22.7717, -15.9465, -2.9801], 1e-5)
    assert rules["round"](image).shape == (3, 600, 800)
    with pytest.raises(ValueError, match="normalization: expected one of"):
        Preprocessing(normalization="none")  # type: ignore[arg-type]
    for field, value in (("edge", "wrap"), ("rounding", "up"), ("min_size", 0), ("max_size", -1)):
        with pytest.raises(ValueError, match=f"{field}: expected"):
            Preprocessing(**{field: value})


def test_class_names_must_fit() -> None:
    with pytest.raises(ValueError, match="class_names: expected 2 names, got 1"):
        build_detector("faster_rcnn_small", n_fg_class=2, class_names=["ant"])
    model = build_detector("faster_rcnn_small", n_fg_class=3)
    model.class_names = ("ant", "bee", "cat")
    with pytest.raises(ValueError, match=r"^class_names: expected 3 names, got 2$"):
        model.class_names = ("ant", "bee")
    # A text of as many letters is no list of names.
    with pytest.raises(TypeError, match=r"^class_names: expected a list of names, got 'cat'$"):
        model.class_names = "cat"
    with pytest.raises(TypeError, match=r"^class_names: expected a list of names, got 'cat'$"):
        build_detector("faster_rcnn_small", n_fg_class=3, class_names="cat")
    assert model.class_names == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("model", "default"), [("faster_rcnn_small", 10), ("faster_rcnn_resnet", 20)]
)
def test_there_are_as_many_classes_as_names(model: str, default: int) -> None:
    options = {"backbone": "resnet18"} if model == "faster_rcnn_resnet" else {}
    named = build_detector(model, class_names=["ant", "bee", "cat"], **options)
    assert (named.n_class, named.class_names) == (4, ("ant", "bee", "cat"))
    assert build_detector(model, **options).n_class == default + 1


def test_a_label_beyond_the_classes_is_named() -> None:
    model = build_detector("faster_rcnn_small", n_fg_class=2).train()
    image = np.zeros((3, 48, 64), np.float32)
    box, rng = np.array([[4, 4, 30, 30]], np.float32), np.random.RandomState(0)
    with pytest.raises(ValueError, match=r"labels\[0\]: expected classes from 0 to 1, got 2"):
        model.training_losses([image], [box], [np.array([2])], rng=rng)


def test_an_empty_batch_and_no_classes_are_ordinary(
    detector: TinyDetector, picture: np.ndarray
) -> None:
    output = detector(np.zeros((0, 3, 64, 96)))
    assert [len(array) for array in output] == [0, 0, 0, 0]
    nothing = TinyDetector(0).eval().predict(picture, score_threshold=0)
    assert len(nothing) == 0


def test_bad_images_are_named(detector: TinyDetector) -> None:
    with pytest.raises(ValueError, match=r"image: expected 3 dimensions \(3, H, W\), got shape"):
        detector.detect(np.zeros((64, 64), np.float32))
    with pytest.raises(TypeError, match="score_threshold: expected a number, got 'high'"):
        detector.predict(np.zeros((64, 64, 3), np.uint8), score_threshold="high")
