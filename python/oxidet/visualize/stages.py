"""The stages of a Faster R-CNN on the picture, each as a plot of what ``explain`` returned.

Pictures lie on axes in pixels, so that an edge at 0 is the left or upper edge of the first pixel,
as in the boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet._arrays import F32, integer
from oxidet.visualize._networks import as_axes, mosaic
from oxidet.visualize._plotted_captions import add_captions
from oxidet.visualize.palette import Colour, label_colour, text_colour
from oxidet.visualize.themes import ink, shades

if TYPE_CHECKING:
    from oxidet.models.detection.stages import Level
    from oxidet.visualize.explain import Explanation

Array = NDArray[Any]

LARGEST = 1200  # pixels of a side of a picture in a plot; more are not seen
DOTS = 4000  # centres of cells that can be told apart
TILE = 64  # pixels of a region's side
LARGEST_CROWD = 500  # suppressed boxes, from the best; more hide the picture
COLUMNS = 6  # regions side by side
SCORES = "viridis"  # the colours of scores, alike in their order for any colour vision


def anchors(
    explained: Explanation,
    *,
    places: Sequence[tuple[float, float]] | None = None,
    ax: Any = None,
) -> Any:
    """Show the anchors of some places, coloured by size, with matplotlib (extra ``plots``).

    Dots are the centres of cells, of the finest level in which they can be told apart.

    Parameters
    ----------
    explained
        What :func:`explain` returned.
    places
        (x, y) in pixels; of each level the anchors of the nearest cell are drawn. By default the
        middle, and two more if the anchors are small beside the picture.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.
    """
    ax = _picture(explained, ax, dim=0.55)
    height, width = explained.image.shape[:2]
    groups = _sizes(explained.levels)
    if places is None:
        places = [(width / 2, height / 2)]
        largest = max((size for _, size, _ in groups), default=0)
        if 1.6 * largest < min(width / 3, height / 2):
            places += [(width / 5, height / 4), (width * 4 / 5, height * 3 / 4)]
    dotted = [level for level in explained.levels if level.objectness[..., 0].size <= DOTS]
    if dotted:
        centres = _centres(dotted[0]).reshape(-1, 2)
        ax.plot(*centres.T, ".", markersize=1.5, color="white", alpha=0.4, markeredgewidth=0)
    lines = _extras.require("matplotlib.lines", extra="plots")
    handles = []
    for place, (index, size, members) in enumerate(groups):
        level, colour = explained.levels[index], label_colour(place)
        cells = [_nearest(level, x, y) for x, y in places]
        shown = [level.anchors[row, column, members] for row, column in cells]
        _frames(ax, np.concatenate(shown), [_unit(colour)], 1.4)
        name = f"{size:.0f} px" + (f", level {level.name}" if len(explained.levels) > 1 else "")
        handles.append(lines.Line2D([], [], color=_unit(colour), linewidth=3, label=name))
    if handles:
        ax.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            borderaxespad=0,
            frameon=False,
            fontsize="small",
            title="size",
            title_fontsize="small",
        )
    count = sum(level.objectness.size for level in explained.levels)
    title = f"anchors at {_count(len(places), 'place')} ({count:,} in all)"
    return _on_picture(ax, explained, title)


def objectness(explained: Explanation, *, level: int | str | None = None, ax: Any = None) -> Any:
    """Show where the region proposal network sees objects, with matplotlib (extra ``plots``).

    Parameters
    ----------
    explained
        What :func:`explain` returned.
    level
        Number or name of a level; by default the highest objectness of all levels is shown.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes. The colour of a place is the objectness, 0 to 1, of the best anchor of its cell.

    Raises
    ------
    ValueError
        There is no such level.
    """
    names = [one.name for one in explained.levels]
    if isinstance(level, str):
        if level not in names:
            raise ValueError(f"level: expected one of {names}, got {level!r}")
        level = names.index(level)
    shown = list(explained.levels)
    if level is not None:
        shown = [shown[integer(level, "level", 0, len(names) - 1)]]
    ax = _picture(explained, ax, dim=0.0)
    height, width = explained.image.shape[:2]
    step = max(1, max(height, width) / 400)  # pixels of the picture for one of the map
    ys = np.arange(step / 2, height, step)
    xs = np.arange(step / 2, width, step)
    heat = np.zeros((len(ys), len(xs)), np.float32)
    for one in shown:
        if one.objectness.size:
            rows, columns = _rows_and_columns(one, xs, ys)
            heat = np.maximum(heat, one.objectness.max(axis=2)[np.ix_(rows, columns)])
    shade = ax.imshow(
        heat,
        cmap="inferno",  # dark, like a veil, where nothing is
        vmin=0,
        vmax=1,
        alpha=0.65,
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    _colour_bar(ax, shade, "objectness, 0 to 1")
    of = "all levels" if level is None and len(shown) > 1 else f"level {shown[0].name}"
    title = "objectness" if len(names) == 1 else f"objectness: {of}"
    return _on_picture(ax, explained, title)


def proposals(explained: Explanation, *, most: int = 50, ax: Any = None) -> Any:
    """Show the best proposals, coloured by score, with matplotlib (extra ``plots``).

    Parameters
    ----------
    explained
        What :func:`explain` returned.
    most
        How many to show, from the best.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.
    """
    ax = _picture(explained, ax, dim=0.6)
    boxes = explained.proposals[: integer(most, "most", 1)]
    scores = explained.proposal_scores[: len(boxes)]
    colours = _extras.require("matplotlib.colors", extra="plots")
    cm = _extras.require("matplotlib.cm", extra="plots")
    map_ = _extras.require("matplotlib", extra="plots").colormaps[SCORES]
    bright = colours.ListedColormap(map_(np.linspace(0.4, 1, 256)))  # than the picture
    high = float(scores.max(initial=0.01))
    low = min(float(scores.min(initial=1.0)), high - 0.01)
    mappable = cm.ScalarMappable(colours.Normalize(low, high), bright)
    _frames(ax, boxes[::-1], mappable.to_rgba(scores[::-1]), 1.2)
    _colour_bar(ax, mappable, "objectness")
    title = f"proposals: the best {len(boxes)} of {len(explained.proposals):,}"
    return _on_picture(ax, explained, title)


def regions(explained: Explanation, *, most: int = 12, ax: Any = None) -> Any:
    """Show what the second stage sees of the best proposals, with matplotlib (extra ``plots``).

    Of each, in order of objectness, a tile with the pixels, divided into the bins of the pooling,
    and under it what was pooled: the root of the mean square over the channels, in one scale for
    all. Over it stands its number, and the class with the highest probability.

    Parameters
    ----------
    explained
        What :func:`explain` returned.
    most
        How many to show, from the best.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.
    """
    ax = _new_axes(explained, ax)
    count = min(integer(most, "most", 1), len(explained.proposals))
    title = f"regions: the best {count} of {len(explained.proposals):,}, and what is pooled of them"
    if count == 0:
        return _nothing(ax, "regions: no proposals")
    matplotlib = _extras.require("matplotlib", extra="plots")
    strength = np.sqrt(np.mean(np.square(explained.pooled[:count], dtype=np.float64), axis=1))
    bins = strength.shape[1:]
    pairs = []
    for box, one in zip(explained.proposals, strength / max(strength.max(), 1e-12), strict=False):
        pooled = matplotlib.colormaps["magma"](one)[..., :3]
        rows, columns = (np.arange(TILE) * n // TILE for n in bins)
        pairs.append(np.vstack([_crop(explained.image, box), pooled[np.ix_(rows, columns)]]))
    header, gap = 26, 6
    tiles = np.stack(pairs)
    blank = np.full((count, header, TILE, 3), np.nan)
    columns = min(COLUMNS, count)
    picture = mosaic(np.concatenate([blank, tiles], axis=1), columns, gap)
    picture = np.dstack([np.nan_to_num(picture), ~np.isnan(picture[..., 0])])
    ax.imshow(picture, interpolation="nearest")
    best = explained.class_scores[:count].argmax(axis=1)
    for index in range(count):
        left = index % columns * (TILE + gap)
        top = index // columns * (header + 2 * TILE + gap)
        score = explained.class_scores[index, best[index]]
        text = f"{index + 1}: {_short(explained.class_names[best[index]], 8)}\n{score:.2f}"
        ax.text(
            left,
            top + header - 2,
            text,
            fontsize=7,
            linespacing=1.0,
            color=ink(ax),
            va="bottom",
            parse_math=False,
            in_layout=False,
        )
        for line, offset in ((ax.vlines, left), (ax.hlines, top + header)):
            marks = offset + np.arange(1, bins[1] if line == ax.vlines else bins[0]) * (
                TILE / (bins[1] if line == ax.vlines else bins[0])
            )
            low, high = (
                (top + header, top + header + TILE) if line == ax.vlines else (left, left + TILE)
            )
            line(marks - 0.5, low - 0.5, high - 0.5, color="white", linewidth=0.4, alpha=0.6)
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(title, fontsize="medium")
    return ax


def class_scores(
    explained: Explanation, *, most: int = 12, most_classes: int = 12, ax: Any = None
) -> Any:
    """Show the probabilities of the best proposals as a table, with matplotlib (extra ``plots``).

    Parameters
    ----------
    explained
        What :func:`explain` returned.
    most
        How many proposals to show, from the best; their numbers are those of :func:`regions`.
    most_classes
        How many classes to show, background among them: those with the highest probabilities.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.
    """
    ax = _new_axes(explained, ax)
    count = min(integer(most, "most", 1), len(explained.proposals))
    if count == 0:
        return _nothing(ax, "class scores: no proposals")
    scores = explained.class_scores[:count]
    wanted = integer(most_classes, "most_classes", 1)
    ranked = np.argsort(-scores[:, 1:].max(axis=0), kind="stable")[: wanted - 1]
    chosen = np.concatenate([[0], np.sort(ranked) + 1])
    table, names = scores[:, chosen], explained.class_names
    shade = ax.imshow(table, cmap=shades(ax), vmin=0, vmax=1, aspect="auto")
    if table.size <= 400:
        colours = shade.to_rgba(table)
        for row, column in np.argwhere(table >= 0.005):
            r, g, b = (round(255 * c) for c in colours[row, column, :3])
            ax.text(
                column,
                row,
                f"{table[row, column]:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color=_unit(text_colour((r, g, b))),
            )
    labels = [_short(names[index], 14) for index in chosen]
    turned = max(map(len, labels)) * len(labels) > 42
    ax.set_xticks(range(len(chosen)), labels, fontsize=8, parse_math=False)
    if turned:
        ax.tick_params(axis="x", labelrotation=45)
        for label in ax.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    ax.set_yticks(range(count), [str(index + 1) for index in range(count)], fontsize=8)
    ax.set_ylabel("proposal, by objectness", fontsize="small")
    of = "" if len(chosen) == len(names) else f", {len(chosen)} of {len(names)} classes"
    ax.set_title(f"class scores, 0 to 1{of}", fontsize="medium")
    return ax


def boxes(explained: Explanation, *, captions: int = 30, ax: Any = None) -> Any:
    """Show what was found, with matplotlib (extra ``plots``).

    Broad frames are the detections, thin ones what they suppressed.

    Parameters
    ----------
    explained
        What :func:`explain` returned.
    captions
        How many of the detections to name, from the best; those with room for it.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.
    """
    ax = _picture(explained, ax, dim=0.0)
    found = explained.detections
    candidates = explained.candidates[:LARGEST_CROWD]
    _frames(ax, candidates.boxes, [_unit(label_colour(row.label)) for row in candidates], 0.7)
    for row in list(found)[::-1]:
        _frames(ax, [row.box], [_unit(label_colour(row.label))], 2.2, outline=row.label)
    named = found[: integer(captions, "captions", 0)]
    add_captions(
        ax,
        [row.box for row in named],
        [(f"{row.name} {row.score:.2f}", row.name) for row in named],
        [label_colour(row.label) for row in named],
    )
    title = f"boxes: {len(found)} remain of {_count(len(explained.candidates), 'candidate')}"
    return _on_picture(ax, explained, title)


STAGES: tuple[Callable[..., Any], ...] = (
    anchors,
    objectness,
    proposals,
    regions,
    class_scores,
    boxes,
)


# --- axes and pictures


def _new_axes(explained: Explanation, ax: Any) -> Any:
    if ax is not None:
        return as_axes(ax)
    pyplot = _extras.require("matplotlib.pyplot", extra="plots")
    return pyplot.figure(figsize=(6.4, 4.8), layout="constrained").add_subplot()


def _picture(explained: Explanation, ax: Any, dim: float) -> Any:
    """Axes with the picture in them; with ``dim`` above 0 grey and so much darker."""
    ax = _new_axes(explained, ax)
    height, width = explained.image.shape[:2]
    shown: Array = explained.image
    if max(height, width) > LARGEST:
        pictures = _extras.require("PIL.Image", extra="images")
        small = pictures.fromarray(shown)
        small.thumbnail((LARGEST, LARGEST), pictures.Resampling.BOX)
        shown = np.asarray(small)
    if dim:
        grey = shown @ np.array([0.299, 0.587, 0.114])
        shown = np.repeat((grey * (1 - dim)).astype(np.uint8)[..., None], 3, axis=2)
    ax.imshow(shown, extent=(0, width, height, 0))
    return ax


def _on_picture(ax: Any, explained: Explanation, title: str) -> Any:
    """The picture fills the axes, which say what they count."""
    height, width = explained.image.shape[:2]
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_xlabel("x (pixels)", fontsize="small")
    ax.set_ylabel("y (pixels)", fontsize="small")
    ax.tick_params(labelsize="small")
    ax.set_title(title, fontsize="medium")
    return ax


def _nothing(ax: Any, title: str) -> Any:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize="medium")
    return ax


def _frames(ax: Any, boxes: Any, colours: Any, width: float, outline: int | None = None) -> None:
    """Boxes in some colours; with an outline that stands out from that of a label's colour."""
    collections = _extras.require("matplotlib.collections", extra="plots")
    effects = _extras.require("matplotlib.patheffects", extra="plots")
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)[:, [0, 1, 2, 1, 2, 3, 0, 3]]
    around = None
    if outline is not None:
        behind = _unit(text_colour(label_colour(outline)))
        around = [effects.withStroke(linewidth=width + 1, foreground=behind)]
    ax.add_collection(
        collections.PolyCollection(
            list(corners.reshape(-1, 4, 2)),
            facecolors="none",
            edgecolors=colours if len(corners) else "none",
            linewidths=width,
            path_effects=around,
        ),
        autolim=False,
    )


