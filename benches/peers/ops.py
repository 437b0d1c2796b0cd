"""Detection operators beside torchvision, powerboxes, pycocotools and the NumPy originals.

    python benches/peers/ops.py [--threads N] [--seconds S] [--only TEXT] [--calls]

A line is timed only after the results agreed; indices must be equal. The rivals take turns in one
process, on the same arrays, with the same number of threads; torchvision gets tensors over the same
memory. Milliseconds are medians with quartiles, "times faster" is the rival's median over ours, so
below 1 oxidet is slower. "wanted" is the least the project asks of itself.

``--calls`` times calls with ten rows instead, in microseconds: what a loop in Python pays.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import creators
import evaluation
import numpy as np
import powerboxes
import torch
import torchvision
from measure import Case, check, measure
from originals.boxes import bbox2loc, bbox_iou, loc2bbox

import oxidet
from oxidet import detection, ops

RNG = np.random.default_rng(0)
THRESHOLD = 0.7
IMAGE = (600, 800)  # height, width


@dataclass
class Line:
    """A case and what the project wants of it: times faster than each rival, by its name."""

    case: Case
    wanted: dict[str, float] = field(default_factory=dict)
    compared: Case | None = None  # what is compared, if not the calls that are timed


def uniform(count: int, size: tuple[int, int] = IMAGE) -> np.ndarray:
    """(count, 4) float32 x1, y1, x2, y2 anywhere: sides of 16 to 256 pixels."""
    height, width = size
    sides = RNG.uniform(16, 256, (count, 2))
    corner = RNG.uniform(0, 1, (count, 2)) * ((width, height) - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def clusters(count: int, centres: int = 50) -> np.ndarray:
    """Boxes around a few objects, as a detector proposes them."""
    around = uniform(centres)[RNG.integers(0, centres, count)]
    sides = np.tile(around[:, 2:] - around[:, :2], 2)
    return (around + 0.1 * sides * RNG.standard_normal((count, 4))).astype(np.float32)


def disjoint(count: int) -> np.ndarray:
    """A grid of boxes that do not touch."""
    across = int(np.ceil(np.sqrt(count)))
    corner = 10.0 * np.stack([np.arange(count) % across, np.arange(count) // across], axis=1)
    return np.concatenate([corner, corner + 8], axis=1).astype(np.float32)


def overlapping(count: int) -> np.ndarray:
    """Boxes of which the best suppresses all others."""
    return (np.array([100, 100, 300, 300]) + RNG.uniform(0, 5, (count, 4))).astype(np.float32)


def scores_of(boxes: np.ndarray) -> np.ndarray:
    """Distinct scores: the order of equal ones is nobody's promise."""
    return (RNG.permutation(len(boxes)) / len(boxes)).astype(np.float32)


def suppression() -> Iterator[Line]:
    kinds: list[tuple[str, Callable[[int], np.ndarray], int, dict[str, float]]] = [
        ("uniform", uniform, 1000, {}),
        ("uniform", uniform, 12000, {"torchvision": 30, "powerboxes": 15}),
        ("50 clusters", clusters, 12000, {"torchvision": 30, "powerboxes": 15}),
        ("uniform", uniform, 50000, {"torchvision": 60}),
        ("50 clusters", clusters, 50000, {"torchvision": 60}),
        ("all disjoint", disjoint, 12000, {"torchvision": 1}),
        ("all overlapping", overlapping, 12000, {"torchvision": 1}),
    ]
    for name, make, count, wanted in kinds:
        boxes = make(count)
        scores = scores_of(boxes)
        tb, ts, wide = torch.from_numpy(boxes), torch.from_numpy(scores), scores.astype(np.float64)
        rivals: dict[str, Callable[[], Any]] = {
            "torchvision": lambda tb=tb, ts=ts: torchvision.ops.nms(tb, ts, THRESHOLD)
        }
        if count <= 12000:
            for variant in ("nms", "rtree_nms"):
                function = getattr(powerboxes, variant)
                rivals[f"powerboxes {variant}"] = lambda f=function, b=boxes, s=wide: f(
                    b, s, THRESHOLD, -1.0
                )
        ours = lambda b=boxes, s=scores: ops.nms(b, s, THRESHOLD)  # noqa: E731
        yield Line(Case(f"nms, {count} boxes, {name}", ours, rivals, 0), wanted)
    boxes, classes = uniform(12000), RNG.integers(0, 80, 12000)
    scores = scores_of(boxes)
    tb, ts, tc = (torch.from_numpy(a) for a in (boxes, scores, classes))
    yield Line(
        Case(
            "batched_nms, 12000 boxes, 80 classes",
            lambda: ops.batched_nms(boxes, scores, classes, THRESHOLD),
            {"torchvision": lambda: torchvision.ops.batched_nms(tb, ts, tc, THRESHOLD)},
            0,
        )
    )


