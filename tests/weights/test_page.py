"""The examples of docs/weights.md run in order, those that need no network and no foreign file."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

PAGE = (ROOT / "docs" / "weights.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)


def test_the_examples_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    run = [(code, text) for code, text in BLOCKS if not code.startswith("# with ")]
    assert len(run) >= 3
    for code, expected in run:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "weights.md", "exec"), namespace)
        assert printed.getvalue() == expected, code
    for code, _ in BLOCKS:
        compile(code, "weights.md", "exec")