def _colour_bar(ax: Any, mappable: Any, label: str) -> None:
    bar = ax.get_figure().colorbar(mappable, ax=ax, fraction=0.04, pad=0.02)
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="small")
    if bar.solids is not None:
        bar.solids.set_alpha(1)


def _unit(colour: Colour) -> tuple[float, ...]:
    return tuple(channel / 255 for channel in colour)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _crop(image: NDArray[np.uint8], box: F32) -> Array:
    """The pixels in a box, as a square tile with values 0..1."""
    pictures = _extras.require("PIL.Image", extra="images")
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(v) for v in box)
    x1, y1 = min(max(x1, 0.0), width - 1.0), min(max(y1, 0.0), height - 1.0)
    x2, y2 = min(max(x2, x1 + 1), float(width)), min(max(y2, y1 + 1), float(height))
    rows = slice(int(y1), int(np.ceil(y2)))
    columns = slice(int(x1), int(np.ceil(x2)))
    part = pictures.fromarray(image[rows, columns])
    inner = (x1 - columns.start, y1 - rows.start, x2 - columns.start, y2 - rows.start)
    tile = part.resize((TILE, TILE), pictures.Resampling.BILINEAR, box=inner)
    return np.asarray(tile) / 255


# --- cells and anchors


def _centres(level: Level) -> F32:
    """(h, w, 2): where the anchors of each cell have their common centre, x and y."""
    first = level.anchors[:, :, 0]
    centres: F32 = (first[..., :2] + first[..., 2:]) * np.float32(0.5)
    return centres


