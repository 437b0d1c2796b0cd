"""The text of ``print(model)``: torch's, in the form of torch up to 2.12 or that of torch 2.13.

The assembly rule: a module's own arguments and its children each make a line; a module with one
argument line and no children prints on one line.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

STYLES = ("classic", "torch2.13")

_style: contextvars.ContextVar[str] = contextvars.ContextVar("repr_style", default="classic")


def get_repr_style() -> str:
    """The form in force: ``"classic"`` or ``"torch2.13"``."""
    return _style.get()


@contextlib.contextmanager
def repr_style(style: str) -> Iterator[None]:
    """Print modules as another release of torch does, inside a ``with`` block.

    ``"classic"`` (the default) is the form of torch up to 2.12; ``"torch2.13"`` adds ``bias=`` to
    batch normalisation.
    """
    if style not in STYLES:
        raise ValueError(f"style: expected one of {STYLES}, got {style!r}")
    token = _style.set(style)
    try:
        yield
    finally:
        _style.reset(token)


def _indent(text: str, by: int = 2) -> str:
    """Indent every line but the first; blank lines stay blank."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * by + line if line.strip() else line for line in rest)])


def assemble(name: str, extra: str, children: list[tuple[str, str]]) -> str:
    """The text of a module from its own arguments and its children's (key, text)."""
    extra_lines = extra.split("\n") if extra else []
    child_lines = [_indent(f"({key}): {text}") for key, text in children]
    if not child_lines and len(extra_lines) <= 1:
        return f"{name}({extra})"
    return f"{name}(\n  " + "\n  ".join(extra_lines + child_lines) + "\n)"


def group_equal(children: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join consecutive children with equal text, as ModuleList prints them."""
    grouped: list[tuple[str, str]] = []
    start = 0
    for end in range(1, len(children) + 1):
        if end < len(children) and children[end][1] == children[start][1]:
            continue
        key, text = children[start]
        if end - start > 1:
            key, text = f"{key}-{children[end - 1][0]}", f"{end - start} x {text}"
        grouped.append((key, text))
        start = end
    return grouped
