"""Every notebook runs from top to bottom, and what is stored with it is what it prints.

Times differ from run to run and versions from machine to machine: such lines are not compared.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS = {
    "alternating_training": ["sklearn", "matplotlib"],
    "degradation": ["sklearn", "matplotlib"],
    "convolution_explained": ["matplotlib", "PIL", "sklearn"],
    "replacing_utilities": ["torch", "torchvision", "matplotlib"],
}
VARIES = re.compile(r"\bms\b|^\w+ \d+\.\d+|\bthreads$")


def printed(notebook: Any) -> list[list[str]]:
    """What each cell prints, without lines that vary."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = [
        "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in cells
    ]
    return [[line for line in text.splitlines() if not VARIES.search(line)] for text in texts]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_prints_what_is_stored(path: Path) -> None:
    for module in NEEDS.get(path.stem, []):
        pytest.importorskip(module)
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    fresh = nbformat.read(path, as_version=4)
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    nbclient.NotebookClient(fresh, timeout=300, kernel_name="python3").execute()
    assert printed(fresh) == printed(stored)
    pictures = [
        sum("image/png" in output.get("data", {}) for cell in notebook.cells
            if cell.cell_type == "code" for output in cell.outputs)
        for notebook in (fresh, stored)
    ]  # fmt: skip
    assert pictures[0] == pictures[1]
