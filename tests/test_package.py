"""The package as a whole: what importing it costs, threads, fork, the GIL, and the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import oxidet
from conftest import ROOT
from oxidet.nn import functional as F
from wheels import contents, environments


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with the same search path, in which ``code`` runs."""
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def cargo_version() -> str:
    found = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text("utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


# --- versions and what importing costs


def test_the_version_is_cargos() -> None:
    assert oxidet.__version__ == cargo_version()


def test_show_versions_prints_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    oxidet.set_num_threads(2)
    oxidet.show_versions()
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["oxidet"] == oxidet.__version__
    assert rows["python"] == ".".join(map(str, sys.version_info[:3]))
    assert rows["numpy"] == np.__version__
    assert rows["threads"].startswith("2")
    assert rows["isa"].split()[0] in {"scalar", "avx2", "avx512"}
    assert rows["kernels"].startswith(f"{rows['isa']}-f32-")
    assert rows["precision"].startswith("winograd")
    assert rows["weights"].startswith("f32")
    assert {"platform", "cpu", "Pillow", "torch"} <= rows.keys()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_importing_starts_no_thread() -> None:
    result = run_python(
        "import os, numpy\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "import oxidet\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "0"


# --- threads


@pytest.mark.parametrize("bad", [0, -1, 1025, 2**70])
def test_an_illegal_number_of_threads_is_a_value_error(bad: int) -> None:
    with pytest.raises(ValueError, match=rf"num_threads: expected .* 1 to 1024, got {bad}"):
        oxidet.set_num_threads(bad)


@pytest.mark.parametrize("bad", [2.0, "2", None, True])
def test_a_number_of_threads_of_another_type_is_a_type_error(bad: object) -> None:
    with pytest.raises(TypeError, match="num_threads: expected an integer, got"):
        oxidet.set_num_threads(bad)  # type: ignore[arg-type]


def test_the_environment_sets_the_number_of_threads() -> None:
    code = "import oxidet; print(oxidet.get_num_threads())"
    assert run_python(code, OXIDET_NUM_THREADS="3").stdout.strip() == "3"
    default = run_python(code, OXIDET_NUM_THREADS="").stdout.strip()
    assert 1 <= int(default) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("bad", ["many", "0", "-2", "1.5", "1025"])
def test_an_illegal_number_of_threads_in_the_environment_is_a_value_error(bad: str) -> None:
    result = run_python(
        "import numpy as np, oxidet\n"
        "oxidet.show_versions()\n"
        "try:\n"
        "    oxidet.nn.functional.linear(np.ones((1, 2)), np.ones((1, 2)))\n"
        "except ValueError as error:\n"
        "    print(error)",
        OXIDET_NUM_THREADS=bad,
    )
    expected = f'OXIDET_NUM_THREADS: expected an integer from 1 to 1024, got "{bad}"'
    assert result.returncode == 0, result.stderr
    *lines, error = result.stdout.splitlines()
    assert error == expected
    assert dict(line.split(maxsplit=1) for line in lines)["threads"] == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_computes_and_gets_the_same_bits() -> None:
    # The child of the child as well: pools of two generations lie in its memory.
    result = run_python(
        "import os, signal, numpy as np, oxidet\n"
        "from oxidet.nn import functional as F\n"
        "oxidet.set_num_threads(3)\n"
        "rng = np.random.default_rng(0)\n"
        "x = rng.standard_normal((2, 16, 33, 31), np.float32)\n"
        "w = rng.standard_normal((24, 16, 3, 3), np.float32)\n"
        "expected = F.conv2d(x, w, padding=1).tobytes()\n"
        "def child(generation):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        signal.alarm(60)  # a pool without threads would wait for ever\n"
        "        same = F.conv2d(x, w, padding=1).tobytes() == expected\n"
        "        os._exit(0 if same and (generation == 2 or child(generation + 1)) else 1)\n"
        "    return os.waitpid(pid, 0)[1] == 0\n"
        "print(child(1), F.conv2d(x, w, padding=1).tobytes() == expected)"
    )
    assert result.stdout.strip() == "True True", result.stderr


def test_kernels_release_the_gil() -> None:
    # While a kernel runs in another thread, this thread keeps ticking. Were the GIL held, no tick
    # could fall inside the kernel, so one attempt of several without a long gap is proof; a busy
    # machine may spoil some of them.
    x = np.ones((8, 64, 96, 96), np.float32)
    w = np.ones((64, 64, 3, 3), np.float32)
    F.conv2d(x, w)  # starts the pool

    def longest_gap() -> float:
        """Longest time without a tick, as a part of the kernel's time."""
        window: list[float] = []

        def kernel() -> None:
            window.append(time.perf_counter())
            F.conv2d(x, w)
            window.append(time.perf_counter())

        thread = threading.Thread(target=kernel)
        ticks: list[float] = []
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)
        start, end = window
        inside = [start, *(tick for tick in ticks if start < tick < end), end]
        return max(np.diff(inside)) / (end - start)

    gaps = [longest_gap() for _ in range(10)]
    assert min(gaps) < 0.5, f"longest gaps between ticks, as parts of the kernel's time: {gaps}"


def test_kernels_of_several_threads_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((1, 8, 20 + i, 20), np.float32) for i in range(6)]
    w = rng.standard_normal((8, 8, 3, 3), np.float32)
    expected = [F.conv2d(x, w) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            if not np.array_equal(F.conv2d(inputs[index], w), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    subprocess.run([*command, ROOT], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    version = cargo_version()
    assert re.match(rf"oxidet-{re.escape(version)}-cp310-abi3-", wheel.name), wheel.name
    contents.check_wheel(wheel)


@pytest.mark.slow
def test_a_fresh_environment_needs_the_wheel_and_numpy_alone(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environments.try_wheel(wheel, Path(sys.executable), tmp_path)
    oldest, newest = capsys.readouterr().out.splitlines()
    assert oldest.startswith(f"oxidet {oxidet.__version__} works: ")
    assert newest.startswith(f"oxidet {oxidet.__version__} works: ")


@pytest.mark.slow
def test_a_free_threaded_python_is_refused_in_one_sentence(tmp_path: Path) -> None:
    if shutil.which("cargo") is None:
        pytest.skip("needs cargo")
    # What PyO3 would find out about such an interpreter.
    python = tmp_path / "python"
    python.write_text("version=3.14\nshared=true\nbuild_flags=Py_GIL_DISABLED\n", "utf-8")
    done = subprocess.run(
        ["cargo", "check", "--locked", "--quiet", "--features", "python"],
        cwd=ROOT,
        env={**os.environ, "PYO3_CONFIG_FILE": str(python), "CARGO_TARGET_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "oxidet needs a CPython with the GIL: " in done.stderr, done.stderr
