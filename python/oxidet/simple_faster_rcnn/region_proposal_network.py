"""Region proposal network, Ren et al., "Faster R-CNN" (arXiv 1506.01497), section 3.1.

A 3 x 3 convolution slides over the feature map; two 1 x 1 convolutions give every anchor a score
and a correction. Structure and names are simple-faster-rcnn's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet import nn
from oxidet._arrays import F32
from oxidet.detection import ProposalCreator, enumerate_shifted_anchor, generate_anchor_base
from oxidet.nn import functional as F
from oxidet.simple_faster_rcnn._initialize import normal_init

I32 = NDArray[np.int32]


class Proposals(NamedTuple):
    """What the network says about every anchor, and the boxes made of it.

    With A anchors at each of the S cells: ``rpn_locs`` (N, S * A, 4) and ``rpn_scores``
    (N, S * A, 2) raw logits (background, foreground), both on the tape; ``rois`` (R, 4)
    float32 (y_min, x_min, y_max, x_max), ``roi_indices`` (R,) int32 and ``anchor`` (S * A, 4),
    which are constants.
    """

    rpn_locs: Any
    rpn_scores: Any
    rois: F32
    roi_indices: I32
    anchor: F32


class RegionProposalNetwork(nn.Module):
    """Scores and corrects the anchors of a feature map and proposes regions.

    Parameters
    ----------
    in_channels, mid_channels
        Channels of the feature map and of the 3 x 3 convolution.
    ratios, anchor_scales
        Height over width of the anchors, and their sizes in units of ``base_size`` pixels.
    feat_stride
        Distance of neighbouring cells in pixels of the network's input.
    proposal_creator_params
        Keyword arguments of :class:`oxidet.detection.ProposalCreator`.
    base_size
        Side of the anchor at scale 1, in pixels.
    rank_by
        What orders the proposals: the foreground ``"probability"``, as simple-faster-rcnn, or the
        foreground ``"logit"``, as chainercv. They differ, because the background's logit does.
    """

    anchor_base: NDArray[np.float32]
    proposal_layer: ProposalCreator
    conv1: nn.Conv2d
    score: nn.Conv2d
    loc: nn.Conv2d

    compiled = True

    def __init__(
        self,
        in_channels: int = 512,
        mid_channels: int = 512,
        ratios: Sequence[float] = (0.5, 1, 2),
        anchor_scales: Sequence[float] = (8, 16, 32),
        feat_stride: int = 16,
        proposal_creator_params: Mapping[str, Any] | None = None,
        *,
        base_size: int = 16,
        rank_by: Literal["probability", "logit"] = "probability",
    ) -> None:
        super().__init__()
        self.anchor_base = generate_anchor_base(base_size, ratios, anchor_scales)
        if rank_by not in ("probability", "logit"):
            raise ValueError(f"rank_by: expected 'probability' or 'logit', got {rank_by!r}")
        self.feat_stride = feat_stride
        self.rank_by = rank_by
        self.proposal_layer = ProposalCreator(self, **dict(proposal_creator_params or {}))
        anchors = len(self.anchor_base)
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 3, 1, 1)
        self.score = nn.Conv2d(mid_channels, anchors * 2, 1, 1, 0)
        self.loc = nn.Conv2d(mid_channels, anchors * 4, 1, 1, 0)
        for layer in (self.conv1, self.score, self.loc):
            normal_init(layer, 0.01)

    def forward(
        self, x: Any, img_size: tuple[int, int], scale: float | Sequence[float] = 1.0
    ) -> Proposals:
        """Propose regions.

        ``x`` is (N, C, H, W), ``img_size`` the (height, width) of the network's input in pixels,
        ``scale`` the factor by which the original image was scaled to it, one for all or one for
        each.
        """
        batch = x.shape[0]
        locs, scores, anchor = self.rate(x)
        foreground = self.ranking(scores)
        corrections = np.asarray(locs)
        scales = np.broadcast_to(np.asarray(scale, np.float64), batch)
        proposals = [
            self.proposal_layer(
                corrections[i], foreground[i], anchor, img_size, scale=float(scales[i])
            )
            for i in range(batch)
        ]
        counts = [len(rois) for rois in proposals]
        return Proposals(
            rpn_locs=locs,
            rpn_scores=scores,
            rois=np.concatenate([np.zeros((0, 4), np.float32), *proposals]),
            roi_indices=np.repeat(np.arange(batch, dtype=np.int32), counts),
            anchor=anchor,
        )

    def rate(self, x: Any) -> tuple[Any, Any, F32]:
        """``rpn_locs``, ``rpn_scores`` and ``anchor`` of :class:`Proposals`, cell by cell."""
        batch, _, height, width = x.shape
        anchor = enumerate_shifted_anchor(self.anchor_base, self.feat_stride, height, width)
        locs, scores = self.slide(x)
        # Channels vary fastest in memory, so these reshapes copy nothing.
        locs = _permute(locs).reshape(batch, len(anchor), 4)
        return locs, _permute(scores).reshape(batch, len(anchor), 2), anchor

    def ranking(self, scores: Any) -> F32:
        """What orders the proposals, (N, S * A), of ``rpn_scores`` (N, S * A, 2)."""
        ranking = np.asarray(scores)
        if self.rank_by == "probability":
            ranking = F.softmax(ranking, dim=-1)
        foreground: F32 = ranking[..., 1]
        return foreground

    @nn.compiled_method
    def slide(self, x: Any) -> tuple[Any, Any]:
        """The three convolutions: (N, C, H, W) to (N, 4 * A, H, W) and (N, 2 * A, H, W)."""
        hidden = F.relu(self.conv1(x))
        return self.loc(hidden), self.score(hidden)


def _permute(x: Any) -> Any:
    """(N, C, H, W) to (N, H, W, C), of an array or a tensor."""
    return x.transpose(0, 2, 3, 1) if isinstance(x, np.ndarray) else x.permute(0, 2, 3, 1)
