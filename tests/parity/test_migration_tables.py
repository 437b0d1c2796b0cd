"""The names in the tables of docs/migration.md are there, ours and theirs."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

from conftest import ROOT

pytest.importorskip("torch")
pytest.importorskip("torchvision")

TABLE = re.compile(
    r"^\| (\S.*?) \| `(oxidet[\w.]*)` \| different \|\n\|---.*\n((?:\|.*\n)+)", re.MULTILINE
)
ROW = re.compile(r"^\| `([\w.]+)` \| `([\w.]+)` \|", re.MULTILINE)


def _rows() -> list[tuple[str, str]]:
    """Full names, theirs and ours: the head of a table says which modules its names are of."""
    text = (ROOT / "docs" / "migration.md").read_text("utf-8")
    return [
        (f"{theirs.strip('`')}.{name}", f"{ours}.{here}")
        for theirs, ours, body in TABLE.findall(text)
        for name, here in ROW.findall(body)
    ]


ROWS = _rows()


def _is_there(name: str) -> bool:
    module, _, rest = name.partition(".")
    try:
        importlib.import_module(module)
        return not rest or pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False


def test_there_are_tables() -> None:
    assert len(ROWS) > 80


def test_ours() -> None:
    assert not [ours for _, ours in ROWS if not _is_there(ours)]


@pytest.mark.parametrize("project", ["torch", "torchvision", "powerboxes"])
def test_theirs(project: str) -> None:
    pytest.importorskip(project)
    names = [theirs for theirs, _ in ROWS if theirs.split(".")[0] == project]
    assert names
    assert not [name for name in names if not _is_there(name)]
