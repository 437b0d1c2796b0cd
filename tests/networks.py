"""Checks that any classification network has to pass, and thin networks to pass them quickly."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

import oxidet
from conftest import assert_close
from oxidet import nn, optim
from oxidet.data import load_digits
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms.resize import resize


def digest(text: str) -> str:
    """The first 16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_text(model: nn.Module, classic: str, newest: str) -> None:
    """``print(model)`` has these digests, in the form of torch up to 2.12 and of torch 2.13."""
    got = [digest(str(model))]
    with nn.repr_style("torch2.13"):
        got.append(digest(str(model)))
    assert got == [classic, newest]


def check_state(model: nn.Module, keys: int, elements: int, expected: str) -> None:
    """The state has so many keys and numbers, and its listing ``key d0,d1,...`` this digest."""
    state = model.state_dict()
    listing = "\n".join(f"{key} {','.join(map(str, v.shape))}" for key, v in state.items())
    got = len(state), sum(value.size for value in state.values()), digest(listing)
    assert got == (keys, elements, expected)


def check_size(
    model: nn.Module, shape: tuple[int, ...], parameters: int, macs: int, keys: int
) -> None:
    """So many parameters, multiplications of a weight for one image, and keys."""
    got = (
        sum(p.numel() for p in model.parameters()),
        sum(step.macs for step in model.plan((1, *shape))),
        len(model.state_dict()),
    )
    assert got == (parameters, macs, keys)


def layer_shapes(
    model: nn.Module, shape: tuple[int, ...], layers: list[str]
) -> list[tuple[int, ...]]:
    """Shapes, without the batch, that the named layers return for one image."""
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, tuple[int, ...]] = {}
    call = nn.Module.__call__

    def spy(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        output = call(self, *inputs, **options)
        found[names[self]] = np.shape(output)[1:]
        return output

    with nn.eager(), mock.patch.object(nn.Module, "__call__", spy):
        model.eval()(np.zeros((1, *shape), np.float32))
    return [found[layer] for layer in layers]


@contextlib.contextmanager
def thin(factor: int, classes: int = 10) -> Iterator[None]:
    """Networks built inside have 1 / ``factor`` of their channels and features.

    Images, of 1 or 3 channels, and the ``classes`` stay as they are.
    """

    def less(width: int) -> int:
        return width if width in (1, 3, classes) else max(1, width // factor)

    class Conv2d(nn.Conv2d):
        def __init__(self, in_channels: int, out_channels: int, *args: Any, **options: Any) -> None:
            super().__init__(less(in_channels), less(out_channels), *args, **options)

    class Linear(nn.Linear):
        def __init__(self, in_features: int, out_features: int, *args: Any, **options: Any) -> None:
            super().__init__(less(in_features), less(out_features), *args, **options)

    class BatchNorm2d(nn.BatchNorm2d):
        def __init__(self, num_features: int, *args: Any, **options: Any) -> None:
            super().__init__(less(num_features), *args, **options)

    with mock.patch.multiple(nn, Conv2d=Conv2d, Linear=Linear, BatchNorm2d=BatchNorm2d):
        yield


def spread(model: nn.Module) -> nn.Module:
    """Draw weights that keep the scale of activations, whatever the width; biases above 0."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.constant_(module.bias, 0.1)
    return model


def without_dropout(model: nn.Module) -> nn.Module:
    """Let every dropout pass everything."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


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


def check_batches(model: nn.Module, shape: tuple[int, ...], tolerance: float = 1e-5) -> None:
    """In evaluation mode: the plan computes what the layers do, and images do not mix."""
    model.eval()
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    with nn.eager():
        expected = model(x)
    with oxidet.precision("direct"):
        assert_close(model(x), expected, tolerance)
        np.testing.assert_array_equal(model(x[1:]), model(x)[1:])
