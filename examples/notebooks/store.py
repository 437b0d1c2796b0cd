"""Run notebooks from top to bottom and store them with what they show.

    python examples/notebooks/store.py             # all of them
    python examples/notebooks/store.py 1_detect    # some

They run in an empty folder, so that files they write lie nowhere near. Of a picture that comes
both as PNG and as JPEG, the smaller is kept. A notebook that fails stays as it was.

It needs nbclient and ipykernel.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat

FOLDER = Path(__file__).resolve().parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def run(notebook: Any) -> None:
    """Execute all cells, and leave nothing in the outputs that need not be there."""
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(
            notebook,
            timeout=900,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            keep_smaller_picture(output.get("data", {}))


def keep_smaller_picture(data: dict[str, Any]) -> None:
    """Pillow's images come in two forms."""
    kinds = [kind for kind in ("image/png", "image/jpeg") if kind in data]
    for kind in sorted(kinds, key=lambda kind: len(data[kind]))[1:]:
        del data[kind]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="without .ipynb; by default all")
    names = parser.parse_args().names or sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        run(notebook)
        nbformat.write(notebook, path)
        took = time.perf_counter() - start
        print(f"{name}: {took:.0f} s, {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
