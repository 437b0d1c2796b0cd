"""The second stage: pool each region of the feature map, classify it, and correct its box."""

from __future__ import annotations

from typing import Any

import numpy as np

from oxidet import nn
from oxidet._arrays import F32
from oxidet.nn import functional as F
from oxidet.simple_faster_rcnn._initialize import normal_init


class RoIHead(nn.Module):
    """Pools regions, applies ``classifier``, and predicts per class a score and a correction.

    Parameters
    ----------
    n_class
        Number of classes, background (class 0) included.
    pool
        Module called as ``pool(x, rois)`` with rois (R, 5) of (index, x1, y1, x2, y2): a
        ``oxidet.ops.RoIPool`` or ``RoIAlign``.
    classifier
        Module that turns the pooled features, flattened in C, H, W order or as they are, into
        (R, features). In evaluation mode it runs as a plan, together with the two layers behind
        it; set ``compiled = False`` on the head if it is something that no plan can do.
    features
        Width of the classifier's result.
    flatten
        Whether the classifier wants (R, C * h * w) rather than (R, C, h, w).
    """

    cls_loc: nn.Linear
    score: nn.Linear

    compiled = True

    def __init__(
        self,
        n_class: int,
        pool: nn.Module,
        classifier: nn.Module,
        features: int,
        flatten: bool = True,
    ) -> None:
        super().__init__()
        self.n_class = n_class
        self.flatten = flatten
        self.classifier = classifier
        self.cls_loc = nn.Linear(features, n_class * 4)
        self.score = nn.Linear(features, n_class)
        # Assigned last: it has no parameters, and the state_dict order is that of the original.
        self.roi = pool
        normal_init(self.cls_loc, 0.001)
        normal_init(self.score, 0.01)

    def forward(self, x: Any, rois: Any, roi_indices: Any) -> tuple[Any, Any]:
        """Classify and correct regions.

        ``x`` is the feature map (N, C, H, W); ``rois`` (R, 4) float32 (y_min, x_min, y_max,
        x_max) in pixels of the network's input; ``roi_indices`` (R,) names their images. Returns
        ``roi_cls_locs`` (R, 4 * n_class), quadruples (ty, tx, th, tw) per class in units of
        ``loc_normalize_std``, and ``roi_scores`` (R, n_class) logits.
        """
        rois = np.asarray(rois, np.float32)
        if len(rois) == 0:
            empty = np.zeros((0, 5 * self.n_class), np.float32)
            return empty[:, : 4 * self.n_class], empty[:, : self.n_class]
        return self.predict_boxes(self.pool(x, rois, roi_indices))

    def pool(self, x: Any, rois: F32, roi_indices: Any) -> Any:
        """What the feature map holds of each region, (R, C, h, w); arguments of :meth:`forward`."""
        # The pooling operators count x before y.
        boxes = np.column_stack([np.asarray(roi_indices, np.float32), rois[:, [1, 0, 3, 2]]])
        return self.roi(x, boxes)

    @nn.compiled_method
    def predict_boxes(self, pooled: Any) -> tuple[Any, Any]:
        """(R, C, h, w) pooled features to corrections and logits, as :meth:`forward` returns."""
        hidden = self.classifier(F.flatten(pooled, 1) if self.flatten else pooled)
        return self.cls_loc(hidden), self.score(hidden)
