"""Runs the originals (chainercv 0.13.1, chainer 7.8.1, Python 3.8) and stores what they return.

Usage: ``make_reference.py DIRECTORY``; ``make_reference.sh`` provides the environment. Inputs are
seeded and stored beside the outputs. Keys of a case are ``case/name``. Everything is float32 unless
said otherwise; boxes are (y_min, x_min, y_max, x_max).

boxes.npz
    ``{f32,f64}/{a,b,iou}``; ``{f32,f64}/{src,dst,loc,back}`` with ``back = loc2bbox(src, loc)``;
    ``classes/{src,loc,bbox}`` with three offsets a row; ``base/{default,other}`` anchors of
    ``generate_anchor_base`` (other: base_size 8, ratios 0.3 1 2.5 4, scales 1 3);
    ``shifted/{anchor,base,arguments}`` (stride, height, width) and ``paper/{rows,anchor}``, the
    stated rows of the 37 x 50 cells of stride 16.
nms.npz
    ``{name}/{bbox,score,thresh,limit,with_score,without_score,limited}``; int32 indices.
anchor_targets.npz
    ``{name}/{bbox,size,stride,scales,seed,arguments,label,rows,loc}``: the anchors are
    ``generate_anchor_base(anchor_scales=scales)`` on ceil(size / stride) cells; arguments are those
    of the constructor; ``loc`` holds the stated rows only (all others are compared by their
    label).
proposals.npz
    ``anchor`` for all cases; ``{name}/{loc,score,size,scale,training,arguments,roi}``; ``loc`` is
    float16 and was passed as float32; arguments are (nms_thresh, n_train_pre_nms, n_train_post_nms,
    n_test_pre_nms, n_test_post_nms, min_size).
proposal_targets.npz
    ``{name}/{roi,bbox,label,seed,arguments,mean,std,sample_roi,gt_roi_loc,gt_roi_label}``.
voc.npz
    ``{name}/`` and, over all images in turn, ``pred_bbox, pred_label, pred_score, pred_count,
    gt_bbox, gt_label, gt_difficult, gt_count``; per class ``prec{l}`` and ``rec{l}`` (absent for
    None), ``ap``, ``ap07``, ``map``, ``map07``.
transforms.npz
    ``bbox`` and one array for each call; see :func:`transforms`. ``flips`` are the draws of
    ``random_flip`` after ``random.seed(3)``, (20, 2) bool.
faster_rcnn.npz
    A small network out of chainercv's classes, 3 foreground classes, preset "evaluate". Weights
    (exact in float16, stored so) under the names of a torch state_dict::

        weights/extractor.{0,3,6,9,12}.{weight,bias}   3x3 pad 1 convolutions, ReLU after each,
                                                       2x2 max pooling after the first four
        weights/rpn.{conv1,score,loc}.{weight,bias}    3 ratios x 3 scales (2, 4, 8), stride 16
        weights/head.classifier.{0,2}.{weight,bias}    7 x 7 RoI pooling, scale 1/16, ReLUs
        weights/head.{cls_loc,score}.{weight,bias}

    ``mean`` (3,) of the RGB channels. Pooling keeps a last partial window (chainer's cover_all), as
    ceil_mode does. Two images: ``even/`` is 96 x 128, prepared at scale 1 (no resizing, sizes
    divisible by 16); ``odd/`` is 72 x 100, prepared at 96 x 133. For each: ``image`` (3, H, W)
    uint8 RGB, ``prepared``, ``features`` (1, C, h, w), ``rpn_locs``, ``rpn_scores``, ``rois``,
    ``roi_indices``, ``roi_cls_locs``, ``roi_scores`` of the forward pass in test mode at ``scale``;
    ``bbox, label, score`` of ``predict``. Proposals are ranked by the raw foreground logit and
    suppressed at IoU >= 0.7, as chainercv does, and cut to 30 in test mode. No two scores that are
    ranked are equal (see :func:`unambiguous_image`).
    ``train/``: one step of FasterRCNNTrainChain on the even image after ``np.random.seed(seed)``:
    ``bbox, label, seed``, the losses ``rpn_loc_loss, rpn_cls_loss, roi_loc_loss, roi_cls_loss,
    loss``, and ``grad/<name>`` for every weight, float32. ``n_sample`` holds the samples of the two
    target creators (proposals, anchors).
faster_rcnn_vgg16.npz
    The full FasterRCNNVGG16 (20 classes), whose weights are not stored but drawn: see
    :func:`vgg16_weights`, which a test can repeat to the bit. One 96 x 128 image at scale 1:
    ``image, prepared``, ``features`` (every 16th channel), ``rpn_locs, rpn_scores, rois,
    roi_cls_locs, roi_scores, bbox, label, score`` as above.
"""

