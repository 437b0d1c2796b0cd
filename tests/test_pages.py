"""The Python examples of README and of the pages in docs run, in order and in one namespace a page,
and print what the page says; links lead somewhere.

A block that begins with the comment ``# with ...`` needs what the comment names (torch, a foreign
file, the network) and is only compiled.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
# A block of Python, and the text block that may follow it: its output.
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
EXAMPLES = {page: BLOCK.findall((ROOT / page).read_text("utf-8")) for page in PAGES}
# What the examples import besides oxidet and NumPy.
NEEDED = {
    "README.md": ["PIL", "sklearn"],
    "docs/onnx.md": ["onnx", "onnxruntime"],
    "docs/training.md": ["sklearn"],
}
NUMBER = re.compile(r"\d+(?:\.(\d+))?")


def assert_same_output(got: str, expected: str, code: str) -> None:
    """Equal text; decimal fractions may differ by one in their last digit, as CPUs round apart."""
    assert NUMBER.sub("#", got) == NUMBER.sub("#", expected), f"after\n{code}"
    for a, b in zip(NUMBER.finditer(got), NUMBER.finditer(expected), strict=True):
        unit = 0 if b[1] is None else 10.0 ** -len(b[1])
        assert abs(float(a[0]) - float(b[0])) <= 1.01 * unit, f"{a[0]}, not {b[0]}, after\n{code}"


@pytest.mark.parametrize("page", [page for page in PAGES if EXAMPLES[page]])
def test_examples_print_what_they_say(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in NEEDED.get(page, []):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for code, expected in EXAMPLES[page]:
        compiled = compile(code, page, "exec")
        if code.startswith("# with "):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compiled, namespace)
        assert_same_output(printed.getvalue(), expected, code)
    assert namespace, "a page whose examples all need something else"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing
