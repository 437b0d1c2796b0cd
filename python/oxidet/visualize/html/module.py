"""Modules: a tree that unfolds, with hyper-parameters, parameters and multiply-adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oxidet import nn
from oxidet._text import abbreviated
from oxidet.models.detection import Detector
from oxidet.visualize.html import fragments
from oxidet.visualize.html.fragments import Html, Node

if TYPE_CHECKING:
    from oxidet._work import Work

SMALL = 24  # modules of a network that begins unfolded
MOST = 2000  # modules that have lines
LONGEST = 160  # characters of hyper-parameters
MOST_NAMES = 20  # classes that are named


def module_html(model: nn.Module) -> str:
    """A self-contained HTML fragment. Names and hyper-parameters are escaped.

    Nothing is computed: multiply-adds are those of an input of the usual size, where the network
    tells what that is, and found by tracing it.
    """
    from oxidet._work import usual_work

    work = usual_work(model)
    walk = _Walk(work, unfolded=sum(1 for _ in model.modules()) <= SMALL)
    root = walk.node("", "", model)
    headings = [("module", 12), ("parameters", 7.2), *([("MACs", 5.2)] if work else [])]
    facts = [*_facts(model), *([f"MACs: multiply-adds for {work.input}"] if work else [])]
    if walk.left:
        facts.append(f"{walk.left:,} further modules have no line here")
    return fragments.block(
        fragments.paragraph(Html(f"{root.label}: {_totals(model, work)}")),
        fragments.paragraph(*facts, quiet=True) if facts else "",
        fragments.tree(headings, root.below) if root.below else "",
    )


class _Walk:
    """Makes the nodes of a tree, module by module."""

    def __init__(self, work: Work | None, unfolded: bool) -> None:
        self.work = work
        self.unfolded = unfolded
        self.seen: dict[nn.Module, str] = {}
        self.left = 0

    def node(self, name: str, path: str, module: nn.Module, frozen: bool = False) -> Node:
        """A module and what is below it; ``frozen`` if the one above says so of all."""
        title = f"<strong>{fragments.text(name)}</strong> " if name else ""
        kind = fragments.text(type(module).__name__)
        title += kind if name else f"<strong>{kind}</strong>"
        if module in self.seen:
            same = f"the same as {self.seen[module] or 'the whole'}"
            label = f"{title} <small>{fragments.text(same)}</small>"
            return Node(Html(label), [""] * (2 if self.work else 1))
        self.seen[module] = path
        parameters = list(module.parameters())
        frozen_here = bool(parameters) and not any(p.requires_grad for p in parameters)
        arguments = _arguments(module)
        told = [f"({arguments})" if arguments else ""]
        told.append("frozen" if frozen_here and not frozen else "")
        details = " ".join(fragments.text(words) for words in told if words)
        cells = [_number(sum(p.numel() for p in parameters))]
        if self.work:
            macs = self.work.macs.get(path, 0)
            cells.append(abbreviated(macs) if macs else "")
        label = f"{title} <small>{details}</small>" if details else title
        node = Node(Html(label), cells, unfolded=self.unfolded)
        for key, child in module.named_children():
            if len(self.seen) >= MOST and child not in self.seen:
                below = sum(1 for inner in child.modules() if inner not in self.seen)
                self.left += below
                continue
            inner = f"{path}.{key}" if path else key
            node.below.append(self.node(key, inner, child, frozen or frozen_here))
        return node


def _arguments(module: nn.Module) -> str:
    """A module's hyper-parameters, as ``print`` shows them, in one line that is not too long."""
    try:
        words = module.extra_repr()
        if not words and type(module).__repr__ is not nn.Module.__repr__:
            shown = repr(module)
            start, end = f"{type(module).__name__}(", ")"
            whole = shown.startswith(start) and shown.endswith(end)
            words = shown[len(start) : -1] if whole else ""
    except Exception:  # a mistake in somebody's class is no reason to show nothing of a network
        return ""
    line = " ".join(words.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _totals(model: nn.Module, work: Work | None) -> str:
    """Numbers of the whole network, and the mode it is in."""
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters)
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    told = [f"{count:,} parameters" + (f" ({frozen:,} frozen)" if frozen else "")]
    stored = [*parameters, *dict.fromkeys(model.buffers())]
    if stored:
        told.append(abbreviated(sum(entry.data.nbytes for entry in stored), "B"))
    if work:
        told.append(f"{abbreviated(work.macs.get('', 0))} MACs")
    told.append("in training mode" if model.training else "in evaluation mode")
    return ", ".join(told)


def _facts(model: Any) -> list[str]:
    """What a detector or classifier is for."""
    facts = []
    names = getattr(model, "class_names", None)
    if isinstance(names, (tuple, list)) and names:
        listed = ", ".join(map(str, names[:MOST_NAMES]))
        left = len(names) - MOST_NAMES
        classes = "1 class" if len(names) == 1 else f"{len(names)} classes"
        facts.append(f"{classes}: {listed}" + (f" and {left} more" if left > 0 else ""))
    if isinstance(model, Detector):
        facts.append(
            f"predict keeps scores above {model.score_threshold:g}, and drops boxes that overlap "
            f"one of their class by an IoU above {model.nms_threshold:g}"
        )
    return facts
