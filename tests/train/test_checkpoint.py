"""Checkpoint files: what goes in comes out, to the bit, and a failed write changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oxidet import weights
from oxidet.train.checkpoint import load_checkpoint, save_checkpoint


def test_a_tree_survives(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    state = {
        "model": {"a.weight": rng.standard_normal((3, 4)).astype(np.float32)},
        "optimizer": {"state": {0: {"momentum": np.arange(3.0)}, 12: {}}, "groups": [{"lr": 0.1}]},
        "random": np.random.RandomState(5).get_state(legacy=False),
        "generator": np.random.default_rng(1 << 90).bit_generator.state,
        "nothing": None,
        "numbers": [1, True, 0.1 + 0.2, -(1 << 127), np.float64(1e-300), np.int32(7)],
        "text": "é\n",
        "scalar": np.array(5, np.int64),
        "empty": {"dict": {}, "list": [], "array": np.zeros((0, 4), np.float32)},
        "reserved": {"__array__": "model/a.weight"},
        "half": np.arange(3, dtype=np.float16),
        "a": {"b": np.arange(2)},
        "a/b": np.arange(5),
    }
    path = tmp_path / "c.npz"
    save_checkpoint(path, state)
    loaded = load_checkpoint(path)
    np.testing.assert_equal(loaded, state)
    for got, want in (
        (loaded["model"]["a.weight"], state["model"]["a.weight"]),
        (loaded["random"]["state"]["key"], state["random"]["state"]["key"]),
        (loaded["scalar"], state["scalar"]),
        (loaded["empty"]["array"], state["empty"]["array"]),
        (loaded["half"], state["half"]),
    ):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        assert got.tobytes() == want.tobytes()
    random = np.random.RandomState()
    random.set_state(loaded["random"])
    assert random.random_sample() == np.random.RandomState(5).random_sample()


def test_numpy_reads_it_without_pickle(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.npz", {"model": {"w": np.arange(3)}, "epoch": 2})
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["model/w"], np.arange(3))


@pytest.mark.parametrize(
    ("value", "error", "named"),
    [
        ({"a": {"b": float("nan")}}, ValueError, "a/b"),
        ({"a": [1, object()]}, TypeError, "a/1"),
        ({"a": {1, 2}}, TypeError, "set"),
        ({"a": {(1, 2): 3}}, TypeError, r"a: .* got \(1, 2\)"),
        ({"a": {0.5: 3}}, TypeError, "got 0.5"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, value: dict, error: type[Exception], named: str
) -> None:
    path = tmp_path / "c.npz"
    save_checkpoint(path, {"a": 1})
    with pytest.raises(error, match=named):
        save_checkpoint(path, value)
    assert load_checkpoint(path) == {"a": 1}


def test_other_files_are_refused(tmp_path: Path) -> None:
    weights.save(tmp_path / "w.npz", {"w": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="expected a training checkpoint"):
        load_checkpoint(tmp_path / "w.npz")
    later = json.dumps({"format": 99, "state": {}})
    weights.save(tmp_path / "l.npz", {}, metadata={"checkpoint": later})
    with pytest.raises(ValueError, match="format 1, got 99"):
        load_checkpoint(tmp_path / "l.npz")
    for text in ("", "[]", "null", "{}", '{"format": 1}', "[" * 100_000):
        weights.save(tmp_path / "d.npz", {}, metadata={"checkpoint": text})
        with pytest.raises(ValueError, match=r"d\.npz: expected a training checkpoint, got none"):
            load_checkpoint(tmp_path / "d.npz")
    for state in ({"a": {"__array__": "gone"}}, {"__items__": 3}, {"__items__": [[[], 1]]}):
        text = json.dumps({"format": 1, "state": state})
        weights.save(tmp_path / "d.npz", {}, metadata={"checkpoint": text})
        with pytest.raises(ValueError, match=r"d\.npz: .* got a damaged one"):
            load_checkpoint(tmp_path / "d.npz")
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"t\.npz"):
        load_checkpoint(tmp_path / "t.npz")


FULL_DISK = """
import resource, signal, sys
import numpy as np
from oxidet.train.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    save_checkpoint(sys.argv[1], {"w": np.ones(100_000, np.float32)})
except OSError as error:
    print("OSError", error.errno)
"""


def test_no_room_for_the_file_leaves_the_previous_one(tmp_path: Path) -> None:
    """A file-size limit stands for a full disk: writes fail in the middle of the file."""
    path = tmp_path / "c.npz"
    save_checkpoint(path, {"w": np.arange(4)})
    before = path.read_bytes()
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("OSError")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]
