"""The three creators beside simple-faster-rcnn's in NumPy, as a Markdown table.

    python benches/peers/creators.py [--threads N] [--seconds S]

An image of 600 x 800 pixels: 16650 anchors of which 5834 lie inside, 8 objects, and offsets and
scores as an RPN in training gives them. Both sides start from the same NumPy seed and must return
the same sample before they are timed. Times are medians in milliseconds with quartiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from measure import Case, check, measure
from originals import creators as originals

import oxidet
from oxidet import detection

SIZE = (600, 800)


def objects(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes with sides of 40 to 300 pixels inside the image."""
    sides = rng.uniform(40, 300, (count, 2))
    start = rng.uniform(0, 1, (count, 2)) * (SIZE - sides)
    return np.concatenate((start, start + sides), axis=1).astype(np.float32)


def scores(anchor: np.ndarray, bbox: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Foreground probabilities that rise with the overlap, and a lot of noise."""
    iou = detection.bbox_iou(anchor, bbox).max(axis=1)
    logit = 6 * iou - 4 + rng.normal(0, 1.5, len(anchor))
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


def seeded(call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        np.random.seed(0)
        return call()

    return run


def from_one_seed(case: Case) -> Case:
    """The same case with every call drawing the same sample, to be compared."""
    theirs = {name: seeded(call) for name, call in case.theirs.items()}
    return replace(case, ours=seeded(case.ours), theirs=theirs)


def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    anchor = detection.enumerate_shifted_anchor(detection.generate_anchor_base(), 16, 37, 50)
    bbox, label = objects(rng, 8), rng.integers(0, 20, 8).astype(np.int32)
    loc = rng.normal(0, 0.1, anchor.shape).astype(np.float32)
    score = scores(anchor, bbox, rng)
    proposals = {
        mode: (
            detection.ProposalCreator(training=mode == "train"),
            originals.ProposalCreator(mode == "train"),
        )
        for mode in ("train", "test")
    }
    roi = proposals["train"][0](loc, score, anchor, SIZE)

    def case(name: str, ours: Any, theirs: Any, *arguments: Any) -> Case:
        return Case(
            name,
            lambda: ours(*arguments),
            {"NumPy": lambda: theirs(*arguments)},
            tolerance=1e-6,
            results=lambda result: list(result) if isinstance(result, tuple) else [result],
        )

    return [
        case(
            "AnchorTargetCreator",
            detection.AnchorTargetCreator(),
            originals.AnchorTargetCreator(),
            bbox,
            anchor,
            SIZE,
        ),
        case("ProposalCreator, train", *proposals["train"], loc, score, anchor, SIZE),
        case("ProposalCreator, test", *proposals["test"], loc, score, anchor, SIZE),
        case(
            "ProposalTargetCreator",
            detection.ProposalTargetCreator(),
            originals.ProposalTargetCreator(),
            roi,
            bbox,
            label,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    if arguments.threads is not None:
        oxidet.set_num_threads(arguments.threads)
        torch.set_num_threads(arguments.threads)
    print("| creator | oxidet, ms | NumPy, ms | times faster |\n|---|---|---|---|")
    for case in cases():
        check(from_one_seed(case))
        timing = measure(case, arguments.seconds)
        ours, numpy = timing["oxidet"], timing["NumPy"]
        print(f"| {case.name} | {ours} | {numpy} | {numpy.median / ours.median:.1f} |")


if __name__ == "__main__":
    main()