def _rows_and_columns(level: Level, xs: Array, ys: Array) -> tuple[Array, Array]:
    """Of some coordinates the cells whose centres are nearest."""
    centres = _centres(level)
    across, down = centres[0, :, 0], centres[:, 0, 1]
    return (
        np.abs(np.asarray(ys)[:, None] - down).argmin(axis=1),
        np.abs(np.asarray(xs)[:, None] - across).argmin(axis=1),
    )


def _nearest(level: Level, x: float, y: float) -> tuple[int, int]:
    rows, columns = _rows_and_columns(level, np.array([x]), np.array([y]))
    return int(rows[0]), int(columns[0])


def _sizes(levels: Sequence[Level]) -> list[tuple[int, float, list[int]]]:
    """Anchors of one size: the level, the root of their area, and which of a cell's they are."""
    groups: list[tuple[int, float, list[int]]] = []
    for index, level in enumerate(levels):
        if not level.objectness.size:
            continue
        cell = level.anchors[0, 0]
        sides = np.sqrt(np.prod(cell[:, 2:] - cell[:, :2], axis=1))
        for member in np.argsort(sides, kind="stable"):
            same = groups and groups[-1][0] == index and sides[member] < 1.15 * groups[-1][1]
            if same:  # corners may have been rounded
                groups[-1][2].append(int(member))
            else:
                groups.append((index, float(sides[member]), [int(member)]))
    return groups
