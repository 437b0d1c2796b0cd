"""Faster R-CNN against the torch model of ``torch_faster_rcnn``: detections and training.

With precision "direct" oxidet and torch compute the same sums in different orders, and everything
must agree row by row. The numbers are compared with torch in float64, from which each side is a few
rounding errors away: boxes a thousandth of a pixel at most, so two thousandths from each other.
Winograd convolution rounds more, so a decision that hangs on the fifth digit (which of
two proposals scores higher, whether an overlap exceeds 0.7) may fall the other way, and may change
others behind it. There the test replays torch's decisions on torch's numbers, takes oxidet's side
only where torch's own number lies within ``MARGIN`` of the threshold, and demands exactly oxidet's
result.

Detections are compared for the small network and for VGG-16 at 600 x 800; the trainings of VGG-16
are slow tests.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import oxidet
from conftest import assert_close
from oxidet import nn, ops
from oxidet.simple_faster_rcnn import FasterRCNN, FasterRCNNVGG16, RegionProposalNetwork, RoIHead
from oxidet.train import FasterRCNNTrainer, faster_rcnn_optimizer

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from parity import torch_faster_rcnn as reference  # noqa: E402
from parity import torch_training as training  # noqa: E402
from parity import torch_weights as weights  # noqa: E402

MARGIN = 1e-4
TORCH_THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _torch_threads() -> Iterator[None]:
    yield
    torch.set_num_threads(TORCH_THREADS)


def use_threads_for(size: str) -> None:
    """Threads only get into each other's way where there is little to do."""
    torch.set_num_threads(1 if size == "tiny" else TORCH_THREADS)


@dataclass
class Run:
    """What a detector computed from one image, as arrays; ``raw`` is the image in 0..255."""

    raw: np.ndarray
    x: np.ndarray
    locs: np.ndarray  # (S, 4)
    probs: np.ndarray  # (S,) foreground
    rois: np.ndarray  # (R, 4)
    cls_locs: np.ndarray  # (R, 4 * n_class)
    cls_scores: np.ndarray  # (R, n_class)


def raw_image(height: int, width: int) -> np.ndarray:
    """An image in 0..255 that ``preprocess`` makes about normal."""
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 3, 1, 1)
    image = (weights.random_image(height, width) * std * 0.8 + mean) * 255
    return np.clip(np.round(image), 0, 255).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.tensor(logits), dim=-1).numpy()


def run_theirs(model: reference.FasterRCNN, raw: np.ndarray, x: np.ndarray) -> Run:
    with torch.no_grad():
        trace = model.eval().trace(torch.from_numpy(x[None]), x.shape[2] / raw.shape[2])
    return Run(
        raw,
        x,
        trace.rpn_locs[0].numpy(),
        trace.rpn_probs[0].numpy(),
        trace.rois,
        trace.roi_cls_locs.numpy(),
        trace.roi_scores.numpy(),
    )


def run_ours(net: FasterRCNN, raw: np.ndarray) -> Run:
    """The stages one by one; ``x`` is oxidet's own preprocessing."""
    x = net.preprocessing(raw)
    net.eval()
    with nn.no_grad():
        features = net.extractor(x[None])
        proposals = net.rpn(features, x.shape[1:], x.shape[2] / raw.shape[2])
        cls_locs, cls_scores = net.head(features, proposals.rois, proposals.roi_indices)
    locs, scores = np.asarray(proposals.rpn_locs)[0], np.asarray(proposals.rpn_scores)[0]
    cls = np.asarray(cls_locs), np.asarray(cls_scores)
    return Run(raw, x, locs, softmax(scores)[:, 1], proposals.rois, *cls)


def theirs_on(model: reference.FasterRCNN, x: np.ndarray, rois: np.ndarray) -> tuple:
    """Torch's head on given proposals."""
    with torch.no_grad():
        features = model.extractor(torch.from_numpy(x[None]))
        return model.head(features, rois, np.zeros(len(rois), np.int32))


