"""What a network consists of: a table of its layers with sizes, weights, work and view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oxidet import _extras, nn
from oxidet._arrays import integer
from oxidet._input_shape import recorded
from oxidet._receptive_field import ReceptiveField, receptive_fields
from oxidet._text import abbreviated
from oxidet.nn.recording import RecordedCall, RecordedNode, Recording, node_macs, record
from oxidet.nn.watching import is_layer

Shape = tuple[int, ...]

WIDTH = 100  # columns of a terminal
_ITEM = np.dtype(np.float32).itemsize


@dataclass(frozen=True)
class SummaryRow:
    """One layer, or one operation in a ``forward``, for the whole batch.

    Attributes
    ----------
    layer
        Dotted path; of an operation, that of the module with the operation's name behind it.
    type
        The module's class, or the operation.
    output_shape
        (N, C, H, W) or (N, F).
    parameters
        Numbers in parameters that no earlier row has. Buffers do not count.
    macs
        Multiplications with an addition in convolutions and fully connected layers, counted as
        direct sums; 0 for everything else.
    output_bytes
        Of the output in float32.
    receptive_field
        Size, stride and centre of what a unit sees of the image; None if the input is no image.
    """

    layer: str
    type: str
    output_shape: Shape
    parameters: int
    macs: int
    output_bytes: int
    receptive_field: ReceptiveField | None


@dataclass
class Branch:
    """A call of a module, or an operation (then without ``call``), and what happens inside."""

    name: str  # as people write it behind the name of what it is in
    type: str
    row: SummaryRow
    first: int  # of its nodes
    below: list[Branch] = field(default_factory=list)

    def leaves(self) -> Iterator[Branch]:
        if not self.below:
            yield self
        for branch in self.below:
            yield from branch.leaves()


class Summary:
    """What :func:`summary` returns; prints as a table and is one, that folds, in a notebook.

    Attributes
    ----------
    model
        The network's class.
    input_shapes
        Of its inputs.
    layers
        A :class:`SummaryRow` for each layer or operation, in the order in which they run.
    parameters, trainable
        Numbers in all parameters, also of layers that do not run, and in those that train.
    unused
        Numbers in the parameters of layers that do not run in evaluation mode.
    state_bytes
        Size of parameters and buffers.
    """

    model: str
    input_shapes: tuple[tuple[int, ...], ...]
    layers: tuple[SummaryRow, ...]
    parameters: int
    trainable: int
    unused: int
    state_bytes: int

    def __init__(self, model: nn.Module, recording: Recording, depth: int | None) -> None:
        self.model = recording.name
        self.input_shapes = tuple(
            (recording.batch, *recording.shapes[value]) for value in recording.inputs
        )
        self._root = _Reader(model, recording).tree(depth)
        self.layers = tuple(leaf.row for leaf in self._root.leaves())
        self.parameters = sum(p.numel() for p in model.parameters())
        self.trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.unused = self.parameters - sum(row.parameters for row in self.layers)
        stored = [*model.parameters(), *dict.fromkeys(model.buffers())]
        self.state_bytes = sum(entry.data.nbytes for entry in stored)

    @property
    def macs(self) -> int:
        """Multiply-adds of all layers."""
        return sum(row.macs for row in self.layers)

    @property
    def output_bytes(self) -> int:
        """Size of all outputs together; a plan keeps fewer of them, in training there are more."""
        return sum(row.output_bytes for row in self.layers)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The layers as dicts of plain values, one a row, ready for ``pandas.DataFrame``.

        Pairs of the receptive field are two columns, ``..._y`` and ``..._x``.
        """
        return [_plain(row) for row in self.layers]

    def to_pandas(self) -> Any:
        """The rows as a ``pandas.DataFrame``; needs pandas."""
        return _extras.require("pandas", extra="tables").DataFrame(self.rows)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[SummaryRow]:
        return iter(self.layers)

    def __getitem__(self, index: int | str) -> SummaryRow:
        """A row by its number or by its layer."""
        if isinstance(index, str):
            for row in self.layers:
                if row.layer == index:
                    return row
            raise KeyError(index)
        return self.layers[index]

    # --- text

    def _title(self) -> str:
        return f"{self.model}, input {', '.join(map(str, self.input_shapes))}"

    def _notes(self) -> list[str]:
        frozen = self.parameters - self.trainable
        notes = [
            f"parameters {self.parameters:,}"
            + (f" ({frozen:,} frozen)" if frozen else "")
            + (f" ({self.unused:,} in layers that run in training alone)" if self.unused else "")
            + f", multiply-adds {self.macs:,}",
            f"memory: parameters and buffers {abbreviated(self.state_bytes, 'B')}, "
            f"outputs {abbreviated(self.output_bytes, 'B')}",
        ]
        if any(row.receptive_field for row in self.layers):
            notes += [
                "field: receptive field, the pixels that a unit can depend on;",
                "stride: from a unit's to the next one's; centre: of the first, pixel 0 being 0..1",
            ]
        return notes

    def __str__(self) -> str:
        table = [[*HEADINGS]]
        for name, branch in _lines(self._root):
            table.append([name, *(cells(branch.row) if not branch.below else [""] * 7)])
        table.append(self._total())
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
        text = []
        for name, *numbers in table:
            short = name if len(name) <= widths[0] else name[: widths[0] - 1] + "…"
            right = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
            text.append("  ".join([short.ljust(widths[0]), *right]).rstrip())
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        body = [text[0], rule, *text[1:-1], rule, text[-1]]
        return "\n".join([self._title(), "", *body, "", *self._notes()])

    def __repr__(self) -> str:
        return str(self)

    def _total(self) -> list[str]:
        parameters = sum(row.parameters for row in self.layers)
        told = ["total", "", f"{parameters:,}", abbreviated(self.macs)]
        told.append(abbreviated(self.output_bytes, "B"))
        return told + [""] * (len(HEADINGS) - len(told))

    def _repr_html_(self) -> str:
        from oxidet.visualize.html import summary_html

        return summary_html(self)


