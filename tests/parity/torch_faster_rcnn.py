"""Faster R-CNN over VGG-16 in torch, torchvision and NumPy: the other side of the parity test.

Written from the description of simple-faster-rcnn's behaviour alone, without a line of oxidet, so
that agreement means something. Boxes are (y_min, x_min, y_max, x_max). The tensors of the
``state_dict`` have simple-faster-rcnn's names, which are oxidet's too.

``FasterRCNN.trace`` returns every intermediate result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

RATIOS = (0.5, 1.0, 2.0)
ANCHOR_SCALES = (8.0, 16.0, 32.0)
LOC_MEAN = np.zeros(4, np.float32)
LOC_STD = np.array([0.1, 0.1, 0.2, 0.2], np.float32)
PRESETS = {"visualize": (0.3, 0.7), "evaluate": (0.3, 0.05)}  # (nms_thresh, score_thresh)


# --- boxes


def loc2bbox(src: np.ndarray, loc: np.ndarray) -> np.ndarray:
    """Boxes of one offset (ty, tx, th, tw) per source box."""
    if len(src) == 0:
        return np.zeros((0, 4), loc.dtype)
    size = src[:, 2:] - src[:, :2]
    centre = loc[:, :2] * size + (src[:, :2] + np.float32(0.5) * size)
    half = np.float32(0.5) * (np.exp(loc[:, 2:]) * size)
    return np.concatenate([centre - half, centre + half], axis=1).astype(loc.dtype)


def bbox_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(high - low, axis=2) * (low < high).all(axis=2)
    area_a, area_b = np.prod(a[:, 2:] - a[:, :2], axis=1), np.prod(b[:, 2:] - b[:, :2], axis=1)
    return shared / (area_a[:, None] + area_b - shared)


def anchor_base(
    base_size: int = 16,
    ratios: Sequence[float] = RATIOS,
    scales: Sequence[float] = ANCHOR_SCALES,
) -> np.ndarray:
    """Anchors of the cell at the origin; ratio = height / width."""
    rows = []
    for ratio in ratios:
        for scale in scales:
            h = base_size * scale * math.sqrt(ratio)
            w = base_size * scale * math.sqrt(1.0 / ratio)
            c = base_size / 2.0
            rows.append((c - h / 2, c - w / 2, c + h / 2, c + w / 2))
    return np.array(rows, np.float32)


def shifted_anchors(base: np.ndarray, stride: int, height: int, width: int) -> np.ndarray:
    """All anchors of a feature map: rows, then columns, then the base's anchors."""
    y, x = np.meshgrid(np.arange(height) * stride, np.arange(width) * stride, indexing="ij")
    shift = np.stack([y, x, y, x], axis=-1).reshape(-1, 1, 4)
    return (shift + base.astype(np.float64)).reshape(-1, 4).astype(np.float32)


# --- the network


