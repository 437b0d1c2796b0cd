"""Drawings of networks: the blocks in a row, and the operations inside one of them as a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oxidet import _extras
from oxidet._text import abbreviated
from oxidet.visualize._networks import new_axes
from oxidet.visualize.palette import PALETTE, Colour, text_colour

if TYPE_CHECKING:
    from oxidet import nn
    from oxidet._summary import Branch
    from oxidet.nn.recording import RecordedNode, Recording

Shape = tuple[int, ...]

COLOURS: dict[str, Colour] = {
    "convolution": PALETTE[1],
    "block": PALETTE[2],
    "pooling": PALETTE[4],
    "fully connected": PALETTE[0],
    "joining": PALETTE[5],
    "other": (190, 190, 190),
}

GREY = "0.5"  # of arrows: stands out from white paper and from dark

ROW = 12  # boxes in a row at most
LARGEST_GRAPH = 60  # boxes that can be read as a graph
LETTERS = 19  # of a line under a box

# What is written behind the layer in front of it rather than in a box of its own.
_FOLLOWERS = {
    "activation": "", "batch_norm": "bn", "BatchNorm2d": "bn", "Dropout": "dropout",
    "Dropout2d": "dropout", "Flatten": "flatten", "Identity": "", "LocalResponseNorm": "lrn",
    "LogSoftmax": "log-softmax", "ReLU": "relu", "Sigmoid": "sigmoid", "Softmax": "softmax",
    "Tanh": "tanh", "dropout": "", "flatten": "flatten",
    "local_response_norm": "lrn", "log_softmax": "log-softmax", "relu": "relu",
    "sigmoid": "sigmoid", "softmax": "softmax", "tanh": "tanh",
}  # fmt: skip


@dataclass
class _Box:
    """One box: what kind, what is written, and the shape of what comes out."""

    kind: str
    name: str
    detail: str
    shape: Shape
    then: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        last = list(dict.fromkeys(filter(None, self.then)))
        return [self.name, self.detail, *([" ".join(last)] if last else []), _size(self.shape)]


def architecture(
    model: nn.Module, shape: Any = None, *, layer: str | None = None, ax: Any = None
) -> Any:
    """Draw a network's blocks, or what happens inside one, with matplotlib (extra ``plots``).

    The blocks stand in the order in which they run: as high as their maps (by the root), and as
    thick as there are channels (by the logarithm). What follows a convolution or fully connected
    layer - batch norm, activation, dropout - is written under it.

    Parameters
    ----------
    model
        A network that can be traced.
    shape
        (N, C, H, W) of the input; by default a square image of the size it is made for.
    layer
        Path of a module, whose operations are drawn as a graph, from top to bottom: the branches
        of an Inception block, the shortcut of a residual one. A module that is called more than
        once is drawn as in its first call.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If there is no such layer, it does not run, or has more operations than can be read.
    TraceError
        If the network cannot be traced.
    """
    from oxidet._input_shape import recorded

    recording = recorded(model, shape)
    if layer is not None:
        return _draw_graph(_graph(model, recording, layer), layer, ax)
    from oxidet._summary import Summary

    table = Summary(model, recording, None)
    boxes = _blocks(model, table._root)
    size = _size(recording.shapes[recording.inputs[0]])
    title = f"{table.model}, input {size}: {abbreviated(table.parameters)} parameters, "
    title += f"{abbreviated(table.macs)} multiply-adds"
    return _draw_blocks(boxes, title, ax)


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


# --- the blocks in a row


def _blocks(model: nn.Module, root: Branch) -> list[_Box]:
    """The boxes of a network: layers, and modules in which several run."""
    modules = dict(model.named_modules())
    boxes: list[_Box] = []

    def add(branch: Branch) -> None:
        row, shape = branch.row, branch.row.output_shape[1:]
        blocks = [child.type for child in branch.below if len(_leading(child)) > 1]
        alike = len(blocks) > 1 and len({*blocks}) == 1 and blocks[0] != "Sequential"
        leaves, leading = list(branch.leaves()), _leading(branch)
        if branch.below and len(leading) == 1 and leaves[0] is leading[0]:
            # Such as a convolution with its batch norm and activation: one box under one name.
            box = _layer_box(leading[0], modules, row.layer)
            box.then = [_FOLLOWERS[leaf.type] for leaf in leaves[1:]]
            if len(shape) == len(box.shape):
                box.shape = shape
            boxes.append(box)
        elif branch.below and branch.type == "Sequential" and not alike:
            for child in branch.below:
                add(child)
        elif branch.below:
            detail = f"{len(blocks)} x {blocks[0]}" if alike else branch.type
            boxes.append(_Box("block", row.layer, detail.replace("_", ""), shape))
        elif branch.type in _FOLLOWERS and boxes:
            boxes[-1].then.append(_FOLLOWERS[branch.type])
            if len(shape) == len(boxes[-1].shape):  # a flattened map is drawn as the map it was
                boxes[-1].shape = shape
        else:
            boxes.append(_layer_box(branch, modules, row.layer))

    if root.below:
        for branch in root.below:
            add(branch)
    else:
        add(root)
    return boxes


def _leading(branch: Branch) -> list[Branch]:
    """The layers inside that have a box of their own."""
    return [leaf for leaf in branch.leaves() if leaf.type not in _FOLLOWERS]


def _layer_box(branch: Branch, modules: dict[str, nn.Module], name: str) -> _Box:
    module = modules.get(branch.row.layer)
    shape = branch.row.output_shape[1:]
    kind, detail = "other", branch.type
    if branch.type == "Conv2d" and module is not None:
        kind = "convolution"
        detail = _convolution(module.kernel_size, module.stride, module.groups)
    elif branch.type in ("Linear", "linear"):
        kind, detail = "fully connected", "fully connected"
    elif branch.type in ("conv2d",):
        kind = "convolution"
    elif "pool" in branch.type.lower() or branch.type == "mean":
        kind = "pooling"
        window = getattr(module, "kernel_size", None)
        step = getattr(module, "stride", None) or window
        what = "max pool" if "max" in branch.type.lower() else "average pool"
        detail = what if window is None else f"{_window(window)} {what}{_step(step)}"
    elif branch.type in ("add", "cat", "Concat"):
        kind = "joining"
    return _Box(kind, name, detail, shape)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _window(size: Any) -> str:
    return "x".join(map(str, _pair(size)))


def _step(stride: Any) -> str:
    down, across = _pair(stride)
    if (down, across) == (1, 1):
        return ""
    return f" /{down}" if down == across else f" /{down}x{across}"


def _convolution(kernel: Any, stride: Any, groups: int) -> str:
    """
    >>> _convolution((3, 3), (2, 2), 1), _convolution((1, 7), (1, 1), 4)
    ('3x3 conv /2', '1x7 conv g4')
    """
    return f"{_window(kernel)} conv{_step(stride)}" + (f" g{groups}" if groups > 1 else "")


def _draw_blocks(boxes: list[_Box], title: str, ax: Any) -> Any:
    columns = min(len(boxes), ROW)
    rows = -(-len(boxes) // columns)
    columns = -(-len(boxes) // rows)  # as even as they go
    ax = new_axes(ax, max(1.3 * columns, 5), 2.4 * rows + 0.4)
    largest = max((box.shape[1] for box in boxes if len(box.shape) == 3), default=1)
    for index, box in enumerate(boxes):
        x, y = index % columns + 0.5, -2.0 * (index // columns)
        right = _draw_cuboid(ax, box, x, y, largest)
        lines = [_shortened(line) for line in box.lines()]
        ax.text(x, y - 0.06, lines[0], ha="center", va="top", fontsize=7, weight="bold")
        ax.text(x, y - 0.2, "\n".join(lines[1:]), ha="center", va="top", fontsize=7)
        if index + 1 < len(boxes):
            end = x + 0.97 - _thickness(boxes[index + 1].shape) / 2
            if (index + 1) % columns == 0:
                end = right + 0.12  # goes on in the next row
            arrow = {"arrowstyle": "->", "color": GREY, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (end, y + 0.12), (right, y + 0.12), arrowprops=arrow)
    ax.set_xlim(0, columns)
    ax.set_ylim(-2.0 * (rows - 1) - 0.75, 1.3)
    ax.set_axis_off()
    ax.set_title(title, fontsize="medium")
    return ax


def _shortened(line: str) -> str:
    """
    >>> _shortened("features.denseblock1.conv"), _shortened("features.conv0")
    ('…denseblock1.conv', 'features.conv0')
    """
    while len(line) > LETTERS and "." in line:
        line = "…" + line.partition(".")[2]
    return line if len(line) <= LETTERS else "…" + line[1 - LETTERS :]


def _thickness(shape: Shape) -> float:
    """Of a box in its slot of width 1."""
    return 0.05 + 0.04 * max(shape[0], 1).bit_length() if len(shape) == 3 else 0.1


def _draw_cuboid(ax: Any, box: _Box, x: float, y: float, largest: int) -> float:
    """A box seen from the front, slightly from above and from the right; returns its right end."""
    patches = _extras.require("matplotlib.patches", extra="plots")
    thick = _thickness(box.shape)
    if len(box.shape) == 3:
        height = 0.12 + 0.85 * (box.shape[1] / largest) ** 0.5
        slant = 0.22 * height
    else:
        height, slant = 0.12 + 0.07 * max(box.shape[0], 1).bit_length(), 0.03
    red, green, blue = (channel / 255 for channel in COLOURS[box.kind])
    left, right = x - thick / 2, x + thick / 2
    faces = [
        (1.0, [(left, y), (right, y), (right, y + height), (left, y + height)]),
        (1.2, [(left, y + height), (right, y + height), (right + slant, y + height + slant),
               (left + slant, y + height + slant)]),
        (0.75, [(right, y), (right + slant, y + slant), (right + slant, y + height + slant),
                (right, y + height)]),
    ]  # fmt: skip
    for light, corners in faces:
        colour = tuple(min(1.0, channel * light) for channel in (red, green, blue))
        ax.add_patch(patches.Polygon(corners, facecolor=colour, edgecolor="0.25", lw=0.6))
    return float(right + slant / 2)


# --- the operations of one module as a graph


@dataclass
class _Vertex:
    """A box of a graph, or (without one) a place where an edge passes a level."""

    box: _Box | None
    above: list[_Vertex]
    level: int = 0
    x: float = 0.0


def _graph(model: nn.Module, recording: Recording, layer: str) -> list[_Vertex]:
    """The operations inside a module's first call, those that follow one alone joined to it."""
    paths = dict(model.named_modules())
    calls = [call for call in recording.calls if call.path == layer]
    if not calls:
        what = "does not run" if layer in paths else "does not exist"
        raise ValueError(f"layer: expected a module that runs, got {layer!r}, which {what}")
    call = calls[0]
    nodes = [recording.nodes[number] for number in call.nodes]
    vertices: dict[int, _Vertex] = {}
    for value in call.inputs:
        vertices[value] = _Vertex(_Box("other", "input", "", recording.shapes[value]), [])
    made = list(vertices.values())
    for node in nodes:
        above = [vertices[value] for value in dict.fromkeys(node.inputs) if value in vertices]
        alone = len(node.inputs) == 1 and len(recording.consumers(node.inputs[0])) == 1
        if node.op in _FOLLOWERS and alone and above and above[0].level:
            box = above[0].box
            assert box is not None
            kind = node.attributes.get("kind", "")
            box.then.append(kind if node.op == "activation" else _FOLLOWERS[node.op])
            vertices[node.output] = above[0]
            continue
        vertex = _Vertex(_node_box(node, layer), above)
        vertex.level = 1 + max((other.level for other in above), default=0)
        vertices[node.output] = vertex
        made.append(vertex)
    if len(made) > LARGEST_GRAPH:
        raise ValueError(
            f"layer: expected a module of at most {LARGEST_GRAPH} operations, got {layer!r} of "
            f"{len(made)}; name one inside it"
        )
    return list(_with_passages(made))


