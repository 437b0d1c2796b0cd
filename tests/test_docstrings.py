"""Every example in a docstring of the package is run, and what it prints is compared."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import oxidet

# What an example may need beyond NumPy; without it the module's examples are skipped.
OPTIONAL = (
    "PIL",
    "matplotlib",
    "tqdm",
    "typer",
    "rich",
    "defusedxml",
    "pooch",
    "safetensors",
    "sklearn",
)


def _module_names() -> list[str]:
    found = pkgutil.walk_packages(oxidet.__path__, prefix="oxidet.")
    return ["oxidet", *(module.name for module in found if not module.name.endswith("._core"))]


@pytest.mark.parametrize("name", _module_names())
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] in OPTIONAL:
            pytest.skip(f"{name} needs {error.name}")
        raise
    monkeypatch.chdir(tmp_path)  # examples may write files
    with np.printoptions(legacy=False):
        results = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0, f"{results.failed} of {results.attempted} examples in {name} failed"
