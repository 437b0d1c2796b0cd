"""Export: from a recording to an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from oxidet._arrays import integer
from oxidet._atomic import atomic_write
from oxidet._extras import require
from oxidet.nn.module import Module
from oxidet.nn.recording import Recording, record
from oxidet.onnx import _convert, _convert_pooling  # noqa: F401  (they register how to write)
from oxidet.onnx._writer import Writer

#: Versions of the operator set that files can be written for. Before 13, Softmax means something
#: else; nothing that is written here has changed up to the last one.
OPSETS = range(13, 24)

DEFAULT_OPSET = 17


def export(
    model: Module,
    path: str | os.PathLike[str],
    shape: Sequence[int] | Sequence[Sequence[int]],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int = DEFAULT_OPSET,
    dynamic_batch: bool = True,
) -> None:
    """Write a network, as it computes in evaluation mode, to an ONNX file.

    The graph is the model's own, layer by layer: batch norm stays batch norm, weights keep their
    names in ``state_dict``, nodes are named by their layers. Inputs and outputs are float32 in the
    order N, C, H, W. The file replaces an older one only when it is complete.

    Parameters
    ----------
    model
        Any module whose ``forward`` can be compiled.
    path
        The file.
    shape
        (N, C, H, W) or (N, F) of the input, or a list of the shapes of several inputs. C, H, W
        and F are fixed in the file.
    input_names, output_names
        Names of the graph's inputs and outputs. By default ``input``, ``output``, with numbers
        where there are several; the outputs of a ``forward`` that returns a dict or named tuple
        are named by its keys.
    opset_version
        Version of the operator set, 13 to 23.
    dynamic_batch
        Whether the file leaves the batch size open; if not, it is N.

    Raises
    ------
    ImportError
        Without the package onnx (``pip install 'oxidet[onnx]'``).
    TraceError
        If ``forward`` does something that no graph can hold.
    ValueError
        If an argument is wrong, or the file would exceed the 2 GiB that an ONNX file can hold.

    Examples
    --------
    >>> import oxidet
    >>> from oxidet.models import lenet5
    >>> oxidet.onnx.export(lenet5(), "lenet5.onnx", (1, 1, 32, 32))
    >>> oxidet.onnx.load("lenet5.onnx").output_names
    ('output',)
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    opset = integer(opset_version, "opset_version", OPSETS[0], OPSETS[-1])
    onnx = require("onnx", extra="onnx")
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"shape: expected (N, C, H, W) or (N, F), or a list of such, got {shape!r}")
    several = len(shape) > 0 and isinstance(shape[0], (tuple, list))
    shapes: Any = shape if several else [shape]
    recording = record(model, *(tuple(given) for given in shapes))
    writer = Writer(onnx, recording, opset, dynamic_batch)
    proto = writer.model(
        _names(input_names, "input_names", _default_inputs(recording)),
        _names(output_names, "output_names", _default_outputs(recording)),
    )
    if proto.ByteSize() >= 2**31:
        raise ValueError(
            f"model: expected at most 2 GiB, all that an ONNX file can hold, got "
            f"{proto.ByteSize() / 2**30:.1f} GiB"
        )
    with atomic_write(path) as file:
        file.write(proto.SerializeToString())


def _names(given: Sequence[str] | None, argument: str, default: list[str]) -> list[str]:
    if given is None:
        return default
    if isinstance(given, str) or not all(isinstance(name, str) and name for name in given):
        raise TypeError(f"{argument}: expected a list of names, got {given!r}")
    if len(given) != len(default) or len(set(given)) != len(given):
        raise ValueError(f"{argument}: expected {len(default)} different names, got {list(given)}")
    return list(given)


def _default_inputs(recording: Recording) -> list[str]:
    count = len(recording.inputs)
    return ["input"] if count == 1 else [f"input_{i}" for i in range(count)]


def _default_outputs(recording: Recording) -> list[str]:
    """The keys of a dict or named tuple, else ``output`` and a number."""
    count = len(recording.outputs)
    result = recording.structure(range(count))
    if hasattr(result, "_fields"):
        result = result._asdict()
    if isinstance(result, dict) and all(isinstance(value, int) for value in result.values()):
        return [str(key) for key in result]
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