def _node_box(node: RecordedNode, layer: str) -> _Box:
    name = node.layer[len(layer) + 1 :] if layer else node.layer
    given = node.attributes
    if node.op == "conv2d":
        detail = _convolution(
            node.constants["weight"].array.shape[2:], given["stride"], given["groups"]
        )
        return _Box("convolution", name, detail, node.shape)
    if node.op == "linear":
        return _Box("fully connected", name, "fully connected", node.shape)
    if node.op.endswith("pool2d"):
        detail = "max pool" if "max" in node.op else "average pool"
        if "kernel_size" in given:
            detail = f"{_window(given['kernel_size'])} {detail}{_step(given['stride'])}"
        return _Box("pooling", name, detail, node.shape)
    if node.op in ("add", "concat"):
        return _Box("joining", "", node.op, node.shape)
    if node.op == "activation":
        return _Box("other", "", given["kind"], node.shape)
    if node.op == "scale":
        factor, offset = given["factor"], given["offset"]
        detail = f"times {factor:g}" if factor != 1 else f"plus {offset:g}"
        return _Box("other", "", detail, node.shape)
    return _Box("other", "", _FOLLOWERS.get(node.op) or node.op.replace("_", " "), node.shape)


def _with_passages(vertices: list[_Vertex]) -> Iterator[_Vertex]:
    """With a vertex on every level that an edge crosses, so that it can go around the boxes."""
    for vertex in vertices:
        for number, other in enumerate(vertex.above):
            for level in range(other.level + 1, vertex.level):
                other = _Vertex(None, [other], level)
                yield other
            vertex.above[number] = other
        yield vertex


