"""The table of docs/onnx.md is that of the operators."""

from __future__ import annotations

import re

import pytest

from conftest import ROOT

pytest.importorskip("onnx")

from oxidet.onnx._operators import OPERATORS


def test_the_table_names_every_operator() -> None:
    page = (ROOT / "docs" / "onnx.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    named = set(re.findall(r"\b[A-Z][A-Za-z]+\b", " ".join(rows))) - {"C"}
    assert named - {"Upsample"} == set(OPERATORS)
