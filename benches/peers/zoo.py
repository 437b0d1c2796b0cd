"""Every network of the zoo beside onnxruntime, as the table of docs/models.md.

    python benches/peers/zoo.py [--threads N] [--seconds S] [--only PATTERN ...] [--folder DIR]
                                [--prepare] [--output FILE]

The networks come from `list_models()` and reach onnxruntime through `oxidet.onnx.export`, at the
size of their own recipe, one image. Weights are fresh, with the statistics of batch norms measured
on random images. Results are compared before anything is timed. Each runtime has a process, and the
two take turns as in networks.py, of which this is the short form: one rival, every network.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from workers import Worker
from workloads import ARGUMENTS, Workload

import networks
import oxidet
from networks import BASELINE, FEWEST, LONGEST, OURS, machine, milliseconds, speed
from oxidet import nn, weights
from oxidet.models import Classifier, get_model, list_models

TOLERANCE = 1e-4  # of max|a - b| / max|b|


@dataclass
class Line:
    """What the table says of one network."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    macs: int
    ours: float
    theirs: float
    error: float

    def __str__(self) -> str:
        _, channels, height, width = self.shape
        return (
            f"| {self.name} | {channels} x {height} x {width} | {self.parameters:,} "
            f"| {self.macs:,} | {milliseconds(self.ours)} | {milliseconds(self.theirs)} "
            f"| {self.ours / self.theirs:.2f} |"
        )


def build(name: str) -> Classifier:
    """A network in evaluation mode, as both runtimes run it."""
    model = get_model(name, **ARGUMENTS.get(name, {}))
    assert isinstance(model, Classifier)
    return model.eval()


def settle(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Gives batch norms the statistics of random images, so that nothing grows without bound, and
    shifts that are mostly positive, for the reason that export.py gives."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return
    kept = [(norm, norm.momentum) for norm in norms]
    rng = np.random.default_rng(0)
    for norm in norms:
        norm.weight.copy_(rng.uniform(0.5, 1.5, norm.num_features))
        norm.bias.copy_(rng.normal(1.0, 0.5, norm.num_features))
        norm.momentum = 1.0
        norm.train()
    images = np.random.default_rng(1).standard_normal((4, *shape[1:]), dtype=np.float32)
    with nn.no_grad(), nn.eager():
        model(images)
    for norm, momentum in kept:
        norm.momentum = momentum
    model.eval()


def prepare(name: str, folder: Path) -> tuple[Workload, int, int]:
    """Writes what the runtimes read, where it is missing; workload, parameters and MACs."""
    from oxidet import onnx

    model = build(name)
    summary = oxidet.summary(model)
    (shape,) = summary.input_shapes
    workload = Workload(name, shape[2:], channels=shape[1])
    target = folder / workload.key
    target.mkdir(parents=True, exist_ok=True)
    if not (target / "model.onnx").exists():
        settle(model, shape)
        weights.save(folder / f"{name}.npz", model.state_dict())
        onnx.export(model, target / "model.onnx", shape, input_names=["input"])
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        np.save(target / "input.npy", x)
    return workload, summary.parameters - summary.unused, summary.macs


def compare(name: str, folder: Path, threads: int, seconds: float) -> Line:
    """One network: results first, then times in turns."""
    workload, parameters, macs = prepare(name, folder)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(runtime, workload, folder, threads))
            for runtime in (OURS, BASELINE)
        ]
        ours, theirs = (worker.result for worker in workers)
        error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        if not error <= TOLERANCE:
            raise SystemExit(f"{name}: {OURS} and {BASELINE} differ by {error:.1e}")
        started = time.perf_counter()
        counting: list[list[float]] = []
        while min(map(len, counting), default=0) < FEWEST or (
            time.perf_counter() - started < seconds * len(workers)
        ):
            if time.perf_counter() - started > LONGEST * seconds * len(workers):
                raise SystemExit(f"{name}: the processors are too rarely at full speed")
            before = speed(threads)
            for worker in workers:
                worker.turn()
                after = speed(threads)
                worker.speeds.append(min(before, after))
                before = after
            counting = networks.calm(workers)
        medians = [statistics.median(calls) for calls in counting]
    return Line(name, workload.shape, parameters, macs, medians[0], medians[1], error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="per runtime and network")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="as list_models takes them")
    parser.add_argument("--folder", type=Path, default=Path(sys.prefix) / "zoo")
    parser.add_argument("--prepare", action="store_true", help="write the networks, time nothing")
    parser.add_argument("--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    lines = []
    introduction = f"{machine()}\n{options.threads} threads, one image.\n"
    for name in list_models(options.only):
        print(f"{name} ...", file=sys.stderr)
        if options.prepare:
            prepare(name, options.folder)
            continue
        lines.append(compare(name, options.folder, options.threads, options.seconds))

    if not lines:
        return

    def write(out: TextIO) -> None:
        print(introduction, file=out)
        print(
            f"| network | input | parameters | MACs | {OURS}, ms | {BASELINE}, ms "
            f"| {OURS} / {BASELINE} |\n|---|---|---|---|---|---|---|",
            file=out,
        )
        for line in lines:
            print(line, file=out)
        print(f"\nLargest difference: {max(line.error for line in lines):.0e}.", file=out)

    write(sys.stdout)
    if options.output:
        with options.output.open("w") as file:
            write(file)


if __name__ == "__main__":
    main()