def decoded(
    model: reference.FasterRCNN, run: Run, rois: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (R, n_class, 4) and probabilities (R, n_class) of a run, by torch's rules."""
    trace = reference.Trace(
        *[torch.empty(0)] * 4,
        anchors=np.empty(0),
        rois=run.rois if rois is None else rois,
        roi_indices=np.empty(0),
        roi_cls_locs=torch.tensor(run.cls_locs),
        roi_scores=torch.tensor(run.cls_scores),
    )
    return model.decode(trace, run.raw.shape[1:], run.x.shape[2] / run.raw.shape[2])


# --- replaying decisions


def undecided(theirs: np.ndarray, ours: np.ndarray, threshold: float) -> np.ndarray:
    """``theirs > threshold``, or ``ours > threshold`` where theirs is within MARGIN of it."""
    return np.where(np.abs(theirs - threshold) <= MARGIN, ours > threshold, theirs > threshold)


def replay_nms(
    boxes: tuple[np.ndarray, np.ndarray],
    scores: tuple[np.ndarray, np.ndarray],
    threshold: float,
    n_pre: int | None = None,
    n_post: int | None = None,
) -> list[int]:
    """Greedy suppression in oxidet's order, which must be torch's but for near ties.

    Each pair is (theirs, ours).
    """
    order = np.argsort(-scores[1], kind="stable")
    ranked = scores[0][order]
    best_behind = np.maximum.accumulate(ranked[::-1])[::-1]
    kept: list[int] = []
    for rank, i in enumerate(order[:n_pre]):
        late = best_behind[rank] - ranked[rank]
        assert late <= MARGIN, f"rank {rank}: torch scores another box higher, by {late}"
        overlaps = [reference.bbox_iou(b[i : i + 1], b[kept])[0] for b in boxes]
        if not undecided(*overlaps, threshold).any():
            kept.append(i)
            if len(kept) == n_post:
                break
    return kept


def replay_proposals(model: reference.FasterRCNN, theirs: Run, ours: Run) -> np.ndarray:
    """Proposals (R, 4) in oxidet's coordinates by torch's decisions."""
    limits = model.proposals
    height, width = theirs.x.shape[1:]
    stride = model.feat_stride
    anchors = reference.shifted_anchors(
        model.anchor_base, stride, height // stride, width // stride
    )
    boxes = []
    for run in (theirs, ours):
        box = reference.loc2bbox(anchors, run.locs)
        box[:, 0::2] = box[:, 0::2].clip(0, height)
        box[:, 1::2] = box[:, 1::2].clip(0, width)
        boxes.append(box)
    shorter = [(box[:, 2:] - box[:, :2]).min(axis=1) for box in boxes]
    min_size = limits.min_size * theirs.x.shape[2] / theirs.raw.shape[2]
    large = np.flatnonzero(undecided(*shorter, np.nextafter(np.float32(min_size), np.float32(0))))
    kept = replay_nms(
        (boxes[0][large], boxes[1][large]),
        (theirs.probs[large], ours.probs[large]),
        limits.nms_thresh,
        limits.n_test_pre_nms,
        limits.n_test_post_nms,
    )
    return boxes[1][large][kept]


def replay_detections(
    model: reference.FasterRCNN,
    boxes: tuple[np.ndarray, np.ndarray],
    probs: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Final boxes, labels and scores in oxidet's numbers by torch's decisions."""
    results = []
    for c in range(1, model.n_class):
        above = np.flatnonzero(undecided(probs[0][:, c], probs[1][:, c], model.score_thresh))
        kept = above[
            replay_nms(
                (boxes[0][above, c], boxes[1][above, c]),
                (probs[0][above, c], probs[1][above, c]),
                model.nms_thresh,
            )
        ]
        results.append((boxes[1][kept, c], np.full(len(kept), c - 1), probs[1][kept, c]))
    bbox, label, score = (np.concatenate(column) for column in zip(*results, strict=True))
    return bbox, label, score


def count_matches(ours: np.ndarray, theirs: np.ndarray, pixels: float) -> int:
    """How many boxes have a partner of their own within ``pixels`` on every edge."""
    free = np.ones(len(theirs), bool)
    for box in ours:
        distance = np.where(free, np.abs(theirs - box).max(axis=1), np.inf)
        nearest = distance.argmin()
        if distance[nearest] <= pixels:
            free[nearest] = False
    return int((~free).sum())


# --- the models


def tiny_ours(n_fg_class: int = 5) -> FasterRCNN:
    widths = [3, 8, 8, 16, 16, 16]
    layers: list[nn.Module] = []
    for i in range(5):
        layers += [nn.Conv2d(widths[i], widths[i + 1], 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2, 2)] if i < 4 else []
    classifier = nn.Sequential(nn.Linear(16 * 49, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
    head = RoIHead(n_fg_class + 1, ops.RoIPool((7, 7), 1 / 16), classifier, features=32)
    extractor = nn.Sequential(*layers)
    for layer in extractor[:3]:
        layer.requires_grad_(False)
    return FasterRCNN(extractor, RegionProposalNetwork(16, 16), head)


def pair_of(
    theirs: reference.FasterRCNN, ours: FasterRCNN, x: np.ndarray, **options: float
) -> tuple[reference.FasterRCNN, FasterRCNN]:
    """Both models with the same weights, spread out over the image."""
    weights.spread_out(theirs, x, **options)
    ours.load_state_dict(weights.arrays(theirs))
    return theirs, ours


@pytest.fixture(
    scope="module",
    params=["tiny", "vgg16"],
)
def detectors(request) -> tuple[reference.FasterRCNN, FasterRCNN, Run]:
    """Torch's model, oxidet's, and what torch's computes from an image."""
    use_threads_for(request.param)
    if request.param == "tiny":
        theirs, ours, margin = reference.tiny_faster_rcnn(), tiny_ours(), 1e-6
    else:
        theirs, ours, margin = reference.FasterRCNN(), FasterRCNNVGG16(), 3e-6
    raw = raw_image(600, 800)
    x = reference.preprocess(raw)
    pair_of(theirs, ours, x, margin=margin)
    return theirs, ours, run_theirs(theirs, raw, x)


# --- detections


def run_exactly(model: reference.FasterRCNN, run: Run, rois: np.ndarray) -> Run:
    """Torch in float64: its own proposals, and what its head computes from ``rois``.

    RoI pooling rounds the edges of regions to whole pixels, so that a proposal with another last
    digit may pool another row: the second stage can be compared on the same proposals only.
    """
    double = copy.deepcopy(model).double().eval()
    size, scale = run.x.shape[1:], run.x.shape[2] / run.raw.shape[2]
    with torch.no_grad():
        features = double.extractor(torch.from_numpy(run.x[None]).double())
        locs, _, probs, _, proposals, _ = double.propose(features, size, scale)
        cls_locs, cls_scores = double.head(features, rois, np.zeros(len(rois), np.int32))
    results = (locs[0], probs[0], proposals, cls_locs, cls_scores)
    return Run(run.raw, run.x, *map(np.asarray, results))


def test_direct_agrees_row_by_row(detectors, monkeypatch: pytest.MonkeyPatch) -> None:
    model, net, theirs = detectors
    with oxidet.precision("direct"):
        ours = run_ours(net, theirs.raw)
    assert_close(ours.x, theirs.x, 1e-6, "preprocessing")
    exact = run_exactly(model, theirs, ours.rois)
    for run, name in ((ours, "oxidet"), (theirs, "torch")):
        assert_close(run.locs, exact.locs, 1e-5, f"rpn_locs, {name}")
        assert_close(run.probs, exact.probs, 1e-5, f"rpn_scores, {name}")
        assert run.rois.shape == exact.rois.shape
        np.testing.assert_allclose(run.rois, exact.rois, rtol=0, atol=1e-3, err_msg=name)
    exact_boxes, exact_probs = decoded(model, exact, ours.rois.astype(np.float64))

    outputs = ours.cls_locs, ours.cls_scores, ours.rois, np.zeros(len(ours.rois), np.int32)
    monkeypatch.setattr(net, "forward", lambda x, scale: outputs)  # not to run it again
    for preset in ("visualize", "evaluate"):
        model.use_preset(preset)
        net.use_preset(preset)
        bbox, label, score = net.detect(theirs.raw)
        for expected, pixels in (
            (model.select(exact_boxes, exact_probs), 1e-3),
            (model.select(*decoded(model, theirs)), 2e-3),
        ):
            np.testing.assert_array_equal(label, expected[1])
            np.testing.assert_allclose(bbox, expected[0], rtol=0, atol=pixels)
            np.testing.assert_allclose(score, expected[2], rtol=0, atol=2e-5)
        assert len(bbox) > (3 if preset == "visualize" else 30)


def test_the_default_differs_only_in_close_decisions(detectors, monkeypatch) -> None:
    model, net, theirs = detectors
    ours = run_ours(net, theirs.raw)
    assert oxidet.get_precision() == "winograd"
    assert_close(ours.locs, theirs.locs, 1e-3, "rpn_locs")
    np.testing.assert_allclose(ours.probs, theirs.probs, rtol=0, atol=1e-3)
    replayed = replay_proposals(model, theirs, ours)
    assert replayed.shape == ours.rois.shape
    np.testing.assert_allclose(ours.rois, replayed, rtol=0, atol=1e-3)
    matches = count_matches(ours.rois, theirs.rois, pixels=0.1)
    assert matches >= 0.9 * len(theirs.rois), f"{matches} of {len(theirs.rois)} proposals match"

    # The second stage, on the same proposals.
    cls_locs, cls_scores = theirs_on(model, theirs.x, ours.rois)
    same = Run(theirs.raw, theirs.x, ours.locs, ours.probs, ours.rois, cls_locs.numpy(), None)
    same.cls_scores = cls_scores.numpy()
    (their_boxes, their_probs), (boxes, probs) = decoded(model, same), decoded(model, ours)
    np.testing.assert_allclose(boxes, their_boxes, rtol=0, atol=0.1)
    np.testing.assert_allclose(probs, their_probs, rtol=0, atol=1e-3)
    model.use_preset("evaluate")
    net.use_preset("evaluate")
    outputs = ours.cls_locs, ours.cls_scores, ours.rois, np.zeros(len(ours.rois), np.int32)
    monkeypatch.setattr(net, "forward", lambda x, scale: outputs)
    bbox, label, score = net.detect(theirs.raw)
    expected = replay_detections(model, (their_boxes, boxes), (their_probs, probs))
    np.testing.assert_array_equal(label, expected[1])
    np.testing.assert_allclose(bbox, expected[0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(score, expected[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (77, 301)])
def test_images_of_other_sizes(size: tuple[int, int]) -> None:
    raw = raw_image(*size)
    use_threads_for("tiny")
    x = reference.preprocess(raw)
    scale = x.shape[2] / size[1]
    model, net = pair_of(reference.tiny_faster_rcnn(), tiny_ours(), x, scale=scale)
    with oxidet.precision("direct"):
        bbox, label, score = net.detect(raw)
    assert_close(net.preprocessing(raw), x, 1e-5, "preprocessing")
    bboxes, labels, scores = model.predict([x], [size])
    np.testing.assert_array_equal(label, labels[0])
    np.testing.assert_allclose(bbox, bboxes[0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(score, scores[0], rtol=0, atol=1e-4)
    assert len(bbox) > 5


# --- training

BBOX = np.array([[20, 30, 120, 140], [60, 100, 150, 220], [5, 150, 90, 200]], np.float32)
LABEL = np.array([0, 3, 1], np.int32)


@pytest.mark.parametrize("precision", ["direct", "winograd"])
@pytest.mark.parametrize("size", ["tiny", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_training_follows_torch(size: str, precision: str) -> None:
    use_threads_for(size)
    image = weights.random_image(160, 224)
    if size == "tiny":
        model, net = pair_of(reference.tiny_faster_rcnn(), tiny_ours(), image, margin=0)
        lr = 1e-4
    else:
        model, net = pair_of(reference.FasterRCNN(), FasterRCNNVGG16(), image, margin=0)
        lr = 2e-6
    # Small rates: where two pixels of a pooling window differ by one unit in the last place, a
    # gradient may take another way, and a large step would make a large difference of it. These
    # weights are far larger than trained ones, and the loss falls fast even so.
    theirs = training.Trainer(model, lr=lr)
    recorded: list[training.Samples] = []
    ours = FasterRCNNTrainer(
        net,
        proposal_target_creator=lambda *_, **__: (
            recorded[-1].sample_roi,
            recorded[-1].gt_roi_loc,
            recorded[-1].gt_roi_label,
        ),
        anchor_target_creator=lambda *_, **__: (
            recorded[-1].gt_rpn_loc,
            recorded[-1].gt_rpn_label,
        ),
    )
    optimizer = faster_rcnn_optimizer(net, lr=lr)
    net.train()
    totals = []
    with oxidet.precision(precision):
        for step in range(20):
            expected = theirs.step(image, BBOX, LABEL, 1.0)
            assert theirs.samples is not None
            recorded.append(theirs.samples)
            optimizer.zero_grad()
            losses = ours(image[None], [BBOX], [LABEL], 1.0)
            losses.total_loss.backward()
            optimizer.step()
            for name, value in expected.items():
                difference = abs(float(getattr(losses, name)) - value)
                assert difference <= 1e-3 * max(1.0, value), f"step {step}: {name} {difference}"
            totals.append(expected["total_loss"])
    assert totals[-1] < 0.8 * totals[0]
    for key, weight in weights.arrays(model).items():
        assert_close(net.state_dict()[key], weight, 1e-3, key)


def test_the_creators_draw_what_torchs_do() -> None:
    use_threads_for("tiny")
    image = weights.random_image(160, 224)
    model, net = pair_of(reference.tiny_faster_rcnn(), tiny_ours(), image)
    theirs = training.Trainer(model)
    ours = FasterRCNNTrainer(net, rng=np.random.RandomState(7))
    drawn: dict[str, tuple] = {}

    def recording(name: str):
        creator = getattr(ours, name)

        def record(*args, **options):
            drawn[name] = creator(*args, **options)
            return drawn[name]

        return record

    for name in ("proposal_target_creator", "anchor_target_creator"):
        setattr(ours, name, recording(name))
    with oxidet.precision("direct"):
        losses = ours(image[None], [BBOX], [LABEL], 1.0)
    np.random.seed(7)
    model.train()
    expected = theirs.forward(image, BBOX, LABEL, 1.0)
    assert theirs.samples is not None
    roi, roi_loc, roi_label = drawn["proposal_target_creator"]
    rpn_loc, rpn_label = drawn["anchor_target_creator"]
    np.testing.assert_array_equal(roi_label, theirs.samples.gt_roi_label)
    np.testing.assert_array_equal(rpn_label, theirs.samples.gt_rpn_label)
    np.testing.assert_allclose(roi, theirs.samples.sample_roi, rtol=0, atol=1e-3)
    np.testing.assert_allclose(roi_loc, theirs.samples.gt_roi_loc, rtol=0, atol=1e-3)
    np.testing.assert_allclose(rpn_loc, theirs.samples.gt_rpn_loc, rtol=0, atol=1e-5)
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(float(getattr(losses, name)), value.item(), rtol=1e-4)
