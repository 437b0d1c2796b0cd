"""The pieces that every representation is made of, and their one style sheet."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oxidet.visualize.palette import label_colour

WIDTH = 560  # pixels that a picture takes at most on the page
QUALITY = 90  # of a JPEG
FLAT = 4096  # colours of a drawing at most, which is smaller as PNG

# A colour that stands out from white (5.2 to 1) and from black (4.0 to 1): palette's blue. All else
# is the page's. Classes have two of ``.oxidet`` in front, to outweigh what sites say of tables and
# folds; ``all: unset`` is against their frames and icons.
_STYLE = """
.oxidet{--ox-line:var(--jp-border-color2,rgba(128,128,128,.4));--ox-bar:#0072b2;
color:var(--jp-content-font-color1,inherit);font-variant-numeric:tabular-nums;line-height:1.45;
max-width:100%;margin:.3em 0}
.oxidet.oxidet p{margin:.3em 0}
.oxidet.oxidet .q{opacity:.75;font-size:.92em}
.oxidet.oxidet .side{display:flex;flex-wrap:wrap;gap:1em 1.5em;align-items:flex-start}
.oxidet.oxidet .side>*{min-width:0;max-width:100%}
.oxidet.oxidet .wide{overflow-x:auto;max-width:100%}
.oxidet.oxidet img{max-width:100%;height:auto;margin:0;display:block}
.oxidet.oxidet .t{border-collapse:collapse;margin:.2em 0;font-size:inherit;width:auto;
display:table;border:0;color:inherit}
.oxidet.oxidet .t tr{background:none;border:0}
.oxidet.oxidet .t :is(th,td){padding:.12em .6em;text-align:right;white-space:nowrap;border:0;
background:none;font-size:inherit;color:inherit;vertical-align:middle;min-width:0;line-height:1.45}
.oxidet.oxidet .t .w{text-align:left}
.oxidet.oxidet .t thead th{border-bottom:1px solid var(--ox-line);font-weight:600}
.oxidet.oxidet .t tbody tr+tr td{border-top:1px solid rgba(128,128,128,.15)}
.oxidet.oxidet .t tfoot :is(th,td){border-top:1px solid var(--ox-line);font-weight:600}
.oxidet.oxidet .b{display:block;width:5em;height:.7em;background:rgba(128,128,128,.18)}
.oxidet.oxidet .b i{display:block;height:100%;background:var(--ox-bar);min-width:1px}
@media(max-width:600px){.oxidet.oxidet .b.spare{display:none}
.oxidet.oxidet .t :is(th,td){padding:.12em .35em}}
.oxidet.oxidet .stack{display:flex;height:1.1em;gap:1px;max-width:48em;margin:.4em 0}
.oxidet.oxidet .stack i{display:block;height:100%;min-width:1px}
.oxidet.oxidet .c{display:inline-block;margin:.1em 1.1em .1em 0;white-space:nowrap}
.oxidet.oxidet .k{display:inline-block;width:.8em;height:.8em;margin-right:.4em;
box-shadow:0 0 0 1px rgba(128,128,128,.7);vertical-align:-.06em}
.oxidet.oxidet :is(.b,.b i,.stack i,.k){forced-color-adjust:none;print-color-adjust:exact}
.oxidet.oxidet :is(details,summary){all:unset;display:block}
.oxidet.oxidet summary{cursor:pointer}
.oxidet.oxidet summary:focus-visible{outline:2px solid var(--ox-bar)}
.oxidet.oxidet summary::before,.oxidet.oxidet .r::before{all:unset;content:"";flex:none;
display:inline-block;width:1.1em}
.oxidet.oxidet summary::before{content:"\\25B8"}
.oxidet.oxidet details[open]>summary::before{content:"\\25BE"}
.oxidet.oxidet summary::after{content:none}
.oxidet.oxidet .tree{max-width:64em}
.oxidet.oxidet .tree :is(summary,.r,.h){display:flex;align-items:baseline;padding:.08em 0;
border-bottom:1px solid rgba(128,128,128,.15)}
.oxidet.oxidet .tree summary:hover,.oxidet.oxidet .tree .r:hover{background:rgba(128,128,128,.12)}
.oxidet.oxidet .tree :is(summary,.r,.h)>span{flex:none;
text-align:right;white-space:nowrap;padding-left:.6em;box-sizing:border-box}
COLUMNS
.oxidet.oxidet .tree :is(summary,.r,.h)>span:first-of-type{flex:1 1 0;width:auto;min-width:9em;
text-align:left;white-space:normal;overflow-wrap:anywhere;padding-left:0}
.oxidet.oxidet .tree .h{border-bottom:1px solid var(--ox-line);font-weight:600}
.oxidet.oxidet .tree .n{padding-left:1.1em}
.oxidet.oxidet .tree small{opacity:.75;font-size:.88em}
"""
# The widths of a tree's columns are variables that its element sets.
_COLUMNS = "".join(
    f".oxidet.oxidet .tree :is(summary,.r,.h)>span:nth-of-type({n + 1}){{width:var(--w{n})}}"
    for n in range(1, 8)
)
STYLE = f"<style>{_STYLE.replace('COLUMNS', _COLUMNS)}</style>".replace("\n", "")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """Anything as HTML that shows it, once escaped and no more."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def block(*parts: str) -> str:
    """A whole representation."""
    return f'<div class="oxidet">{STYLE}{"".join(parts)}</div>'


