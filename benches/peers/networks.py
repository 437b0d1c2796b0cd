"""Whole networks beside other inference runtimes, as Markdown tables.

    python benches/peers/networks.py [--threads N] [--seconds S] [--only KEY ...] [--scaling]
                                     [--runtimes NAME ...] [--folder DIR] [--output FILE]

Every runtime has a process of its own (workers.py) with the same weights and gets the same NCHW
array; they take turns, in an order that is drawn anew each round, so that a busy moment of the
machine meets all of them. A turn is one call that is not counted, since another runtime had the
caches, and one that is. Before that, results are compared with torch's in float64.

A virtual processor whose physical core serves somebody else too computes at half its speed, for
seconds at a time. So multiply-adds in registers are timed before and after each turn, and a turn
counts only where both reached nine tenths of the most seen; the tables say how many did.

Networks are written once for each runtime, in the folder `--folder`; see export.py.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from output import to_file_or_screen
from runtimes import RUNTIMES
from workers import Worker
from workloads import BATCH, NETWORKS, PIXELS, THREADS, Workload

import oxidet
from oxidet import _core

HERE = Path(__file__).resolve().parent
PACKAGES = ("onnxruntime", "openvino", "ncnn", "pnnx", "MNN", "torch", "torchvision", "onnx")
OURS = "oxidet"
BASELINE = "onnxruntime"

# max|a - b| / max|b| against float64. oxidet promises less than the first number. A rival beyond
# the second computes with fewer bits: it is shown but counts for no ratio.
PROMISED = 1e-4
COMPARABLE = 5e-3

CALM = 0.9  # share of the processors' full speed from which a turn counts
FEWEST = 7  # calls that count, of each runtime
LONGEST = 10  # times the planned duration, then the comparison is given up


@dataclass
class Timing:
    """Calls of one runtime."""

    runtime: str
    seconds: list[float]  # of the calls that count
    turns: int  # all of them
    error: float
    idle: float  # share of the others' time in which its process used a processor

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def comparable(self) -> bool:
        return self.error <= COMPARABLE

    def row(self, ours: Timing | None) -> str:
        """Its line of the table."""
        low, _, high = (milliseconds(q) for q in statistics.quantiles(self.seconds, n=4))
        ratio = "" if ours is None or ours is self else f"{ours.median / self.median:.2f}"
        if not self.comparable:
            ratio = f"({ratio})" if ratio else ""
        return (
            f"| {self.runtime} | {milliseconds(self.median)} | {milliseconds(min(self.seconds))} "
            f"| {low} to {high} | {ratio} | {self.error:.0e} |"
        )


def milliseconds(seconds: float) -> str:
    return np.format_float_positional(1e3 * seconds, 3, fractional=False, trim="-")


def export(workload: Workload, folder: Path) -> None:
    """Writes the files of `workload` that are missing, in a process of its own."""
    command = [sys.executable, HERE / "export.py", workload.key, folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def compare(
    workload: Workload, runtimes: list[str], folder: Path, threads: int, seconds: float
) -> list[Timing]:
    """Times the runtimes in turns, for about `seconds` each."""
    export(workload, folder)
    expected = np.load(folder / workload.key / "expected.npy")
    scale = float(np.abs(expected).max())
    errors = {}
    with ExitStack() as stack:
        workers = []
        for runtime in runtimes:
            worker = stack.enter_context(Worker(runtime, workload, folder, threads))
            if worker.result.shape != expected.shape:
                raise SystemExit(f"{workload.key}: {runtime} returns {worker.result.shape}")
            errors[runtime] = float(np.abs(worker.result - expected).max() / scale)
            workers.append(worker)
        if not errors.get(OURS, 0.0) <= PROMISED:
            raise SystemExit(f"{workload.key}: {OURS} is wrong by {errors[OURS]:.1e}")
        for worker in workers:
            worker.turn(0)
        order = random.Random(0)
        started = time.perf_counter()
        total = 0.0
        counting: list[list[float]] = []
        while min(map(len, counting), default=0) < FEWEST or total < seconds * len(workers):
            if total > LONGEST * seconds * len(workers):
                raise SystemExit(f"{workload.key}: the processors are too rarely at full speed")
            before = speed(threads)
            for worker in order.sample(workers, len(workers)):
                worker.turn()
                after = speed(threads)
                worker.speeds.append(min(before, after))
                before = after
            total = time.perf_counter() - started
            counting = calm(workers)
        return [
            Timing(w.runtime, calls, len(w.seconds), errors[w.runtime], w.idle / total)
            for w, calls in zip(workers, counting, strict=True)
        ]


def calm(workers: list[Worker]) -> list[list[float]]:
    """Each worker's calls around which the processors were at full speed."""
    enough = CALM * max(max(worker.speeds) for worker in workers)
    return [
        [call for call, at in zip(w.seconds, w.speeds, strict=True) if at >= enough]
        for w in workers
    ]


def speed(threads: int) -> float:
    """Floating-point operations per second of multiply-adds in registers, on all threads."""
    oxidet.set_num_threads(threads)
    return _core.peak_flops()


