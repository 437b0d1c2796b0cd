"""Completion in the shell: what it offers, and that it gets installed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cli_process import OXIDET, environment
from oxidet.cli._completion import SHELLS
from oxidet.cli._help import COMMANDS

WORDS = [
    ("oxidet de", {"detect", "demo"}),
    ("oxidet ", set(COMMANDS)),
    ("oxidet --ins", {"--install-completion"}),
    ("oxidet detect a.png --mod", {"--model"}),
    ("oxidet train --model fasterrcnn_resnet50",
     {"fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"}),
    ("oxidet eval --on-error ", {"stop", "skip"}),
]  # fmt: skip


def asked(**variables: str) -> str:
    result = subprocess.run(
        OXIDET, capture_output=True, text=True, env=environment(**variables), timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_bash_completes_commands_options_and_values(words, expected):
    index = str(len(words.split(" ")) - 1)
    answer = asked(_OXIDET_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=index)
    assert set(answer.split()) == expected


def test_zsh_shows_what_commands_do():
    answer = asked(_OXIDET_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="oxidet de")
    assert answer.startswith("_arguments '*: :((")
    assert '"detect":"Detect objects in images."' in answer
    assert '"demo":' in answer


def test_fish_shows_what_commands_do():
    answer = asked(
        _OXIDET_COMPLETE="complete_fish",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        _TYPER_COMPLETE_ARGS="oxidet de",
    )
    lines = dict(line.split("\t") for line in answer.splitlines())
    assert lines == {name: COMMANDS[name].summary for name in ("detect", "demo")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_calls_the_command_back(oxidet_command, shell):
    code, out, err = oxidet_command("--show-completion", shell)
    assert (code, err) == (0, "")
    assert f"_OXIDET_COMPLETE=complete_{shell}" in out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=out, text=True, check=True)  # it parses


@pytest.mark.parametrize(
    ("shell", "file", "read_by"),
    [
        ("bash", ".bash_completions/oxidet.sh", ".bashrc"),
        ("zsh", ".zfunc/_oxidet", ".zshrc"),
        ("fish", ".config/fish/completions/oxidet.fish", None),
    ],
)
def test_installing_puts_the_script_where_the_shell_reads_it(
    oxidet_command, home, shell, file, read_by
):
    if read_by is not None:
        (home / read_by).write_text("alias ll='ls -l'\n")
    code, out, err = oxidet_command("--install-completion", shell)
    assert (code, err) == (0, "")
    assert str(home / file) in out
    assert (home / file).read_text().strip() == oxidet_command("--show-completion", shell).out[:-1]
    if read_by is not None:
        started = (home / read_by).read_text()
        assert started.startswith("alias ll='ls -l'\n")
        assert ".bash_completions/oxidet.sh" in started or "fpath+=~/.zfunc" in started
        assert oxidet_command("--install-completion", shell).code == 0
        assert (home / read_by).read_text().strip() == started.strip()  # not a second time


def test_the_shell_in_use_is_found(oxidet_command, monkeypatch):
    monkeypatch.setattr("oxidet.cli._completion.current_shell", lambda: "fish")
    assert "complete_fish" in oxidet_command("--show-completion").out
    monkeypatch.setattr("oxidet.cli._completion.current_shell", lambda: "")
    code, out, err = oxidet_command("--show-completion")
    assert (code, out) == (2, "")
    assert err == (
        "error: --show-completion: expected bash, zsh or fish, got an unknown shell "
        "(oxidet --show-completion bash) (see oxidet --help)\n"
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_itself_completes(tmp_path, oxidet_command):
    command = tmp_path / "oxidet"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(OXIDET)} "$@"\n')
    command.chmod(0o755)
    script = oxidet_command("--show-completion", "bash").out
    script += """
COMP_WORDS=(oxidet check)
COMP_CWORD=1
$(complete -p oxidet | sed 's/.*-F \\([^ ]*\\).*/\\1/') oxidet check oxidet
echo "${COMPREPLY[@]}"
"""
    path = f"{tmp_path}:/usr/local/bin:/usr/bin:/bin"
    result = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        env=environment(PATH=path),
        timeout=120,
    )
    assert result.stdout == "check-data\n", result.stderr