def paragraph(*lines: object, quiet: bool = False) -> str:
    """Lines of text; quiet ones are smaller and paler."""
    inside = "<br>".join(text(line) for line in lines)
    return f'<p class="q">{inside}</p>' if quiet else f"<p>{inside}</p>"


def side_by_side(*parts: str) -> str:
    """Parts in a row where there is room, else below each other."""
    return f'<div class="side">{"".join(f"<div>{part}</div>" for part in parts if part)}</div>'


def table(
    columns: Sequence[tuple[str, bool]],
    rows: Iterable[Sequence[object]],
    total: Sequence[object] = (),
) -> str:
    """A table with headed columns; ``columns`` says of each whether it holds words."""

    def line(cells: Sequence[object], tag: str) -> str:
        made = "".join(
            f'<{tag} class="w">{text(cell)}</{tag}>' if words else f"<{tag}>{text(cell)}</{tag}>"
            for cell, (_, words) in zip(cells, columns, strict=True)
        )
        return f"<tr>{made}</tr>"

    head = line([heading for heading, _ in columns], "th")
    body = "".join(line(cells, "td") for cells in rows)
    foot = f"<tfoot>{line(total, 'th')}</tfoot>" if total else ""
    return (
        f'<div class="wide"><table class="t"><thead>{head}</thead><tbody>{body}</tbody>{foot}'
        "</table></div>"
    )


def folded(line: object, inside: str, *, unfolded: bool = False) -> str:
    """Something behind a line that one clicks on."""
    return (
        f"<details{' open' if unfolded else ''}><summary>{text(line)}</summary>{inside}</details>"
    )


def bar(share: float, *, spare: bool = False) -> Html:
    """A bar as long as a number from 0 to 1 says; what lies outside is cut off, NaN is none.

    A spare one leaves its place to numbers where the page is narrow.
    """
    part = f'<i style="width:{100 * min(share, 1.0):.3g}%"></i>' if share > 0 else ""
    return Html(f'<span class="b{" spare" if spare else ""}">{part}</span>')


def stacked(shares: Sequence[tuple[str, float]]) -> str:
    """A bar of named parts in the palette's colours, with a legend."""
    parts = "".join(
        f'<i style="flex:{share:.4f};background:{_css(number)}" title="{text(name)}"></i>'
        for number, (name, share) in enumerate(shares)
    )
    legend = "".join(
        chip(number, f"{name} {share:.0%}" if share >= 0.005 else f"{name} <1%")
        for number, (name, share) in enumerate(shares)
    )
    return f'<div class="stack">{parts}</div><p>{legend}</p>'


def swatch(number: int) -> Html:
    """A square in the palette's colour of a label."""
    return Html(f'<i class="k" style="background:{_css(number)}"></i>')


def chip(number: int, words: object) -> Html:
    """A few words behind their colour."""
    return Html(f'<span class="c">{swatch(number)}{text(words)}</span>')


def _css(number: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*label_colour(number))


@dataclass
class Node:
    """A line of a tree: words, cells with numbers, and what unfolds below."""

    label: Html
    cells: Sequence[str]
    below: list[Node] = field(default_factory=list)
    unfolded: bool = False


def tree(
    headings: Sequence[tuple[str, float]], nodes: Sequence[Node], total: Sequence[str] = ()
) -> str:
    """Lines that unfold, with columns of numbers on the right.

    ``headings`` has for each column a name and a width in em; the lines are the first column, and
    take at least its width and all the room that is left.
    """
    widths = [width for _, width in headings]
    style = f"min-width:{sum(widths):g}em;" if len(widths) > 3 else ""
    style += ";".join(f"--w{n}:{width:g}em" for n, width in enumerate(widths) if n)
    parts = [f'<div class="h">{_cells([heading for heading, _ in headings])}</div>']
    parts += map(_node, nodes)
    if total:
        parts.append(f'<div class="h">{_cells(total)}</div>')
    return f'<div class="wide"><div class="tree" style="{style}">{"".join(parts)}</div></div>'


def _node(node: Node) -> str:
    line = _cells((node.label, *node.cells))
    if not node.below:
        return f'<div class="r">{line}</div>'
    inside = "".join(map(_node, node.below))
    return (
        f"<details{' open' if node.unfolded else ''}><summary>{line}</summary>"
        f'<div class="n">{inside}</div></details>'
    )


def _cells(cells: Sequence[object]) -> str:
    # Spaces between them, for pages that strip styles.
    return " ".join(f"<span>{text(cell)}</span>" for cell in cells)


def picture_element(picture: Any, description: str, width: int = WIDTH) -> str:
    """A Pillow image as an ``img`` element of at most ``width`` pixels, which carries its data.

    Photographs as JPEG, drawings as PNG: notebooks keep what they show.
    """
    picture.thumbnail((2 * width, 2 * width))  # twice, for screens with small pixels
    file = io.BytesIO()
    if picture.getcolors(FLAT) is None:
        kind = "jpeg"
        picture.save(file, format=kind, quality=QUALITY, subsampling=0)  # thin lines keep colours
    else:
        kind = "png"
        picture.save(file, format=kind)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    shown = min(width, picture.width)
    return f'<img alt="{text(description)}" width="{shown}" src="data:image/{kind};base64,{data}">'
