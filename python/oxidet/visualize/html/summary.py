"""Summaries: the layers as a tree that unfolds, with the sums of what is folded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oxidet._summary import HEADINGS, cells, label
from oxidet._text import abbreviated
from oxidet.visualize.html import fragments
from oxidet.visualize.html.fragments import Html, Node

if TYPE_CHECKING:
    from oxidet._summary import Branch, Summary

# Of the columns, in em.
WIDTHS = (14, 8, 7, 5, 5.5, 5, 4.5, 4.5)
SMALL = 24  # lines of a network that begins unfolded


def summary_html(summary: Summary) -> str:
    """A self-contained HTML fragment. Names are escaped."""
    top = summary._root.below or [summary._root]
    unfolded = len(summary) <= SMALL
    lines = [_node(branch, unfolded) for branch in top]
    return fragments.block(
        fragments.paragraph(Html(f"<strong>{fragments.text(summary._title())}</strong>")),
        fragments.tree([*zip(HEADINGS, WIDTHS, strict=True)], lines, summary._total()),
        fragments.paragraph(*summary._notes(), quiet=True),
    )


def _node(branch: Branch, unfolded: bool) -> Node:
    numbers = cells(branch.row)
    if branch.below:
        leaves = [leaf.row for leaf in branch.leaves()]
        parameters, macs = sum(row.parameters for row in leaves), sum(row.macs for row in leaves)
        numbers[1] = f"{parameters:,}" if parameters else ""
        numbers[2] = abbreviated(macs) if macs else ""
    below = [_node(child, unfolded) for child in branch.below]
    return Node(fragments.text(label(branch)), numbers, below, unfolded)
