"""What identifies a network: its text, its keys, its weights and its work."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from oxidet import nn
from oxidet.nn.recording import record


class Text(NamedTuple):
    """The ``print`` of a network: lines, characters and hash in the classic form, and a hash in
    that of torch 2.13."""

    lines: int
    characters: int
    classic: str
    newest: str


class State(NamedTuple):
    """Its ``state_dict``: keys, elements, and a hash of the listing ``key d0,d1,...``."""

    keys: int
    elements: int
    listing: str


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def text_of(model: nn.Module) -> Text:
    with nn.repr_style("classic"):
        classic = str(model)
    with nn.repr_style("torch2.13"):
        newest = str(model)
    return Text(classic.count("\n") + 1, len(classic), digest(classic), digest(newest))


def state_of(model: nn.Module) -> State:
    state = model.state_dict()
    listing = "\n".join(f"{key} {','.join(map(str, v.shape))}" for key, v in state.items())
    return State(len(state), sum(v.size for v in state.values()), digest(listing))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications of convolutions and linear layers for one batch, as ``forward`` has them."""
    total = 0
    for node in record(model, shape).nodes:
        if node.op in ("conv2d", "linear"):
            weight = node.constants["weight"].array
            pixels = node.shape[1] * node.shape[2] if len(node.shape) == 3 else 1
            total += pixels * weight.size
    return shape[0] * total


def sizes(model: nn.Module, shape: tuple[int, ...], *layers: str) -> list[tuple[int, ...]]:
    """(C, H, W) or (F,) of what each layer (a dotted path) returns."""
    recording = record(model, shape)
    outputs = {call.path: call.outputs[0] for call in recording.calls}
    return [recording.shapes[outputs[layer]] for layer in layers]
