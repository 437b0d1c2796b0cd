"""What ``Module.plan`` and ``Module.profile`` return: rows of numbers that print as a table."""

from __future__ import annotations

import abc
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from oxidet import _core
from oxidet._text import abbreviated

Shape = tuple[int, ...]

# Columns of a terminal. Where a table does not fit, the names of layers lose their beginning.
WIDTH = 100
SHORTEST_NAME = 12
# In tables; rows have the full words.
ABBREVIATIONS = {"batch_norm": "bn"}


@dataclass(frozen=True)
class PlanStep:
    """One step of a plan, for the whole batch.

    Attributes
    ----------
    name
        Dotted path of the layer.
    op, algorithm
        What is computed, and how.
    fused
        Operations behind ``op`` that are done in the same step, in their order.
    in_shape, out_shape
        Of the (first) input and the output, (N, C, H, W) or (N, F).
    macs
        Multiplications with an addition that a direct sum takes.
    weight_bytes, output_bytes
        Size of the packed weights and of the output.
    """

    name: str
    op: str
    algorithm: str
    fused: tuple[str, ...]
    in_shape: Shape
    out_shape: Shape
    macs: int
    weight_bytes: int
    output_bytes: int


@dataclass(frozen=True)
class ProfileStep(PlanStep):
    """One step of a plan with its time.

    Attributes
    ----------
    seconds, fastest
        Median and minimum over the repeats.
    share
        Of the median in the sum of all medians, 0..1.
    gflops
        ``2e-9 * macs / seconds``: effective, as if every algorithm did what a direct sum does.
    of_peak
        ``gflops`` over ``peak_gflops`` of the report; above 1 where an algorithm needs fewer
        multiplications than a direct sum, or multiplies in bfloat16. NaN if the peak is unknown.
    """

    seconds: float
    fastest: float
    share: float
    gflops: float
    of_peak: float


Row = TypeVar("Row", bound=PlanStep)


