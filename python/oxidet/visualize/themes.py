"""Light and dark paper for the plots, and what can be read on it.

A plot follows matplotlib's settings, which :func:`theme` changes for a while. What it draws in a
colour of its own is chosen by the contrast with the axes, as WCAG 2 measures it: 4.5 for text, 3
for lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal

from oxidet import _extras
from oxidet.visualize.palette import PALETTE, Colour, contrast, text_colour

LINES = 3.0  # contrast from which on a line stands out


def _settings(paper: str, ink: str, faint: str) -> dict[str, Any]:
    """matplotlib's names of everything that is paper, ink or a faint line."""
    cycler = _extras.require("matplotlib", extra="plots").cycler
    inked = (
        "text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color",
        "ytick.color", "patch.edgecolor", "boxplot.boxprops.color", "hatch.color",
    )  # fmt: skip
    papers = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    return {
        **dict.fromkeys(inked, ink),
        **dict.fromkeys(papers, paper),
        "figure.edgecolor": paper,
        "savefig.edgecolor": paper,
        "grid.color": faint,
        "legend.edgecolor": faint,
        "lines.color": ink,
        "axes.prop_cycle": cycler(color=[_hex(c) for c in standing_out(_rgb(paper))]),
    }


THEMES = {"light": ("#ffffff", "#222222", "#b8b8b8"), "dark": ("#1b1b1b", "#e8e8e8", "#606060")}


_NAME: ContextVar[str] = ContextVar("theme", default="light")


def sheet_colours() -> tuple[Colour, Colour]:
    """Paper and ink of sheets that Pillow draws: those of the theme, or white and black."""
    paper, ink, _ = THEMES[_NAME.get()]
    return _rgb(paper), _rgb(ink)


@contextlib.contextmanager
def theme(name: Literal["light", "dark"]) -> Iterator[None]:
    """Plot on white paper or on dark, with lines in colours that stand out from it.

    Sheets of pictures, and legends under them, are on that paper as well.

    Needs matplotlib (extra ``plots``), whose settings are what they were afterwards. Figures keep
    the theme in which they were made.

    Raises
    ------
    ValueError
        There is no such theme.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from oxidet import visualize
    >>> with visualize.theme("dark"):
    ...     ax = visualize.confusion_matrix([[3, 1], [0, 4]], names=["cat"])
    >>> ax.get_figure().get_facecolor()[:3] < (0.2, 0.2, 0.2)
    True
    """
    if name not in THEMES:
        raise ValueError(f"name: expected one of {list(THEMES)}, got {name!r}")
    matplotlib = _extras.require("matplotlib", extra="plots")
    before = _NAME.set(name)
    try:
        with matplotlib.rc_context(_settings(*THEMES[name])):
            yield
    finally:
        _NAME.reset(before)


def standing_out(paper: Colour, least: float = LINES) -> list[Colour]:
    """The colours of the palette that have some contrast with a background, in their order."""
    return [colour for colour in PALETTE if contrast(colour, paper) >= least]


def paper(ax: Any) -> Colour:
    """What some axes are drawn on, as RGB 0..255."""
    colour = ax.get_facecolor()
    figure = ax.get_figure().get_facecolor()
    alpha, behind = colour[3], figure[3]
    mixed = (
        alpha * colour[i] + (1 - alpha) * (behind * figure[i] + (1 - behind)) for i in range(3)
    )
    r, g, b = (round(255 * channel) for channel in mixed)
    return r, g, b


def ink(ax: Any) -> str:
    """The colour of text on some axes: matplotlib's, if it can be read there."""
    background = paper(ax)
    colours = _extras.require("matplotlib.colors", extra="plots")
    wanted = str(
        colours.to_hex(_extras.require("matplotlib", extra="plots").rcParams["text.color"])
    )
    return wanted if contrast(_rgb(wanted), background) >= 4.5 else _hex(text_colour(background))


def line_colours(ax: Any) -> list[str]:
    """Colours of the palette for lines on some axes."""
    return [_hex(colour) for colour in standing_out(paper(ax))]


def shades(ax: Any) -> Any:
    """A colour map from the paper of some axes, for 0, to what differs from it most, for 1."""
    colours = _extras.require("matplotlib.colors", extra="plots")
    background = paper(ax)
    dark = text_colour(background) == (255, 255, 255)
    steps = ["#26466b", "#4f97cf", "#bfe3fb"] if dark else ["#9fcdec", "#2b7fc0", "#08306b"]
    return colours.LinearSegmentedColormap.from_list("shades", [_hex(background), *steps])


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _rgb(colour: str) -> Colour:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return r, g, b
