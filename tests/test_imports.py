"""Importing the package asks for NumPy and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = (
    "PIL",
    "matplotlib",
    "sklearn",
    "scipy",
    "tqdm",
    "defusedxml",
    "torch",
    "typer",
    "rich",
    "onnx",
)


@pytest.mark.parametrize(
    "module",
    [
        "oxidet",
        "oxidet.data",
        "oxidet.transforms",
        "oxidet.detections",
        "oxidet.visualize",
        "oxidet.onnx",
    ],
)
def test_no_extra_is_imported(module: str) -> None:
    code = f"import sys, {module}; print(sorted(set({EXTRAS!r}) & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['PIL'] = sys.modules['PIL.Image'] = None\n"
        "from oxidet.data import read_image\n"
        "try:\n    read_image(b'x')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "pip install 'oxidet[images]'" in result.stdout
