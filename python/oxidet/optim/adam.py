"""Adam and AdamW: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from oxidet import _core
from oxidet._arrays import number
from oxidet.nn.tensor import Parameter
from oxidet.optim.optimizer import Optimizer, changing


class Adam(Optimizer):
    """Kingma and Ba, "Adam: a method for stochastic optimization" (2014), as ``torch.optim.Adam``.

    For a parameter p with gradient g, in step t = 1, 2, ...::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g                 (both start at 0)
        v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Parameters
    ----------
    params
        Parameters, or dicts with a key ``"params"`` and settings that differ from those below.
    lr
        Learning rate.
    betas
        What remains of the two moments after a step, each at least 0 and below 1.
    eps
        Added to the root, so that nothing is divided by 0.
    weight_decay
        What part of a parameter is added to its gradient; :class:`AdamW` subtracts it from the
        parameter instead.
    amsgrad
        Divide by the largest v so far (Reddi et al., "On the convergence of Adam and beyond").
    maximize
        Go up instead of down.

    Notes
    -----
    Parameters without a gradient are left alone.

    Examples
    --------
    >>> from oxidet import nn, optim
    >>> weight = nn.Parameter([1.0, 1.0])
    >>> optimizer = optim.Adam([weight], lr=0.1)
    >>> weight.grad = [5.0, -0.01]
    >>> optimizer.step()
    >>> [round(float(w), 3) for w in weight.data]
    [0.9, 1.1]
    """

    _decoupled = False

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        settings = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, settings)

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            number(group[name], name, 0)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas: expected a pair of numbers, got {betas!r}")
        for beta in betas:
            if not number(beta, "betas", 0) < 1:
                raise ValueError(f"betas: expected numbers from 0 to below 1, got {betas}")

    def _update_all(self, parameters: list[Parameter], group: Mapping[str, Any]) -> None:
        names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * bool(group["amsgrad"])
        by_step: dict[int, list[Parameter]] = {}
        for parameter in parameters:
            state = self._state(parameter, *names)
            state["step"] += 1
            by_step.setdefault(state["step"], []).append(parameter)
        for step, of_step in by_step.items():
            self._step(of_step, group, step)

    def _step(self, parameters: list[Parameter], group: Mapping[str, Any], step: int) -> None:
        lr, eps, decay = (float(group[name]) for name in ("lr", "eps", "weight_decay"))
        beta1, beta2 = map(float, group["betas"])
        with changing(parameters) as (values, gradients):
            _core.adam_step(
                values,
                gradients,
                self._arrays(parameters, "exp_avg"),
                self._arrays(parameters, "exp_avg_sq"),
                self._arrays(parameters, "max_exp_avg_sq") if group["amsgrad"] else [],
                lr / (1 - beta1**step),
                math.sqrt(1 - beta2**step),
                1 - beta1,
                beta2,
                1 - beta2,
                eps,
                0.0 if self._decoupled else decay,
                1 - lr * decay if self._decoupled else 1.0,
                bool(group["maximize"]),
            )


class AdamW(Adam):
    """Adam with weight decay apart from the gradient, as ``torch.optim.AdamW``.

    ``p = p - lr * weight_decay * p`` comes first, and the moments know nothing of it: Loshchilov
    and Hutter, "Decoupled weight decay regularization" (2017). The parameters are those of
    :class:`Adam`.

    Examples
    --------
    Decay for the weights, none for biases and batch norm:

    >>> from oxidet import nn, optim
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    >>> weights = [p for p in net.parameters() if p.ndim > 1]
    >>> others = [p for p in net.parameters() if p.ndim <= 1]
    >>> optimizer = optim.AdamW(
    ...     [{"params": weights}, {"params": others, "weight_decay": 0.0}], weight_decay=0.05
    ... )
    """

    _decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
