"""What plans cost beside computing: making one, checking one, and the Python around a call.

    python benches/plans.py

Prints medians. Making is measured for ResNet-50 at 224 x 224, first with every layer packed, then
after a change to its last layer, when all others are shared with the plan before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from oxidet import models, nn
from oxidet.nn import _changes


def median_ms(work: Callable[[], Any], repeats: int) -> float:
    """Median time of ``work`` in milliseconds, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Measure and print."""
    model = models.resnet50().eval()
    x = np.zeros((0, 3, 224, 224), np.float32)  # no image: everything but the computing

    def first() -> None:
        model.clear_plans()
        model(x)

    def again() -> None:
        model.fc.bias.copy_(0)
        model(x)

    def checked() -> None:
        _changes.announce()
        model(x)

    layer = nn.Sequential(nn.ReLU()).eval()
    layer.compiled = True
    rows = [
        ("ResNet-50: a plan, everything packed", median_ms(first, 3)),
        ("ResNet-50: a plan after a change to one layer", median_ms(again, 10)),
        ("ResNet-50: a call without images, after a change elsewhere", median_ms(checked, 200)),
        ("ResNet-50: a call without images", median_ms(lambda: model(x), 200)),
        ("ReLU: a call without images", median_ms(lambda: layer(x), 200)),
    ]
    for what, milliseconds in rows:
        print(f"{what:<60} {milliseconds:9.3f} ms")


if __name__ == "__main__":
    main()
