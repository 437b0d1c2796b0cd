"""RMSprop, in torch's form and in TensorFlow's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from oxidet import _core
from oxidet._arrays import number
from oxidet.nn.tensor import Parameter
from oxidet.optim.optimizer import Optimizer, changing


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

    Notes
    -----
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

    def _update_all(self, parameters: list[Parameter], group: Mapping[str, Any]) -> None:
        lr, alpha, eps, decay, momentum = (
            float(group[name]) for name in ("lr", "alpha", "eps", "weight_decay", "momentum")
        )
        centered = bool(group["centered"])
        names = ["square_avg"] + ["grad_avg"] * centered + ["momentum_buffer"] * bool(momentum)
        for parameter in parameters:
            self._state(parameter, *names)["step"] += 1
        with changing(parameters) as (values, gradients):
            _core.rmsprop_step(
                values,
                gradients,
                self._arrays(parameters, "square_avg"),
                self._arrays(parameters, "grad_avg") if centered else [],
                self._arrays(parameters, "momentum_buffer") if momentum else [],
                lr,
                alpha,
                1 - alpha,
                eps,
                decay,
                momentum,
                bool(group["maximize"]),
                bool(group["eps_inside"]),
            )