def overlap() -> Iterator[Line]:
    a, b = uniform(5000), uniform(5000)
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    yield Line(
        Case(
            "box_iou, 5000 x 5000",
            lambda: ops.box_iou(a, b),
            {
                "torchvision": lambda: torchvision.ops.box_iou(ta, tb),
                "powerboxes parallel": lambda: _similarity(powerboxes.parallel_iou_distance(a, b)),
            },
            1e-6,
            results=lambda r: [r.values() if isinstance(r, _Distance) else r],
        ),
        {"torchvision": 8, "powerboxes": 1.6},
    )
    for name in ("generalized_box_iou", "distance_box_iou", "complete_box_iou"):
        ours, theirs = getattr(ops, name), getattr(torchvision.ops, name)
        c, d = uniform(1000), uniform(1000)
        tc, td = torch.from_numpy(c), torch.from_numpy(d)
        yield Line(
            Case(
                f"{name}, 1000 x 1000",
                lambda f=ours, c=c, d=d: f(c, d),
                {"torchvision": lambda f=theirs, c=tc, d=td: f(c, d)},
                1e-5,
            )
        )


class _Distance:
    """1 - IoU: turned round when results are compared, not while time is taken."""

    def __init__(self, distance: np.ndarray) -> None:
        self.distance = distance

    def values(self) -> np.ndarray:
        return 1 - self.distance


def _similarity(distance: np.ndarray) -> _Distance:
    return _Distance(distance)


def regions() -> Iterator[Line]:
    def roi(count: int, size: tuple[int, int]) -> np.ndarray:
        return np.concatenate([np.zeros((count, 1), np.float32), uniform(count, size)], axis=1)

    wanted = {"torchvision": 8.0}
    settings = [
        ("300 RoIs, 512 x 37 x 50", (1, 512, 37, 50), 300, 1 / 16, IMAGE),
        ("1000 RoIs, 256 x 200 x 272", (1, 256, 200, 272), 1000, 1 / 4, (800, 1088)),
    ]
    for name, shape, count, scale, size in settings:
        planes = RNG.standard_normal(shape, dtype=np.float32)
        pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        rois = roi(count, size)
        tf, tr = torch.from_numpy(planes), torch.from_numpy(rois)
        tl = tf.contiguous(memory_format=torch.channels_last)
        for order, x in (("channels-last", pixels), ("NCHW", planes)):
            yield Line(
                Case(
                    f"roi_align, {name}, {order}",
                    lambda x=x, r=rois, s=scale: ops.roi_align(x, r, (7, 7), s, 2),
                    {
                        "torchvision": lambda x=tf, r=tr, s=scale: torchvision.ops.roi_align(
                            x, r, (7, 7), s, 2
                        ),
                        "torchvision channels_last": (
                            lambda x=tl, r=tr, s=scale: torchvision.ops.roi_align(
                                x, r, (7, 7), s, 2
                            )
                        ),
                    },
                ),
                wanted,
            )
            if count == 300:
                yield Line(
                    Case(
                        f"roi_pool, {name}, {order}",
                        lambda x=x, r=rois, s=scale: ops.roi_pool(x, r, (7, 7), s),
                        {
                            "torchvision": lambda x=tf, r=tr, s=scale: torchvision.ops.roi_pool(
                                x, r, (7, 7), s
                            )
                        },
                    ),
                    wanted,
                )


