"""Losses as modules: one call to the function of the same name each."""

from __future__ import annotations

from typing import Any

from oxidet._arrays import as_float32, choice, number
from oxidet.nn import _losses
from oxidet.nn.module import Module
from oxidet.nn.tensor import Buffer


class _Loss(Module):
    """A loss that is summed up as ``reduction`` says: "mean", "sum" or "none"."""

    reduction: str

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.reduction = choice(reduction, "reduction", _losses.REDUCTIONS)


class _ClassificationLoss(_Loss):
    """A loss over classes, each of which may count with a weight of its own."""

    weight: Buffer | None

    def __init__(self, weight: Any, ignore_index: int, reduction: str) -> None:
        super().__init__(reduction)
        # Part of the state_dict, as in torch.
        weight = None if weight is None else as_float32(weight, "weight", ndim=1, form="(K,)")
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index


class CrossEntropyLoss(_ClassificationLoss):
    """Softmax cross-entropy of logits, as ``torch.nn.CrossEntropyLoss``.

    See ``functional.cross_entropy``, which says what the arguments do.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import nn
    >>> logits, labels = np.zeros((2, 4), np.float32), np.array([0, 3])
    >>> round(float(nn.CrossEntropyLoss()(logits, labels)), 4)
    1.3863
    """

    label_smoothing: float

    def __init__(
        self,
        weight: Any = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        self.label_smoothing = number(label_smoothing, "label_smoothing", 0, 1)

    def forward(self, input: Any, target: Any) -> Any:
        """Logits (N, K) and classes (N,) -> a single number, or (N,) without reduction."""
        return _losses.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_ClassificationLoss):
    """Negative log-likelihood of log-probabilities; see ``functional.nll_loss``."""

    def __init__(
        self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, ignore_index, reduction)

    def forward(self, input: Any, target: Any) -> Any:
        """Log-probabilities (N, K) and classes (N,) -> a single number, or (N,)."""
        return _losses.nll_loss(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class SmoothL1Loss(_Loss):
    """Smooth L1 loss; see ``functional.smooth_l1_loss``."""

    beta: float

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = number(beta, "beta", 0)

    def forward(self, input: Any, target: Any) -> Any:
        """Two arrays of one shape -> a single number, or that shape without reduction."""
        return _losses.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class MSELoss(_Loss):
    """Squared error; see ``functional.mse_loss``."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Any:
        """Two arrays of one shape -> a single number, or that shape without reduction."""
        return _losses.mse_loss(input, target, reduction=self.reduction)
