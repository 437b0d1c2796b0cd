"""Tensors in, tensors out: every function and layer of oxidet.ops and oxidet.detection.

What a call on tensors gives equals what it gives on arrays.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from every_call import CALLS, leaves, mapped
from oxidet import detection, ops

torch = pytest.importorskip("torch")


def called(function: Any, arguments: tuple[Any, ...]) -> list[Any]:
    """What a call returns, with the same random numbers every time."""
    np.random.seed(1)
    random.seed(1)
    return leaves(function(*arguments))


@pytest.mark.parametrize("name", CALLS)
def test_tensors_in_tensors_out(name: str) -> None:
    function, arguments = CALLS[name]
    if hasattr(function, "eval"):
        function.eval()
    expected = called(function, arguments)
    tensors = mapped(
        arguments, lambda x: torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x
    )
    got = called(function, tensors)
    assert len(got) == len(expected)
    for ours, array in zip(got, expected, strict=True):
        assert torch.is_tensor(ours) == isinstance(array, (np.ndarray, np.generic)), name
        if torch.is_tensor(ours):
            np.testing.assert_array_equal(ours.numpy(), array)
            assert ours.numpy().dtype == array.dtype


@pytest.mark.parametrize("name", CALLS)
def test_a_tensor_that_requires_grad_is_refused(name: str) -> None:
    function, arguments = CALLS[name]
    floating = [x for x in leaves(arguments) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    if not floating:
        pytest.skip("takes no floating numbers")

    def tensor(x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        return torch.from_numpy(x.copy()).requires_grad_(x.dtype.kind == "f")

    with pytest.raises(TypeError, match=r"requires grad.*\.detach\(\)"):
        function(*mapped(arguments, tensor))


def test_every_function_is_called_here() -> None:
    exempt = {
        "AnchorTargetCreator",  # as objects above
        "CocoEvaluation",
        "LastLevelMaxPool",  # inside a pyramid
        "LastLevelP6P7",
        "eval_coco",  # takes files
        "generate_anchor_base",  # takes numbers
        "vis_bbox",  # gives no arrays
    }
    missing = {*ops.__all__, *detection.__all__} - {name.split(" ")[0] for name in CALLS} - exempt
    assert not missing
