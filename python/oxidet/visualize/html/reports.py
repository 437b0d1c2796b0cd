"""Plans and profiles: their steps in a table, of a profile with a bar for each step's time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from oxidet.nn.report import short
from oxidet.visualize.html import fragments
from oxidet.visualize.html.fragments import Html

if TYPE_CHECKING:
    from oxidet.nn.report import PlanReport, ProfileReport, ProfileStep

ROWS = 40  # of a table that begins unfolded
SLOWEST = 12  # steps that are shown of a longer one
ALGORITHMS = 6  # that have a part of their own in the bar of all


def plan_html(report: PlanReport) -> str:
    """A self-contained HTML fragment. Names are escaped."""
    steps = fragments.table(
        report._columns, [report._cells(row) for row in report.rows], report._total()
    )
    if len(report) > ROWS:
        steps = fragments.folded(f"all {len(report)} steps", steps)
    return _report(report, steps)


def profile_html(report: ProfileReport) -> str:
    """A self-contained HTML fragment. Names are escaped.

    The bar of a step is its share of the time, relative to the step that has most of it.
    """
    longest = max((row.share for row in report.rows), default=0.0)

    def line(row: ProfileStep) -> list[Any]:
        share = row.share / longest if longest > 0 else 0.0
        return _numbers_first(report._cells(row), fragments.bar(share))

    columns = _numbers_first(report._columns, ("", True))
    total = _numbers_first(report._total(), "")
    steps = fragments.table(columns, map(line, report.rows), total)
    if len(report) > ROWS:
        slowest = sorted(report.rows, key=lambda row: -row.seconds)[:SLOWEST]
        steps = (
            fragments.paragraph(f"The {SLOWEST} slowest of {len(report)} steps:")
            + fragments.table(columns, map(line, slowest), total)
            + fragments.folded(f"all {len(report)} steps", steps)
        )
    return _report(report, fragments.stacked(_by_algorithm(report.rows)) + steps)


def _report(report: PlanReport | ProfileReport, steps: str) -> str:
    return fragments.block(
        fragments.paragraph(Html(f"<strong>{fragments.text(report._title())}</strong>")),
        steps,
        fragments.paragraph(*report._notes(), quiet=True),
    )


def _numbers_first(cells: Sequence[Any], bar: Any) -> list[Any]:
    """Cells of a profile in an order that a narrow page cuts off where it hurts least."""
    layer, algorithm, fused, output, seconds, *numbers = cells
    return [layer, seconds, bar, *numbers, algorithm, fused, output]


def _by_algorithm(rows: Iterable[ProfileStep]) -> list[tuple[str, float]]:
    """What the time goes into, most first; the least of it as one."""
    shares: dict[str, float] = defaultdict(float)
    for row in rows:
        shares[short(row.algorithm or row.op)] += row.share
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    if len(ranked) > ALGORITHMS:
        rest = math.fsum(share for _, share in ranked[ALGORITHMS - 1 :])
        ranked = [*ranked[: ALGORITHMS - 1], ("other", rest)]
    return [(name, share) for name, share in ranked if share > 0]
