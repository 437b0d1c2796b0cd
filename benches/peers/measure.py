"""Timing two implementations of one thing side by side.

The rivals take turns, so that whatever else the machine does meets both; the median is reported
with the quartiles. Nothing is timed before the results were compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Case:
    """One line of the table."""

    name: str
    ours: Callable[[], Any]
    theirs: dict[str, Callable[[], Any]]  # by the name of the rival's variant
    tolerance: float = 1e-4  # of max|a - b| / max|b|; 0 asks for equality
    results: Callable[[Any], list[Any]] = field(default=lambda result: [result])  # what to compare


@dataclass
class Timing:
    """Seconds per call."""

    median: float
    low: float  # first quartile
    high: float  # third quartile

    def __str__(self) -> str:
        median, low, high = (
            np.format_float_positional(1e3 * value, 3, fractional=False, trim="-")
            for value in (self.median, self.low, self.high)
        )
        return f"{median} ({low} to {high})"


def check(case: Case) -> float:
    """Run every implementation once; the largest error, or SystemExit where one is too large."""
    ours = case.results(case.ours())
    worst = 0.0
    for variant, function in case.theirs.items():
        theirs = case.results(function())
        if len(ours) != len(theirs):
            raise SystemExit(f"{case.name}: {len(ours)} results, {len(theirs)} from {variant}")
        for a, b in zip(ours, theirs, strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            if a.shape != b.shape:
                raise SystemExit(f"{case.name}: shape {a.shape}, {b.shape} from {variant}")
            scale = np.abs(b).max(initial=0.0) or 1.0
            error = float(np.abs(a - b).max(initial=0.0) / scale)
            if not error <= case.tolerance:
                raise SystemExit(f"{case.name}: differs from {variant} by {error:.2g}")
            worst = max(worst, error)
    return worst


def measure(
    case: Case,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    least_rounds: int = 5,
    progress: Callable[[dict[str, list[float]]], None] | None = None,
) -> dict[str, Timing]:
    """Time the implementations in turns, for about ``seconds`` each; the first is ``oxidet``.

    ``progress`` is called after every round with the seconds so far.
    """
    functions = {"oxidet": case.ours, **case.theirs}
    for function in functions.values():
        function()
    samples: dict[str, list[float]] = {name: [] for name in functions}
    started = time.perf_counter()
    rounds = 0
    while rounds < least_rounds or time.perf_counter() - started < seconds * len(functions):
        for name, function in functions.items():
            before = clock()
            function()
            samples[name].append(clock() - before)
        rounds += 1
        if progress is not None:
            progress(samples)
    timings = {}
    for name, values in samples.items():
        low, median, high = statistics.quantiles(values, n=4)
        timings[name] = Timing(median, low, high)
    return timings
