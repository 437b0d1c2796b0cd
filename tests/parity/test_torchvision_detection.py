"""Faster R-CNN over feature pyramids against torchvision's: what it finds, its losses, gradients.

With precision "direct" both compute the same sums in different orders, and everything must agree
row by row. Winograd convolution rounds more, so a decision that hangs on the fifth digit may fall
the other way and change others behind it; there torch's decisions are replayed
(``close_decisions``), and oxidet's result must be exactly what follows.

The full networks run here on small images with few proposals, and as slow tests on twenty images of
mixed sizes as people use them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close
from oxidet import nn
from oxidet.models import detection as ours_in
from oxidet.models.detection import FasterRCNN, load_detector
from oxidet.models.detection.coco import coco_classes
from oxidet.models.detection.transform import GeneralizedRCNNTransform
from oxidet.ops import FrozenBatchNorm2d

torch = pytest.importorskip("torch")
theirs_in = pytest.importorskip("torchvision.models.detection")

from torchvision.models.detection.backbone_utils import resnet_fpn_backbone  # noqa: E402
from torchvision.ops import FrozenBatchNorm2d as TheirFrozen  # noqa: E402

from parity import close_decisions as replay  # noqa: E402
from parity.torch_detectors import arrays, picture, spread_out  # noqa: E402

V1, V2 = "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"
SMALL: dict[str, Any] = {
    "num_classes": 6,
    "min_size": 128,
    "max_size": 170,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_test": 60,
    "box_detections_per_img": 30,
}
SIZES = [(120, 160), (100, 90), (64, 200)]
# Both ways up, square, long, smaller and larger than the batch, odd numbers.
MANY = [
    *[(480, 640), (640, 480), (600, 800), (333, 500), (427, 640), (375, 500), (500, 375)],
    *[(97, 97), (720, 1280), (200, 900), (1080, 810), (512, 512), (241, 357), (640, 427)],
    *[(300, 300), (768, 1024), (150, 223), (612, 612), (425, 640), (800, 1066)],
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(oxidet.get_num_threads())
    yield
    torch.set_num_threads(threads)


def pair(name: str, sizes: list[tuple[int, int]] = SIZES, **options: Any) -> tuple[Any, FasterRCNN]:
    """Both models with the same spread-out weights, in evaluation mode."""
    theirs = getattr(theirs_in, name)(weights=None, weights_backbone=None, **options)
    spread_out(theirs, [picture(*size, seed=i) for i, size in enumerate(sizes[:2])])
    ours = getattr(ours_in, name)(**options)
    ours.load_state_dict(arrays(theirs))
    return theirs.eval(), ours.eval()


@pytest.fixture(scope="module", params=[V1, V2])
def models(request: pytest.FixtureRequest) -> tuple[Any, FasterRCNN]:
    return pair(request.param, **SMALL)


# --- what is found


def check_rows(
    found: dict[str, Any], expected: dict[str, Any], least: int, image: str = ""
) -> None:
    np.testing.assert_array_equal(found["labels"], expected["labels"], image)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], 0, 1e-2, err_msg=image)
    np.testing.assert_allclose(found["scores"], expected["scores"], 0, 1e-4, err_msg=image)
    assert len(found["labels"]) >= least
    assert (found["boxes"].dtype, found["labels"].dtype) == (np.float32, np.int64)


def test_direct_agrees_row_by_row(models: tuple[Any, FasterRCNN]) -> None:
    theirs, ours = models
    images = [picture(*size, seed=i) for i, size in enumerate(SIZES)]
    with torch.no_grad():
        expected = theirs([torch.from_numpy(image) for image in images])
    with oxidet.precision("direct"):
        found = ours(images)
        alone = ours.predict(np.round(images[0] * 255).astype(np.uint8).transpose(1, 2, 0))
    for one, reference in zip(found, expected, strict=True):
        check_rows(one, {key: value.numpy() for key, value in reference.items()}, 20)
        assert len(np.unique(one["labels"])) > 2
    # As a Detector: pictures in 0..255, labels from 0.
    assert len(alone) > 10
    as_torch = alone.to_torchvision()
    rounded = torch.from_numpy(np.round(images[0] * 255).astype(np.float32) / 255)
    with torch.no_grad():
        [reference] = theirs([rounded])
    keep = reference["scores"].numpy() > 0.5
    check_rows(as_torch, {key: value.numpy()[keep] for key, value in reference.items()}, 10)


def test_torch_tensors_in_torch_tensors_out(models: tuple[Any, FasterRCNN]) -> None:
    theirs, ours = models
    image = torch.from_numpy(picture(64, 80))
    with oxidet.precision("direct"), torch.no_grad():
        [found], [expected] = ours([image]), theirs([image])
    assert {key: value.dtype for key, value in found.items()} == {
        key: value.dtype for key, value in expected.items()
    }
    torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=0, atol=1e-2)


def test_the_default_differs_only_in_close_decisions(models: tuple[Any, FasterRCNN]) -> None:
    check_default(*models, [picture(*size, seed=i) for i, size in enumerate(SIZES)])


def check_default(theirs: Any, ours: FasterRCNN, images: list[np.ndarray]) -> None:
    assert oxidet.get_precision() == "winograd"
    check_decisions(theirs, ours, images)


def check_decisions(theirs: Any, ours: FasterRCNN, images: list[np.ndarray]) -> None:
    """All that is found follows from oxidet's numbers by torch's rules, close decisions as here."""
    batch, _ = ours.transform(images)
    levels, logits, deltas = ours.convolve(batch.tensors)
    regions = ours.rpn.propose(batch, logits, deltas)
    scores, codes = ours.roi_heads.classify(levels, regions, batch.image_sizes)
    found = ours.roi_heads.postprocess_detections(scores, codes, regions, batch.image_sizes)

    with torch.no_grad():
        their_batch, _ = theirs.transform([torch.from_numpy(image) for image in images])
        # torch scales with coordinates in float32, half of whose last bit is a part of a pixel.
        rounding = max(1e-5, max(max(image.shape) for image in images) * 2.0**-25)
        assert_close(batch.tensors, their_batch.tensors, rounding, "images")
        features = theirs.backbone(their_batch.tensors)
        their_logits, their_deltas = theirs.rpn.head(list(features.values()))
        their_regions, _ = theirs.rpn(their_batch, features)
        heads = theirs.roi_heads
        pooled = heads.box_roi_pool(
            features, [torch.from_numpy(r) for r in regions], batch.image_sizes
        )
        heads.box_roi_pool.scales = None
        their_scores, their_codes = heads.box_predictor(heads.box_head(pooled))
        expected = theirs([torch.from_numpy(image) for image in images])
    for i, (name, level) in enumerate(levels.items()):
        assert_close(level, features[name], 1e-3, f"level {name}")
        assert_close(logits[i], their_logits[i], 1e-3, f"logits {name}")
    anchors = ours.rpn.anchors(batch, list(levels.values()))
    first = replay_proposals(
        theirs, ours, batch, anchors, their_logits, their_deltas, logits, deltas
    )
    rated = ours.rpn.propose_with_scores(batch, logits, deltas)
    for i, (mine, replayed) in enumerate(zip(regions, first, strict=True)):
        assert mine.shape == replayed.shape, f"image {i}"
        np.testing.assert_array_equal(rated[i][0], mine, err_msg=f"image {i}")
        place = untied(mine, rated[i][1], replayed)
        np.testing.assert_allclose(mine, replayed[place], rtol=0, atol=2e-3)
        matches = replay.count_matches(mine, their_regions[i].numpy(), pixels=0.1)
        assert matches >= 0.9 * len(mine), f"image {i}: {matches} of {len(mine)} proposals match"

    np.testing.assert_allclose(scores, their_scores, rtol=0, atol=2e-3)
    start = 0
    for i, part in enumerate(regions):
        rows = slice(start, start := start + len(part))
        replayed = replay_detections(
            theirs,
            part,
            batch.image_sizes[i],
            (their_scores[rows], torch.from_numpy(scores[rows])),
            (their_codes[rows], torch.from_numpy(codes[rows])),
        )
        np.testing.assert_array_equal(found[i]["labels"], replayed[1], err_msg=f"image {i}")
        np.testing.assert_allclose(found[i]["boxes"], replayed[0], rtol=0, atol=2e-3)
        np.testing.assert_allclose(found[i]["scores"], replayed[2], rtol=0, atol=1e-5)
        final = ours.transform.postprocess(
            [found[i]], [batch.image_sizes[i]], [images[i].shape[1:]]
        )[0]
        matches = replay.count_matches(final["boxes"], expected[i]["boxes"].numpy(), pixels=0.5)
        assert matches >= 0.8 * len(expected[i]["boxes"]), f"image {i}: {matches} match"


def untied(boxes: np.ndarray, scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where each of ``boxes`` is in ``others``, which may order equal scores in another way.

    Scores are equal here if the sigmoid of two libraries may round them to either order.
    """
    place = np.arange(len(boxes))
    for row in np.flatnonzero((np.abs(boxes - others) > 2e-3).any(axis=1)):
        place[row] = np.abs(others - boxes[row]).max(axis=1).argmin()
    assert len(set(place.tolist())) == len(place), "two boxes match one"
    np.testing.assert_allclose(scores[place], scores, rtol=0, atol=1e-6)
    return place


