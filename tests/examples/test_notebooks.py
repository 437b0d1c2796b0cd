"""Every notebook runs from top to bottom, and what is stored with it is what it prints.

Times differ from run to run, versions from machine to machine, and what a training comes to with
every rounding. A cell that prints such things has the tag ``varies``, and its text is not compared;
the number of its pictures is.

``python examples/notebooks/store.py NAME`` stores a notebook anew.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
TransformerManager = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager

FOLDER = ROOT / "examples" / "notebooks"
NEEDS = {
    "1_detect": ["matplotlib", "pandas", "PIL", "sklearn"],
    "2_replace_your_numpy_utilities": ["matplotlib", "torch", "torchvision"],
    "3_convolution_explained": ["matplotlib", "PIL", "sklearn"],
    "4_lenet_to_densenet": ["matplotlib", "pandas"],
    "5_inside_faster_rcnn": ["matplotlib", "PIL", "sklearn"],
    "6_train_on_your_own": ["matplotlib", "PIL", "sklearn", "defusedxml"],
    "7_how_fast_and_why": ["matplotlib", "pandas"],
    "alternating_training": ["matplotlib", "sklearn"],
    "degradation": ["matplotlib", "sklearn"],
}
SLOW = {
    "6_train_on_your_own",
    "alternating_training",
    "degradation",
}  # they train, for half a minute

MAX_BYTES = 1_000_000
# Folders of the machine that ran it, and what Python says when something is not as it should be.
UNWANTED = {
    "a path of a machine": r"(?<![\w.:/])/(?:home|root|tmp|usr|var|opt|mnt|work|Users|private)/"
    r"|\b[A-Z]:\\|site-packages",
    "a warning": r"\w*Warning\b",
    "an error": r"Traceback \(most recent call last\)|\w+Error\b",
}


def load(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(output: Any) -> str:
    """What an output says, without the addresses of objects."""
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def printed(notebook: Any) -> list[str]:
    """What each cell prints, if it prints the same every time."""
    return [
        ""
        if "varies" in cell.metadata.get("tags", ())
        else "".join(text_of(output) for output in cell.outputs)
        for cell in code_cells(notebook)
    ]


def pictures(notebook: Any) -> list[int]:
    """How many pictures each cell shows."""
    return [
        sum(
            any(kind.startswith("image/") for kind in output.get("data", ()))
            for output in cell.outputs
        )
        for cell in code_cells(notebook)
    ]


def test_all_notebooks_are_listed() -> None:
    there = {path.name for path in FOLDER.glob("*.ipynb")}
    assert there == {f"{name}.ipynb" for name in NEEDS}
    assert there == set(re.findall(r"\]\(([^)]+)\)", (FOLDER / "README.md").read_text("utf-8")))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NEEDS],
)
def test_notebook_runs_and_prints_what_is_stored(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in NEEDS[name]:
        pytest.importorskip(module)
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    stored, fresh = load(name), load(name)
    # Raises what a cell raises. A notebook may write files: not beside the stored ones.
    client = nbclient.NotebookClient(
        fresh,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    assert printed(fresh) == printed(stored)
    assert pictures(fresh) == pictures(stored)
    assert not complaints(fresh)


def complaints(notebook: Any) -> list[str]:
    """What no reader should find in the outputs."""
    found = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"cell {number}: {output.output_type}: {output.get('text')}")
            texts = [output.get("text", ""), *output.get("data", {}).values()]
            for what, pattern in UNWANTED.items():
                found += [
                    f"cell {number}: {what}: {match[0]}"
                    for text in texts
                    if isinstance(text, str)
                    for match in re.finditer(pattern, text)
                ]
    return found


@pytest.mark.parametrize("name", NEEDS)
def test_what_is_stored_is_fit_to_be_read(name: str) -> None:
    notebook = load(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [tag for cell in cells for tag in cell.metadata.get("tags", ()) if tag != "varies"]
    assert sum(pictures(notebook)) > 0
    assert not complaints(notebook)
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("name", NEEDS)
def test_what_notebooks_import_from_oxidet_is_there(name: str) -> None:
    """Also for those that run only with the slow tests."""
    for cell in code_cells(load(name)):
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "oxidet":
                exec(ast.unparse(node), {})  # an ImportError names what is missing


@pytest.mark.parametrize("name", NEEDS)
def test_links_of_notebooks_lead_to_files(name: str) -> None:
    text = "\n".join(cell.source for cell in load(name).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert not [target for target in targets if not (FOLDER / target).exists()]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("read /home/someone/a.jpg", "a path"),
        ("/tmp/x/y.py:3: UserWarning: slow", "a warning"),
        ("ValueError: boxes", "an error"),
    ],
)
def test_complaints_are_noticed(text: str, what: str) -> None:
    """The check itself, on outputs that must not be stored."""
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])])
    assert any(what in complaint for complaint in complaints(notebook))
