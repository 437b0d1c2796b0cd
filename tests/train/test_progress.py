"""Progress lines, where there is no bar to draw."""

from __future__ import annotations

import pytest

from oxidet.train import progress as module
from oxidet.train.progress import Progress


def test_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Progress(100, "epoch 1/2", initial=20, unit="step") as progress:
        for _ in range(80):
            now[0] += 0.5
            progress.step({"rpn_loc_loss": 0.25, "total_loss": 1.25}, "epoch 2/2")
        progress.note("mean_ap 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 2/2: 22/100, 2 step/s, 39 s left, total=1.2 rpn_loc=0.25"
    assert lines[-2].startswith("epoch 2/2: 100/100, 2 step/s, 0 s left")
    assert lines[-1] == "mean_ap 0.5"
    assert len(lines) == 1 + 7 + 1 + 1  # at 1 s, every 5 s to 36 s, at the end, and the note


def test_lines_without_an_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with Progress(None, "detecting", unit="image") as progress:
        for _ in range(4):
            now[0] += 0.5
            progress.step()
    assert capsys.readouterr().err == "detecting: 2, 2 image/s\n"


def test_short_and_quiet_things_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(3, "short") as progress:
        for _ in range(3):
            progress.step()
    with Progress(3, "quiet", quiet=True) as progress:
        progress.note("hidden")
    assert capsys.readouterr().err == ""


def test_a_loaded_kernel_package_makes_no_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ipykernel")
    with Progress(3, "short") as progress:
        progress.step()
    assert capsys.readouterr().err == ""
