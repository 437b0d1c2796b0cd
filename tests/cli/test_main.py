"""The command itself: help, version, errors in one line, exit codes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest

import oxidet
from cli_process import OXIDET, environment, in_terminal, run_process
from oxidet.models.detection import build_detector, save_detector

ESCAPE = "\x1b"


def test_no_command_shows_the_help(oxidet_command):
    code, out, err = oxidet_command()
    assert code == 2
    assert out == oxidet_command("--help").out
    assert err == ""


def test_version(oxidet_command):
    assert oxidet_command("--version") == (0, f"oxidet {oxidet.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["destroy"], "destroy"),
        (["detect"], "--weights"),
        (["detect", "--weights", "w.npz"], "IMAGE"),
        (["detect", "-", "--files-from", "-", "--weights", "w.npz"], "--files-from"),
        (["detect", "a.png", "--weights", "digits", "--model", "yolo"], "--model"),
        (["detect", "a.png"], "--weights"),
        (["detect", "a.png", "--weights", "w.npz", "--score-threshold", "2"], "--score-threshold"),
        (["detect", "a.png", "--weights", "w.npz", "--score-threshold", "x"], "--score-threshold"),
        (["detect", "a.png", "--weights", "w.npz", "--threads", "0"], "--threads"),
        (["detect", "a.png", "--weights", "w.npz", "--colour"], "--colour"),
        (["train", "--out", "run"], "--data"),
        (["train", "--data", "d", "--out", "r", "--epochs", "0"], "--epochs"),
        (["train", "--data", "d", "--out", "r", "--format", "yolo"], "--format"),
        (["eval", "--weights", "w.npz"], "--data"),
        (["train", "--data", "digits", "--lr", "1"], "--lr"),
        (["eval", "--weights", "digits", "--data", "digits", "--split", "x"], "--split"),
        (["demo", "--scenes", "0"], "--scenes"),
        (["convert", "a.pth", "b.txt"], "TARGET"),
        (["--install-completion", "tcsh"], "--install-completion"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_argument(oxidet_command, arguments, expected):
    code, out, err = oxidet_command(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert err.endswith(" --help)\n")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--score", "abc", "a number from 0 to 1"),
        ("--score", "3", "a number from 0 to 1"),
        ("--batch", "0", "a whole number from 1 on"),
    ],
)
def test_numbers_out_of_range(oxidet_command, option, value, expected):
    code, out, err = oxidet_command("detect", "a.png", "--weights", "digits", option, value)
    assert (code, out) == (2, "")
    if "Invalid value" not in err:  # as versions of typer say it that tell less
        assert (
            err
            == f"error: {option}: expected {expected}, got '{value}' (see oxidet detect --help)\n"
        )


def test_debug_shows_the_traceback(oxidet_command, tmp_path):
    arguments = ["info", "--weights", tmp_path / "missing.npz"]
    code, _, err = oxidet_command(*arguments)
    assert (code, err.count("\n")) == (1, 1)
    for position in (0, len(arguments)):
        with pytest.raises(FileNotFoundError):
            oxidet_command(*arguments[:position], "--debug", *arguments[position:])


def test_debug_behind_two_dashes_is_an_image(oxidet_command, random_detector):
    code, _, err = oxidet_command("detect", "--weights", random_detector, "--", "--debug")
    assert code == 1
    assert err == "error: --debug: no such file or folder\n"


def test_an_unforeseen_exception_is_one_line(oxidet_command, monkeypatch):
    def fail() -> None:
        raise KeyError("nobody\nthought of this")

    monkeypatch.setattr("oxidet.cli._description.versions", fail)
    code, out, err = oxidet_command("info")
    assert (code, out) == (1, "")
    assert err.startswith("error: KeyError: ")
    assert err.count("\n") == 1
    assert "--debug" in err


def test_an_interrupt_exits_with_130(oxidet_command, monkeypatch):
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("oxidet.cli._description.versions", interrupt)
    assert oxidet_command("info") == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(oxidet_command, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = oxidet_command("info")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "oxidet[cli]" in err


# --- as a process


def test_python_m_oxidet_detects(random_detector, make_image, tmp_path):
    image = make_image(tmp_path / "a.png")
    result = run_process("detect", image, "--weights", random_detector, "--score-threshold", 0.05)
    assert result.returncode == 0
    assert str(image) in result.stdout
    assert ESCAPE not in result.stdout + result.stderr
    assert all(line == line.rstrip() for line in result.stdout.splitlines())


def test_exit_code_of_a_failing_process(tmp_path):
    result = run_process("detect", "x.png", "--weights", tmp_path / "missing.npz")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == f"error: {tmp_path / 'missing.npz'}: No such file or directory\n"


def test_a_narrow_terminal_costs_no_column(random_detector, make_image, tmp_path):
    image = make_image(tmp_path / "a.png")
    command = ("detect", image, "--weights", random_detector, "--score-threshold", 0.05)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", in_terminal(40, *command))
    header = re.sub(r"\s+", " ", text)
    assert "object score x1 y1 x2 y2" in header
    assert "…" not in text


def test_an_output_without_letters_for_a_name_shows_escapes(make_image, tmp_path):
    weights = tmp_path / "d.npz"
    detector = build_detector("faster_rcnn_small", class_names=("größe",), n_fg_class=1)
    save_detector(weights, detector)
    image = make_image(tmp_path / "a.png")
    command = [*OXIDET, "detect", image, "--weights", weights, "--score-threshold", "0.05"]
    result = subprocess.run(
        command, capture_output=True, env=environment(PYTHONIOENCODING="ascii"), timeout=120
    )
    assert result.returncode == 0
    assert rb"gr\xf6\xdfe" in result.stdout


def test_a_reader_that_leaves_early_causes_no_traceback():
    process = subprocess.Popen(
        [*OXIDET, "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=60)
    process.stderr.close()
    assert errors == ""
    assert process.returncode == 1


def test_control_c_ends_training_with_130_and_a_checkpoint(voc, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*OXIDET, "train", "--data", voc, "--out", out, "--epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 90
    while not (out / "last.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "error: interrupted"
    assert "--resume continues it" in errors
    assert (out / "last.npz").exists()