# ruff: noqa: B905, RUF007, SIM905  (Python 3.8 has neither strict zips nor pairwise)

import os
import random
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")

import chainer  # noqa: E402
import chainer.functions as F  # noqa: E402
import chainer.links as L  # noqa: E402
import chainercv.transforms as T  # noqa: E402
from chainercv.evaluations import (  # noqa: E402
    calc_detection_voc_ap,
    calc_detection_voc_prec_rec,
    eval_detection_voc,
)
from chainercv.links import FasterRCNNVGG16  # noqa: E402
from chainercv.links.model.faster_rcnn import (  # noqa: E402
    AnchorTargetCreator,
    FasterRCNN,
    FasterRCNNTrainChain,
    ProposalCreator,
    ProposalTargetCreator,
    RegionProposalNetwork,
    bbox2loc,
    generate_anchor_base,
    loc2bbox,
)
from chainercv.links.model.faster_rcnn.region_proposal_network import (  # noqa: E402
    _enumerate_shifted_anchor,
)
from chainercv.utils import bbox_iou, non_maximum_suppression  # noqa: E402


def random_boxes(rng, n, size, shortest, longest, dtype=np.float32):
    """``n`` boxes inside ``size``."""
    sides = rng.uniform(shortest, longest, (n, 2))
    start = rng.uniform(0, 1, (n, 2)) * (np.array(size) - sides)
    return np.concatenate((start, start + sides), axis=1).astype(dtype)


def distinct_scores(rng, n):
    """Scores without ties."""
    return (rng.permutation(n) / np.float32(n)).astype(np.float32)


def boxes():
    out = {}
    for name, dtype in (("f32", np.float32), ("f64", np.float64)):
        rng = np.random.RandomState(1)
        a = random_boxes(rng, 60, (200, 300), 5, 150, dtype)
        b = random_boxes(rng, 40, (200, 300), 5, 150, dtype)
        # Touching, zero-area, inverted and NaN boxes.
        strange = [[0, 0, 10, 10], [10, 0, 20, 10], [5, 5, 5, 5], [9, 9, 3, 2], [0, np.nan, 4, 4]]
        a = np.concatenate((a, np.array(strange, dtype)))
        b = np.concatenate((b, np.array(strange, dtype)))
        out.update({name + "/a": a, name + "/b": b, name + "/iou": bbox_iou(a, b)})
        src = random_boxes(rng, 50, (200, 300), 5, 150, dtype)
        dst = random_boxes(rng, 50, (200, 300), 5, 150, dtype)
        loc = bbox2loc(src, dst)
        assert loc.dtype == dtype
        out.update({name + "/src": src, name + "/dst": dst, name + "/loc": loc})
        out[name + "/back"] = loc2bbox(src, loc)
    rng = np.random.RandomState(2)
    src = random_boxes(rng, 30, (200, 300), 5, 150)
    loc = rng.normal(0, 0.5, (30, 12)).astype(np.float32)
    out.update({"classes/src": src, "classes/loc": loc, "classes/bbox": loc2bbox(src, loc)})
    base = generate_anchor_base()
    out["base/default"] = base
    out["base/other"] = generate_anchor_base(8, [0.3, 1, 2.5, 4], [1, 3])
    out["shifted/base"] = out["base/other"]
    out["shifted/arguments"] = np.array([12, 5, 7])
    out["shifted/anchor"] = _enumerate_shifted_anchor(out["base/other"], 12, 5, 7)
    rows = np.arange(0, 16650, 333)
    out["paper/rows"] = rows
    out["paper/anchor"] = _enumerate_shifted_anchor(base, 16, 37, 50)[rows]
    return out


