"""SIGKILL at random moments: a run goes on from its last checkpoint and ends with the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from train.runs import assert_same_run, make_eventful

TESTS = str(Path(__file__).resolve().parents[1])
PATIENCE = 300.0  # seconds, for a process to begin

RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from train.runs import make_eventful
make_eventful(Path(sys.argv[2]), int(sys.argv[3])).run()
"""


def start(out: Path, epochs: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OXIDET_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, TESTS, str(out), str(epochs)]
    return subprocess.Popen(command, env=environment)


def written(out: Path) -> tuple[int, int]:
    """What changes with every step: the log and the checkpoint."""
    stats = [path.stat() for path in (out / "log.jsonl", out / "last.npz") if path.exists()]
    return sum(s.st_size for s in stats), sum(s.st_mtime_ns for s in stats)


def kill_at_random(out: Path, epochs: int, rng: np.random.Generator, longest: float) -> bool:
    """Start or continue the run, and kill it some time after it has begun to work; False if it has
    come to its end before."""
    before, process = written(out), start(out, epochs)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and written(out) == before:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(float(rng.uniform(0, longest)))
    process.kill()
    return process.wait() != 0


def killed_like_undisturbed(tmp_path: Path, kills: int, epochs: int, longest: float) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    make_eventful(straight, epochs).run()
    rng = np.random.default_rng(11)
    done = [kill_at_random(killed, epochs, rng, longest) for _ in range(kills)]
    assert all(done), f"the run ended before the {kills} kills: {done}"
    assert start(killed, epochs).wait() == 0
    assert_same_run(killed, straight)


def test_killed_twice_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    killed_like_undisturbed(tmp_path, kills=2, epochs=2, longest=0.05)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    killed_like_undisturbed(tmp_path, kills=20, epochs=40, longest=0.4)
