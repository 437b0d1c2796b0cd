"""Batch normalisation and local response normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from oxidet._arrays import integer, number
from oxidet.nn._normalization import average, batch_norm, local_response_norm
from oxidet.nn._repr import get_repr_style
from oxidet.nn.module import Module
from oxidet.nn.symbol import Symbol
from oxidet.nn.tensor import Buffer, Parameter


class BatchNorm2d(Module):
    """Batch normalisation of (N, C, H, W), as ``torch.nn.BatchNorm2d``.

    Parameters
    ----------
    num_features
        C.
    eps
        Added to the variance; at least 0.
    momentum
        How far the running statistics move towards those of each batch; None makes them the mean
        of all batches so far.
    affine, bias
        Whether to scale by a trainable ``weight`` (C,), starting at 1, and then to add a trainable
        ``bias`` (C,), starting at 0. Without ``affine`` there is neither.
    track_running_stats
        Whether to keep the buffers ``running_mean``, ``running_var`` (C,) and
        ``num_batches_tracked`` (int64, shape ()). Without them evaluation, too, uses the batch.

    Examples
    --------
    >>> from oxidet import nn
    >>> nn.BatchNorm2d(64)
    BatchNorm2d(64, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Buffer | None
    running_var: Buffer | None
    num_batches_tracked: Buffer | None
    num_features: int

    # Files older than torch 0.4.1 have no counter.
    _optional_keys = frozenset({"num_batches_tracked"})

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = integer(num_features, "num_features", 1)
        number(eps, "eps", 0)
        if momentum is not None:
            number(momentum, "momentum")
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        ones, zeros = np.ones(num_features, np.float32), np.zeros(num_features, np.float32)
        self.register_parameter("weight", Parameter(ones) if affine else None)
        self.register_parameter("bias", Parameter(zeros) if affine and bias else None)
        self.register_buffer("running_mean", zeros if track_running_stats else None)
        self.register_buffer("running_var", ones if track_running_stats else None)
        counter = np.zeros((), np.int64) if track_running_stats else None
        self.register_buffer("num_batches_tracked", counter)

    def forward(self, input: Any) -> Any:
        """(N, C, H, W); the same out."""
        shape = np.shape(input)
        if len(shape) != 4:
            raise ValueError(f"input: expected 4 dimensions (N, C, H, W), got shape {shape}")
        if shape[1] != self.num_features:
            raise ValueError(f"input: expected {self.num_features} channels, got shape {shape}")
        use_batch = self.training or self.running_mean is None or self.running_var is None
        if isinstance(input, Symbol):
            trace = input._trace
            traced = (trace.batch_statistics if use_batch else trace.fixed_statistics)(self, input)
            if traced is not None:
                return traced
        keep = self.training and self.track_running_stats
        return batch_norm(
            input,
            self.running_mean if keep or not use_batch else None,
            self.running_var if keep or not use_batch else None,
            self.weight,
            self.bias,
            use_batch,
            self._next_momentum() if keep else 0.0,
            self.eps,
        )

    def _track(self, mean: Any, var: Any, count: int) -> None:
        """Move the running statistics towards those of a batch with ``count`` values a channel."""
        if self.training and self.track_running_stats:
            momentum = self._next_momentum()
            average(self.running_mean, mean, momentum)
            average(self.running_var, var * (count / max(count - 1, 1)), momentum)

    def _next_momentum(self) -> float:
        """Count a batch; the weight it has in the running statistics."""
        count = 1
        if self.num_batches_tracked is not None:
            count = int(self.num_batches_tracked) + 1
            self.num_batches_tracked.copy_(count)
        return 1.0 / count if self.momentum is None else self.momentum

    def extra_repr(self) -> str:
        """Arguments in torch's form, which gained ``bias`` in torch 2.13."""
        bias = f"bias={self.bias is not None}, " if get_repr_style() == "torch2.13" else ""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, {bias}track_running_stats={self.track_running_stats}"
        )


class LocalResponseNorm(Module):
    """Normalisation by neighbouring channels; see ``functional.local_response_norm``.

    >>> from oxidet import nn
    >>> nn.LocalResponseNorm(5, alpha=5e-4, k=2)
    LocalResponseNorm(5, alpha=0.0005, beta=0.75, k=2)
    """

    size: int

    _mode_matters = False

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = integer(size, "size", 1)
        for name, value in (("alpha", alpha), ("beta", beta), ("k", k)):
            number(value, name)
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Any) -> Any:
        """(N, C, ...); the same out."""
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
