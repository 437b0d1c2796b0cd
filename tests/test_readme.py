"""README's Python examples run, in order and in one namespace, and print what README says; links
from all pages lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
# A block of Python, and the text block that may follow it: its output.
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", README, re.DOTALL)


NUMBER = re.compile(r"\d+(?:\.(\d+))?")


def assert_same_output(got: str, expected: str, code: str) -> None:
    """Equal text; decimal fractions may differ by one in their last digit, as CPUs round apart."""
    assert NUMBER.sub("#", got) == NUMBER.sub("#", expected), f"after\n{code}"
    for a, b in zip(NUMBER.finditer(got), NUMBER.finditer(expected), strict=True):
        unit = 0 if b[1] is None else 10.0 ** -len(b[1])
        assert abs(float(a[0]) - float(b[0])) <= 1.01 * unit, f"{a[0]}, not {b[0]}, after\n{code}"


def test_the_examples_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    assert len(BLOCKS) >= 2
    for code, expected in BLOCKS:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), namespace)
        assert_same_output(printed.getvalue(), expected, code)


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_to_files(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert not missing