class _Reader:
    """Makes a tree of the calls and operations of a recording."""

    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.model = model
        self.recording = recording
        self.fields = receptive_fields(recording)
        self.counted: set[int] = set()
        self.calls: list[list[int]] = [[] for _ in recording.calls]
        open_calls: list[int] = []
        for index, call in enumerate(recording.calls):
            del open_calls[call.depth :]
            if open_calls:
                self.calls[open_calls[-1]].append(index)
            open_calls.append(index)
        self.keys = dict(model.named_parameters())

    def tree(self, depth: int | None) -> Branch:
        """The network, as deep as ``depth``."""
        return self.branch(0, "", depth)

    def branch(self, index: int, above: str, depth: int | None) -> Branch:
        """A call, with what it calls if that is within ``depth``."""
        call = self.recording.calls[index]
        below: list[Branch] = []
        if depth != 0 and not is_layer(call.module):
            deeper = None if depth is None else depth - 1
            inside: set[int] = set()
            for child in self.calls[index]:
                nodes = self.recording.calls[child].nodes
                inside.update(nodes)
                below.append(self.branch(child, call.path, deeper))
            below += [
                self.operation(number, call.path) for number in call.nodes if number not in inside
            ]
            # A module that computes nothing stands in front of what follows it.
            below.sort(key=lambda branch: branch.first)
        name = call.path[len(above) + 1 :] if above else call.path
        kind = type(call.module).__name__
        return Branch(name, kind, self.row(call, kind, counts=not below), call.nodes.start, below)

    def row(self, call: RecordedCall, kind: str, counts: bool) -> SummaryRow:
        parameters = sum(self.new(p) for p in call.module.parameters()) if counts else 0
        nodes = self.recording.nodes[call.nodes.start : call.nodes.stop]
        output = call.outputs[0] if call.outputs else call.inputs[0]
        return self.make(call.path, kind, output, parameters, nodes)

    def operation(self, number: int, path: str) -> Branch:
        node = self.recording.nodes[number]
        if node.op == "activation":
            name = node.attributes["kind"]
        elif node.name == path:  # a module that has no others inside
            name = {"concat": "cat"}.get(node.op, node.op)
        else:
            name = node.name.rpartition(".")[2]
        stored = (self.keys[c.key] for c in node.constants.values() if c.key in self.keys)
        parameters = sum(self.new(p) for p in stored)
        layer = f"{path}.{name}" if path else name
        return Branch(name, name, self.make(layer, name, node.output, parameters, [node]), number)

    def new(self, parameter: nn.Parameter) -> int:
        """The size of a parameter, if it is met for the first time."""
        if parameter.serial in self.counted:
            return 0
        self.counted.add(parameter.serial)
        return parameter.numel()

    def make(
        self, layer: str, kind: str, output: int, parameters: int, nodes: Sequence[RecordedNode]
    ) -> SummaryRow:
        shape = (self.recording.batch, *self.recording.shapes[output])
        return SummaryRow(
            layer=layer,
            type=kind,
            output_shape=shape,
            parameters=parameters,
            macs=self.recording.batch * sum(map(node_macs, nodes)),
            output_bytes=_ITEM * int(np.prod(shape, dtype=np.int64)),
            receptive_field=self.fields.get(output),
        )


