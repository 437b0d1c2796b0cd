"""Checks that any classification network has to pass, and thin networks to pass them quickly."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

import oxidet
from conftest import assert_close
from oxidet import nn
from oxidet.nn import init


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


def check_batches(model: nn.Module, shape: tuple[int, ...], tolerance: float = 1e-5) -> None:
    """In evaluation mode: the plan computes what the layers do, and images do not mix."""
    model.eval()
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    with nn.eager():
        expected = model(x)
    with oxidet.precision("direct"):
        assert_close(model(x), expected, tolerance)
        np.testing.assert_array_equal(model(x[1:]), model(x)[1:])
