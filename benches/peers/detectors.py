"""Whole detectors on a picture of 600 x 800 beside inference runtimes, as Markdown tables.

    python benches/peers/detectors.py [--threads N] [--rounds N] [--only KEY ...]
                                      [--runtimes NAME ...] [--folder DIR] [--output FILE]

torchvision's fasterrcnn_resnet50_fpn, from the picture to its boxes, is also run by onnxruntime and
OpenVINO, exported from torch as a whole; simple-faster-rcnn's network over VGG-16, from the
prepared image to the corrections and scores of its regions, beside torch.

Weights are random, with outputs that spread over anchors and classes, so that proposals and
detections are picked as with trained ones. Before anything is timed, results are compared with
torch's: oxidet's with precision "direct" row by row, others by counting the same rows. Each runtime
has a process of its own (workers.py), and they take turns, a call each, in an order that is
drawn anew each round. oxidet is timed as it is by default, with Winograd's convolution.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from output import to_file_or_screen
from workers import Worker

ROOT = Path(__file__).resolve().parents[2]
OURS, REFERENCE = "oxidet", "torch"
SIZE = (600, 800)
PIXELS = 1e-2  # by which a box may differ
VALUES = 1e-4  # by which a score may differ, or a correction, which is of the same size
SHARE = 0.9  # of torch's rows that must be among another's

Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Workload:
    """A detector and who runs it."""

    key: str
    title: str
    runtimes: tuple[str, ...]
    wanted: dict[str, float]  # oxidet's time over another's


PYRAMID = Workload(
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn, from 600 x 800 to boxes",
    (OURS, REFERENCE, "torch channels_last", "onnxruntime", "OpenVINO f32"),
    {"OpenVINO f32": 0.55},
)
SIMPLE = Workload(
    "simple_faster_rcnn_vgg16",
    "simple-faster-rcnn, VGG-16, forward at 600 x 800",
    (OURS, REFERENCE, "torch channels_last"),
    {REFERENCE: 0.33},
)
WORKLOADS = {workload.key: workload for workload in (PYRAMID, SIMPLE)}


# --- files


def prepare(workload: Workload, folder: Path) -> None:
    """Writes picture, weights and exported models that are missing, in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=write, args=(workload, folder))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{workload.key}: could not be written")


def write(workload: Workload, folder: Path) -> None:
    import torch

    sys.path.insert(0, str(ROOT / "tests"))
    from parity import torch_detectors, torch_weights

    warnings.simplefilter("ignore")
    target = folder / workload.key
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / name for name in ("input.npy", "weights.pth")]
    if workload.key != PYRAMID.key:
        if not all(path.exists() for path in paths):
            image = torch_weights.random_image(*SIZE)
            model = torch_weights.spread_out(theirs(workload), image)
            np.save(paths[0], image[None])
            torch.save(model.state_dict(), paths[1])
        return
    model = theirs(workload)
    if all(path.exists() for path in paths):
        picture = np.load(paths[0])
        model.load_state_dict(torch.load(paths[1]))
    else:
        picture = torch_detectors.picture(*SIZE)
        torch_detectors.spread_out(model, [picture])
        np.save(paths[0], picture)
        torch.save(model.state_dict(), paths[1])
    onnx = target / "model.onnx"
    if not onnx.exists():
        unfinished = target / "new-model.onnx"
        torch.onnx.export(
            model.eval(), ([torch.from_numpy(picture)],), unfinished, dynamo=False,
            opset_version=17, input_names=["input"], output_names=["boxes", "labels", "scores"],
        )  # fmt: skip
        unfinished.rename(onnx)


def theirs(workload: Workload) -> Any:
    """torch's detector, with fresh weights."""
    if workload.key == PYRAMID.key:
        from torchvision.models import detection

        return detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    sys.path.insert(0, str(ROOT / "tests"))
    from parity import torch_faster_rcnn

    return torch_faster_rcnn.FasterRCNN()


# --- the runtimes, each imported in its own process


def load_oxidet(workload: Workload, folder: Path, threads: int) -> Run:
    """The first call, whose result is compared, is one with precision "direct"."""
    import oxidet
    from oxidet import nn, weights

    oxidet.set_num_threads(threads)
    if workload.key == PYRAMID.key:
        from oxidet.models.detection import fasterrcnn_resnet50_fpn

        model: Any = fasterrcnn_resnet50_fpn()
    else:
        from oxidet.simple_faster_rcnn import FasterRCNNVGG16

        model = FasterRCNNVGG16()
    model.load_state_dict(weights.load(folder / workload.key / "weights.pth"))
    model.eval()

    def detect(x: np.ndarray) -> list[np.ndarray]:
        with nn.no_grad():
            if workload.key == PYRAMID.key:
                [found] = model([x])
                return [found["boxes"], found["labels"], found["scores"]]
            return [np.asarray(part) for part in model(x)]

    compared = False

    def run(x: np.ndarray) -> list[np.ndarray]:
        nonlocal compared
        with oxidet.precision("winograd" if compared else "direct"):
            compared = True
            return detect(x)

    return run


