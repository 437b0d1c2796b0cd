"""The commands of docs/command-line.md print, and write, what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from oxidet.cli._formats import CSV_COLUMNS
from oxidet.data import DigitScenes
from oxidet.visualize import save_png

pytest.importorskip("sklearn")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command-line.md").read_text("utf-8")
# A command, what it prints, and the JSON block that may follow it.
BLOCKS = dict(re.findall(r"```console\n\$ oxidet ([^\n]*)\n(.*?)```", PAGE, re.S))
[JSON] = re.findall(r"```json\n(.*?)```", PAGE, re.S)
NUMBER = re.compile(r"\d+(?:\.(\d+))?")
# What is of this machine and moment.
VOLATILE = re.compile(r"\(\d+ ms a scene\)|^file .*$", re.M)


def assert_same(got: str, expected: str, units: float = 2) -> None:
    """Equal text, but for the last digits of decimal fractions: CPUs round apart."""
    got, expected = VOLATILE.sub("", got).strip(), VOLATILE.sub("", expected).strip()
    assert NUMBER.sub("#", got) == NUMBER.sub("#", expected)
    for a, b in zip(NUMBER.finditer(got), NUMBER.finditer(expected), strict=True):
        unit = 0 if b[1] is None else units * 10.0 ** -len(b[1])
        assert abs(float(a[0]) - float(b[0])) <= unit, f"{a[0]}, not {b[0]}"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, marks=pytest.mark.slow) if words.startswith(("eval", "demo")) else words
        for words in BLOCKS
    ],
)
def test_commands_print_what_the_page_says(words, oxidet_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scenes = DigitScenes("test", length=4)
    for name, index in (("door", 1), ("desk", 3)):
        save_png(f"{name}.png", scenes[index][0])
    Path("notes.png").write_text("milk\n")
    if words == "--help":
        monkeypatch.setenv("COLUMNS", "80")
    code, out, err = oxidet_command(*shlex.split(words))
    errors = "".join(f"{line}\n" for line in err.splitlines() if line.startswith("error: "))
    assert code == (1 if errors else 0)
    assert_same(out + errors, BLOCKS[words])
    if "--json" in words:
        assert_same(Path("found.json").read_text(), JSON, units=100)


def test_the_page_names_the_columns():
    assert ",".join(CSV_COLUMNS) in PAGE
