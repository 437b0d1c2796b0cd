"""torchvision's own operator tests, with oxidet's functions in place of torchvision's.

They are part of torchvision's source, not of its wheel. Where ``OXIDET_TORCHVISION_SOURCE`` names a
checkout (0.14 to 0.28 were tried), its ``test/test_ops.py`` runs here; else this is skipped.

What cannot apply is left out by name: compilation by torch (``jit``, ``fx``, ``leaf``), gradients
through torch's autograd (oxidet has a tape of its own; see test_ops.py and test_roi.py for its
gradients; some tests of the losses ask for them too), modules moved by ``.to``, other devices,
quantized tensors, operators that oxidet does not have, the classes of exceptions (ours are
ValueError and TypeError), a threshold of None, and a focal loss that must not exceed the cross
entropy by a rounding error.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = os.environ.get("OXIDET_TORCHVISION_SOURCE", "")

TORCH_ONLY = (
    "jit", "script", "fx", "is_leaf", "backward", "cuda", "autocast", "opcheck", "mps", "autograd",
)  # fmt: skip
NOT_HERE = ("qnms", "qroi", "StochasticDepth", "DropBlock", "TestUtils", "BoxConversionToRoi")
OTHERWISE = (
    "boxes_shape", "input_errors", "wrong_sizes", "batched_nms_implementations", "empty_inputs",
    "empty_distance_iou_inputs", "equal_ce_loss", "correct_ratio", "DeformConv",
)  # fmt: skip


def arguments(tests: Path) -> list[str]:
    """The command that runs torchvision's tests on our functions."""
    left_out = " and ".join(f"not {word}" for word in TORCH_ONLY + NOT_HERE + OTHERWISE)
    return [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
        "-p", "swap_torchvision_ops", "--rootdir", str(tests), "-c", os.devnull,
        "-k", left_out, str(tests / "test_ops.py"),
    ]  # fmt: skip


@pytest.mark.skipif(not SOURCE, reason="OXIDET_TORCHVISION_SOURCE names no source of torchvision")
def test_the_operator_tests_of_torchvision_pass_with_our_functions() -> None:
    tests = Path(SOURCE, "test").resolve()
    path = os.pathsep.join([str(Path(__file__).parent), str(tests), *filter(None, sys.path)])
    run = subprocess.run(
        arguments(tests), env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
