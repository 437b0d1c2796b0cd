"""What ``--help`` looks like, and that it is there at once."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from cli_process import OXIDET, environment, in_terminal
from oxidet.cli._help import COMMANDS, GROUPS

ROOT = Path(__file__).resolve().parents[2]
BOLD = "\x1b[1m"


def test_help_lists_every_command_in_its_group(oxidet_command):
    code, out, err = oxidet_command("--help")
    assert (code, err) == (0, "")
    for title, commands in GROUPS.items():
        _, _, rest = out.partition(f"\n{title}:\n")
        listed = rest.partition("\n\n")[0].splitlines()
        assert [line.split()[0] for line in listed] == list(commands)
        for line, entry in zip(listed, commands.values(), strict=True):
            assert line.endswith(f"  {entry.summary}")
    assert "\nExamples:\n  oxidet demo\n" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_tells_what_the_commands_tell(name):
    entry = COMMANDS[name]
    function = getattr(import_module(f"oxidet.cli.{entry.module}"), entry.function)
    text = inspect.getdoc(function)
    assert text is not None
    assert text.splitlines()[0] == entry.summary


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_and_ends_with_examples(oxidet_command, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    words = () if command is None else (command,)
    code, out, err = oxidet_command(*words, "--help")
    assert (code, err) == (0, "")
    text, _, examples = out.partition("\nExamples:\n")
    assert max(map(len, text.splitlines())) <= columns
    assert max(map(len, examples.splitlines())) <= 80
    assert examples.startswith(f"  oxidet {command or 'demo'}")
    assert text.startswith(f"Usage: oxidet {command or 'COMMAND'} ")
    assert " VALUE" not in text  # every option says what it takes
    assert all(line == line.rstrip() for line in out.splitlines())
    assert oxidet_command(*words, "-h").out == out


def test_lines_of_help_are_never_longer_than_one_reads(oxidet_command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert max(map(len, oxidet_command("train", "--help").out.splitlines())) <= 100


def test_the_reference_names_only_options_that_exist(oxidet_command):
    helps = "".join(oxidet_command(command, "--help").out for command in COMMANDS)
    helps += oxidet_command("--help").out
    reference = (ROOT / "docs" / "command-line.md").read_text()
    option = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
    named, known = set(option.findall(reference)), set(option.findall(helps))
    assert named - known == set()
    assert all(f"## {command}\n" in reference for command in COMMANDS)


def test_headings_are_bold_in_a_terminal_unless_it_must_not_be(oxidet_command):
    plain = oxidet_command("--help").out
    assert BOLD not in plain  # what is piped
    coloured = in_terminal(80, "--help")
    assert f"{BOLD}Find objects:\x1b[0m\n" in coloured
    assert re.sub(r"\x1b\[[01]m", "", coloured) == plain
    assert in_terminal(80, "--help", NO_COLOR="1") == plain


def test_help_imports_nothing_heavy():
    """Nor does that of any command, so that completion of options is as fast."""
    code = f"""
import json, sys
import oxidet
before = set(sys.modules)
from oxidet.cli import main
main(["--help"])
first = set(sys.modules) - before
for command in {list(COMMANDS)}:
    main([command, "--help"])
print(json.dumps([sorted(first), sorted(set(sys.modules) - before)]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    first, imported = json.loads(result.stdout.splitlines()[-1])
    assert "typer" in first
    commands = {f"oxidet.cli.{entry.module}" for entry in COMMANDS.values()}
    assert commands & set(first) == set()
    assert commands <= set(imported)
    assert [
        name
        for name in imported
        if name.startswith(("numpy", "PIL", "rich.console", "matplotlib", "oxidet._core"))
        or (name.startswith("oxidet.") and not name.startswith(("oxidet.cli", "oxidet._")))
    ] == []


def test_python_m_oxidet_is_the_command(oxidet_command):
    result = subprocess.run(
        [*OXIDET, "--help"], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == oxidet_command("--help").out
