"""Weights and images under which the torch model's decisions are clear.

With ordinary random initialisation all anchors of a Faster R-CNN score about the same, and the
order of proposals is noise: two correct implementations would not agree on it. ``spread_out`` makes
weights whose scores rank proposals and classes, and in which nothing hangs on the last digits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from parity.torch_faster_rcnn import PRESETS, FasterRCNN, bbox_iou, resize


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A normalised (3, H, W) image of coarse to fine random blobs, about zero mean, unit spread."""
    rng = np.random.default_rng(seed)
    image = np.zeros((3, height, width))
    for cell in (4, 16, 64):
        grid = rng.standard_normal((3, max(height // cell, 2), max(width // cell, 2)))
        image += resize(grid, (height, width))
    return (image / image.std()).astype(np.float32)


def nms_is_clear(
    boxes: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    margin: float,
    limit: int | None = None,
) -> bool:
    """Whether scores and overlaps may change by ``margin`` without changing what NMS returns.

    That is: no other box would be kept, and no two kept boxes would change places.
    """
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        overlap = bbox_iou(boxes[i : i + 1], boxes[kept])[0]
        lead = scores[kept] - scores[i]
        over = overlap > threshold
        if over.any():
            # It stays suppressed as long as one better box still overlaps it and is still better.
            room = np.minimum(lead, overlap - threshold)[over].max()
        else:
            room = min([np.inf, *lead[-1:], *(threshold - overlap)])
            kept.append(i)
        if room <= margin:
            return False
        if limit is not None and len(kept) > limit:
            break
    return True


def spread_out(
    model: FasterRCNN,
    image: np.ndarray,
    seed: int = 0,
    scale: float = 1.0,
    margin: float = 1e-6,
    attempts: int = 100,
) -> FasterRCNN:
    """Random weights under which proposals and classes score clearly differently on ``image``.

    Layer by layer: weights are normal, then each output channel is scaled and shifted so that over
    this image (for the head: over its proposals) it has a given mean and spread. Inside the
    network both are 1: most units are then in the linear part of their ReLU, and a rounding error
    is not amplified from layer to layer. The anchors' logits have mean 0 and spread 0.7, so that
    their difference spreads by 1 and no probability saturates; class logits 1.5. Offsets are
    small, 0.05 for anchors and 0.5 (times the normalisation's 0.1 and 0.2) for classes: an error in
    them is multiplied by boxes of up to 724 pixels.

    Among thousands of random scores some neighbours always agree to six digits. So the last layers
    are drawn again until no decision about proposals or detections hangs on less than ``margin``,
    a few rounding errors of such a network in float32. ``image`` is preprocessed, (3, H, W), and
    ``scale`` the factor it was resized by.
    """
    generator = torch.Generator().manual_seed(seed)

    def fill(layer: nn.Module, inputs: torch.Tensor, spread: float, mean: float) -> torch.Tensor:
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            return layer(inputs)
        layer.weight.normal_(generator=generator)
        layer.bias.zero_()
        outputs = layer(inputs)
        axes = [axis for axis in range(outputs.ndim) if axis != 1]
        std, centre = torch.std_mean(outputs, dim=axes)
        factor = spread / std.clamp(min=1e-3 * std.max())
        layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_(mean - centre * factor)
        return layer(inputs)

    def run(layers: nn.Sequential, inputs: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            inputs = fill(layer, inputs, 1.0, 1.0)
        return inputs

    def proposals_are_clear() -> bool:
        locs, _, probs, anchors, *_ = model.propose(features, size, scale)
        candidates = model.proposals.candidates(
            locs[0].numpy(), probs[0].numpy(), anchors, size, scale, training=False
        )
        limit = model.proposals.n_test_post_nms
        return nms_is_clear(*candidates, model.proposals.nms_thresh, margin, limit)

    def detections_are_clear() -> bool:
        boxes, probs = model.decode(model.trace(x, scale, features), size, 1.0)
        for _, score_thresh in PRESETS.values():
            if np.abs(probs[:, 1:] - score_thresh).min() <= margin:
                return False
        for c in range(1, model.n_class):
            above = probs[:, c] > model.score_thresh
            if not nms_is_clear(boxes[above, c], probs[above, c], model.nms_thresh, margin):
                return False
        return True

    def draw(layers: list[tuple], inputs: torch.Tensor, clear: Callable[[], bool]) -> None:
        for _ in range(attempts):
            for layer, spread in layers:
                fill(layer, inputs, spread, 0.0)
            if clear():
                return
        raise ValueError(f"no clear draw in {attempts} attempts")

    was_training = model.training
    size = image.shape[1:]
    model.eval()
    with torch.no_grad():
        x = torch.from_numpy(image[None])
        features = run(model.extractor, x)
        hidden = F.relu(fill(model.rpn.conv1, features, 1.0, 1.0))
        draw([(model.rpn.score, 0.7), (model.rpn.loc, 0.05)], hidden, proposals_are_clear)
        *_, rois, indices = model.propose(features, size, scale)
        hidden = run(model.head.classifier, model.head.pool(features, rois, indices))
        draw([(model.head.cls_loc, 0.5), (model.head.score, 1.5)], hidden, detections_are_clear)
    return model.train(was_training)


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """The state_dict as arrays."""
    return {key: value.detach().numpy() for key, value in model.state_dict().items()}