def flat(level: Any, values: int) -> np.ndarray:
    array = np.asarray(level)
    return array.transpose(0, 2, 3, 1).reshape(len(array), -1, values)


def clipped(coder: Any, codes: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    decoded = coder.decode_single(torch.from_numpy(codes), torch.from_numpy(boxes)).numpy()
    decoded = decoded.reshape(len(boxes), -1, 4)
    decoded[..., 0::2] = decoded[..., 0::2].clip(0, size[1])
    decoded[..., 1::2] = decoded[..., 1::2].clip(0, size[0])
    return decoded


def replay_proposals(
    theirs: Any, ours: FasterRCNN, batch: Any, anchors: np.ndarray, *outputs: Any
) -> list[np.ndarray]:
    """Proposals in oxidet's numbers by torch's decisions, given outputs of torch and of oxidet."""
    their_logits, their_deltas, logits, deltas = outputs
    results = []
    for i, size in enumerate(batch.image_sizes):
        boxes, ranks, start = [], [], 0
        for level in range(len(logits)):
            scores = [
                1 / (1 + np.exp(-flat(outputs[level], 1)[i, :, 0].astype(np.float64)))
                for outputs in (their_logits, logits)
            ]
            part = anchors[start : (start := start + len(scores[0]))]
            # Which is last among the best may be a near tie, too.
            top = replay.order(*scores)[: ours.rpn.pre_nms_top_n()]
            both = [
                clipped(theirs.rpn.box_coder, flat(d[level], 4)[i][top], part[top], size)[:, 0]
                for d in (their_deltas, deltas)
            ]
            large = np.flatnonzero(
                replay.undecided(
                    *[(b[:, 2:] - b[:, :2]).min(axis=1) for b in both],
                    np.nextafter(np.float32(ours.rpn.min_size), np.float32(0)),
                )
            )
            scores = [side[top] for side in scores]
            kept = large[
                replay.nms(
                    (both[0][large], both[1][large]),
                    (scores[0][large], scores[1][large]),
                    ours.rpn.nms_thresh,
                )
            ]
            boxes.append(both[1][kept])
            ranks.append([s[kept] for s in scores])
        together = replay.order(*[np.concatenate(side) for side in zip(*ranks, strict=True)])
        results.append(np.concatenate(boxes)[together[: ours.rpn.post_nms_top_n()]])
    return results


def replay_detections(
    theirs: Any, regions: np.ndarray, size: tuple[int, int], scores: Any, codes: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels and scores in oxidet's numbers by torch's decisions."""
    heads = theirs.roi_heads
    probabilities = [torch.softmax(side, dim=-1).numpy() for side in scores]
    decoded = [clipped(heads.box_coder, side.numpy(), regions, size) for side in codes]
    boxes, labels, ranks = [], [], []
    for c in range(1, probabilities[0].shape[1]):
        sides = [(d[:, c, 2:] - d[:, c, :2]).min(axis=1) for d in decoded]
        above = np.flatnonzero(
            replay.undecided(*[p[:, c] for p in probabilities], heads.score_thresh)
            & replay.undecided(*sides, np.nextafter(np.float32(1e-2), np.float32(0)))
        )
        kept = above[
            replay.nms(
                (decoded[0][above, c], decoded[1][above, c]),
                (probabilities[0][above, c], probabilities[1][above, c]),
                heads.nms_thresh,
            )
        ]
        boxes.append(decoded[1][kept, c])
        labels.append(np.full(len(kept), c))
        ranks.append([p[kept, c] for p in probabilities])
    best = replay.order(*[np.concatenate(side) for side in zip(*ranks, strict=True)])
    best = best[: heads.detections_per_img]
    score = np.concatenate([ours for _, ours in ranks])
    return np.concatenate(boxes)[best], np.concatenate(labels)[best], score[best]


@pytest.mark.slow
@pytest.mark.parametrize("name", [V1, V2])
def test_twenty_images_as_people_use_them(name: str) -> None:
    theirs, ours = pair(name, MANY, num_classes=6)
    for i, size in enumerate(MANY):
        image, expected = with_scores_apart(theirs, size, seed=i)
        with oxidet.precision("direct"):
            [found] = ours([image])
        check_rows(found, expected, 50, f"{size}")
        check_default(theirs, ours, [image])
        print(f"{name}: {i + 1} of {len(MANY)} images agree, the last of {size}", flush=True)


def with_scores_apart(
    theirs: Any, size: tuple[int, int], seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first of a row of pictures for which no two of torch's own scores lie within 1e-5.

    torch's sums differ by that much from exact ones: which of two such detections comes first is
    not to be had from it.
    """
    for more in range(50):
        image = picture(*size, seed=seed + 100 * more)
        with torch.no_grad():
            [result] = theirs([torch.from_numpy(image)])
        if (result["scores"][:-1] - result["scores"][1:]).min() > 1e-5:
            return image, {key: value.numpy() for key, value in result.items()}
    raise AssertionError(f"{size}: scores are nowhere apart")


# --- training

BOXES = [
    np.array([[10, 20, 90, 100], [30, 5, 150, 60], [100, 60, 140, 110]], np.float32),
    np.zeros((0, 4), np.float32),
]
LABELS = [np.array([1, 3, 5]), np.zeros(0, np.int64)]
FEW: dict[str, Any] = {
    "num_classes": 6,
    "min_size": 96,
    "max_size": 128,
    "rpn_post_nms_top_n_train": 20,
    "box_batch_size_per_image": 8,
}


def their_v1() -> Any:
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=TheirFrozen, trainable_layers=5
    )
    return theirs_in.FasterRCNN(backbone, **FEW)


def same_sample(model: Any, wrap: Any) -> None:
    """Let both stages draw from the same numbers."""
    for stage in (model.rpn, model.roi_heads):
        plain = ours_in.BalancedPositiveNegativeSampler(
            stage.fg_bg_sampler.batch_size_per_image, stage.fg_bg_sampler.positive_fraction
        )

        def sample(labels: Any, rng: Any = None, plain: Any = plain) -> Any:
            masks = plain([np.asarray(one) for one in labels], rng=np.random.RandomState(1))
            return [[wrap(mask) for mask in side] for side in masks]

        stage.fg_bg_sampler = sample


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (V1, "winograd"),
        (V2, "direct"),
        pytest.param(V1, "direct", marks=pytest.mark.slow),
        pytest.param(V2, "winograd", marks=pytest.mark.slow),
    ],
)
def test_losses_and_gradients(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(*size, seed=i) for i, size in enumerate(SIZES[:2])]
    if name == V1:
        theirs = their_v1()
        ours = ours_in.fasterrcnn_resnet50_fpn(norm_layer="frozen", **FEW)
    else:
        theirs = theirs_in.fasterrcnn_resnet50_fpn_v2(weights_backbone=None, **FEW)
        ours = ours_in.fasterrcnn_resnet50_fpn_v2(**FEW)
    # With this seed no two values in a window of the maximum pool are closer than 2e-6, but for
    # those that are equal; where they are, rounding decides which of them has the gradient.
    spread_out(theirs, images, seed=2, smooth=True)
    ours.load_state_dict(arrays(theirs))
    theirs.train(), ours.train()
    for model, norm in ((theirs, torch.nn.BatchNorm2d), (ours, nn.BatchNorm2d)):
        for module in model.modules():  # statistics of two small images are chaotic in float32
            if isinstance(module, norm):
                module.eval()
    same_sample(theirs, torch.from_numpy)
    same_sample(ours, lambda mask: mask)
    proposals: list[Any] = []
    propose = ours.rpn.propose
    monkeypatch.setattr(
        ours.rpn, "propose", lambda *args: proposals.append(propose(*args)) or proposals[-1]
    )
    targets = [{"boxes": b, "labels": k} for b, k in zip(BOXES, LABELS, strict=True)]
    with oxidet.precision(precision):
        losses = ours(images, targets)
        sum(losses.values()).backward()

    def recorded(*args: Any) -> Any:
        regions = [torch.from_numpy(region) for region in proposals[0]]
        return regions, [torch.zeros(len(region)) for region in regions]

    monkeypatch.setattr(theirs.rpn, "filter_proposals", recorded)
    expected = theirs(
        [torch.from_numpy(image) for image in images],
        [{key: torch.from_numpy(value) for key, value in target.items()} for target in targets],
    )
    sum(expected.values()).backward()
    assert list(losses) == list(expected)
    for key, loss in expected.items():
        assert_close(losses[key], loss.detach(), 1e-3, key)
        assert float(loss.detach()) > 1e-3
    mine = dict(ours.named_parameters())
    assert list(mine) == [key for key, _ in theirs.named_parameters()]
    for key, parameter in theirs.named_parameters():
        assert parameter.grad is not None, key
        assert mine[key].grad is not None, key
        assert_close(mine[key].grad, parameter.grad, 1e-3, key)