def targets() -> Iterator[Line]:
    """The creators: see creators.py."""
    wanted = {
        "AnchorTargetCreator": 4,
        "ProposalCreator, train": 20,
        "ProposalCreator, test": 12,
        "ProposalTargetCreator": 2,
    }
    for case in creators.cases():
        yield Line(case, {"NumPy": wanted[case.name]}, creators.from_one_seed(case))


def scoring() -> Iterator[Line]:
    """Average precision: see evaluation.py."""
    for case in evaluation.cases(5000):
        yield Line(case, {"NumPy": 10, "pycocotools": 3})


def calls(seconds: float) -> None:
    """Ten rows a call, as a table."""
    a, b, scores = uniform(10), uniform(10), np.linspace(1, 0, 10, dtype=np.float32)
    loc = (0.1 * RNG.standard_normal((10, 4))).astype(np.float32)
    cases: list[tuple[str, Callable[..., Any], tuple[Any, ...], Callable[..., Any]]] = [
        ("box_area", ops.box_area, (a,), torchvision.ops.box_area),
        ("box_iou", ops.box_iou, (a, b), torchvision.ops.box_iou),
        ("nms", ops.nms, (a, scores, 0.5), torchvision.ops.nms),
        ("bbox_iou", detection.bbox_iou, (a, b), bbox_iou),
        ("bbox2loc", detection.bbox2loc, (a, b), bbox2loc),
        ("loc2bbox", detection.loc2bbox, (a, loc), loc2bbox),
    ]
    print("| | oxidet, us (wanted: 6) | with torch tensors, us (wanted: 15) | original, us |")
    print("|---|---|---|---|")
    for name, ours, arguments, theirs in cases:
        tensors = tuple(torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in arguments)
        original = tensors if theirs.__module__.startswith("torchvision") else arguments
        columns = [
            microseconds(function, given, seconds)
            for function, given in ((ours, arguments), (ours, tensors), (theirs, original))
        ]
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in columns) + " |")


def microseconds(function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> float:
    """Median of a call."""
    samples = []
    started = time.perf_counter()
    while len(samples) < 1000 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        function(*arguments)
        samples.append(time.perf_counter() - before)
    return 1e6 * statistics.median(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=oxidet.get_num_threads())
    parser.add_argument("--seconds", type=float, default=1.0, help="per implementation and line")
    parser.add_argument("--only", default="", help="lines whose name contains this")
    parser.add_argument("--calls", action="store_true", help="time calls with ten rows")
    options = parser.parse_args()
    oxidet.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # powerboxes reads it at its first call
    packages = ("torch", "torchvision", "numpy", "powerboxes", "pycocotools")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{platform.machine()}, {options.threads} threads, oxidet {oxidet.__version__},")
    print(f"{versions}.\n")
    if options.calls:
        calls(options.seconds)
        return
    print("| | oxidet, ms | rival | its ms | times faster | wanted | error |")
    print("|---|---|---|---|---|---|---|")
    groups = (suppression, overlap, regions, targets, scoring)
    for line in (line for group in groups for line in group()):
        if options.only in line.case.name:
            show(line, options.seconds)


def show(line: Line, seconds: float) -> None:
    """One row for each rival."""
    error = check(line.compared or line.case)
    timings = measure(line.case, seconds)
    ours = timings.pop("oxidet")
    for rival, timing in timings.items():
        least = next((str(w) for name, w in line.wanted.items() if rival.startswith(name)), "")
        print(
            f"| {line.case.name} | {ours} | {rival} | {timing} | "
            f"{timing.median / ours.median:.1f} | {least} | {error:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
