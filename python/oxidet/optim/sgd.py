"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from oxidet import _core
from oxidet._arrays import number
from oxidet.nn.tensor import Parameter
from oxidet.optim.optimizer import Optimizer, changing


class SGD(Optimizer):
    """Stochastic gradient descent, in the form of ``torch.optim.SGD``.

    For a parameter p with gradient g, in this order::

        g = g + weight_decay * p
        v = g                                         (first step)
        v = momentum * v + (1 - dampening) * g        (further steps)
        g = g + momentum * v  if nesterov  else  v
        p = p - lr * g

    The learning rate multiplies the velocity when it is applied, not when it is gathered, so a
    change of ``lr`` takes effect on past gradients as well. (Caffe and Chainer keep ``lr * v``.)

    Parameters
    ----------
    params
        Parameters, or dicts with a key ``"params"`` and settings that differ from those below.
    lr
        Learning rate.
    momentum
        Share of the velocity that remains; 0 keeps no velocity.
    dampening
        Share of later gradients that does not enter the velocity.
    weight_decay
        What part of a parameter is added to its gradient.
    nesterov
        Look ahead along the velocity; needs a momentum and no dampening.
    maximize
        Go up instead of down.

    Notes
    -----
    Parameters without a gradient are left alone, weight decay included.

    Examples
    --------
    Biases at twice the learning rate and without decay, as Caffe's detectors have it:

    >>> from oxidet import nn, optim
    >>> layer = nn.Linear(3, 2)
    >>> optimizer = optim.SGD(
    ...     [
    ...         {"params": [layer.weight], "weight_decay": 5e-4},
    ...         {"params": [layer.bias], "lr": 2e-3},
    ...     ],
    ...     lr=1e-3,
    ...     momentum=0.9,
    ... )
    >>> layer(nn.Tensor([[1.0, 2.0, 3.0]])).sum().backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        settings = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, settings)

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            number(group[name], name, 0)
        number(group["dampening"], "dampening")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                "nesterov: expected a momentum above 0 and dampening 0, "
                f"got {group['momentum']} and {group['dampening']}"
            )

    def _update_all(self, parameters: list[Parameter], group: Mapping[str, Any]) -> None:
        if not group["momentum"]:
            self._step(parameters, group, first=False)
            return
        rolling = [p for p in parameters if "momentum_buffer" in self.state.get(p, ())]
        resting = [p for p in parameters if "momentum_buffer" not in self.state.get(p, ())]
        for parameter in resting:
            velocity = np.empty_like(parameter.data)
            self.state.setdefault(parameter, {})["momentum_buffer"] = velocity
        self._step(rolling, group, first=False)
        self._step(resting, group, first=True)

    def _step(self, parameters: list[Parameter], group: Mapping[str, Any], first: bool) -> None:
        momentum = float(group["momentum"])
        with changing(parameters) as (values, gradients):
            _core.sgd_step(
                values,
                gradients,
                self._arrays(parameters, "momentum_buffer") if momentum else [],
                float(group["lr"]),
                momentum,
                1 - float(group["dampening"]),
                float(group["weight_decay"]),
                bool(group["nesterov"]),
                bool(group["maximize"]),
                first,
            )