class RegionProposalNetwork(nn.Module):
    """A 3x3 convolution, and per anchor two logits (background, foreground) and four offsets."""

    def __init__(self, in_channels: int, mid_channels: int, n_anchor: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 3, 1, 1)
        self.score = nn.Conv2d(mid_channels, 2 * n_anchor, 1)
        self.loc = nn.Conv2d(mid_channels, 4 * n_anchor, 1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Offsets (N, S, 4) and logits (N, S, 2)."""
        n = len(features)
        hidden = F.relu(self.conv1(features))
        locs = self.loc(hidden).permute(0, 2, 3, 1).reshape(n, -1, 4)
        scores = self.score(hidden).permute(0, 2, 3, 1).reshape(n, -1, 2)
        return locs, scores


class RoIHead(nn.Module):
    """RoI pooling, two fully connected layers, class offsets and class logits."""

    def __init__(self, channels: int, hidden: int, n_class: int, roi_size: int, scale: float):
        super().__init__()
        self.classifier = nn.Sequential(
            nn.Linear(channels * roi_size**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.cls_loc = nn.Linear(hidden, 4 * n_class)
        self.score = nn.Linear(hidden, n_class)
        self.roi = torchvision.ops.RoIPool((roi_size, roi_size), scale)

    def pool(self, features: torch.Tensor, rois: np.ndarray, indices: np.ndarray) -> torch.Tensor:
        """(R, C * roi_size^2); this is where boxes become (index, x, y, x, y).

        The edges of bins are always computed in float32: in float64 some would be other pixels.
        """
        rows = np.column_stack([indices, rois[:, [1, 0, 3, 2]]]).astype(np.float32)
        if features.dtype == torch.float32:
            return self.roi(features, torch.from_numpy(rows)).flatten(1)
        _, argmax = torch.ops.torchvision.roi_pool(
            features.float(), torch.from_numpy(rows), self.roi.spatial_scale, *self.roi.output_size
        )
        channels = features.shape[1]
        image = features.flatten(2)[torch.from_numpy(rows[:, 0]).long()]  # (R, C, H * W)
        places = argmax.reshape(len(rows), channels, -1).long()
        pooled = torch.where(places >= 0, image.gather(2, places.clamp(min=0)), 0)
        return pooled.flatten(1)

    def forward(
        self, features: torch.Tensor, rois: np.ndarray, indices: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Class offsets (R, 4 * n_class) and class logits (R, n_class)."""
        hidden = self.classifier(self.pool(features, rois, indices))
        return self.cls_loc(hidden), self.score(hidden)


@dataclass
class Proposals:
    """How many proposals are kept, and which."""

    nms_thresh: float = 0.7
    n_train_pre_nms: int = 12000
    n_train_post_nms: int = 2000
    n_test_pre_nms: int = 6000
    n_test_post_nms: int = 300
    min_size: float = 16

    def candidates(
        self,
        loc: np.ndarray,
        score: np.ndarray,
        anchor: np.ndarray,
        img_size: tuple[int, int],
        scale: float,
        training: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and scores that enter NMS, best first."""
        n_pre = self.n_train_pre_nms if training else self.n_test_pre_nms
        roi = loc2bbox(anchor, loc)
        roi[:, 0::2] = np.clip(roi[:, 0::2], 0, img_size[0])
        roi[:, 1::2] = np.clip(roi[:, 1::2], 0, img_size[1])
        sides = roi[:, 2:] - roi[:, :2]
        keep = np.flatnonzero((sides >= self.min_size * scale).all(axis=1))
        keep = keep[np.argsort(-score[keep], kind="stable")]
        keep = keep[:n_pre] if n_pre > 0 else keep
        return roi[keep], score[keep]

    def select(self, roi: np.ndarray, score: np.ndarray, training: bool) -> np.ndarray:
        """The proposals among the candidates."""
        n_post = self.n_train_post_nms if training else self.n_test_post_nms
        kept = torchvision.ops.nms(torch.tensor(roi), torch.tensor(score), self.nms_thresh).numpy()
        return roi[kept[:n_post] if n_post > 0 else kept]


@dataclass
class Trace:
    """Everything a forward pass computes, in order."""

    features: torch.Tensor
    rpn_locs: torch.Tensor  # (N, S, 4)
    rpn_scores: torch.Tensor  # (N, S, 2) logits
    rpn_probs: torch.Tensor  # (N, S) foreground probability
    anchors: np.ndarray  # (S, 4)
    rois: np.ndarray  # (R, 4)
    roi_indices: np.ndarray  # (R,)
    roi_cls_locs: torch.Tensor  # (R, 4 * n_class)
    roi_scores: torch.Tensor  # (R, n_class) logits


class FasterRCNN(nn.Module):
    """The whole detector. The default is VGG-16; tests that must be fast pass a small extractor.

    ``extractor`` maps images to ``channels`` feature maps at stride ``feat_stride``; its first
    ``frozen`` modules are not trained.
    """

    def __init__(
        self,
        n_fg_class: int = 20,
        ratios: Sequence[float] = RATIOS,
        anchor_scales: Sequence[float] = ANCHOR_SCALES,
        extractor: nn.Sequential | None = None,
        channels: int = 512,
        hidden: int = 4096,
        frozen: int = 10,
        feat_stride: int = 16,
        roi_size: int = 7,
    ) -> None:
        super().__init__()
        self.n_class = n_fg_class + 1
        self.feat_stride = feat_stride
        self.anchor_base = anchor_base(16, ratios, anchor_scales)
        self.extractor = vgg16_extractor() if extractor is None else extractor
        self.rpn = RegionProposalNetwork(channels, channels, len(self.anchor_base))
        self.head = RoIHead(channels, hidden, self.n_class, roi_size, 1.0 / feat_stride)
        self.proposals = Proposals()
        for layer in self.extractor[:frozen]:
            layer.requires_grad_(False)
        self.use_preset("evaluate")

    def use_preset(self, preset: str) -> None:
        """Thresholds of ``predict``."""
        if preset not in PRESETS:
            raise ValueError("preset must be visualize or evaluate")
        self.nms_thresh, self.score_thresh = PRESETS[preset]

    def propose(
        self, features: torch.Tensor, img_size: tuple[int, int], scale: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
        """Offsets, logits and probabilities of the anchors; anchors; proposals; their images."""
        locs, scores = self.rpn(features)
        probs = F.softmax(scores, dim=2)[..., 1]
        anchors = shifted_anchors(self.anchor_base, self.feat_stride, *features.shape[2:])
        rois = []
        for loc, prob in zip(locs.detach().numpy(), probs.detach().numpy(), strict=True):
            entering = self.proposals.candidates(loc, prob, anchors, img_size, scale, self.training)
            rois.append(self.proposals.select(*entering, self.training))
        indices = np.repeat(np.arange(len(rois)), [len(r) for r in rois]).astype(np.int32)
        return locs, scores, probs, anchors, np.concatenate(rois), indices

    def trace(
        self, x: torch.Tensor, scale: float = 1.0, features: torch.Tensor | None = None
    ) -> Trace:
        """Run, and keep what was computed on the way. ``features`` of ``x`` if already known."""
        features = self.extractor(x) if features is None else features
        locs, scores, probs, anchors, rois, indices = self.propose(
            features, tuple(x.shape[2:]), scale
        )
        cls_locs, cls_scores = self.head(features, rois, indices)
        return Trace(features, locs, scores, probs, anchors, rois, indices, cls_locs, cls_scores)

    def forward(
        self, x: torch.Tensor, scale: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
        """Class offsets, class logits, proposals and the image each belongs to."""
        trace = self.trace(x, scale)
        return trace.roi_cls_locs, trace.roi_scores, trace.rois, trace.roi_indices

    # --- detections

    def decode(
        self, trace: Trace, size: tuple[int, int], scale: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (R, n_class, 4) in the original image of this size, and probabilities."""
        roi = trace.rois / np.float32(scale)
        loc = trace.roi_cls_locs.detach().numpy().reshape(-1, 4) * LOC_STD + LOC_MEAN
        boxes = loc2bbox(np.repeat(roi, self.n_class, axis=0), loc)
        boxes[:, 0::2] = np.clip(boxes[:, 0::2], 0, size[0])
        boxes[:, 1::2] = np.clip(boxes[:, 1::2], 0, size[1])
        probs = F.softmax(trace.roi_scores.detach(), dim=1).numpy()
        return boxes.reshape(-1, self.n_class, 4), probs

    def select(
        self, boxes: np.ndarray, probs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Final boxes, labels (from 0) and scores, grouped by class."""
        chosen = []
        for c in range(1, self.n_class):
            above = probs[:, c] > self.score_thresh
            box, score = boxes[above, c], probs[above, c]
            kept = torchvision.ops.nms(torch.tensor(box), torch.tensor(score), self.nms_thresh)
            kept = kept.numpy()
            chosen.append((box[kept], np.full(len(kept), c - 1, np.int32), score[kept]))
        bbox, label, score = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
        return bbox, label, score

    def predict(
        self,
        imgs: Sequence[np.ndarray],
        sizes: Sequence[tuple[int, int]] | None = None,
        visualize: bool = False,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Boxes, labels and scores of each image.

        With ``visualize`` the images are raw; without, they are preprocessed and ``sizes`` holds
        the sizes they had before.
        """
        if visualize:
            self.use_preset("visualize")
            sizes = [img.shape[1:] for img in imgs]
            imgs = [preprocess(img) for img in imgs]
        if sizes is None:
            raise ValueError("preprocessed images need their original sizes")
        self.eval()
        results = []
        for img, size in zip(imgs, sizes, strict=True):
            scale = img.shape[2] / size[1]
            with torch.no_grad():
                trace = self.trace(torch.from_numpy(img[None]), scale)
            results.append(self.select(*self.decode(trace, size, scale)))
        self.use_preset("evaluate")
        self.train()
        bboxes, labels, scores = (list(column) for column in zip(*results, strict=True))
        return bboxes, labels, scores


def vgg16_extractor() -> nn.Sequential:
    """VGG-16 up to the ReLU after conv5_3: pool5 is left out."""
    configuration = torchvision.models.vgg.cfgs["D"]
    return torchvision.models.vgg.make_layers(configuration)[:30]


def tiny_extractor(channels: int = 16) -> nn.Sequential:
    """Five 3x3 convolutions and four poolings: VGG's shape and stride in little."""
    layers: list[nn.Module] = []
    widths = [3, 8, 8, channels, channels, channels]
    for i in range(5):
        layers += [nn.Conv2d(widths[i], widths[i + 1], 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2, 2)] if i < 4 else []
    return nn.Sequential(*layers)


def tiny_faster_rcnn(n_fg_class: int = 5, frozen: int = 3) -> FasterRCNN:
    """The same detector with 16 feature maps and 32 hidden units."""
    return FasterRCNN(n_fg_class, extractor=tiny_extractor(), channels=16, hidden=32, frozen=frozen)


# --- images


def resize(img: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, half-pixel centres, mirrored at the border without repeating its pixel."""

    def weights(length: int, target: int) -> np.ndarray:
        position = np.abs((np.arange(target) + 0.5) * length / target - 0.5)
        position = np.where(position > length - 1, 2 * (length - 1) - position, position)
        low = np.clip(np.floor(position).astype(int), 0, max(length - 2, 0))
        matrix = np.zeros((target, length))
        rows = np.arange(target)
        matrix[rows, low] += 1 - (position - low)
        matrix[rows, np.minimum(low + 1, length - 1)] += position - low
        return matrix

    rows, cols = weights(img.shape[1], size[0]), weights(img.shape[2], size[1])
    return np.einsum("ih,chw,jw->cij", rows, img, cols, optimize=True)


def preprocess(
    img: np.ndarray, min_size: int = 600, max_size: int = 1000, caffe: bool = False
) -> np.ndarray:
    """A (3, H, W) RGB image of 0..255, resized and normalised; sizes round half to even."""
    _, height, width = img.shape
    scale = min(min_size / min(height, width), max_size / max(height, width))
    resized = resize(img / 255.0, (round(height * scale), round(width * scale)))
    if caffe:  # the mean of (R, G, B) is taken from channels (B, G, R), as in the original
        mean = np.array([122.7717, 115.9465, 102.9801]).reshape(3, 1, 1)
        return (resized[::-1] * 255 - mean).astype(np.float32)
    mean = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    return ((resized - mean) / std).astype(np.float32)