def _place(vertices: list[_Vertex]) -> float:
    """Give every vertex an x, at least 1 from others on its level and near those above and below.

    Returns the width of all.
    """
    levels: dict[int, list[_Vertex]] = {}
    for vertex in vertices:
        levels.setdefault(vertex.level, []).append(vertex)
    below: dict[int, list[_Vertex]] = {}
    for vertex in vertices:
        for other in vertex.above:
            below.setdefault(id(other), []).append(vertex)
    widest = max(map(len, levels.values()))
    for row in levels.values():
        for number, vertex in enumerate(row):
            vertex.x = number - (len(row) - 1) / 2
    for sweep in range(8):
        downwards = sweep % 2 == 0
        for level in sorted(levels, reverse=not downwards):
            row = levels[level]
            wish = {}
            for vertex in row:
                near = vertex.above if downwards else below.get(id(vertex), [])
                wish[id(vertex)] = sum(n.x for n in near) / len(near) if near else vertex.x
            row.sort(key=lambda vertex: wish[id(vertex)])
            # Where they wish to be, moved apart, and back so that their mean is as wished.
            xs: list[float] = []
            for vertex in row:
                xs.append(max(wish[id(vertex)], xs[-1] + 1) if xs else wish[id(vertex)])
            shift = sum(wish[id(vertex)] - x for vertex, x in zip(row, xs, strict=True)) / len(row)
            for vertex, x in zip(row, xs, strict=True):
                vertex.x = x + shift
    leftmost = min(vertex.x for vertex in vertices)
    for vertex in vertices:
        vertex.x -= leftmost
    return max(widest, max(vertex.x for vertex in vertices) + 1)


