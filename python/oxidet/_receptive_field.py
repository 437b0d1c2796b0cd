"""Receptive fields: which part of an image can a unit of a feature map depend on.

Along one axis, the units of a map see windows of ``size`` pixels, each ``stride`` pixels behind the
one before, and the first begins at ``start`` (left of the image, where there is padding). A layer
with kernel k, dilation d, stride s and padding p in front makes of them

    size + d (k - 1) stride,    stride * s,    start - p * stride

because its first window begins p units early, and spans d (k - 1) strides more than one unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from oxidet import nn
from oxidet._input_shape import recorded
from oxidet.nn.recording import RecordedNode, Recording


class ReceptiveField(NamedTuple):
    """What the units of a feature map can see of the image, in pixels; pairs are (y, x).

    Attributes
    ----------
    size
        Height and width of what one unit sees, as if the image went on for ever.
    stride
        Distance of what neighbouring units see.
    centre
        Of what the first unit sees, in coordinates in which the first pixel lies between 0 and 1.
        It is negative or outside of the image only if windows begin in the padding.
    """

    size: tuple[int, int]
    stride: tuple[float, float]
    centre: tuple[float, float]

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """What the unit at (row, column) sees: (x1, y1, x2, y2), beyond the image's edge too.

        >>> from oxidet import receptive_field
        >>> from oxidet.models import lenet5
        >>> receptive_field(lenet5(), "features.2").box(1, 0)
        (0.0, 2.0, 6.0, 8.0)
        """
        (height, width), (down, across), (y, x) = self
        y, x = y + row * down, x + column * across
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2


@dataclass(frozen=True)
class _Span:
    """The windows along one axis."""

    size: float = 1.0
    stride: float = 1.0
    start: float = 0.0
    # Units of a flattened map, all of which a fully connected layer joins.
    flattened: int = 1

    def slide(self, kernel: float, stride: float = 1, padding: float = 0) -> _Span:
        """Windows over these; ``kernel`` with its dilation."""
        return _Span(
            self.size + (kernel - 1) * self.stride,
            self.stride * stride,
            self.start - padding * self.stride,
        )


def _join(spans: Sequence[_Span]) -> _Span:
    """What several branches see together."""
    start = min(span.start for span in spans)
    return _Span(
        max(span.start + span.size for span in spans) - start,
        max(span.stride for span in spans),
        start,
        max(span.flattened for span in spans),
    )


def receptive_fields(recording: Recording) -> dict[int, ReceptiveField]:
    """The receptive field of every value of a recording that depends on an image.

    ``recording`` is :func:`oxidet.nn.recording.record`'s; the keys are its values. Values of
    different inputs have a field each in the coordinates of the input they come from.
    """
    spans: dict[int, tuple[_Span, _Span]] = {
        value: (_Span(), _Span()) for value in recording.inputs if len(recording.shapes[value]) == 3
    }
    for node in recording.nodes:
        known = [spans[value] for value in node.inputs if value in spans]
        if known:
            joined = _join([y for y, _ in known]), _join([x for _, x in known])
            spans[node.output] = _after(node, joined, recording.shapes)
    return {
        value: ReceptiveField(
            (round(y.size), round(x.size)),
            (_whole(y.stride), _whole(x.stride)),
            (y.start + y.size / 2, x.start + x.size / 2),
        )
        for value, (y, x) in spans.items()
    }


def _whole(value: float) -> float:
    """An integer if it is one: strides are, but for those of adaptive pooling."""
    return int(value) if value == int(value) else value


def _after(
    node: RecordedNode, spans: tuple[_Span, _Span], shapes: Mapping[int, tuple[int, ...]]
) -> tuple[_Span, _Span]:
    """The windows behind a node."""
    before, after, given = shapes[node.inputs[0]], node.shape, node.attributes
    if node.op in ("conv2d", "max_pool2d", "avg_pool2d"):
        kernel = node.constants["weight"].array.shape[2:] if node.op == "conv2d" else None
        kernel = given["kernel_size"] if kernel is None else kernel
        dilation = given.get("dilation", (1, 1))
        padding = given["padding"]
        front = (padding[0], padding[2]) if len(padding) == 4 else padding
        y, x = (
            span.slide(d * (k - 1) + 1, s, p)
            for span, k, d, s, p in zip(
                spans, kernel, dilation, given["stride"], front, strict=True
            )
        )
        return y, x
    if node.op in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        y, x = (
            _adaptive(span, length, windows)
            for span, length, windows in zip(spans, before[1:], after[1:], strict=True)
        )
        return y, x
    if node.op == "flatten":
        y, x = (
            _Span(span.size, span.stride, span.start, length)
            for span, length in zip(spans, before[1:] if len(before) == 3 else (1, 1), strict=True)
        )
        return y, x
    if node.op == "linear":
        return spans[0].slide(spans[0].flattened), spans[1].slide(spans[1].flattened)
    if node.op == "pad":
        top, _, left, _ = given["padding"]
        return spans[0].slide(1, padding=top), spans[1].slide(1, padding=left)
    if node.op == "slice":
        y, x = (
            span.slide(1, step, -first)
            for span, (first, _, step) in zip(spans, (given["rows"], given["cols"]), strict=True)
        )
        return y, x
    if len(after) == 3 and after[1:] != before[1:]:
        y, x = (
            _resized(span, length, result, 1 if node.op.startswith("nearest") else 2)
            for span, length, result in zip(spans, before[1:], after[1:], strict=True)
        )
        return y, x
    return spans


def _adaptive(span: _Span, length: int, windows: int) -> _Span:
    """Windows i * length // windows to -(-(i + 1) * length // windows), of which the largest."""
    largest = max(-(-(i + 1) * length // windows) - i * length // windows for i in range(windows))
    return span.slide(largest, length / windows if windows > 1 else 1)


def _resized(span: _Span, length: int, result: int, taps: int) -> _Span:
    """Resizing, each result from one unit or two: around where it lies between them."""
    ratio = length / result
    return span.slide(taps, ratio, taps / 2 - ratio / 2)


def receptive_field(
    model: nn.Module, layer: str | None = None, shape: Any = None
) -> ReceptiveField:
    """How much of the image a unit of a layer can depend on, how far apart, and where.

    Parameters
    ----------
    model
        A network that can be traced.
    layer
        A node as ``create_feature_extractor`` names them, such as ``"layer3"``; by default the
        network's (first) result.
    shape
        (N, C, H, W) of the input. It matters only behind adaptive pooling and fully connected
        layers, whose windows grow with the image; by default the side that the network is made
        for.

    Returns
    -------
    ReceptiveField
        ``size``, ``stride`` and ``centre``, each (y, x) in pixels. Where branches meet, the
        smallest window around all of theirs.

    Raises
    ------
    ValueError
        If there is no such layer, or it does not depend on an image.
    TraceError
        If the network cannot be traced.

    Notes
    -----
    The window in which the derivative may be different from 0. Most of what a trained unit attends
    to is nearer the centre: Luo et al., "Understanding the effective receptive field" (arXiv
    1701.04128). The recurrence is in Dumoulin and Visin (arXiv 1603.07285) and Araujo et al.
    (Distill, 2019).

    Examples
    --------
    >>> from oxidet import receptive_field
    >>> from oxidet.models import resnet18
    >>> receptive_field(resnet18(), "layer2")
    ReceptiveField(size=(99, 99), stride=(8, 8), centre=(0.5, 0.5))
    """
    # Here, as it brings all networks with it.
    from oxidet.models.feature_extraction import extract_layer

    target = model if layer is None else extract_layer(model, layer)
    recording = recorded(target, shape)
    fields = receptive_fields(recording)
    value = recording.outputs[0]
    if value not in fields:
        raise ValueError(f"layer: expected one that depends on an image, got {layer!r}")
    return fields[value]