# --- structure


@pytest.mark.parametrize(
    ("name", "options", "parameters", "entries"),
    [
        (V1, {"norm_layer": "frozen"}, 41_755_286, 295),
        (V1, {"norm_layer": "batch"}, 41_808_406, 348),
        (V2, {}, 43_712_278, 404),
    ],
)
def test_state(name: str, options: dict[str, Any], parameters: int, entries: int) -> None:
    ours = getattr(ours_in, name)(trainable_backbone_layers=5, **options)
    state = {key: value.shape for key, value in ours.state_dict().items()}
    with torch.device("meta"):
        theirs = getattr(theirs_in, name)(weights=None, weights_backbone=None)
    frozen = options.get("norm_layer") == "frozen"
    expected = {
        key: tuple(value.shape)
        for key, value in theirs.state_dict().items()
        if not (frozen and key.endswith("num_batches_tracked"))
    }
    assert len(state) == entries
    assert state == expected
    if not frozen:
        assert list(state) == list(expected)
    assert sum(parameter.numel() for parameter in ours.parameters()) == parameters
    assert ours.num_classes == 91


def test_what_is_trained() -> None:
    for layers in range(6):
        theirs = resnet_fpn_backbone(
            backbone_name="resnet18",
            weights=None,
            norm_layer=torch.nn.BatchNorm2d,
            trainable_layers=layers,
        )
        ours = ours_in.fasterrcnn_resnet_fpn(2, trainable_backbone_layers=layers).backbone
        trained = {key: p.requires_grad for key, p in ours.named_parameters()}
        assert trained == {key: p.requires_grad for key, p in theirs.named_parameters()}


