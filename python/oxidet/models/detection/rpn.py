"""Region proposal network over the levels of a pyramid, as torchvision's.

Ren et al., "Faster R-CNN" (arXiv 1506.01497), section 3.1; with one head for all levels, as in Lin
et al., "Feature Pyramid Networks" (1612.03144), section 4.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from oxidet import nn
from oxidet._arrays import F32, integer
from oxidet.detection._sampling import Rng
from oxidet.models.detection import _kernels
from oxidet.models.detection.anchor_generator import AnchorGenerator
from oxidet.models.detection.balanced_sampler import BalancedPositiveNegativeSampler
from oxidet.models.detection.box_coder import BoxCoder
from oxidet.models.detection.image_list import ImageList
from oxidet.models.detection.matcher import Matcher
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.ops import Conv2dNormActivation

BETA = 1 / 9  # where the smooth L1 loss of both stages turns linear


class RPNHead(nn.Module):
    """Convolutions that give each anchor of a cell a logit and a correction, shared by all levels.

    Parameters
    ----------
    in_channels
        Channels of the levels.
    num_anchors
        Anchors of a cell.
    conv_depth
        Number of 3 x 3 convolutions in front.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection.rpn import RPNHead
    >>> logits, deltas = RPNHead(8, 3).eval()([np.zeros((1, 8, 4, 6)), np.zeros((1, 8, 2, 3))])
    >>> [level.shape for level in logits], [level.shape for level in deltas]
    ([(1, 3, 4, 6), (1, 3, 2, 3)], [(1, 12, 4, 6), (1, 12, 2, 3)])
    """

    conv: nn.Sequential
    cls_logits: nn.Conv2d
    bbox_pred: nn.Conv2d

    _mode_matters = False

    def __init__(self, in_channels: int, num_anchors: int, conv_depth: int = 1) -> None:
        super().__init__()
        depth = integer(conv_depth, "conv_depth", 0)
        self.conv = nn.Sequential(
            *(
                Conv2dNormActivation(in_channels, in_channels, 3, norm_layer=None)
                for _ in range(depth)
            )
        )
        self.cls_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(in_channels, num_anchors * 4, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                init.normal_(layer.weight, std=0.01)
                assert layer.bias is not None
                init.zeros_(layer.bias)

    def forward(self, x: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Levels (N, C, H, W) to logits (N, A, H, W) and corrections (N, 4 A, H, W) of each."""
        hidden = [self.conv(level) for level in x]
        return [self.cls_logits(t) for t in hidden], [self.bbox_pred(t) for t in hidden]

    def _adapt_state_dict(self, state_dict: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
        # Before torchvision 0.13 there was one bare convolution.
        renamed = {
            f"{prefix}conv.{kind}": f"{prefix}conv.0.0.{kind}" for kind in ("weight", "bias")
        }
        if not any(key in renamed for key in state_dict):
            return state_dict
        return {renamed.get(key, key): value for key, value in state_dict.items()}


class AnchorSample(NamedTuple):
    """Anchors to learn from, as indices into those of all images one after the other.

    ``positive`` and ``negative`` are (P,) and (Q,) int64, ``target`` (P, 4) float32 the corrections
    that the positives should get.
    """

    positive: Any
    negative: Any
    target: F32


class RegionProposalNetwork(nn.Module):
    """Scores and corrects anchors, and proposes the best as regions, as torchvision's class.

    Parameters
    ----------
    anchor_generator, head
        See :class:`AnchorGenerator` and :class:`RPNHead`.
    fg_iou_thresh, bg_iou_thresh
        IoU with an object from which an anchor is positive, and below which it is negative. The
        best anchors of an object are positive anyway.
    batch_size_per_image, positive_fraction
        Anchors of an image to learn from, and share of positives at most.
    pre_nms_top_n, post_nms_top_n
        Proposals of a level that go into non-maximum suppression, and of an image that come out:
        mappings with ``"training"`` and ``"testing"``.
    nms_thresh
        IoU above which the lower-scoring of two proposals of a level is dropped.
    score_thresh
        Probability that a proposal must reach.
    """

    box_coder: BoxCoder
    proposal_matcher: Matcher
    fg_bg_sampler: BalancedPositiveNegativeSampler
    min_size: float

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: nn.Module,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_top_n: Mapping[str, int],
        post_nms_top_n: Mapping[str, int],
        nms_thresh: float,
        score_thresh: float = 0.0,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.box_coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self.proposal_matcher = Matcher(
            fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches=True
        )
        self.fg_bg_sampler = BalancedPositiveNegativeSampler(
            batch_size_per_image, positive_fraction
        )
        self._pre_nms_top_n = dict(pre_nms_top_n)
        self._post_nms_top_n = dict(post_nms_top_n)
        self.nms_thresh = nms_thresh
        self.score_thresh = score_thresh
        self.min_size = 1e-3

    def pre_nms_top_n(self) -> int:
        """Proposals of a level that go into suppression, in the current mode."""
        return self._pre_nms_top_n["training" if self.training else "testing"]

    def post_nms_top_n(self) -> int:
        """Proposals of an image, in the current mode."""
        return self._post_nms_top_n["training" if self.training else "testing"]

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Any],
        targets: Sequence[Mapping[str, Any]] | None = None,
        rng: Rng = None,
    ) -> tuple[list[F32], dict[str, Any]]:
        """Proposals of each image, and in training the losses.

        Parameters
        ----------
        images
            The batch.
        features
            Its levels (N, C, H, W) by name.
        targets
            For each image a mapping with ``boxes`` (R, 4), for the losses.
        rng
            Where the sample of anchors is drawn from; NumPy's global state by default.

        Returns
        -------
        For each image (R, 4) boxes (x1, y1, x2, y2), best first; and ``loss_objectness`` and
        ``loss_rpn_box_reg``, or nothing in evaluation.
        """
        logits, deltas = self.head(list(features.values()))
        proposals = self.propose(images, logits, deltas)
        if not self.training:
            return proposals, {}
        if targets is None:
            raise ValueError("targets: expected boxes for each image in training, got None")
        anchors = self.anchors(images, list(features.values()))
        sample = self.sample([target["boxes"] for target in targets], anchors, rng)
        return proposals, self.losses(logits, deltas, sample)

    def anchors(self, images: ImageList, maps: Sequence[Any]) -> F32:
        """Anchors (S, 4) of all levels; those of one image, as all images have the same."""
        one = ImageList(images.tensors, images.image_sizes[:1])
        shapes = [np.broadcast_to(np.float32(0), level.shape) for level in maps]
        anchors: F32 = self.anchor_generator(one, shapes)[0]
        return anchors

    def propose(self, images: ImageList, logits: Sequence[Any], deltas: Sequence[Any]) -> list[F32]:
        """The regions of each image, (R, 4), best first.

        ``logits`` and ``deltas`` are what the head returns; no gradient flows through regions.
        """
        return [boxes for boxes, _ in self.propose_with_scores(images, logits, deltas)]

    def propose_with_scores(
        self, images: ImageList, logits: Sequence[Any], deltas: Sequence[Any]
    ) -> list[tuple[F32, F32]]:
        """:meth:`propose`, with the objectness (R,), 0..1, of each region."""
        if len(logits) != len(self.anchor_generator.cell_anchors):
            raise ValueError(
                f"features: expected {len(self.anchor_generator.cell_anchors)} maps, as many as "
                f"there are sizes of anchors, got {len(logits)}"
            )
        height, width = images.tensors.shape[-2:]
        return _kernels.rpn_proposals(
            [np.asarray(level) for level in logits],
            [np.asarray(level) for level in deltas],
            self.anchor_generator.cell_anchors,
            [(height // level.shape[2], width // level.shape[3]) for level in logits],
            images.image_sizes,
            self.pre_nms_top_n(),
            self.post_nms_top_n(),
            self.nms_thresh,
            self.score_thresh,
            self.min_size,
        )

    def sample(self, boxes: Sequence[F32], anchors: F32, rng: Rng = None) -> AnchorSample:
        """Anchors to learn from, given the objects (R, 4) of each image."""
        matches = [self.match(found, anchors) for found in boxes]
        # The sampler calls 1 positive, 0 negative, and anything else neither.
        below = Matcher.BELOW_LOW_THRESHOLD
        labels = [np.where(m >= 0, 1, np.where(m == below, 0, -1)) for m in matches]
        positive, negative = self.fg_bg_sampler(labels, rng=rng)
        targets = [np.zeros((0, 4), np.float32)]
        for found, matched, mask in zip(boxes, matches, positive, strict=True):
            rows = np.flatnonzero(mask)
            targets.append(self.box_coder.encode_single(found[matched[rows]], anchors[rows]))
        return AnchorSample(
            np.flatnonzero(np.concatenate(positive)),
            np.flatnonzero(np.concatenate(negative)),
            np.concatenate(targets),
        )

    def match(self, boxes: F32, anchors: F32) -> Any:
        """For each anchor the index of its object, or one of the matcher's negative numbers."""
        matcher = self.proposal_matcher
        return _kernels.match_boxes(
            boxes, anchors, matcher.high_threshold, matcher.low_threshold, True
        )

    def losses(
        self, logits: Sequence[Any], deltas: Sequence[Any], sample: AnchorSample
    ) -> dict[str, Any]:
        """``loss_objectness`` and ``loss_rpn_box_reg`` of a sample."""
        all_logits = F.cat([_rows(level, 1) for level in logits], dim=1).reshape(-1)
        all_deltas = F.cat([_rows(level, 4) for level in deltas], dim=1).reshape(-1, 4)
        chosen = np.concatenate([sample.positive, sample.negative])
        target = np.zeros(len(chosen), np.float32)
        target[: len(sample.positive)] = 1
        box_loss = F.smooth_l1_loss(
            all_deltas[sample.positive], sample.target, beta=BETA, reduction="sum"
        )
        return {
            "loss_objectness": F.binary_cross_entropy_with_logits(all_logits[chosen], target),
            "loss_rpn_box_reg": box_loss / max(len(chosen), 1),
        }


def _rows(level: Any, values: int) -> Any:
    """(N, A * values, H, W) as (N, H * W * A, values), which copies nothing: channels lie last."""
    last = (
        level.transpose(0, 2, 3, 1) if isinstance(level, np.ndarray) else level.permute(0, 2, 3, 1)
    )
    return last.reshape(level.shape[0], -1, values)


def named_maps(maps: Any) -> Mapping[str, Any]:
    """The maps of a backbone by name; a single one is called "0"."""
    return maps if isinstance(maps, Mapping) else OrderedDict([("0", maps)])
