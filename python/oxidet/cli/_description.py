"""What ``oxidet info`` says about an installation and about weight files."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from oxidet import weights as weight_files
from oxidet._runtime import versions
from oxidet.cli import _output
from oxidet.cli._models import resolve
from oxidet.models.detection import DETECTORS
from oxidet.pretrained import PRETRAINED

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")

KINDS = {
    "detector": "detector of oxidet, with its recipe",
    "checkpoint": "checkpoint of a training run of oxidet",
    "weights": "weights alone",
}


def describe_machine() -> dict[str, Any]:
    """Versions and machine, networks, and the shipped weights with their sizes in bytes."""
    return {
        "versions": versions(),
        "models": sorted(DETECTORS),
        "shipped_weights": {
            name: {"path": str(entry.path), "bytes": entry.path.stat().st_size}
            for name, entry in PRETRAINED.items()
        },
    }


def describe_weights(name: str) -> dict[str, Any]:
    """What a weight file is and holds: kind, tensors and parameters, and how to build its network.

    ``parts`` counts tensors and parameters by the beginning of their names; ``recipe`` is what a
    detector is built from, ``position`` how far the run of a checkpoint had come.
    """
    path = resolve(name)
    state = weight_files.load(path)
    metadata = {key: _parsed(text) for key, text in weight_files.load_metadata(path).items()}
    parts: dict[str, dict[str, int]] = {}
    for key, array in state.items():
        part = parts.setdefault(_part(key), {"tensors": 0, "parameters": 0})
        part["tensors"] += 1
        part["parameters"] += int(array.size) if _is_parameter(key) else 0
    recipe = metadata.pop("detector", None)
    checkpoint = metadata.pop("checkpoint", None)
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "format": _format(path),
        "kind": "detector" if recipe else "checkpoint" if checkpoint else "weights",
        "tensors": len(state),
        "parameters": sum(part["parameters"] for part in parts.values()),
        "dtypes": dict(Counter(str(np.asarray(array).dtype) for array in state.values())),
        "parts": parts,
        "recipe": recipe,
        "position": checkpoint["state"]["position"] if checkpoint else None,
        "metadata": metadata,
    }


def _is_parameter(key: str) -> bool:
    """Whether a tensor is trained: no statistics of batch norm, no state of an optimiser."""
    of_network = "/" not in key or key.startswith("model/")
    return of_network and not key.endswith(BUFFERS)


def _part(key: str) -> str:
    """The part of a network that a tensor belongs to, or, in a checkpoint, of the run's state."""
    head, _, rest = key.partition("/")
    if rest and head != "model":
        return head
    return key.partition(".")[0]


def _format(path: Path) -> str:
    """The form of a file that ``oxidet.weights`` has read."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            torch = any(name.endswith("/data.pkl") for name in archive.namelist())
        return "torch (zip)" if torch else "npz"
    with open(path, "rb") as file:
        return "safetensors" if file.read(9)[8:] == b"{" else "torch (legacy)"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def print_machine(content: dict[str, Any]) -> None:
    print_rows(content["versions"])
    _output.say()
    print_rows(
        {
            "networks": ", ".join(content["models"]),
            **{
                f"--weights {name}": f"{PRETRAINED[name].description}, {megabytes(entry['bytes'])}"
                for name, entry in content["shipped_weights"].items()
            },
        }
    )


def print_weights(content: dict[str, Any]) -> None:
    recipe = content["recipe"]
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in content["dtypes"].items())
    rows = {
        "file": _output.printable(content["path"]),
        "format": f"{content['format']}, {megabytes(content['bytes'])}",
        "kind": KINDS[content["kind"]],
        "tensors": f"{content['tensors']} ({dtypes} once read)",
        "parameters": f"{content['parameters']:,}",
    }
    details = {**(recipe or {}), **(content["position"] or {}), **content["metadata"]}
    for key, value in details.items():
        rows[key] = _output.one_line(_plain(value))
    print_rows(rows)
    table = _output.table("part", "tensors", "parameters", left=("part",))
    for name, part in content["parts"].items():
        table.add_row(_output.printable(name), str(part["tensors"]), f"{part['parameters']:,}")
    _output.show(table)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return str(value)


def print_rows(rows: dict[str, str]) -> None:
    """Names and values, one pair a line."""
    grid = _output.grid()
    for name, value in rows.items():
        grid.add_row(name, value)
    _output.show(grid)


def megabytes(count: int) -> str:
    """A number of bytes for a person."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