def _draw_graph(vertices: list[_Vertex], title: str, ax: Any) -> Any:
    patches = _extras.require("matplotlib.patches", extra="plots")
    width = _place(vertices)
    depth = max(vertex.level for vertex in vertices)
    ax = new_axes(ax, max(1.6 * width, 4), 0.85 * (depth + 1) + 0.4)
    half = 0.3
    for vertex in vertices:
        y = -vertex.level
        for other in vertex.above:
            start = -other.level - (half if other.box else 0)
            end = y + (half if vertex.box else 0)
            style = "-" if vertex.box is None else "-|>"
            arrow = {"arrowstyle": style, "color": GREY, "lw": 1, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (vertex.x, end), (other.x, start), arrowprops=arrow)
        if vertex.box is None:
            continue
        colour = COLOURS[vertex.box.kind]
        ax.add_patch(
            patches.FancyBboxPatch(
                (vertex.x - 0.42, y - half + 0.04),
                0.84,
                2 * half - 0.08,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=tuple(channel / 255 for channel in colour),
                edgecolor="0.25",
                lw=0.6,
            )
        )
        name, detail, *others = vertex.box.lines()
        detail = " ".join([detail, *others[:-1]])
        text = "\n".join(filter(None, [name[-24:], detail, others[-1]]))
        ink = tuple(channel / 255 for channel in text_colour(colour))
        ax.text(vertex.x, y, text, ha="center", va="center", fontsize=7, color=ink)
    ax.set_xlim(-0.6, width - 0.4)
    ax.set_ylim(-depth - 0.5, 0.5)
    ax.set_axis_off()
    ax.set_title(title, fontsize="medium")
    return ax