def tables(results: dict[Workload, list[Timing]], out: TextIO) -> None:
    """A line per network, then a table for each."""
    print(f"| | {OURS}, ms | {BASELINE}, ms | best rival, ms | {OURS} / {BASELINE} "
          f"| {OURS} / best rival |", file=out)  # fmt: skip
    print("|---|---|---|---|---|---|", file=out)
    for workload, timings in results.items():
        by_name = {timing.runtime: timing for timing in timings}
        rivals = [t for t in timings if t.runtime != OURS and t.comparable]
        cells = [workload.title, *(["–"] * 5)]
        ours, baseline = by_name.get(OURS), by_name.get(BASELINE)
        best = min(rivals, key=lambda timing: timing.median, default=None)
        if ours:
            cells[1] = milliseconds(ours.median)
        if baseline:
            cells[2] = milliseconds(baseline.median)
        if best:
            cells[3] = f"{milliseconds(best.median)} ({best.runtime})"
        if ours and baseline:
            cells[4] = f"{ours.median / baseline.median:.2f}"
        if ours and best:
            cells[5] = f"{ours.median / best.median:.2f}"
        print(f"| {' | '.join(cells)} |", file=out)
    for workload, timings in results.items():
        counts = [len(timing.seconds) for timing in timings]
        print(f"\n### {workload.title}\n", file=out)
        print(
            f"{min(counts)} to {max(counts)} of {timings[0].turns} calls each counted.\n", file=out
        )
        print(f"| | median, ms | minimum | quartiles | {OURS} / it | error |", file=out)
        print("|---|---|---|---|---|---|", file=out)
        ours = next((t for t in timings if t.runtime == OURS), None)
        for timing in timings:
            print(timing.row(ours), file=out)
        for timing in timings:
            if timing.idle > 0.01:
                print(f"\n{timing.runtime} used a processor for {timing.idle:.0%} of the time in "
                      "which others had their turn.", file=out)  # fmt: skip


def scaling(runtimes: list[str], folder: Path, threads: int, seconds: float, out: TextIO) -> None:
    """How time grows with the batch, the image and the threads."""
    print("\n| | " + " | ".join(runtimes) + " |\n|---|" + "---|" * len(runtimes), file=out)

    def medians(workload: Workload, threads: int) -> list[float]:
        timings = compare(workload, runtimes, folder, threads, seconds)
        return [timing.median for timing in timings]

    def line(name: str, ratios: list[float]) -> None:
        cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {name} | {cells} |", file=out, flush=True)

    one, many = (medians(workload, threads) for workload in BATCH)
    count = BATCH[1].batch
    line(
        f"{BATCH[0].title}: batch {count} / ({count} x batch 1)",
        [b / (count * a) for a, b in zip(one, many, strict=True)],
    )
    large = medians(PIXELS[1], threads)
    pixels = np.prod(PIXELS[1].size) / np.prod(PIXELS[0].size)
    line(
        f"{PIXELS[0].title}: time per pixel at {PIXELS[1].size[0]} / at {PIXELS[0].size[0]}",
        [b / (pixels * a) for a, b in zip(one, large, strict=True)],
    )
    for workload in THREADS:
        single, double = medians(workload, 1), medians(workload, 2)
        line(
            f"{workload.title}: one thread / two threads",
            [a / b for a, b in zip(single, double, strict=True)],
        )


def machine(packages: Sequence[str] = PACKAGES) -> str:
    """Processor, system and versions, as Markdown."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        processor = (
            f"{fields.get('model name', processor)} (family {fields.get('cpu family')}, "
            f"model {fields.get('model')})"
        )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"{processor}, {os.cpu_count()} processors, {platform.system()}, Python "
        f"{platform.python_version()}; {datetime.date.today():%Y-%m-%d}, load average "
        f"{os.getloadavg()[0]:.1f} at the start.\noxidet {oxidet.__version__}, {versions}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="per runtime and network")
    parser.add_argument("--only", nargs="+", metavar="KEY", default=[], help="parts of their keys")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--scaling", action="store_true", help="batch, size and threads instead")
    parser.add_argument("--folder", type=Path, default=Path(sys.prefix) / "models")
    parser.add_argument("--output", type=Path, help="write the tables here too")
    options = parser.parse_args()
    workloads = [
        w for w in NETWORKS if not options.only or any(part in w.key for part in options.only)
    ]
    if not workloads:
        parser.error(f"--only: no network among {', '.join(w.key for w in NETWORKS)}")
    introduction = f"{machine()}\n{options.threads} threads.\n"

    def write(out: TextIO) -> None:
        print(introduction, file=out)
        if options.scaling:
            scaling(options.runtimes, options.folder, options.threads, options.seconds, out)
            return
        results = {}
        for workload in workloads:
            print(f"{workload.title} ...", file=sys.stderr)
            results[workload] = compare(
                workload, options.runtimes, options.folder, options.threads, options.seconds
            )
        tables(results, out)

    to_file_or_screen(options.output, write)


if __name__ == "__main__":
    main()