class _Report(abc.ABC, Generic[Row]):
    """Rows, and what they are about."""

    # (heading, whether the column holds words)
    _columns: tuple[tuple[str, bool], ...]
    input_shapes: tuple[tuple[int, ...], ...]
    rows: tuple[Row, ...]
    memory: dict[str, int]

    def __init__(
        self,
        model: str,
        shapes: Sequence[Shape],
        precision: str,
        storage: str,
        rows: Sequence[Row],
        memory: dict[str, int],
    ) -> None:
        self.model = model
        self.input_shapes = tuple(tuple(shape) for shape in shapes)
        self.precision = precision
        self.storage = storage
        self.rows = tuple(rows)
        self.memory = dict(memory)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole plan, counted as direct sums."""
        return sum(row.macs for row in self.rows)

    def _title(self) -> str:
        shapes = ", ".join(str(shape) for shape in self.input_shapes)
        steps = f"{len(self.rows)} step" + ("" if len(self.rows) == 1 else "s")
        return (
            f"{self.model}, input {shapes}: {steps}, precision {self.precision}, "
            f"weights {self.storage}"
        )

    def _memory_line(self) -> str:
        return "memory: " + ", ".join(
            f"{what} {abbreviated(self.memory[key], 'B')}"
            for key, what in (
                ("weights", "packed weights"),
                ("arena", "activations"),
                ("scratch", "scratch"),
            )
            if key in self.memory
        )

    @abc.abstractmethod
    def _cells(self, row: Row) -> list[str]:
        """A row as text, one string a column."""

    @abc.abstractmethod
    def _total(self) -> list[str]:
        """The last line, one string a column."""

    def _notes(self) -> list[str]:
        return [self._memory_line()]

    def __str__(self) -> str:
        headings = [heading for heading, _ in self._columns]
        table = [headings, *map(self._cells, self.rows), self._total()]
        for cells in table:
            cells[1] = short(cells[1])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        room = max(WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1), SHORTEST_NAME)
        if widths[0] > room:
            widths[0] = room
            for cells in table:
                if len(cells[0]) > room:
                    cells[0] = "…" + cells[0][1 - room :]
        text = [
            "  ".join(
                cell.ljust(width) if words else cell.rjust(width)
                for cell, width, (_, words) in zip(cells, widths, self._columns, strict=True)
            ).rstrip()
            for cells in table
        ]
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        body = [text[0], rule, *text[1:-1], rule, text[-1]]
        return "\n".join([self._title(), "", *body, "", *self._notes()])

    def __repr__(self) -> str:
        return str(self)


class PlanReport(_Report[PlanStep]):
    """The steps of a plan: prints as a table and iterates over :class:`PlanStep`."""

    _columns = (
        ("layer", True),
        ("algorithm", True),
        ("fused", True),
        ("input", False),
        ("output", False),
        ("MMACs", False),
        ("weights", False),
        ("result", False),
    )

    @classmethod
    def of(
        cls, plan: _core.Plan, model: str, shapes: Sequence[Shape], precision: str, storage: str
    ) -> PlanReport:
        """The report of a plan for inputs of some shapes."""
        batch = shapes[0][0]
        rows = [PlanStep(**_fields(step, batch)) for step in plan.steps()]
        return cls(model, shapes, precision, storage, rows, plan.memory(batch))

    def _cells(self, row: PlanStep) -> list[str]:
        return [
            row.name,
            _algorithm(row),
            _fused(row),
            _shape(row.in_shape),
            _shape(row.out_shape),
            _millions(row.macs),
            abbreviated(row.weight_bytes, "B") if row.weight_bytes else "",
            abbreviated(row.output_bytes, "B"),
        ]

    def _total(self) -> list[str]:
        weights = sum(row.weight_bytes for row in self.rows)
        results = sum(row.output_bytes for row in self.rows)
        return [
            "total",
            "",
            "",
            "",
            "",
            _millions(self.macs),
            abbreviated(weights, "B"),
            abbreviated(results, "B"),
        ]

    def _notes(self) -> list[str]:
        return ["shapes are those of one image", *super()._notes()]

    def _repr_html_(self) -> str:
        from oxidet.visualize.html import plan_html

        return plan_html(self)


class ProfileReport(_Report[ProfileStep]):
    """The steps of a plan with their times: prints as a table, iterates over
    :class:`ProfileStep`.

    Attributes
    ----------
    repeats
        How often the plan ran.
    seconds
        Sum of the medians of all steps.
    peak_gflops
        What the threads in use multiply at most, all at once: measured when the profile is made,
        with the float32 micro-kernel that plans use on data in the first-level cache. 0 if that
        could not be measured.
    """

    _columns = (
        ("layer", True),
        ("algorithm", True),
        ("fused", True),
        ("output", False),
        ("ms", False),
        ("share", False),
        ("GFLOP/s", False),
        ("of peak", False),
    )

    repeats: int
    peak_gflops: float
    threads: int

    @classmethod
    def of_times(
        cls,
        plan: _core.Plan,
        model: str,
        shapes: Sequence[Shape],
        precision: str,
        storage: str,
        times: Sequence[Sequence[float]],
    ) -> ProfileReport:
        """The report of a plan that ran on inputs of some shapes; ``times`` has a list a step."""
        batch = shapes[0][0]
        peak = _core.peak_flops() * 1e-9
        medians = [statistics.median(seconds) for seconds in times]
        total = sum(medians)
        rows = []
        for step, seconds, median in zip(plan.steps(), times, medians, strict=True):
            fields = _fields(step, batch)
            gflops = 2e-9 * fields["macs"] / median if median > 0 else 0.0
            rows.append(
                ProfileStep(
                    **fields,
                    seconds=median,
                    fastest=min(seconds),
                    share=median / total if total > 0 else 0.0,
                    gflops=gflops,
                    of_peak=gflops / peak if peak > 0 else math.nan,
                )
            )
        report = cls(model, shapes, precision, storage, rows, plan.memory(batch))
        report.repeats = len(times[0]) if times else 0
        report.peak_gflops = peak
        report.threads = _core.num_threads()
        return report

    @property
    def seconds(self) -> float:
        """Sum of the medians of all steps."""
        return sum(row.seconds for row in self.rows)

    @property
    def gflops(self) -> float:
        """Effective GFLOP/s of the whole plan."""
        return 2e-9 * self.macs / self.seconds if self.seconds > 0 else 0.0

    def _cells(self, row: ProfileStep) -> list[str]:
        return [
            row.name,
            _algorithm(row),
            _fused(row),
            _shape(row.out_shape),
            f"{row.seconds * 1e3:.3f}",
            f"{row.share:.1%}",
            f"{row.gflops:.1f}" if row.macs else "",
            self._of_peak(row.gflops) if row.macs else "",
        ]

    def _total(self) -> list[str]:
        speed = f"{self.gflops:.1f}" if self.macs else ""
        of_peak = self._of_peak(self.gflops) if self.macs else ""
        return ["total", "", "", "", f"{self.seconds * 1e3:.3f}", "100.0%", speed, of_peak]

    def _of_peak(self, gflops: float) -> str:
        return f"{gflops / self.peak_gflops:.0%}" if self.peak_gflops > 0 else "?"

    def _notes(self) -> list[str]:
        threads = "1 thread reaches" if self.threads == 1 else f"{self.threads} threads reach"
        peak = [
            f"peak: {threads} {self.peak_gflops:.0f} GFLOP/s in float32 from the first-level cache "
            "(measured just now);",
            "GFLOP/s count the work of a direct sum, so what multiplies less, or in bf16, may "
            "exceed it",
        ]
        return [
            f"times are medians of {self.repeats}",
            *(peak if self.peak_gflops > 0 else ["the peak of this machine is unknown"]),
            *super()._notes(),
        ]

    def _repr_html_(self) -> str:
        from oxidet.visualize.html import profile_html

        return profile_html(self)


def _fields(step: dict[str, Any], batch: int) -> dict[str, Any]:
    """The fields of a :class:`PlanStep` from those of one image."""
    return {
        "name": step["name"],
        "op": step["op"],
        "algorithm": step["algorithm"],
        "fused": tuple(step["fused"]),
        "in_shape": (batch, *step["in_shape"]),
        "out_shape": (batch, *step["out_shape"]),
        "macs": batch * step["macs"],
        "weight_bytes": step["weight_bytes"],
        "output_bytes": batch * step["output_bytes"],
    }


def _algorithm(row: PlanStep) -> str:
    return row.algorithm or row.op


def short(algorithm: str) -> str:
    """The name of an algorithm without how exactly, which is for rows and HTML.

    >>> short("implicit gemm, band copied"), short("winograd f(6, 3), by tiles")
    ('implicit gemm', 'winograd f(6,3)')
    """
    return re.sub(r",(?![^(]*\)).*", "", algorithm).replace(", ", ",")


def _fused(row: PlanStep) -> str:
    return " ".join(ABBREVIATIONS.get(name, name) for name in row.fused)


def _shape(shape: Shape) -> str:
    """One image's shape.

    >>> _shape((8, 64, 56, 56))
    '64x56x56'
    """
    return "x".join(map(str, shape[1:]))


def _millions(macs: int) -> str:
    """
    >>> _millions(118_013_952), _millions(512_000), _millions(0)
    ('118', '0.5', '')
    """
    return _three_digits(macs / 1e6) if macs else ""


def _three_digits(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
