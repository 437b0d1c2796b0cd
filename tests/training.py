"""Whether a network trains: its gradients beside finite differences, and the digits learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import oxidet
from networks import without_dropout
from oxidet import nn, optim
from oxidet.data import load_digits
from oxidet.nn import functional as F
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


def check_gradients_along(
    model: nn.Module, x: np.ndarray, most: int = 40, tolerance: float = 2e-2
) -> None:
    """Compare gradients in training mode with differences of the outputs.

    The input and up to ``most`` parameters, evenly chosen, move each along its own gradient g:
    there the outputs must change by |g|^2 per step. Of some steps, forth, back or both, the best
    counts: one crosses the kinks of ReLUs and pools, another drowns in rounding.
    """
    without_dropout(model).train()
    rng = np.random.default_rng(0)
    image = nn.Tensor(x, requires_grad=True)
    outputs = model(image)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = [rng.standard_normal(y.shape) for y in outputs]
    total = sum((y * w.astype(np.float32)).sum() for y, w in zip(outputs, weights, strict=True))
    total.backward()
    size = sum(
        float(np.abs(w * np.asarray(y)).sum()) for y, w in zip(outputs, weights, strict=True)
    )

    def value(at: np.ndarray) -> float:
        with nn.no_grad():
            ys = model(at)
        ys = ys if isinstance(ys, tuple) else (ys,)
        return sum(float((w * np.asarray(y)).sum()) for y, w in zip(ys, weights, strict=True))

    here = value(x)
    moved: dict[str, nn.Parameter | None] = {"input": None, **dict(model.named_parameters())}
    gradients = {name: (image if p is None else p).grad for name, p in moved.items()}
    largest = max(float(np.abs(g).max()) for g in gradients.values())
    problems = []
    chosen = [list(moved)[i] for i in np.unique(np.linspace(0, len(moved) - 1, most).astype(int))]
    for name in chosen:
        parameter = moved[name]
        gradient = gradients[name].astype(np.float64)
        slope = float((gradient**2).sum())
        if np.abs(gradient).max() < 1e-6 * largest:
            continue
        start = np.array(x if parameter is None else parameter.data, np.float64)

        def at(
            t: float, parameter: Any = parameter, start: Any = start, g: Any = gradient
        ) -> float:
            there = (start + t * g).astype(np.float32)
            if parameter is None:
                return value(there)
            parameter.copy_(there)
            return value(x)

        errors = []
        for share in (1e-2, 1e-3, 1e-4, 1e-5):
            step = share * size / slope
            ahead, behind = at(step), at(-step)
            for change in (ahead - here, here - behind, (ahead - behind) / 2):
                errors.append(abs(change / (step * slope) - 1))
        if parameter is not None:
            parameter.copy_(start.astype(np.float32))
        if not min(errors) <= tolerance:
            problems.append(f"{name}: {min(errors):.2g}")
    assert not problems, "\n".join(problems)


def digits(split: str, size: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The bundled digits, enlarged to ``size`` x ``size``: mean near 0, variance near 1."""
    scans, labels = load_digits(split)
    enlarged = (resize(np.asarray(scans), (size, size)) - 4.9) / 6
    images = np.repeat(enlarged[:, None], channels, axis=1).astype(np.float32)
    return images, labels


def learn_digits(
    model: nn.Module,
    size: int,
    *,
    channels: int = 3,
    steps: int = 120,
    batch: int = 16,
    lr: float = 0.003,
    loss: Callable[[Any, Any], Any] = F.cross_entropy,
    auxiliary: float = 0.3,
) -> float:
    """Train a network shortly; returns its accuracy on 200 digits that it has not seen.

    Outputs beyond the first have losses of weight ``auxiliary``.
    """
    oxidet.manual_seed(0)
    images, labels = digits("train", size, channels)
    optimizer = optim.Adam(model.parameters(), lr=lr)
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3  # a few steps have to do
    model.train()
    for _ in range(steps):
        rows = rng.choice(len(labels), batch, replace=False)
        outputs = model(images[rows])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = loss(outputs[0], labels[rows])
        for other in outputs[1:]:
            total = total + auxiliary * loss(other, labels[rows])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    images, labels = digits("test", size, channels)
    got = model.eval()(images[:200]).argmax(1)
    return float((got == labels[:200]).mean())
