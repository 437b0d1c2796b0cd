"""load and save as a whole: formats by content, half width, names, metadata, full disks."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import relative_error
from oxidet import nn, weights
from torch_writer import simple_legacy, simple_zip

STATE = OrderedDict(
    [
        ("b.weight", np.linspace(-3, 3, 60, dtype=np.float32).reshape(4, 15)),
        ("a.bias", np.array([0.1, -0.2], np.float32)),
        ("count", np.array(12, np.int64)),
        ("double", np.array([0.1, 0.7])),
    ]
)
ENDINGS = [".npz", ".safetensors"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_content_tells_the_format(tmp_path: Path, ending: str) -> None:
    weights.save(tmp_path / f"w{ending}", STATE)
    (tmp_path / f"w{ending}").rename(tmp_path / "w.pth")
    assert list(weights.load(tmp_path / "w.pth")) == list(STATE)


@pytest.mark.parametrize("write", [simple_zip, simple_legacy])
def test_torch_files_under_any_name(tmp_path: Path, write: Any) -> None:
    (tmp_path / "checkpoint.npz").write_bytes(write({"x": np.ones(3, np.float32)}))
    assert list(weights.load(str(tmp_path / "checkpoint.npz"))) == ["x"]


@pytest.mark.parametrize(
    ("ending", "dtype", "error"),
    [(".npz", "float16", 2**-11), (".safetensors", "float16", 2**-11),
     (".safetensors", "bfloat16", 2**-8), (".npz", "float32", 0)],
)  # fmt: skip
def test_half_width(tmp_path: Path, ending: str, dtype: str, error: float) -> None:
    full, half = tmp_path / f"full{ending}", tmp_path / f"half{ending}"
    floats = {"x": np.random.default_rng(0).standard_normal(10_000).astype(np.float32)}
    weights.save(full, floats)
    weights.save(half, {**floats, "count": np.array(70_000)}, dtype=dtype)
    state = weights.load(half)
    assert state["x"].dtype == np.float32
    assert relative_error(state["x"], floats["x"]) <= error
    assert state["count"] == 70_000
    if dtype != "float32":
        assert half.stat().st_size < 0.55 * full.stat().st_size


def test_half_width_is_kept_by_load_checkpoint(tmp_path: Path) -> None:
    weights.save(tmp_path / "w.npz", STATE, dtype="float16")
    content = weights.load_checkpoint(tmp_path / "w.npz")
    assert {array.dtype.name for array in content.values()} == {"float16", "int64"}


def test_float16_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    weights.save(path, {"x": np.array([np.inf, np.nan, 65504], np.float32)}, dtype="float16")
    with pytest.raises(ValueError, match=r"state_dict\['x'\]: .* up to 65504 for float16, got 1e"):
        weights.save(path, {"x": np.array([1e6, np.inf], np.float32)}, dtype="float16")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_module_goes_through_a_file(tmp_path: Path, ending: str) -> None:
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    second = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    weights.save(tmp_path / f"w{ending}", first.state_dict())
    second.load_state_dict(weights.load(tmp_path / f"w{ending}"))
    for name, array in first.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[name], array, err_msg=name)
    weights.save(tmp_path / f"p{ending}", dict(first.named_parameters()))
    assert list(weights.load(tmp_path / f"p{ending}")) == list(first.state_dict())


@pytest.mark.parametrize("ending", ENDINGS)
def test_metadata(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"w{ending}"
    metadata = {"classes": '["zero", "eins"]', "größe": "192 × 256"}
    weights.save(path, STATE, metadata=metadata)
    assert weights.load_metadata(path) == metadata
    assert list(weights.load(path)) == list(STATE)
    weights.save(path, STATE)
    assert weights.load_metadata(path) == {}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_save_refuses(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"w{ending}"
    for state, error, message in [
        ({1: np.ones(2)}, TypeError, "text as names, got 1"),
        ({"": np.ones(2)}, ValueError, "name of a tensor, got ''"),
        ({"a\0b": np.ones(2)}, ValueError, "name of a tensor"),
        ({"a/": np.ones(2)}, ValueError, "name of a tensor"),
        ({"__metadata__": np.ones(2)}, ValueError, "name of a tensor"),
        ({"x": np.array(["text"])}, TypeError, r"state_dict\['x'\]"),
        ({"x": np.array([None])}, TypeError, r"state_dict\['x'\]"),
        ({"x": {"y": np.ones(2)}}, TypeError, r"state_dict\['x'\]"),
        ({"x": np.ones(2, np.longdouble)}, TypeError, "at most 64 bits"),
    ]:
        with pytest.raises(error, match=message):
            weights.save(path, state)
    with pytest.raises(ValueError, match="dtype: expected one of float16"):
        weights.save(path, STATE, dtype="int8")
    with pytest.raises(TypeError, match="metadata"):
        weights.save(path, STATE, metadata={"epoch": 3})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


def test_save_knows_two_formats(tmp_path: Path) -> None:
    for name in ("w.pth", "w", "w.npz.tmp"):
        with pytest.raises(ValueError, match=r"path: expected a name ending in \.npz or"):
            weights.save(tmp_path / name, STATE)
    with pytest.raises(ValueError, match="dtype: expected one of float16, float32 or None"):
        weights.save(tmp_path / "w.npz", STATE, dtype="bfloat16")


def test_missing_files_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        weights.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        weights.save(tmp_path / "no" / "folder.npz", STATE)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failing_save_leaves_the_previous_file(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"w{ending}"
    weights.save(path, STATE)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        weights.save(path, {"x": np.zeros(100)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
