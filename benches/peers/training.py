"""Steps of training beside torch's, as a Markdown table: classifiers and detectors.

    python benches/peers/training.py [--threads N] [--only KEY ...] [--rounds N] [--bccd DIR]
                                     [--memory] [--rivals NAME ...] [--output FILE]

A step is forward, losses, backward and SGD with momentum, on the same images from the same weights,
in one process in turns: oxidet, torch, torch with channels-last weights and inputs. Milliseconds
are medians with quartiles. Before that, the losses of the first batch must agree to 1e-3: with the
same proposals and samples, which oxidet draws, and without dropout, which no two runtimes draw
alike. While timed, each draws its own.

`--memory` instead: peak resident memory of a fresh process that builds one network and makes three
steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

import numpy as np
from measure import Case, Timing, check, measure
from output import to_file_or_screen
from training_steps import (
    ORDERS,
    ROOT,
    Bccd,
    Classifier,
    ResNet50Pyramid,
    Side,
    SimpleFasterRCNN,
    Workload,
    weights,
)
from workers import peak_memory

TOLERANCE = 1e-3  # of each loss
STEPS = 3  # before memory is read
OURS = "oxidet"
WANTED = 0.6

KEYS = ("resnet18", "resnet50", "vgg16", ResNet50Pyramid.key, SimpleFasterRCNN.key, Bccd.key)


def workloads(keys: list[str], bccd: Path, batches: int | None) -> Iterator[Workload]:
    """Those asked for, built when their turn comes."""
    titles = {
        "resnet18": ("ResNet-18", 8, 9),
        "resnet50": ("ResNet-50", 4, 9),
        "vgg16": ("VGG-16", 4, 5),
    }
    for key in keys:
        if key in titles:
            yield Classifier(key, *titles[key])
        elif key == ResNet50Pyramid.key:
            yield ResNet50Pyramid()
        elif key == SimpleFasterRCNN.key:
            yield SimpleFasterRCNN()
        elif bccd.is_dir():
            yield Bccd.of(bccd, batches or Bccd.rounds + 1)
        else:
            print(f"{key}: left out, {bccd} is not there", file=sys.stderr)


def progress(samples: dict[str, list[float]]) -> None:
    """Tells the last round's seconds."""
    last = ", ".join(f"{name} {seconds[-1]:.3f}" for name, seconds in samples.items())
    print(f"  {last}", file=sys.stderr)


# --- time


def compare(
    workload: Workload, rivals: list[str], threads: int, rounds: int | None
) -> tuple[dict[str, Timing], float]:
    """Seconds of a step of each, and by how much their first losses differ."""
    import torch

    import oxidet

    oxidet.set_num_threads(threads)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    ours = workload.ours()
    theirs: dict[str, Side] = {name: workload.theirs(ORDERS[name]) for name in rivals}
    first, *others = theirs.values()
    state = weights(first.model)
    ours.model.load_state_dict(state)
    for other in others:
        other.model.load_state_dict(first.model.state_dict())

    drawn: dict[str, object] = {}
    mine = ours.losses(drawn)
    error = 0.0
    found = {name: side.losses(drawn) for name, side in theirs.items()}
    for i, loss in enumerate(mine):  # each by itself: one may be a hundred times another
        variants = {name: (lambda v=values[i]: v) for name, values in found.items()}
        case = Case(f"{workload.title}, loss {i}", lambda v=loss: v, variants, TOLERANCE)
        error = max(error, check(case))

    last: dict[str, float] = {}

    def step(name: str, side: Side) -> None:
        last[name] = side.step()

    timings = measure(
        Case(
            workload.title,
            lambda: step(OURS, ours),
            {name: (lambda n=name, s=side: step(n, s)) for name, side in theirs.items()},
        ),
        seconds=0,
        least_rounds=rounds or workload.rounds,
        progress=lambda samples: progress(samples),
    )
    for name, loss in last.items():
        if not np.isfinite(loss):
            raise SystemExit(f"{workload.title}: the loss of {name} became {loss}")
    return timings, error


def time_table(options: argparse.Namespace, out: TextIO) -> None:
    names = [OURS, *options.rivals]
    columns = [f"{name}, ms" for name in names] + [f"{OURS} / {name}" for name in options.rivals]
    print(f"| | {' | '.join(columns)} | rounds | losses differ by |", file=out)
    print("|---" * (len(columns) + 3) + "|", file=out)
    batches = options.rounds and options.rounds + 1
    for workload in workloads(options.only, options.bccd, batches):
        print(f"{workload.title} ...", file=sys.stderr)
        timings, error = compare(workload, options.rivals, options.threads, options.rounds)
        ratios = [timings[OURS].median / timings[name].median for name in options.rivals]
        cells = [*(str(timings[name]) for name in names), *(f"{r:.2f}" for r in ratios)]
        rounds = options.rounds or workload.rounds
        print(
            f"| {workload.title} | {' | '.join(cells)} | {rounds} | {error:.0e} |",
            file=out,
            flush=True,
        )


# --- memory


def steps(connection: Connection, workload: Workload, name: str, threads: int) -> None:
    """In a process of its own: some steps, then the peak."""
    if name == OURS:
        import oxidet

        oxidet.set_num_threads(threads)
        side = workload.ours()
    else:
        import torch

        torch.set_num_threads(threads)
        side = workload.theirs(ORDERS[name])
    for _ in range(STEPS):
        side.step()
    connection.send(peak_memory())


def peak(workload: Workload, name: str, threads: int) -> int:
    """Bytes."""
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    process = context.Process(target=steps, args=(theirs, workload, name, threads))
    process.start()
    theirs.close()
    try:
        return connection.recv()
    except EOFError:
        raise SystemExit(f"{name}: the process ended; see its message above") from None
    finally:
        process.join()


def memory_table(options: argparse.Namespace, out: TextIO) -> None:
    names = [OURS, *options.rivals]
    print(f"| peak, MB | {' | '.join(names)} | {OURS} / least |", file=out)
    print("|---" * (len(names) + 2) + "|", file=out)
    for workload in workloads(options.only, options.bccd, STEPS):
        print(f"{workload.title} ...", file=sys.stderr)
        peaks = [
            statistics.median(peak(workload, name, options.threads) for _ in range(options.times))
            for name in names
        ]
        cells = " | ".join(f"{value / 1e6:.0f}" for value in peaks)
        ratio = peaks[0] / min(peaks[1:])
        print(f"| {workload.title} | {cells} | {ratio:.2f} |", file=out, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=KEYS, default=list(KEYS), metavar="KEY")
    parser.add_argument("--rounds", type=int, help="steps of each; by default 5 to 30")
    parser.add_argument("--rivals", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--bccd", type=Path, default=ROOT.parent / "shared" / "data" / "bccd")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--times", type=int, default=1, help="fresh processes, with --memory")
    parser.add_argument("--output", type=Path, help="write the table here too")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 2:
        parser.error(f"--rounds: expected 2 or more, got {options.rounds}")

    from networks import machine

    introduction = f"{machine(('torch', 'torchvision'))}\n{options.threads} threads.\n"
    table = memory_table if options.memory else time_table

    def write(out: TextIO) -> None:
        print(introduction, file=out)
        table(options, out)

    to_file_or_screen(options.output, write)


if __name__ == "__main__":
    main()
