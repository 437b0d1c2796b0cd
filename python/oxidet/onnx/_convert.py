"""How each operation of a graph is written: layers, activations, arithmetic, parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oxidet.nn.recording import RecordedNode
from oxidet.onnx._writer import Converter, Writer, converter


def _plain(op: str, **attributes: Any) -> Converter:
    """The converter to one node with these attributes."""

    def convert(writer: Writer, node: RecordedNode, output: str) -> None:
        inputs = [writer.input(node, i) for i in range(len(node.inputs))]
        writer.node(op, inputs, output, output, **attributes)

    return convert


converter("add")(_plain("Add"))
converter("concat")(_plain("Concat", axis=1))
converter("flatten")(_plain("Flatten", axis=1))
converter("dropout")(_plain("Identity"))


@converter("conv2d")
def _conv2d(writer: Writer, node: RecordedNode, output: str) -> None:
    given = node.attributes
    top, bottom, left, right = given["padding"]
    inputs = [writer.input(node), *(writer.weight(node, role) for role in node.constants)]
    writer.node(
        "Conv",
        inputs,
        output,
        output,
        kernel_shape=node.constants["weight"].array.shape[2:],
        strides=given["stride"],
        pads=(top, left, bottom, right),
        dilations=given["dilation"],
        group=given["groups"],
    )


@converter("linear")
def _linear(writer: Writer, node: RecordedNode, output: str) -> None:
    inputs = [writer.input(node), *(writer.weight(node, role) for role in node.constants)]
    writer.node("Gemm", inputs, output, output, transB=1)


@converter("batch_norm")
def _batch_norm(writer: Writer, node: RecordedNode, output: str) -> None:
    channels = node.constants["mean"].array.shape
    inputs = [writer.input(node)]
    for role, default in (("weight", 1.0), ("bias", 0.0)):
        if role in node.constants:
            inputs.append(writer.weight(node, role))
        else:
            inputs.append(writer.constant(f"{output}.{role}", np.full(channels, default, "f4")))
    inputs += [writer.weight(node, "mean"), writer.weight(node, "var")]
    writer.node("BatchNormalization", inputs, output, output, epsilon=node.attributes["eps"])


@converter("activation")
def _activation(writer: Writer, node: RecordedNode, output: str) -> None:
    kind = node.attributes["kind"]
    inputs = [writer.input(node)]
    if kind == "clamp":
        for end in ("low", "high"):
            limit = np.float32(node.attributes[end])
            inputs.append(writer.constant(f"{output}.{end}", limit) if np.isfinite(limit) else "")
        writer.node("Clip", inputs, output, output)
    elif kind in ("relu", "sigmoid", "tanh"):
        writer.node(kind.capitalize(), inputs, output, output)
    else:
        raise ValueError(f"model: expected activations that ONNX export knows, got {kind!r}")


@converter("scale")
def _scale(writer: Writer, node: RecordedNode, output: str) -> None:
    value = writer.input(node)
    factor, offset = (np.float32(node.attributes[name]) for name in ("factor", "offset"))
    if factor == 1:
        constant = writer.constant(f"{output}.offset", offset)
        writer.node("Add", [value, constant], output, output)
        return
    constants = [value, writer.constant(f"{output}.factor", factor)]
    if offset == 0:
        writer.node("Mul", constants, output, output)
        return
    product = writer.step("Mul", constants, output)
    constant = writer.constant(f"{output}.offset", offset)
    writer.node("Add", [product, constant], output, output)


@converter("softmax")
def _softmax(writer: Writer, node: RecordedNode, output: str) -> None:
    op = "LogSoftmax" if node.attributes["log"] else "Softmax"
    writer.node(op, [writer.input(node)], output, output, axis=1)


@converter("channels")
def _channels(writer: Writer, node: RecordedNode, output: str) -> None:
    first, count = node.attributes["first"], node.attributes["count"]
    slice_of(writer, writer.input(node), 1, first, first + count, output, output)


def slice_of(
    writer: Writer, value: str, axis: int, first: int, last: int, output: str, name: str
) -> str:
    """A Slice of one axis."""
    parts = {"starts": first, "ends": last, "axes": axis}
    given = [writer.constant(f"{name}.{part}", np.array([n])) for part, n in parts.items()]
    return writer.node("Slice", [value, *given], output, name)


def pad_of(
    writer: Writer, value: str, pads: Sequence[int], fill: float, output: str, name: str
) -> str:
    """Pad (N, C, H, W); ``pads`` are the begins of all axes, then the ends."""
    amounts = writer.constant(f"{name}.pads", np.array(pads, np.int64))
    constant = writer.constant(f"{name}.value", np.float32(fill))
    return writer.node("Pad", [value, amounts, constant], output, name)


@converter("channelwise")
def _channelwise(writer: Writer, node: RecordedNode, output: str) -> None:
    kind, operand = node.attributes["kind"], node.constants["operand"].array
    shape = (operand.size, *(1 for _ in node.shape[1:]))
    # As it is stored, if that broadcasts.
    fits = operand.shape in (shape, (1, *shape))
    inputs = [writer.input(node), writer.weight(node, "operand", None if fits else shape)]
    if kind == "rsub":
        inputs.reverse()
    op = {"add": "Add", "sub": "Sub", "rsub": "Sub", "mul": "Mul", "div": "Div"}[kind]
    writer.node(op, inputs, output, output)


@converter("pad")
def _pad(writer: Writer, node: RecordedNode, output: str) -> None:
    top, bottom, left, right = node.attributes["padding"]
    front, behind = node.attributes["channels"]
    pads = [0, front, top, left, 0, behind, bottom, right]
    mode = node.attributes["mode"]
    if mode == "constant":
        pad_of(writer, writer.input(node), pads, node.attributes["value"], output, output)
        return
    modes = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode == "circular" and writer.opset < 19:
        raise ValueError(
            f"opset_version: expected 19 or more for circular padding, got {writer.opset}"
        )
    amounts = writer.constant(f"{output}.pads", np.array(pads, np.int64))
    writer.node("Pad", [writer.input(node), amounts], output, output, mode=modes[mode])


@converter("slice")
def _slice(writer: Writer, node: RecordedNode, output: str) -> None:
    ranges = [node.attributes["rows"], node.attributes["cols"]]
    parts = {
        "starts": [first for first, _, _ in ranges],
        "ends": [first + (count - 1) * step + 1 for first, count, step in ranges],
        "axes": [2, 3],
        "steps": [step for _, _, step in ranges],
    }
    given = [writer.constant(f"{output}.{part}", np.array(n)) for part, n in parts.items()]
    writer.node("Slice", [writer.input(node), *given], output, output)


def _resize(writer: Writer, node: RecordedNode, output: str, **attributes: Any) -> None:
    value, scales = writer.input(node), node.attributes["scales"]
    if None not in scales:
        factors = writer.constant(f"{output}.scales", np.array([1, 1, *scales], np.float32))
        writer.node("Resize", [value, "", factors], output, output, **attributes)
        return
    # The sizes of all axes, of which the batch is open.
    shape = writer.step("Shape", [value], output)
    begin = slice_of(writer, shape, 0, 0, 2, writer.unique(f"{output}.begin"), f"{output}.begin")
    size = writer.constant(f"{output}.size", np.array(node.shape[1:], np.int64))
    sizes = writer.step("Concat", [begin, size], output, axis=0)
    writer.node("Resize", [value, "", "", sizes], output, output, **attributes)


@converter("nearest2d")
def _nearest2d(writer: Writer, node: RecordedNode, output: str) -> None:
    centres = node.attributes["centres"]
    places, rounding = ("half_pixel", "round_prefer_ceil") if centres else ("asymmetric", "floor")
    _resize(
        writer,
        node,
        output,
        mode="nearest",
        coordinate_transformation_mode=places,
        nearest_mode=rounding,
    )


@converter("bilinear2d")
def _bilinear2d(writer: Writer, node: RecordedNode, output: str) -> None:
    places = "align_corners" if node.attributes["align_corners"] else "half_pixel"
    _resize(writer, node, output, mode="linear", coordinate_transformation_mode=places)


@converter("local_response_norm")
def _local_response_norm(writer: Writer, node: RecordedNode, output: str) -> None:
    value = writer.input(node)
    size, alpha, beta, k = (node.attributes[name] for name in ("size", "alpha", "beta", "k"))
    if size % 2:
        writer.node("LRN", [value], output, output, size=size, alpha=alpha, beta=beta, bias=k)
        return
    # ONNX counts an even number of neighbours from the other side, and onnxruntime refuses it: the
    # sum over channels is a product with a band matrix.
    channels = node.shape[0]
    distance = np.arange(channels)[:, None] - np.arange(channels)[None, :]
    band = (distance <= size // 2) & (-distance <= (size - 1) // 2)
    matrix = (band * (alpha / size)).astype(np.float32)[:, :, None, None]
    squares = writer.step("Mul", [value, value], output)
    weight = writer.constant(f"{output}.weight", matrix)
    bias = writer.constant(f"{output}.bias", np.full(channels, k, np.float32))
    sums = writer.step("Conv", [squares, weight, bias], output)
    power = writer.step("Pow", [sums, writer.constant(f"{output}.beta", np.float32(beta))], output)
    writer.node("Div", [value, power], output, output)