def test_arguments_and_defaults_are_torchvisions() -> None:
    mine = dict(inspect.signature(FasterRCNN).parameters)
    theirs = dict(inspect.signature(theirs_in.FasterRCNN).parameters)
    names = [name for name in theirs if name != "kwargs"]
    assert list(mine)[: len(names)] == names
    assert all(mine[name].default == theirs[name].default for name in names)


def test_sizes_of_scaled_images() -> None:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform as Theirs

    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    ours = GeneralizedRCNNTransform(800, 1333, mean, std).eval()
    assert ours.scaled_size(600, 800) == (800, 1066)
    assert ours.scaled_size(500, 375) == (1066, 800)
    assert ours.scaled_size(427, 640) == (800, 1199)
    assert ours.scaled_size(1080, 1920) == (749, 1333)
    assert ours.scaled_size(100, 1000) == (133, 1333)
    assert sum(ours.scaled_size(h, h)[0] == 799 for h in range(1, 3000)) == 154
    assert ours.padded_size([(749, 1333)]) == (768, 1344)
    small = {"size_divisible": 16}
    for fixed in (None, (50, 70)):
        mine = GeneralizedRCNNTransform([20, 40], 90, mean, std, fixed_size=fixed, **small).eval()
        theirs = Theirs((20, 40), 90, mean, std, fixed_size=fixed, **small).eval()
        images = [picture(*size) for size in ((30, 50), (97, 31), (40, 40), (5, 70))]
        boxes = [np.array([[1, 2, 20, 5]], np.float32)] * 4
        with torch.no_grad():
            expected, their_targets = theirs(
                [torch.from_numpy(image) for image in images],
                [{"boxes": torch.from_numpy(b)} for b in boxes],
            )
        got, targets = mine(images, [{"boxes": b} for b in boxes])
        assert got.image_sizes == [tuple(size) for size in expected.image_sizes]
        assert_close(got.tensors, expected.tensors, 1e-5)
        assert targets is not None
        for one, other in zip(targets, their_targets, strict=True):
            assert_close(one["boxes"], other["boxes"], 1e-6)
        assert repr(mine) == repr(theirs)


