"""What an evaluation measured, as plots: precision against recall, and which class is taken for
which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet._arrays import as_array, number
from oxidet.visualize._networks import as_axes
from oxidet.visualize.palette import text_colour
from oxidet.visualize.themes import ink, line_colours, shades

if TYPE_CHECKING:
    from oxidet.train.evaluate import Evaluation

F64 = NDArray[np.float64]

# Line by line, a colour from the palette and a dash pattern: two lines differ in more than a hue.
DASHES = ("-", "--", "-.", ":")
LARGEST_LEGEND = 10  # curves that can be told apart
LARGEST_NUMBERED = 20  # classes of a confusion matrix whose cells have room for a number


def precision_recall(
    evaluation: Evaluation | Mapping[str, Any] | Sequence[Any],
    recall: Sequence[Any] | None = None,
    *,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """Plot precision against recall of every class with matplotlib (extra ``plots``).

    The bold line of a class is the best precision at its recall or a higher one, the area under
    which is its average precision; the thin one is the precision as measured. Of more than ten
    classes, all are grey but the worst five, and their mean is drawn.

    Parameters
    ----------
    evaluation
        What ``oxidet.train.evaluate_detector`` returned; or by class name ``(precision, recall)``;
        or, with ``recall``, a list of precisions, as ``calc_detection_voc_prec_rec`` returns them:
        arrays (K,), None for a class without objects.
    recall
        The recalls that go with a list of precisions.
    names
        Names of the classes of a list; by default their labels.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        Lists of different lengths, or no class with a curve.
    """
    curves, ap = _curves(evaluation, recall, names)
    if not curves:
        raise ValueError("evaluation: expected at least one class with a curve, got none")
    if ax is None:
        pyplot = _extras.require("matplotlib.pyplot", extra="plots")
        ax = pyplot.figure(figsize=(6, 4.5), layout="constrained").add_subplot()
    as_axes(ax)

    ranked = sorted(curves, key=lambda name: ap[name])
    coloured = list(curves) if len(curves) <= LARGEST_LEGEND else ranked[:5]
    dark, colours = ink(ax), line_colours(ax)
    for name in set(curves) - set(coloured):
        ax.plot(
            *_envelope(*curves[name]),
            color=dark,
            alpha=0.3,
            linewidth=0.8,
            zorder=1,
            drawstyle="steps-pre",
        )
    for place, name in enumerate(coloured):
        precision, recalls = curves[name]
        style: dict[str, Any] = {
            "color": colours[place % len(colours)],
            "linestyle": DASHES[place % len(DASHES)],
            "drawstyle": "steps-pre",
        }
        ax.plot(
            *_envelope(precision, recalls), linewidth=2, label=f"{name}  {ap[name]:.3f}", **style
        )
        ax.plot(recalls, precision, color=style["color"], linewidth=0.6, alpha=0.5)
    if len(curves) > len(coloured):
        grid = np.linspace(0, 1, 101)
        mean = np.mean([_at(grid, *curves[name]) for name in curves], axis=0)
        value = np.mean(list(ap.values()))
        ax.plot(grid, mean, color=dark, linewidth=2.5, label=f"mean of {len(ap)}  {value:.3f}")
    ax.set_xlim(0, 1.01)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("recall")
    ax.set_ylabel("precision")
    ax.grid(alpha=0.25)
    legend = ax.legend(title="average precision", loc="lower left", framealpha=0.9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return ax


def _curves(
    evaluation: Any, recall: Sequence[Any] | None, names: Sequence[str] | None
) -> tuple[dict[str, tuple[F64, F64]], dict[str, float]]:
    """Precision and recall by class, and the average precision that goes into the legend."""
    from oxidet.detection import calc_detection_voc_ap

    if hasattr(evaluation, "curves"):
        curves = {
            name: (curve.precision, curve.recall) for name, curve in evaluation.curves.items()
        }
        # Classes that were not found at all have no line, but count.
        return curves, {name: value for name, value in evaluation.ap.items() if value == value}
    if isinstance(evaluation, Mapping):
        given = {str(name): tuple(pair) for name, pair in evaluation.items()}
    else:
        if recall is None or len(recall) != len(evaluation):
            got = "none" if recall is None else len(recall)
            raise ValueError(f"recall: expected {len(evaluation)} classes as precision, got {got}")
        labels = range(len(evaluation)) if names is None else names
        if len(labels) < len(evaluation):
            raise ValueError(f"names: expected {len(evaluation)}, got {len(labels)}")
        given = {
            str(name): pair
            for name, pair in zip(labels, zip(evaluation, recall, strict=True), strict=False)
        }
    curves = {}
    for name, (precision, recalls) in given.items():
        if precision is None or recalls is None or len(recalls) == 0:
            continue
        p = as_array(precision, "precision").astype(np.float64)
        r = as_array(recalls, "recall").astype(np.float64)
        if p.ndim != 1 or p.shape != r.shape:
            raise ValueError(f"recall: expected the shape {p.shape} of precision, got {r.shape}")
        curves[name] = p, r
    ap = calc_detection_voc_ap([p for p, _ in curves.values()], [r for _, r in curves.values()])
    return curves, dict(zip(curves, map(float, ap), strict=True))


def _envelope(precision: F64, recall: F64) -> tuple[F64, F64]:
    """Recall and the best precision at it or beyond, from recall 0 on, falling to 0 at the end."""
    best = np.maximum.accumulate(np.nan_to_num(precision)[::-1])[::-1]
    return (
        np.concatenate(([0.0], recall, recall[-1:])),
        np.concatenate((best[:1], best, [0.0])),
    )


def _at(grid: F64, precision: F64, recall: F64) -> F64:
    """The envelope at given recalls; 0 where they are not reached."""
    best = np.append(np.maximum.accumulate(np.nan_to_num(precision)[::-1])[::-1], 0.0)
    values: F64 = best[np.searchsorted(recall, grid, side="left")]
    return values


def confusion_matrix(
    evaluation: Evaluation | Any,
    names: Sequence[str] | None = None,
    *,
    score_threshold: float = 0.5,
    iou_thresh: float = 0.5,
    ax: Any = None,
) -> Any:
    """Plot how often which class was taken for which with matplotlib (extra ``plots``).

    A row is a class of objects, a column what the detector called them; the last row has detections
    where nothing is, the last column objects that were missed. A cell differs from the paper by its
    share of the row, and holds the count.

    Parameters
    ----------
    evaluation
        What ``oxidet.train.evaluate_detector`` returned, or such a matrix, ``(C + 1, C + 1)``
        counts, as ``Evaluation.confusion`` returns it.
    names
        Names of the C classes; by default the evaluation's, or labels.
    score_threshold, iou_thresh
        Of an evaluation: the detections that count, and how much they must overlap an object.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.
    """
    number(score_threshold, "score_threshold", 0, 1)
    if hasattr(evaluation, "confusion"):
        matrix = evaluation.confusion(score_threshold, iou_thresh)
        names = evaluation.class_names if names is None else names
    else:
        matrix = as_array(evaluation, "evaluation")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"evaluation: expected counts (C + 1, C + 1), got shape {matrix.shape}")
    classes = len(matrix) - 1
    labels = [str(name) for name in (range(classes) if names is None else names)]
    if len(labels) != classes:
        raise ValueError(f"names: expected {classes}, got {len(labels)}")
    if ax is None:
        pyplot = _extras.require("matplotlib.pyplot", extra="plots")
        side = min(max(3.6, 1.8 + 0.55 * classes), 14)
        ax = pyplot.figure(figsize=(side + 0.6, side), layout="constrained").add_subplot()
    as_axes(ax)

    totals = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    shade = ax.imshow(shares, cmap=shades(ax), vmin=0, vmax=1)
    if classes <= LARGEST_NUMBERED:
        letters = 10 if classes <= 12 else 8
        for row, column in np.argwhere(matrix > 0):
            r, g, b, _ = shade.to_rgba(shares[row, column], bytes=True)
            colour = tuple(c / 255 for c in text_colour((int(r), int(g), int(b))))
            count = str(matrix[row, column])
            ax.text(column, row, count, ha="center", va="center", color=colour, fontsize=letters)
    turned = sum(map(len, labels)) > 40 or classes > 8
    size = 10.0 if classes <= LARGEST_NUMBERED else max(3, 200 / classes)
    ax.set_xticks(range(classes + 1), [*labels, "missed"], fontsize=size, parse_math=False)
    ax.set_yticks(range(classes + 1), [*labels, "nothing"], fontsize=size, parse_math=False)
    if turned:
        ax.tick_params(axis="x", labelrotation=90)
    for draw_line in (ax.axhline, ax.axvline):  # set apart from the classes
        draw_line(classes - 0.5, color=ink(ax), alpha=0.6, linewidth=1)
    ax.set_xlabel("detected as")
    ax.set_ylabel("actual class")
    return ax
