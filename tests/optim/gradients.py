"""Parameters and gradients that the tests of optimisers share."""

from __future__ import annotations

import numpy as np

from oxidet import nn, optim


def parameters(seed: int = 0) -> list[nn.Parameter]:
    """One of each memory order: a convolution's weight (not C order), a matrix, a scalar."""
    rng = np.random.default_rng(seed)
    return [
        nn.Parameter(rng.standard_normal((3, 3, 2, 4)).transpose(3, 2, 0, 1)),
        nn.Parameter(rng.standard_normal((5, 3))),
        nn.Parameter(rng.standard_normal(())),
    ]


def set_gradients(params: list[nn.Parameter], step: int) -> None:
    rng = np.random.default_rng(1000 + step)
    for parameter in params:
        parameter.grad = rng.standard_normal(parameter.shape).astype(np.float32)


def run(params: list[nn.Parameter], optimizer: optim.Optimizer, steps: range) -> None:
    for step in steps:
        set_gradients(params, step)
        optimizer.step()