def nms():
    out = {}
    for seed, n, thresh, longest in (
        (0, 1, 0.5, 50),
        (1, 64, 0.3, 100),
        (2, 65, 0.7, 60),
        (3, 400, 0.3, 80),
        (4, 700, 0.7, 150),
        (5, 300, 0.05, 40),
    ):
        rng = np.random.RandomState(seed)
        bbox, score = random_boxes(rng, n, (200, 200), 5, longest), distinct_scores(rng, n)
        if seed == 5:
            bbox[[3, 50]] = 7.0  # the same point twice
            bbox[[9, 80], 1] = np.nan
        case = f"case{seed}/"
        out.update({case + "bbox": bbox, case + "score": score, case + "thresh": thresh})
        out[case + "limit"] = 7
        out[case + "with_score"] = non_maximum_suppression(bbox, thresh, score)
        out[case + "without_score"] = non_maximum_suppression(bbox, thresh)
        out[case + "limited"] = non_maximum_suppression(bbox, thresh, score, limit=7)
    return out


def anchors_of(size, stride, scales):
    cells = [-(-s // stride) for s in size]
    base = generate_anchor_base(anchor_scales=scales)
    return _enumerate_shifted_anchor(base, stride, *cells)


def anchor_targets():
    out = {}
    small, paper = [2, 4, 8], [8, 16, 32]
    cases = {
        "few": ((200, 300), small, 4, (256, 0.7, 0.3, 0.5), 40, 120),
        "many": ((200, 300), small, 30, (64, 0.5, 0.3, 0.25), 20, 120),
        "loose": ((160, 220), small, 12, (2000, 0.4, 0.2, 0.5), 20, 100),
        "paper": ((600, 800), paper, 6, (256, 0.7, 0.3, 0.5), 100, 400),
        "unreached": ((200, 300), small, 3, (256, 0.7, 0.3, 0.5), 40, 120),
    }
    for seed, (name, (size, scales, n, arguments, shortest, longest)) in enumerate(cases.items()):
        rng = np.random.RandomState(seed)
        anchor = anchors_of(size, 16, scales)
        bbox = random_boxes(rng, n, size, shortest, longest)
        if name == "unreached":
            bbox[1] = 0, 0, 4, 4
        np.random.seed(100 + seed)
        loc, label = AnchorTargetCreator(*arguments)(bbox, anchor, size)
        rows = np.flatnonzero(label >= 0)
        inside = np.flatnonzero(loc.any(axis=1))
        rows = np.union1d(rows, inside[:: max(1, len(inside) // 300)])
        values = {
            "bbox": bbox,
            "size": size,
            "stride": 16,
            "scales": scales,
            "seed": 100 + seed,
            "arguments": arguments,
            "label": label.astype(np.int8),
            "rows": rows,
            "loc": loc[rows],
        }
        out.update({name + "/" + key: value for key, value in values.items()})
    return out


def proposals():
    out = {}
    cases = {
        "test": (False, (0.7, 12000, 2000, 6000, 300, 16), 1.0),
        "train": (True, (0.7, 500, 2000, 6000, 300, 16), 1.0),
        "limits": (False, (0.5, 0, 0, 400, 50, 10), 1.7),
        "no_limits": (True, (0.3, 0, 0, 400, 50, 16), 0.5),
    }
    size = (110, 150)
    anchor = anchors_of(size, 16, [1, 2, 4, 8])
    out["anchor"] = anchor
    for seed, (name, (training, arguments, scale)) in enumerate(cases.items()):
        rng = np.random.RandomState(seed)
        loc = rng.normal(0, 0.3, anchor.shape).astype(np.float16)
        score = distinct_scores(rng, len(anchor))
        *limits, min_size = arguments
        creator = ProposalCreator(*limits, min_size=min_size)
        with chainer.using_config("train", training):
            roi = creator(loc.astype(np.float32), score, anchor, size, scale)
        values = {
            "loc": loc,
            "score": score,
            "size": size,
            "scale": scale,
            "training": training,
            "arguments": arguments,
            "roi": roi,
        }
        out.update({name + "/" + key: value for key, value in values.items()})
    return out


def proposal_targets():
    out = {}
    cases = {
        "default": (300, 8, (128, 0.25, 0.5, 0.5, 0.0)),
        "few_rois": (20, 3, (128, 0.25, 0.5, 0.5, 0.0)),
        "no_rois": (0, 3, (128, 0.25, 0.5, 0.5, 0.0)),
        "hard_negatives": (300, 8, (64, 0.5, 0.6, 0.4, 0.1)),
        "half": (100, 4, (10, 0.25, 0.5, 0.5, 0.0)),
    }
    for seed, (name, (n_roi, n, arguments)) in enumerate(cases.items()):
        rng = np.random.RandomState(seed)
        bbox = random_boxes(rng, n, (300, 400), 30, 150)
        near = bbox[rng.randint(n, size=n_roi)] + rng.normal(0, 20, (n_roi, 4))
        near = np.concatenate((near[:, :2], np.maximum(near[:, 2:], near[:, :2] + 5)), axis=1)
        roi = near.astype(np.float32)
        label = rng.randint(0, 5, n).astype(np.int32)
        mean, std = (0.0, 0.0, 0.0, 0.0), (0.1, 0.1, 0.2, 0.2)
        if name == "hard_negatives":
            mean, std = (0.01, -0.02, 0.03, 0.04), (0.3, 0.2, 0.1, 0.5)
        np.random.seed(200 + seed)
        creator = ProposalTargetCreator(*arguments)
        sample_roi, gt_roi_loc, gt_roi_label = creator(roi, bbox, label, mean, std)
        values = {
            "roi": roi,
            "bbox": bbox,
            "label": label,
            "seed": 200 + seed,
            "arguments": arguments,
            "mean": mean,
            "std": std,
            "sample_roi": sample_roi,
            "gt_roi_loc": gt_roi_loc,
            "gt_roi_label": gt_roi_label,
        }
        out.update({name + "/" + key: value for key, value in values.items()})
    return out


def voc():
    out = {}
    for seed, (name, images, classes) in enumerate((("small", 3, 2), ("large", 40, 6))):
        rng = np.random.RandomState(seed)
        gt_bbox, gt_label, gt_difficult, pred_bbox, pred_label = [], [], [], [], []
        for _ in range(images):
            n = rng.randint(0, 7)
            bbox = np.round(random_boxes(rng, n, (200, 200), 20, 90))
            label = rng.randint(0, classes, n).astype(np.int32)
            label[label == 3] = 4  # class 3 has detections only
            difficult = rng.uniform(size=n) < 0.25
            difficult[label == 4] = True  # class 4 has difficult objects only
            again = rng.randint(0, max(n, 1), 2 * n)
            near = bbox[again] + rng.normal(0, 6, (2 * n, 4)).astype(np.float32)
            near_label = label[again]
            other = random_boxes(rng, 3, (200, 200), 20, 90)
            other_label = rng.randint(0, classes, 3).astype(np.int32)
            gt_bbox.append(bbox)
            gt_label.append(label)
            gt_difficult.append(difficult)
            pred_bbox.append(np.concatenate((near, other)))
            pred_label.append(np.concatenate((near_label, other_label)))
            # Class 5 has objects but no detections.
            stays = pred_label[-1] != 5
            pred_bbox[-1], pred_label[-1] = pred_bbox[-1][stays], pred_label[-1][stays]
        counts = [len(b) for b in pred_bbox]
        scores = np.split(distinct_scores(rng, sum(counts)), np.cumsum(counts)[:-1])
        arguments = (pred_bbox, pred_label, scores, gt_bbox, gt_label, gt_difficult)
        prec, rec = calc_detection_voc_prec_rec(*arguments)
        for i, (p, r) in enumerate(zip(prec, rec)):
            if p is not None:
                out[f"{name}/prec{i}"] = p
            if r is not None:
                out[f"{name}/rec{i}"] = r
        names = "pred_bbox pred_label pred_score gt_bbox gt_label gt_difficult".split()
        values = {key: np.concatenate(value) for key, value in zip(names, arguments)}
        values["pred_count"] = counts
        values["gt_count"] = [len(b) for b in gt_bbox]
        values["ap"] = calc_detection_voc_ap(prec, rec)
        values["ap07"] = calc_detection_voc_ap(prec, rec, use_07_metric=True)
        values["map"] = eval_detection_voc(*arguments)["map"]
        values["map07"] = eval_detection_voc(*arguments, use_07_metric=True)["map"]
        out.update({name + "/" + key: value for key, value in values.items()})
    return out


def transforms():
    rng = np.random.RandomState(0)
    size = (200, 300)
    bbox = random_boxes(rng, 20, size, 10, 150)
    out = {"bbox": bbox, "size": size}
    out["resize"] = T.resize_bbox(bbox, size, (333, 217))
    out["flip_y"] = T.flip_bbox(bbox, size, y_flip=True)
    out["flip_x"] = T.flip_bbox(bbox, size, x_flip=True)
    out["flip_both"] = T.flip_bbox(bbox, size, y_flip=True, x_flip=True)
    out["translate"] = T.translate_bbox(bbox, y_offset=12.5, x_offset=-7)
    for angle in (0, 90, 180, 270, -90, 450):
        out[f"rotate{angle}"] = T.rotate_bbox(bbox, angle, size)
    for name, slices, centre in (
        ("crop", (slice(40, 150), slice(60, 200)), True),
        ("crop_centre", (slice(40, 150), slice(60, 200)), False),
        ("crop_open", (slice(None, 100), None), True),
    ):
        cropped, param = T.crop_bbox(
            bbox, slices[0], slices[1], allow_outside_center=centre, return_param=True
        )
        out[name] = cropped
        out[name + "_index"] = param["index"]
        out[name + "_truncated"] = param["truncated_index"]
    random.seed(3)
    image = np.zeros((3, 4, 5), np.float32)
    flips = [T.random_flip(image, True, True, return_param=True)[1] for _ in range(20)]
    out["flips"] = np.array([(f["y_flip"], f["x_flip"]) for f in flips])
    return out


class Extractor(chainer.Chain):
    def __init__(self, channels):
        super().__init__()
        with self.init_scope():
            self.convolutions = chainer.ChainList(
                *(L.Convolution2D(i, o, 3, 1, 1) for i, o in zip(channels, channels[1:]))
            )

    def forward(self, x):
        for i, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(F.max_pooling_2d(x, 2, 2) if i else x))
        return x


class Head(chainer.Chain):
    def __init__(self, channels, width, n_class):
        super().__init__()
        with self.init_scope():
            self.fc6 = L.Linear(channels * 49, width)
            self.fc7 = L.Linear(width, width)
            self.cls_loc = L.Linear(width, n_class * 4)
            self.score = L.Linear(width, n_class)
        self.n_class = n_class

    def forward(self, x, rois, roi_indices):
        rois = np.concatenate((roi_indices[:, None].astype(np.float32), rois), axis=1)
        pool = F.roi_pooling_2d(x, rois[:, [0, 2, 1, 4, 3]], 7, 7, 1 / 16.0)
        h = F.relu(self.fc7(F.relu(self.fc6(pool))))
        return self.cls_loc(h), self.score(h)


def forward_and_predict(model, image):
    """Everything the network says about one image, in test mode."""
    prepared = model.prepare(image.astype(np.float32))
    scale = prepared.shape[2] / image.shape[2]
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        features = model.extractor(prepared[None])
        size = prepared.shape[1:]
        rpn_locs, rpn_scores, rois, roi_indices, _ = model.rpn(features, size, [scale])
        roi_cls_locs, roi_scores = model.head(features, rois, roi_indices)
    (bbox,), (label,), (score,) = model.predict([image])
    return {
        "image": image,
        "prepared": prepared,
        "scale": scale,
        "features": features.array,
        "rpn_locs": rpn_locs.array,
        "rpn_scores": rpn_scores.array,
        "rois": rois,
        "roi_indices": roi_indices,
        "roi_cls_locs": roi_cls_locs.array,
        "roi_scores": roi_scores.array,
        "bbox": bbox,
        "label": label,
        "score": score,
    }


def unambiguous_image(model, height, width):
    """The first random image on which no decision of ``model`` hangs by a rounding error.

    RoIs that cover the same cells have equal scores, and the order of ties is nobody's promise.
    """
    for seed in range(10000):
        values = forward_and_predict(
            model, random_image(np.random.RandomState(seed), height, width)
        )
        ranking = np.sort(values["rpn_scores"][0, :, 1])
        probability = F.softmax(values["roi_scores"]).array[:, 1:]
        taken = np.sort(np.where(probability > 0.04, probability, np.nan), axis=0)
        gaps = np.diff(taken, axis=0)
        if (
            np.diff(ranking).min() > 1e-5
            and np.nanmin(gaps) > 1e-5
            and np.abs(probability - model.score_thresh).min() > 1e-4
            and len(values["bbox"]) >= 8
            and np.nanmax(taken) < 0.999
        ):
            return values
    raise SystemExit("no unambiguous image")


def random_image(rng, height, width):
    """Coloured rectangles on noise, so that places differ."""
    image = rng.randint(0, 80, (3, height, width))
    for y0, x0, y1, x1 in random_boxes(rng, 6, (height, width), 15, 60).astype(int):
        image[:, y0:y1, x0:x1] = rng.randint(0, 256, (3, 1, 1))
    return image.astype(np.uint8)


MEAN = np.array([122.7717, 115.9465, 102.9801], dtype=np.float32)[:, None, None]


def faster_rcnn():
    rng = np.random.RandomState(0)
    channels, n_class = (3, 8, 12, 16, 16, 16), 4
    model = FasterRCNN(
        Extractor(channels),
        RegionProposalNetwork(
            channels[-1], 16, anchor_scales=[2, 4, 8], feat_stride=16,
            proposal_creator_params={"n_test_post_nms": 30},
        ),
        Head(channels[-1], 16, n_class),
        mean=MEAN, min_size=96, max_size=160,
    )  # fmt: skip
    model.use_preset("evaluate")
    links = {f"extractor.{3 * i}": c for i, c in enumerate(model.extractor.convolutions)}
    links.update({"rpn." + name: getattr(model.rpn, name) for name in ("conv1", "score", "loc")})
    heads = zip(
        ("classifier.0", "classifier.2", "cls_loc", "score"), "fc6 fc7 cls_loc score".split()
    )
    links.update({"head." + key: getattr(model.head, name) for key, name in heads})
    gains = {"extractor.0": 0.02, "rpn.score": 1.5, "rpn.loc": 0.15, "head.cls_loc": 0.7}
    out = {"mean": MEAN[:, 0, 0]}
    for key, link in links.items():
        fan_in = link.W.array[0].size
        scale = gains.get(key, 1.0) * np.sqrt(6.0 / fan_in)
        for name, parameter, factor in (("weight", link.W, 1.0), ("bias", link.b, 0.1)):
            half = (rng.uniform(-1, 1, parameter.shape) * scale * factor).astype(np.float16)
            parameter.array[...] = half
            out[f"weights/{key}.{name}"] = half
    for name, size in (("even", (96, 128)), ("odd", (72, 100))):
        values = unambiguous_image(model, *size)
        out.update({name + "/" + key: value for key, value in values.items()})

    # One training step.
    # No corner is an odd multiple of 8, which RoI pooling may round either way.
    bbox = np.array([[10, 12, 60, 70], [30, 64, 90, 119], [5, 80, 41, 125]], np.float32)
    label = np.array([0, 2, 1], np.int32)
    chain = FasterRCNNTrainChain(
        model,
        anchor_target_creator=AnchorTargetCreator(n_sample=64),
        proposal_target_creator=ProposalTargetCreator(n_sample=48),
    )
    out.update({"train/bbox": bbox, "train/label": label, "train/seed": 5})
    out["train/n_sample"] = (48, 64)
    np.random.seed(5)
    model.cleargrads()
    with chainer.using_config("train", True):
        reporter, observed = chainer.Reporter(), {}
        reporter.add_observer("", chain)
        with reporter.scope(observed):
            loss = chain(out["even/prepared"][None], bbox[None], label[None], np.array([1.0]))
    loss.backward()
    for key, value in observed.items():
        out["train/" + key.split("/")[-1]] = value.array
    for key, link in links.items():
        out[f"train/grad/{key}.weight"] = link.W.grad
        out[f"train/grad/{key}.bias"] = link.b.grad
    return out


VGG16_LAYERS = (
    [f"extractor/{name}/conv" for name in
     "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 "
     "conv4_1 conv4_2 conv4_3 conv5_1 conv5_2 conv5_3".split()]
    + ["rpn/conv1", "rpn/score", "rpn/loc", "head/fc6", "head/fc7", "head/cls_loc", "head/score"]
)  # fmt: skip


def vgg16_weights(shapes):
    """(weight, bias) of every layer, drawn in the order of ``VGG16_LAYERS``.

    Per layer: with r uniform in [-1, 1) (2 * RandomState(7).random_sample() - 1, one generator for
    all layers, weight before bias, C order), weight = r * gain * sqrt(6 / fan_in) and bias = r *
    gain * 0.1 * sqrt(6 / fan_in), in float64, stored as float32. The gain is 0.02 for conv1_1, 0.1
    for rpn/loc, and 1 for the others.
    """
    rng = np.random.RandomState(7)
    for name in VGG16_LAYERS:
        shape = shapes[name]
        gain = {"extractor/conv1_1/conv": 0.02, "rpn/loc": 0.1}.get(name, 1.0)
        scale = gain * np.sqrt(6.0 / np.prod(shape[1:]))
        weight = (2 * rng.random_sample(shape) - 1) * scale
        bias = (2 * rng.random_sample(shape[0]) - 1) * (0.1 * scale)
        yield name, weight.astype(np.float32), bias.astype(np.float32)


def faster_rcnn_vgg16():
    model = FasterRCNNVGG16(n_fg_class=20, min_size=96, max_size=160)
    model.use_preset("evaluate")
    with chainer.no_backprop_mode():
        model.extractor(np.zeros((1, 3, 32, 32), np.float32))  # lays out lazy parameters
    links = dict(model.namedlinks())
    layers = {name: links["/" + name] for name in VGG16_LAYERS}
    for name, weight, bias in vgg16_weights({n: link.W.shape for n, link in layers.items()}):
        layers[name].W.array[...] = weight
        layers[name].b.array[...] = bias
    values = unambiguous_image(model, 96, 128)
    values["features"] = values["features"][:, ::16]
    return values


def main(directory):
    for make in (
        boxes, nms, anchor_targets, proposals, proposal_targets, voc, transforms, faster_rcnn,
        faster_rcnn_vgg16,
    ):  # fmt: skip
        path = os.path.join(directory, make.__name__ + ".npz")
        values = make()
        np.savez_compressed(path, **values)
        print(f"{make.__name__:24} {len(values):4} arrays {os.path.getsize(path):7} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