def load_torch(workload: Workload, folder: Path, threads: int, order: str) -> Run:
    """Eager, in inference mode."""
    import torch

    torch.set_num_threads(threads)
    model = theirs(workload)
    model.load_state_dict(torch.load(folder / workload.key / "weights.pth"))
    model = model.eval().to(memory_format=getattr(torch, order))

    def run(x: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            if workload.key == PYRAMID.key:
                [found] = model([torch.from_numpy(x)])
                return [found[name].numpy() for name in ("boxes", "labels", "scores")]
            return [np.asarray(part) for part in model(torch.from_numpy(x))]

    return run


def load_onnxruntime(workload: Workload, folder: Path, threads: int) -> Run:
    """All graph optimizations, the default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # nothing about initializers that nobody uses
    path = folder / workload.key / "model.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["boxes", "labels", "scores"], {"input": x})


def load_openvino(workload: Workload, folder: Path, threads: int) -> Run:
    """Tuned for the latency of one request, in float32 throughout."""
    import openvino

    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = openvino.convert_model(folder / workload.key / "model.onnx")
    compiled = openvino.Core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()

    def run(x: np.ndarray) -> list[np.ndarray]:
        results = request.infer([x], share_inputs=True)
        return [np.array(results[name]) for name in ("boxes", "labels", "scores")]

    return run


RUNTIMES: dict[str, Callable[[Workload, Path, int], Run]] = {
    OURS: load_oxidet,
    REFERENCE: lambda *args: load_torch(*args, order="contiguous_format"),
    "torch channels_last": lambda *args: load_torch(*args, order="channels_last"),
    "onnxruntime": load_onnxruntime,
    "OpenVINO f32": load_openvino,
}


# --- results


def check(
    workload: Workload, runtime: str, found: list[np.ndarray], expected: list[np.ndarray]
) -> str:
    """How many of torch's rows are there, in words; SystemExit if oxidet's are not the same rows
    in the same order, or if another has too few of them."""
    found, expected = by_box(workload, found), by_box(workload, expected)
    total = len(expected[0])
    if runtime == OURS:
        same = int(agree(found, expected).sum()) if len(found[0]) == total else 0
    else:
        same = sum(agree(found, [part[i] for part in expected]).any() for i in range(total))
    if total == 0 or same < (1 if runtime == OURS else SHARE) * total:
        raise SystemExit(f"{workload.key}: {same} of {REFERENCE}'s {total} rows by {runtime}")
    return f"{same} of {total} rows"


def by_box(workload: Workload, results: list[np.ndarray]) -> list[np.ndarray]:
    """Boxes (R, 4), and what is said of each."""
    if workload.key == PYRAMID.key:
        return results
    corrections, scores, regions, _ = results
    return [regions, corrections, scores]


def agree(found: list[np.ndarray], expected: list[np.ndarray]) -> np.ndarray:
    """(R,) bool, whether box and values of rows are the same."""
    boxes, *values = (np.abs(a - b) for a, b in zip(found, expected, strict=True))
    same = (boxes <= PIXELS).all(axis=1)
    for difference in values:
        same &= (difference <= VALUES).all(axis=tuple(range(1, difference.ndim)))
    return same


def progress(workers: list[Worker]) -> None:
    """Tells the last round's seconds."""
    last = ", ".join(f"{worker.runtime} {worker.seconds[-1]:.3f}" for worker in workers)
    print(f"  {last}", file=sys.stderr)


def compare(
    workload: Workload, runtimes: list[str], folder: Path, threads: int, rounds: int, out: TextIO
) -> None:
    """Times a detector and prints its table."""
    from networks import milliseconds

    prepare(workload, folder)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(runtime, workload, folder, threads, "detectors"))
            for runtime in runtimes
        ]
        results = {worker.runtime: worker.result for worker in workers}
        agreement = {
            runtime: check(workload, runtime, result, results[REFERENCE])
            for runtime, result in results.items()
        }
        for worker in workers:
            worker.turn(0)  # oxidet's first by Winograd's convolution
        order = random.Random(0)
        for _ in range(rounds):
            for worker in order.sample(workers, len(workers)):
                worker.turn(rehearse=False)
            progress(workers)
        seconds = {worker.runtime: worker.seconds for worker in workers}

    print(f"\n### {workload.title}\n\n{rounds} rounds.\n", file=out)
    print(f"| | median, ms | quartiles | {OURS} / it | wanted | as {REFERENCE}'s |", file=out)
    print("|---|---|---|---|---|---|", file=out)
    ours = statistics.median(seconds[OURS])
    for runtime, calls in seconds.items():
        low, median, high = statistics.quantiles(calls, n=4)
        ratio = "" if runtime == OURS else f"{ours / median:.3f}"
        agrees = "" if runtime == REFERENCE else agreement[runtime]
        print(
            f"| {runtime} | {milliseconds(median)} | {milliseconds(low)} to {milliseconds(high)} "
            f"| {ratio} | {workload.wanted.get(runtime, '')} | {agrees} |",
            file=out,
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument(
        "--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES),
        help=f"{OURS} and {REFERENCE} always",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path(sys.prefix) / "models")
    parser.add_argument("--output", type=Path, help="write the tables here too")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds: expected 2 or more, got {options.rounds}")

    from networks import machine

    packages = ("onnxruntime", "openvino", "torch", "torchvision", "onnx")
    introduction = f"{machine(packages)}\n{options.threads} threads."

    def write_all(out: TextIO) -> None:
        print(introduction, file=out)
        for key in options.only:
            workload = WORKLOADS[key]
            print(f"{workload.title} ...", file=sys.stderr)
            asked = {OURS, REFERENCE, *options.runtimes}
            runtimes = [name for name in workload.runtimes if name in asked]
            compare(workload, runtimes, options.folder, options.threads, options.rounds, out)

    to_file_or_screen(options.output, write_all)


if __name__ == "__main__":
    main()
