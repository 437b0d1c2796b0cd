"""Shared by all tests: how errors are measured, finite differences, where real data lies."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

import oxidet
from oxidet import nn

ROOT = Path(__file__).resolve().parent.parent

# No example has a time limit: a busy machine would fail it.
hypothesis.settings.register_profile("oxidet", deadline=None)
hypothesis.settings.load_profile("oxidet")


def relative_error(got: Any, expected: Any) -> float:
    """max|a - b| / max|b|, the measure of every comparison; shapes must agree."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    if expected.size == 0:
        return 0.0
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max()
    scale = np.abs(expected.astype(np.float64)).max()
    return float(difference / scale if scale > 0 else difference)


def assert_close(got: Any, expected: Any, tolerance: float = 1e-5, what: str = "") -> None:
    """Fail unless ``relative_error`` is within ``tolerance``."""
    error = relative_error(got, expected)
    assert error <= tolerance, f"{what}: error {error:.3g} exceeds {tolerance:.3g}"


def golden(name: str) -> dict[str, dict[str, Any]]:
    """What the originals returned, by case: ``golden("nms")["case1"]["bbox"]``.

    ``tests/golden/make_reference.py`` made the files and describes their keys. Scalars come as
    Python numbers; keys without a case are under "".
    """
    cases: dict[str, dict[str, Any]] = {}
    with np.load(ROOT / "tests" / "golden" / f"{name}.npz") as stored:
        for path in stored.files:
            case, _, key = path.rpartition("/") if path.count("/") < 2 else path.partition("/")
            value = stored[path]
            cases.setdefault(case, {})[key] = value if value.ndim else value.item()
    return cases


def check_gradients(
    function: Callable[..., Any], *arrays: np.ndarray, step: float = 1e-2, tolerance: float = 1e-2
) -> None:
    """Compare a float32 function's gradients with central differences of it."""
    rng = np.random.default_rng(0)
    tensors = [nn.Tensor(a.astype(np.float32), requires_grad=True) for a in arrays]
    result = function(*tensors)
    weights = rng.standard_normal(result.shape).astype(np.float32)
    result.backward(weights)

    def value(index: int, changed: np.ndarray) -> float:
        inputs = [changed if i == index else a.astype(np.float32) for i, a in enumerate(arrays)]
        with nn.no_grad():
            out = np.asarray(function(*inputs), np.float64)
        return float((out * weights).sum())

    for index, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
        expected = np.zeros(array.shape)
        for position in np.ndindex(*array.shape):
            up, down = array.astype(np.float32).copy(), array.astype(np.float32).copy()
            up[position] += step
            down[position] -= step
            expected[position] = (value(index, up) - value(index, down)) / (2 * step)
        assert_close(tensor.grad, expected, tolerance, f"gradient of input {index}")


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> None:
    """Ctrl-C is as usual, here and in child processes, even if the tests were started with it
    ignored, as a shell starts what it runs in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _fresh_state() -> Any:
    """Every test starts from the same seeds and leaves global settings as it found them."""
    threads = oxidet.get_num_threads()
    oxidet.manual_seed(0)
    np.random.seed(0)
    yield
    oxidet.set_num_threads(threads)
    oxidet.set_precision("winograd")
    oxidet.set_weight_storage("f32")


@pytest.fixture
def bccd() -> Path:
    """The BCCD data set (VOC format), where it lies beside the project."""
    path = ROOT.parent / "shared" / "data" / "bccd"
    if not path.is_dir():
        pytest.skip("the BCCD data set is not beside the project")
    return path
