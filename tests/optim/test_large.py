"""Steps over parameters of many chunks: the bits of the formulas with any number of threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import oxidet
from oxidet import nn, optim
from oxidet.nn.utils import clip_grad_norm_, clip_grad_value_

F32 = np.float32
#: Around the chunk of 32768 elements that a task takes; a convolution's memory order; a scalar.
SHAPES: list[tuple[int, ...]] = [(), (32767,), (32768,), (32769,), (40, 30, 3, 3), (3, 70000)]


def arrays(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(F32) for shape in SHAPES]


def parameters() -> list[nn.Parameter]:
    """Those of four axes in the order of a convolution's weight, (kh, kw, C, O)."""
    return [
        nn.Parameter(
            np.ascontiguousarray(a.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1) if a.ndim > 3 else a
        )
        for a in arrays(0)
    ]


def sgd(values: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    velocity = None
    for g in gradients:
        g = g + F32(0.01) * values
        velocity = g if velocity is None else velocity * F32(0.9) + F32(1.0) * g
        values = values - F32(0.1) * velocity
    return values


def adamw(values: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    mean = square = np.zeros_like(values)
    for step, g in enumerate(gradients, 1):
        mean = mean + F32(1 - 0.9) * (g - mean)
        square = square * F32(0.999) + F32(1 - 0.999) * (g * g)
        divisor = np.sqrt(square) / F32(math.sqrt(1 - 0.999**step)) + F32(1e-8)
        values = values * F32(1 - 0.1 * 0.01) - F32(0.1 / (1 - 0.9**step)) * (mean / divisor)
    return values


def rmsprop(values: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    square = last = np.zeros_like(values)
    for g in gradients:
        g = g + F32(0.01) * values
        square = square * F32(0.99) + F32(1 - 0.99) * (g * g)
        last = last * F32(0.9) + g / (np.sqrt(square) + F32(1e-8))
        values = values - F32(0.1) * last
    return values


CASES: list[tuple[Callable[..., optim.Optimizer], Callable[..., np.ndarray], dict[str, Any]]] = [
    (optim.SGD, sgd, {"momentum": 0.9}),
    (optim.AdamW, adamw, {}),
    (optim.RMSprop, rmsprop, {"momentum": 0.9}),
]


@pytest.fixture
def threads() -> Iterator[None]:
    before = oxidet.get_num_threads()
    yield
    oxidet.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("kind", "formula", "settings"), CASES, ids=["sgd", "adamw", "rmsprop"])
def test_steps_are_the_formulas_to_the_bit(
    kind: Any, formula: Any, settings: dict[str, Any], count: int, threads: None
) -> None:
    oxidet.set_num_threads(count)
    params = parameters()
    optimizer = kind(params, lr=0.1, weight_decay=0.01, **settings)
    for step in (1, 2, 3):
        for index, (parameter, gradient) in enumerate(zip(params, arrays(step), strict=True)):
            # Some in C order, some in that of the parameter.
            parameter.grad = gradient if (step + index) % 2 else gradient.copy(order="F")
        optimizer.step()
    for index, (parameter, start) in enumerate(zip(params, arrays(0), strict=True)):
        expected = formula(start, [arrays(step)[index] for step in (1, 2, 3)])
        np.testing.assert_array_equal(parameter.data, expected, f"parameter {index}")


def test_clipping_is_the_same_with_any_number_of_threads(threads: None) -> None:
    results = []
    for count in (1, 2, 3):
        oxidet.set_num_threads(count)
        params = parameters()
        for parameter, gradient in zip(params, arrays(1), strict=True):
            parameter.grad = gradient
        norm = clip_grad_norm_(params, 1.0)
        exact = math.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in arrays(1)))
        assert norm == pytest.approx(exact, rel=1e-12)
        for parameter, gradient in zip(params, arrays(1), strict=True):
            np.testing.assert_array_equal(parameter.grad, gradient * F32(1.0 / (norm + 1e-6)))
        clip_grad_value_(params, 1e-3)
        assert max(float(np.abs(p.grad).max()) for p in params) == F32(1e-3)
        assert clip_grad_norm_(params, 1.0, math.inf) == F32(1e-3)
        results.append([norm, *(p.grad.tobytes() for p in params)])
    assert results[0] == results[1] == results[2]


def test_gradients_that_share_their_memory_are_scaled_once_each() -> None:
    a, b = nn.Parameter(np.zeros(4)), nn.Parameter(np.zeros(4))
    outside = nn.Parameter(np.zeros(4))
    (a + b + outside).backward(np.full(4, 2.0))
    norm = clip_grad_norm_([a, b, a], 1.0)
    assert norm == pytest.approx(math.sqrt(2 * 4 * 4.0))
    for parameter in (a, b):
        np.testing.assert_allclose(parameter.grad, np.full(4, 2 / norm), rtol=1e-5)
    np.testing.assert_array_equal(outside.grad, np.full(4, 2.0))
