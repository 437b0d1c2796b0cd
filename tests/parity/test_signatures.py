"""Names, order and defaults of arguments are torchvision's; only keyword-only ones may follow."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from oxidet import ops

torchvision = pytest.importorskip("torchvision")


def positional(function: Any) -> list[tuple[str, Any]]:
    parameters = inspect.signature(function).parameters.values()
    assert not any(p.kind is p.VAR_POSITIONAL for p in parameters)
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [(p.name, comparable(p.default)) for p in plain]


def comparable(default: Any) -> Any:
    if isinstance(default, (list, tuple)):
        return tuple(default)
    return default.__name__ if isinstance(default, type) else default


COMMON = sorted(set(ops.__all__) & set(torchvision.ops.__all__))


@pytest.mark.parametrize("name", COMMON)
def test_operators_are_called_as_those_of_torchvision(name: str) -> None:
    ours, theirs = getattr(ops, name), getattr(torchvision.ops, name)
    got, expected = positional(ours), positional(theirs)
    assert [n for n, _ in got] == [n for n, _ in expected]
    for (argument, a), (_, b) in zip(got, expected, strict=True):
        if name != "Conv2dNormActivation" or not isinstance(b, str):  # layer classes
            assert a == b, argument


def test_nothing_of_the_issue_is_missing() -> None:
    assert len(COMMON) >= 29
    left_out = set(torchvision.ops.__all__) - set(ops.__all__)
    assert left_out <= {
        "DropBlock2d", "DropBlock3d", "drop_block2d", "drop_block3d", "Conv3dNormActivation", "MLP",
        "Permute", "SqueezeExcitation", "StochasticDepth", "stochastic_depth",
    }  # fmt: skip
