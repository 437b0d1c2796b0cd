"""The examples of docs/onnx.md run in order, and its table is that of the operators."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from oxidet.onnx._operators import OPERATORS

PAGE = (ROOT / "docs" / "onnx.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)


def test_the_examples_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    run = [(code, text) for code, text in BLOCKS if not code.startswith("# with torch")]
    assert len(run) >= 4
    for code, expected in run:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "onnx.md", "exec"), namespace)
        assert printed.getvalue() == expected, code
    for code, _ in BLOCKS:
        compile(code, "onnx.md", "exec")


def test_the_table_names_every_operator() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    named = set(re.findall(r"\b[A-Z][A-Za-z]+\b", " ".join(rows))) - {"C"}
    assert named - {"Upsample"} == set(OPERATORS)
