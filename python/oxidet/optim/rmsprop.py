"""RMSprop, in torch's form and in TensorFlow's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, number
from oxidet.nn.tensor import Parameter
from oxidet.optim.optimizer import Optimizer


class RMSprop(Optimizer):
    """Steps divided by a running root mean square of the gradient (G. Hinton, lecture 6e, 2012).

    For a parameter p with gradient g, as ``torch.optim.RMSprop``::

        g = g + weight_decay * p
        s = alpha * s + (1 - alpha) * g^2               (all averages start at 0)
        r = sqrt(s) + eps                               (centered: sqrt(s - mean(g)^2) + eps)
        b = momentum * b + g / r                        (momentum 0: b = g / r)
        p = p - lr * b

    With ``eps_inside``, as TensorFlow, whose Inception networks were trained with ``eps=1.0``::

        r = sqrt(s + eps)
        b = momentum * b + lr * g / r
        p = p - b

    so that an eps of 1 also bounds the step, and a change of ``lr`` leaves past steps as they were.
    (TensorFlow 1 starts s at 1 rather than 0.)

    Parameters
    ----------
    params
        Parameters, or dicts with a key ``"params"`` and settings that differ from those below.
    lr
        Learning rate.
    alpha
        What remains of the mean square after a step, TensorFlow's ``decay``.
    eps
        Keeps the divisor from 0.
    weight_decay
        What part of a parameter is added to its gradient.
    momentum
        Share of the last step that is repeated; 0 keeps none.
    centered
        Divide by the deviation instead: subtract the square of the running mean.
    maximize
        Go up instead of down.
    eps_inside
        TensorFlow's form.

    Parameters without a gradient are left alone.

    Examples
    --------
    Inception v3's optimiser:

    >>> from oxidet import nn, optim
    >>> net = nn.Linear(3, 2)
    >>> optimizer = optim.RMSprop(
    ...     net.parameters(), lr=0.045, alpha=0.9, eps=1.0, momentum=0.9, eps_inside=True
    ... )
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        eps_inside: bool = False,
    ) -> None:
        settings = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
            "eps_inside": eps_inside,
        }
        super().__init__(params, settings)

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            number(group[name], name, 0, 1 if name == "alpha" else None)

    def _update(self, parameter: Parameter, grad: F32, group: Mapping[str, Any]) -> None:
        # Python floats, so that nothing is computed in double precision for a NumPy scalar's sake.
        lr, alpha, eps, decay, momentum = (
            float(group[name]) for name in ("lr", "alpha", "eps", "weight_decay", "momentum")
        )
        g: NDArray[Any] = -grad if group["maximize"] else grad
        if decay:
            g = g + decay * parameter.data
        names = ["square_avg"] + ["grad_avg"] * group["centered"]
        state = self._state(parameter, *names)
        state["step"] += 1
        square = state["square_avg"]
        square *= alpha
        square += (1 - alpha) * (g * g)
        if group["centered"]:
            mean = state["grad_avg"]
            mean += (1 - alpha) * (g - mean)
            # Rounding may bring a variance below 0, where torch goes on with NaN.
            square = np.maximum(square - mean * mean, 0)
        inside = group["eps_inside"]
        root = np.sqrt(square + eps) if inside else np.sqrt(square) + eps
        change = g / root
        if inside:
            change *= lr
        if momentum:
            buffer = state.get("momentum_buffer")
            if buffer is None:
                buffer = state["momentum_buffer"] = np.zeros_like(parameter.data)
            buffer *= momentum
            buffer += change
            change = buffer
        if not inside:
            change = lr * change

        def apply(values: NDArray[Any]) -> None:
            values -= change

        parameter.update_(apply)
