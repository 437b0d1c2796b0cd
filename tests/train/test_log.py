"""The log of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from oxidet.train.log import JsonLog, read_log


def write(path: Path, iterations: range, start: int = 0) -> None:
    log = JsonLog(path, start)
    for i in iterations:
        log.write({"iteration": i, "loss": i / 3})
    log.close()


def test_lines_are_json_and_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = JsonLog(path)
    log.write({"iteration": 1, "loss": np.float32(0.5), "ap": {"é": float("nan"), "b": None}})
    log.write({"iteration": 2, "loss": float("inf"), "list": [np.int64(3), True, "x\n"]})
    lines = path.read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"iteration": 1, "loss": 0.5, "ap": {"é": None, "b": None}},
        {"iteration": 2, "loss": None, "list": [3, True, "x\n"]},
    ]
    log.close()


@pytest.mark.parametrize(("resumed", "kept"), [(0, 0), (3, 3), (5, 5), (9, 5)])
def test_resume_cuts_off_what_is_repeated(tmp_path: Path, resumed: int, kept: int) -> None:
    path = tmp_path / "log.jsonl"
    write(path, range(1, 6))
    write(path, range(resumed + 1, 8), start=resumed)
    expected = [*range(1, kept + 1), *range(resumed + 1, 8)]
    assert [record["iteration"] for record in read_log(path)] == expected


@pytest.mark.parametrize(
    "tail", [b'{"iteration": 4, "lo', b'{"iteration": 4}', b"\x00\xff\n", b"7\n"]
)
def test_an_unfinished_line_goes(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "log.jsonl"
    write(path, range(1, 4))
    with path.open("ab") as file:
        file.write(tail)
    assert [record["iteration"] for record in read_log(path)] == [1, 2, 3]
    write(path, range(4, 5), start=3)
    assert [json.loads(line)["iteration"] for line in path.open()] == [1, 2, 3, 4]