def summary(model: nn.Module, *shapes: Shape, depth: int | None = None) -> Summary:
    """A table of a network's layers: output, parameters, multiply-adds, memory, receptive field.

    Parameters
    ----------
    model
        A network that can be traced: a classifier, or a part of a detector such as its extractor.
        It is looked at in evaluation mode, and left in its own.
    shapes
        (N, C, H, W) or (N, F) of each input; by default one square image of the size that the
        network is made for.
    depth
        How many modules deep to go: 1 shows what the network's own ``forward`` calls, and sums up
        what is inside. None shows every layer.

    Returns
    -------
    Summary
        Prints as a table of at most 100 columns, folds in a notebook, has ``rows`` for
        ``pandas.DataFrame``, and the totals as attributes.

    Raises
    ------
    ValueError
        If a shape does not suit the network, or none is given and no usual one does.
    TraceError
        If the network cannot be traced.

    Examples
    --------
    >>> from oxidet import summary
    >>> from oxidet.models import resnet18
    >>> table = summary(resnet18(), depth=1)
    >>> table.parameters, table.macs
    (11689512, 1814073344)
    >>> row = table["layer2"]
    >>> row.output_shape, row.parameters, row.macs, row.receptive_field.size
    ((1, 128, 28, 28), 525568, 411041792, (99, 99))
    """
    if depth is not None:
        depth = integer(depth, "depth", 1)
    if len(shapes) > 1:
        return Summary(model, record(model, *shapes), depth)
    return Summary(model, recorded(model, shapes[0] if shapes else None, "shapes"), depth)


# --- how things are written

HEADINGS = ("layer", "output", "parameters", "MACs", "memory", "field", "stride", "centre")


def _plain(row: SummaryRow) -> dict[str, Any]:
    values = {name: value for name, value in vars(row).items() if name != "receptive_field"}
    seen = row.receptive_field
    for name, pairs in (
        ("receptive_field", seen and seen.size),
        ("stride", seen and seen.stride),
        ("centre", seen and seen.centre),
    ):
        values[f"{name}_y"], values[f"{name}_x"] = pairs or (None, None)
    return values


def _lines(branch: Branch, indent: str = "") -> Iterator[tuple[str, Branch]]:
    """What is in a branch, line by line; a layer alone is its only line."""
    for child in branch.below or [branch]:
        yield indent + label(child), child
        if child.below:
            yield from _lines(child, indent + "  ")


def label(branch: Branch) -> str:
    """What a branch is called in tables."""
    return branch.type if branch.name in ("", branch.type) else f"{branch.name} {branch.type}"


def cells(row: SummaryRow) -> list[str]:
    """A row as text, without the layer."""
    seen = row.receptive_field
    pairs = [_pair(pair) for pair in seen] if seen is not None else [""] * 3
    return [
        "x".join(map(str, row.output_shape[1:])),
        f"{row.parameters:,}" if row.parameters else "",
        abbreviated(row.macs) if row.macs else "",
        abbreviated(row.output_bytes, "B"),
        *pairs,
    ]


def _pair(pair: tuple[float, float]) -> str:
    """
    >>> _pair((32, 32)), _pair((7, 1)), _pair((0.5, 0.5))
    ('32', '7x1', '0.5')
    """
    y, x = (f"{value:.4g}" if value < 1000 else f"{value:.0f}" for value in pair)
    return y if y == x else f"{y}x{x}"