# --- files


def test_a_published_file_by_path(tmp_path: Path) -> None:
    """With its classes, and without the eps that its batch norms were not trained with."""
    theirs = theirs_in.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith("_tracked")}
    # The names of torchvision before 0.13, as the file has them.
    old = {
        key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        .replace("blocks.0.0.", "blocks.0.")
        .replace("blocks.1.0.", "blocks.1.")
        .replace("blocks.2.0.", "blocks.2.")
        .replace("blocks.3.0.", "blocks.3."): value
        for key, value in state.items()
    }
    assert "backbone.fpn.inner_blocks.0.weight" in old
    assert "rpn.head.conv.weight" in old
    path = tmp_path / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"
    torch.save(old, path)
    model = ours_in.fasterrcnn_resnet50_fpn(weights=path)
    assert model.class_names == coco_classes()
    frozen = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert len(frozen) == 53
    assert {module.eps for module in frozen} == {0.0}
    for key, value in state.items():
        np.testing.assert_array_equal(model.state_dict()[key], value)
    trained = {key.split(".")[2] for key, p in model.named_parameters() if p.requires_grad}
    assert "layer2" in trained
    assert "layer1" not in trained
    # Under another name it is the file of somebody: 91 classes are taken for COCO's, no more.
    other = path.rename(tmp_path / "mine.pth")
    model = ours_in.fasterrcnn_resnet50_fpn(weights=other)
    assert model.class_names == coco_classes()
    assert model.backbone.body.bn1.eps == 1e-5
    few = ours_in.fasterrcnn_resnet50_fpn(2, weights=other, new_classifier=True)
    assert few.num_classes == 3
    assert_close(few.roi_heads.box_head.fc6.weight, state["roi_heads.box_head.fc6.weight"])
    with pytest.raises(nn.StateDictError, match="expected 3 classes with background, got 91"):
        ours_in.fasterrcnn_resnet50_fpn(2, weights=other)
    assert isinstance(load_detector(other, V1), FasterRCNN)
