"""Threads, versions, and what the machine offers."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable

import numpy as np

from oxidet import _core
from oxidet._arrays import integer
from oxidet._precision import get_precision
from oxidet._weight_storage import get_weight_storage


def get_num_threads() -> int:
    """Number of threads that kernels use.

    The last :func:`set_num_threads`, else the environment variable ``OXIDET_NUM_THREADS``, else
    the usable cores (CPU affinity and cgroup quota respected).
    """
    return _core.num_threads()


def set_num_threads(num_threads: int) -> None:
    """Set the number of threads for all following kernels of this process, from 1 to 1024.

    Results do not depend on it. More threads than usable cores (the default of
    :func:`get_num_threads`) are not refused, but slower than as many threads as cores: those that
    wait for others spin for a while, on cores that the others need.

    >>> import oxidet
    >>> oxidet.set_num_threads(2)
    >>> oxidet.get_num_threads()
    2
    """
    _core.set_num_threads(integer(num_threads, "num_threads", 1, 1024))


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _ask(question: Callable[[], object]) -> str:
    """The answer, or why there is none: a report must not fail on what it is to report."""
    try:
        return str(question())
    except ValueError as error:  # of an environment variable
        return str(error)


def versions() -> dict[str, str]:
    """What a bug report needs, by name: CPU, instruction set in use, threads, versions."""
    rows = {
        "oxidet": _core.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "isa": _ask(_core.isa),
        "kernels": _ask(lambda: f"{_core.kernels()} in plans, those of the gemm crate elsewhere"),
        "threads": _ask(get_num_threads),
        "precision": f"{get_precision()} in plans, direct elsewhere",
        "weights": f"{get_weight_storage()} in plans",
        "numpy": np.__version__,
    }
    import importlib.metadata  # a tenth of the time that importing oxidet takes

    for package in ("Pillow", "matplotlib", "tqdm", "typer", "rich", "scikit-learn", "torch"):
        try:
            rows[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            rows[package] = "not installed"
    return rows


def show_versions() -> None:
    """Print what a bug report needs: CPU, instruction set in use, threads, versions.

    An environment variable with an illegal value makes every kernel raise; here its error is
    printed in place of what it should have set.
    """
    rows = versions()
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
