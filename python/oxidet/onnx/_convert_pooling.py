"""How pooling is written.

What ceil_mode means at the edges has changed between versions of ONNX and differs between runtimes.
Sizes are known here, so padding says the same without it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet.nn.recording import RecordedNode
from oxidet.onnx._convert import pad_of, slice_of
from oxidet.onnx._writer import Writer, converter

Array = NDArray[Any]


def _hang_over(node: RecordedNode, shape: tuple[int, ...]) -> list[int]:
    """Rows and columns by which the last windows exceed the padded input."""
    given = node.attributes
    dilation = given.get("dilation", (1, 1))
    ends = []
    for i in range(2):
        span = dilation[i] * (given["kernel_size"][i] - 1) + 1
        reach = (node.shape[1 + i] - 1) * given["stride"][i] + span
        ends.append(max(reach - shape[1 + i] - 2 * given["padding"][i], 0))
    return ends


@converter("max_pool2d")
def _max_pool2d(writer: Writer, node: RecordedNode, output: str) -> None:
    given, value = node.attributes, writer.input(node)
    top, left = given["padding"]
    below, right = (
        p + extra
        for p, extra in zip((top, left), _hang_over(node, writer.shape(node)), strict=True)
    )
    pads = [top, left, below, right]
    if below >= given["kernel_size"][0] or right >= given["kernel_size"][1]:
        # More than runtimes accept, as a dilated window may need.
        name = writer.unique(f"{output}.pad")
        value = pad_of(writer, value, [0, 0, top, left, 0, 0, below, right], -np.inf, name, name)
        pads = [0, 0, 0, 0]
    writer.node(
        "MaxPool",
        [value],
        output,
        output,
        kernel_shape=given["kernel_size"],
        strides=given["stride"],
        pads=pads,
        dilations=given["dilation"],
    )


@converter("avg_pool2d")
def _avg_pool2d(writer: Writer, node: RecordedNode, output: str) -> None:
    given, value = node.attributes, writer.input(node)
    kernel, (top, left) = given["kernel_size"], given["padding"]
    below, right = _hang_over(node, writer.shape(node))
    include, divisor = given["count_include_pad"], given["divisor_override"]
    pads = [top, left, top + below, left + right]
    if divisor is not None:
        # The mean of whole windows, of which the rest is zeros, is the sum but for a factor.
        name = writer.unique(f"{output}.pad")
        value = pad_of(writer, value, [0, 0, *pads[:2], 0, 0, *pads[2:]], 0.0, name, name)
        pads = [0, 0, 0, 0]
    elif include and (top or left) and (below or right):
        # Zeros of the padding count, what hangs over does not.
        name = writer.unique(f"{output}.pad")
        value = pad_of(writer, value, [0, 0, top, left, 0, 0, top, left], 0.0, name, name)
        pads = [0, 0, below, right]
        include = False
    attributes = {
        "kernel_shape": kernel,
        "strides": given["stride"],
        "pads": pads,
        "count_include_pad": int(include and not (below or right)),
    }
    if divisor is None:
        writer.node("AveragePool", [value], output, output, **attributes)
        return
    means = writer.step("AveragePool", [value], output, **attributes)
    factor = np.float32(kernel[0] * kernel[1] / divisor)
    writer.node("Mul", [means, writer.constant(f"{output}.factor", factor)], output, output)


def _windows(size: int, count: int) -> list[tuple[int, int]]:
    """The windows of adaptive pooling along one axis: (first, last + 1)."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _even_windows(size: int, count: int) -> tuple[int, int] | None:
    """Length and stride of these windows, if they have one."""
    windows = _windows(size, count)
    lengths = {last - first for first, last in windows}
    strides = {b[0] - a[0] for a, b in itertools.pairwise(windows)} or {1}
    if len(lengths) > 1 or len(strides) > 1 or windows[-1][1] != size or strides == {0}:
        return None
    return lengths.pop(), strides.pop()


def _adaptive(writer: Writer, node: RecordedNode, output: str, whole: str, windowed: str) -> bool:
    """Write adaptive pooling as another kind of pooling, if it is one."""
    value, sizes, counts = writer.input(node), writer.shape(node)[1:], node.shape[1:]
    if sizes == counts:
        writer.node("Identity", [value], output, output)
        return True
    if counts == (1, 1):
        writer.node(whole, [value], output, output)
        return True
    windows = [_even_windows(s, c) for s, c in zip(sizes, counts, strict=True)]
    if None in windows:
        return False
    kernel, strides = zip(*(w for w in windows if w is not None), strict=True)
    writer.node(windowed, [value], output, output, kernel_shape=kernel, strides=strides)
    return True


@converter("adaptive_avg_pool2d")
def _adaptive_avg_pool2d(writer: Writer, node: RecordedNode, output: str) -> None:
    if _adaptive(writer, node, output, "GlobalAveragePool", "AveragePool"):
        return
    # Uneven windows: a product with a matrix of averages on either side.
    rows, columns = (
        _averages(size, count)
        for size, count in zip(writer.shape(node)[1:], node.shape[1:], strict=True)
    )
    left = writer.constant(f"{output}.rows", rows)
    right = writer.constant(f"{output}.columns", columns.T)
    partial = writer.step("MatMul", [left, writer.input(node)], output)
    writer.node("MatMul", [partial, right], output, output)


def _averages(size: int, count: int) -> Array:
    matrix = np.zeros((count, size), np.float32)
    for row, (first, last) in zip(matrix, _windows(size, count), strict=True):
        row[first:last] = 1 / (last - first)
    return matrix


@converter("adaptive_max_pool2d")
def _adaptive_max_pool2d(writer: Writer, node: RecordedNode, output: str) -> None:
    if _adaptive(writer, node, output, "GlobalMaxPool", "MaxPool"):
        return
    # Uneven windows: the maxima of bands of rows, then of bands of columns of these.
    value, (height, width) = writer.input(node), writer.shape(node)[1:]
    parts = _bands(writer, value, 2, _windows(height, node.shape[1]), output)
    name = writer.unique(f"{output}.concat")
    rows = writer.node("Concat", parts, name, name, axis=2)
    parts = _bands(writer, rows, 3, _windows(width, node.shape[2]), output)
    writer.node("Concat", parts, output, output, axis=3)


def _bands(
    writer: Writer,
    value: str,
    axis: int,
    windows: list[tuple[int, int]],
    name: str,
) -> list[str]:
    """The maxima of bands along an axis, each of length 1 there."""
    maxima = []
    for first, last in windows:
        part = writer.unique(f"{name}.slice")
        slice_of(writer, value, axis, first, last, part, part)
        kernel = (last - first, 1) if axis == 2 else (1, last - first)
        maxima.append(writer.step("MaxPool", [part], name, kernel_shape=kernel))
    return maxima
