"""Whether a network trains: its gradients beside finite differences, and the digits learnt."""

from __future__ import annotations

import numpy as np
import pytest

from oxidet import nn
from oxidet.data.digits import load_digits
from oxidet.nn import functional as F
from oxidet.optim import SGD
from oxidet.transforms.resize import resize


def check_descent(model: nn.Module, shape: tuple[int, ...], tolerance: float = 0.03) -> None:
    """Along each parameter's gradient a loss changes as fast as the gradient is long.

    Batch norms run in evaluation mode and let most ReLUs behind them pass or block whole channels,
    so that the loss is close to linear over a step that float32 can tell from rounding. Parameters
    on which it depends too little for that are left out.
    """
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = rng.normal(0, 0.1, module.num_features)
            module.running_var = rng.uniform(0.5, 2, module.num_features)
            module.weight = rng.uniform(0.2, 0.4, module.num_features)
            module.bias = rng.choice([1.0, 1.0, 1.0, -1.0], module.num_features)
    model.eval()
    x = rng.standard_normal(shape).astype(np.float32)
    output = model(nn.Tensor(x))
    # A functional that the gradients of all outputs work on together, far above rounding.
    weights = np.asarray(output).copy()
    output.backward(weights)

    def loss() -> float:
        with nn.eager():
            return float((np.asarray(model(x), np.float64) * weights).sum())

    start, compared = loss(), []
    for name, parameter in model.named_parameters():
        values, gradient = parameter.data.copy(), np.asarray(parameter.grad, np.float64)
        length = np.linalg.norm(gradient)
        step = 1e-2 * np.linalg.norm(values.astype(np.float64))
        if 2 * step * length < 3e-4 * abs(start):
            continue
        ends = []
        for sign in (1, -1):
            parameter.copy_(values + (sign * step / length * gradient).astype(np.float32))
            ends.append(loss())
        parameter.copy_(values)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(slope / length - 1) < tolerance, f"{name}: {slope} instead of {length}"
        compared.append(name)
    assert len(compared) > 3, compared


def learn_digits(
    model: nn.Module, size: int = 8, steps: int = 100, batch: int = 64, lr: float = 0.05
) -> float:
    """Train on scikit-learn's digits; the accuracy on images that were not trained on."""
    pytest.importorskip("sklearn")

    def images(split: str) -> tuple[np.ndarray, np.ndarray]:
        scans, labels = load_digits(split)  # type: ignore[arg-type]
        x = (scans[:, None] / 8 - 1).astype(np.float32)
        if size != 8:
            x = np.stack([resize(image, (size, size)) for image in x])
        channels = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels
        return np.repeat(x, channels, axis=1), labels

    x, labels = images("train")
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3  # a few steps have to do
    optimizer = SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    model.train()
    for _ in range(steps):
        chosen = rng.choice(len(x), batch, replace=False)
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen]), labels[chosen]).backward()
        optimizer.step()
    x, labels = images("validation")
    predicted = np.concatenate([model.eval()(x[i : i + 40]).argmax(1) for i in range(0, 360, 40)])
    return float((predicted == labels).mean())
