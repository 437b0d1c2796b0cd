"""One process per runtime, so that thread pools, allocators and memory stay apart.

A worker ends its turn when its threads have gone to sleep (several runtimes let them spin for a
while, for the next call) and then waits on its pipe; `idle` tells whether it kept still.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

LONGEST_SPIN = 0.5  # seconds for which a turn waits for threads that spin


class Keyed(Protocol):
    """What is run, as a worker knows it: its files lie in the folder of that name."""

    @property
    def key(self) -> str: ...


def peak_memory() -> int:
    """Bytes of memory this process had at most."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except FileNotFoundError:
        pass
    # Linux is not asked this: it counts the process that started this one too.
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def settle() -> None:
    """Waits until this process uses no processor, or gives up."""
    given_up = time.perf_counter() + LONGEST_SPIN
    while time.perf_counter() < given_up:
        used = time.process_time()
        time.sleep(0.005)
        if time.process_time() - used < 0.0005:
            return


def serve(
    connection: Connection, runtime: str, workload: Keyed, folder: Path, threads: int, module: str
) -> None:
    """The worker's loop."""
    load = importlib.import_module(module).RUNTIMES[runtime]
    x = np.load(folder / workload.key / "input.npy")
    loaded = time.perf_counter()
    run = load(workload, folder, threads)
    loaded = time.perf_counter() - loaded
    result = run(x)
    peak = peak_memory()
    settle()
    connection.send((result, loaded, peak))
    used = time.process_time()
    while (order := connection.recv()) is not None:
        calls, rehearse = order
        idle = time.process_time() - used
        if rehearse:
            run(x)  # caches and threads are another worker's
        seconds = []
        for _ in range(calls):
            started = time.perf_counter()
            run(x)
            seconds.append(time.perf_counter() - started)
        settle()
        connection.send((seconds, idle))
        used = time.process_time()


class Worker:
    """A runtime in its own process, with one workload loaded and run once."""

    def __init__(
        self,
        runtime: str,
        workload: Keyed,
        folder: Path,
        threads: int,
        module: str = "runtimes",  # whose RUNTIMES says how it is loaded
    ) -> None:
        self.runtime = runtime
        self.seconds: list[float] = []
        self.speeds: list[float] = []  # what the processors could do around each turn
        self.idle = 0.0  # seconds of processor time while it should have slept
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # Read by OpenMP (torch, ncnn) and by oxidet when they start; the runtimes that have an
        # option of their own are told by it as well.
        os.environ["OMP_NUM_THREADS"] = os.environ["OXIDET_NUM_THREADS"] = str(threads)
        self._process = context.Process(
            target=serve,
            args=(theirs, runtime, workload, folder, threads, module),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self.result: Any
        self.result, self.load_seconds, self.peak_memory = self._receive()

    def turn(self, calls: int = 1, *, rehearse: bool = True) -> None:
        """One call to warm up, unless it need not ``rehearse``, and ``calls`` that are timed."""
        self._connection.send((calls, rehearse))
        seconds, idle = self._receive()
        self.seconds += seconds
        self.idle += idle

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise SystemExit(f"{self.runtime}: the process ended; see its message above") from None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.join()
        self._connection.close()
