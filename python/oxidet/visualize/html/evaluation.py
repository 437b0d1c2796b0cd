"""Evaluations: average precision by class, and COCO's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oxidet.visualize.html import fragments
from oxidet.visualize.html.fragments import Html

if TYPE_CHECKING:
    from oxidet.train.evaluate import Evaluation


def evaluation_html(result: Evaluation) -> str:
    """A self-contained HTML fragment. Names are escaped."""
    objects, coco = result.objects_by_class, result.coco_ap
    columns = [("class", True), ("objects", False), (result._ap_name(), False), ("", True)]
    rows = [
        [name, objects[name], _figure(value), fragments.bar(value, spare=True)]
        for name, value in result.ap.items()
    ]
    if result.coco is not None:
        columns.append(("AP 50:95", False))
        for row in rows:
            row.append(_figure(coco[str(row[0])]))
    classes = fragments.table(columns, rows)
    figures = result.coco_figures
    coco_table = fragments.table(
        (("COCO", True), ("", False), ("", True)),
        [(name, _figure(value), fragments.bar(value)) for name, value in figures.items()],
    )
    skipped = len(result.skipped)
    left_out = f", {skipped} left out" if skipped else ""
    return fragments.block(
        fragments.paragraph(
            Html(
                f"mean average precision <strong>{_figure(result.mean_ap)}</strong> at IoU "
                f"{result.iou_thresh:g}: {_things(result.images, 'image')}{left_out}, "
                f"{_things(result.objects, 'object')}"
            )
        ),
        fragments.side_by_side(classes, coco_table if figures else ""),
    )


def _figure(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _things(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"
