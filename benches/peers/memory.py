"""Peak memory of a process that loads a network and runs it once, as a Markdown table.

    python benches/peers/memory.py [--threads N] [--times N] [--only KEY] [--folder DIR]

The peak is the system's count of resident memory (VmHWM), from the start of the interpreter to the
first result: reading the file, packing the weights and running are all in it. Each runtime reads
its own format: oxidet and torch a .pth, onnxruntime .onnx, OpenVINO, ncnn and MNN theirs. Pages of
a file that a runtime maps into memory count as soon as they are touched.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from runtimes import RUNTIMES
from workers import Worker
from workloads import NETWORKS, Workload

from networks import export, machine

MEGABYTE = 1e6


def measure(runtime: str, workload: Workload, folder: Path, threads: int) -> tuple[float, float]:
    """Peak in megabytes and seconds until the network was ready, of a fresh process."""
    with Worker(runtime, workload, folder, threads) as worker:
        return worker.peak_memory / MEGABYTE, worker.load_seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--times", type=int, default=3, help="fresh processes per runtime")
    parser.add_argument("--only", default="resnet50-224x224-b1", help="the network's key")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--folder", type=Path, default=Path(sys.prefix) / "models")
    options = parser.parse_args()
    workloads = {w.key: w for w in NETWORKS}
    if options.only not in workloads:
        parser.error(f"--only: one of {', '.join(workloads)}")
    workload = workloads[options.only]
    export(workload, options.folder)

    print(f"{machine()}\n{workload.title}, {options.threads} threads.\n")
    print("| | peak, MB | smallest to largest | loading, s |\n|---|---|---|---|")
    for runtime in options.runtimes:
        samples = [
            measure(runtime, workload, options.folder, options.threads)
            for _ in range(options.times)
        ]
        peaks, seconds = zip(*samples, strict=True)
        print(
            f"| {runtime} | {statistics.median(peaks):.0f} | {min(peaks):.0f} to {max(peaks):.0f} "
            f"| {statistics.median(seconds):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
