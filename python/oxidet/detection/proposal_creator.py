"""From the RPN's answer to proposals."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind
from oxidet.detection.non_maximum_suppression import NmsRule, is_chainercv


class ProposalCreator:
    """Turns the RPN's offsets and scores into proposals.

    Decode every anchor, clip to the image, drop boxes with a side below ``min_size``, keep the best
    by score, suppress, keep the best again.

    simple-faster-rcnn's call style, where the model's mode chooses the limits::

        proposal_creator = ProposalCreator(model, nms_thresh=0.7)   # reads model.training each time

    chainercv's, where the model is not known; state the mode here or set ``.training`` later::

        proposal_creator = ProposalCreator(nms_thresh=0.7, training=True)

    Parameters
    ----------
    parent_model
        An object whose ``training`` chooses the limits; None for ``training``.
    nms_thresh
        IoU of suppression.
    n_train_pre_nms
        Boxes before suppression in training; 0 or below for all.
    n_train_post_nms
        Proposals in training; 0 or below for all.
    n_test_pre_nms
        Boxes before suppression otherwise.
    n_test_post_nms
        Proposals otherwise.
    min_size
        Smallest side of a proposal, in pixels of the image before it was scaled.
    training
        The mode, where there is no ``parent_model``; False by default.
    force_cpu_nms
        Taken for chainercv's sake; there is only the CPU.
    nms_rule
        "torchvision" suppresses above the threshold, as simple-faster-rcnn does; "chainercv" also
        at it. See :func:`oxidet.detection.non_maximum_suppression`.

    Notes
    -----
    Ren et al., "Faster R-CNN", 2015, section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.detection import ProposalCreator
    >>> anchors = np.array([[0, 0, 32, 32], [2, 2, 34, 34], [-20, 40, 40, 80]], np.float32)
    >>> score = np.array([0.8, 0.9, 0.5], np.float32)
    >>> ProposalCreator()(np.zeros((3, 4), np.float32), score, anchors, (60, 100))
    array([[ 2.,  2., 34., 34.],
           [ 0., 40., 40., 80.]], dtype=float32)
    """

    training: bool

    def __init__(
        self,
        parent_model: Any = None,
        nms_thresh: float = 0.7,
        n_train_pre_nms: int = 12000,
        n_train_post_nms: int = 2000,
        n_test_pre_nms: int = 6000,
        n_test_post_nms: int = 300,
        min_size: float = 16,
        *,
        training: bool | None = None,
        force_cpu_nms: bool = False,
        nms_rule: NmsRule = "torchvision",
    ) -> None:
        if parent_model is not None and not hasattr(parent_model, "training"):
            raise TypeError(
                "parent_model: expected an object with an attribute `training` or None, "
                f"got {type(parent_model).__name__}"
            )
        if parent_model is not None and training is not None:
            raise ValueError("training: expected None with a parent_model, which states the mode")
        is_chainercv(nms_rule)
        self.parent_model = parent_model
        self.nms_thresh = nms_thresh
        self.n_train_pre_nms = n_train_pre_nms
        self.n_train_post_nms = n_train_post_nms
        self.n_test_pre_nms = n_test_pre_nms
        self.n_test_post_nms = n_test_post_nms
        self.min_size = min_size
        self.training = bool(training)
        self.force_cpu_nms = force_cpu_nms
        self.nms_rule = nms_rule

    @overload
    def __call__(
        self,
        loc: ArrayLike,
        score: ArrayLike,
        anchor: ArrayLike,
        img_size: tuple[float, float],
        scale: float = ...,
        *,
        return_index: Literal[False] = ...,
    ) -> NDArray[Any]: ...
    @overload
    def __call__(
        self,
        loc: ArrayLike,
        score: ArrayLike,
        anchor: ArrayLike,
        img_size: tuple[float, float],
        scale: float = ...,
        *,
        return_index: Literal[True],
    ) -> tuple[NDArray[Any], NDArray[np.int64]]: ...
    @same_kind
    def __call__(
        self,
        loc: ArrayLike,
        score: ArrayLike,
        anchor: ArrayLike,
        img_size: tuple[float, float],
        scale: float = 1.0,
        *,
        return_index: bool = False,
    ) -> NDArray[Any] | tuple[NDArray[Any], NDArray[np.int64]]:
        """Proposals of one image.

        Parameters
        ----------
        loc
            Offsets, (R, 4).
        score
            Foreground scores, (R,); any increasing function of the probability ranks alike.
        anchor
            Anchors, (R, 4).
        img_size
            (height, width) of the scaled image; proposals are clipped to it.
        scale
            By how much the image was scaled; multiplies ``min_size``.
        return_index
            Also return the anchor each proposal came from.

        Returns
        -------
        Proposals, (S, 4), by descending score (NaN first, equal scores by ascending index); with
        ``return_index`` also int64 (S,). Nothing left gives (0, 4). Boxes with a NaN corner are
        dropped.

        Raises
        ------
        ValueError
            A wrong shape.
        """
        offsets, anchors = _arrays.boxes(loc=loc, anchor=anchor)
        scores = _arrays.floats(score=score)[0].ravel()
        training = self.training if self.parent_model is None else self.parent_model.training
        mode = "train" if training else "test"
        limits = [
            _arrays.integer(getattr(self, name), name)
            for name in (f"n_{mode}_pre_nms", f"n_{mode}_post_nms")
        ]
        inclusive = rounded = is_chainercv(self.nms_rule)
        roi, index = _arrays.kernel("proposals", anchors)(
            offsets,
            scores,
            anchors,
            _arrays.real_pair(img_size, "img_size"),
            _arrays.number(self.min_size, "min_size") * _arrays.number(scale, "scale"),
            tuple(min(n, len(anchors)) if n > 0 else None for n in limits),
            _arrays.threshold_number(self.nms_thresh, "nms_thresh"),
            inclusive,
            rounded,
        )
        return (roi, index) if return_index else roi
