"""The wheel's baseline: everything runs on a processor without AVX, here an emulated one.

Emulated by qemu-user, whose model "Nehalem" (2008) has SSE4.2, as NumPy's wheels ask for, and no
AVX. `make test-slow` fetches the emulator where it can; else: ``apt-get install qemu-user-static``.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or platform.machine() != "x86_64",
        reason="qemu-user runs Linux programs, and AVX is an extension of x86-64",
    ),
]

CPU = "Nehalem"


@pytest.fixture(scope="module")
def emulator() -> list[str]:
    """The command that runs a program on a processor without AVX."""
    places = (os.environ.get("PATH", ""), str(Path(sys.prefix) / "qemu" / "usr" / "bin"))
    for name in ("qemu-x86_64", "qemu-x86_64-static"):
        found = shutil.which(name, path=os.pathsep.join(places))
        if found:
            return [found, "-cpu", CPU]
    pytest.skip("needs qemu-x86_64 (Debian: apt-get install qemu-user-static)")


def run(command: list[str], **environment: str) -> str:
    """Runs ``command``; what it printed, which is shown if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}"
    return done.stdout


def test_rust_tests(emulator: list[str]) -> None:
    if shutil.which("cargo") is None:
        pytest.skip("needs cargo")
    printed = run(
        ["cargo", "test", "--locked", "--lib", "--tests"],
        CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=" ".join(emulator),
    )
    assert "test result: ok" in printed


CLASSIFY = """
import numpy as np
from oxidet import nn, show_versions
from oxidet.data import lenet_input, load_digits
from oxidet.pretrained import digit_classifier

show_versions()
images, labels = load_digits("test")
with nn.no_grad():
    logits = digit_classifier()(lenet_input(images))
right = np.argmax(logits, axis=1) == labels
print("right:", int(right.sum()), "of", len(right))
np.save(__import__("sys").argv[1], logits)
"""


def test_import_and_classify(emulator: list[str], tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    environment = {
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        # NumPy's OpenBLAS goes by the processor's model number and would pick AVX kernels.
        "OPENBLAS_CORETYPE": "Nehalem",
    }
    emulated = run(
        [*emulator, sys.executable, "-c", CLASSIFY, str(tmp_path / "emulated.npy")], **environment
    )
    isa = next(line for line in emulated.splitlines() if line.startswith("isa "))
    assert "scalar" in isa
    right = int(emulated.rpartition("right: ")[2].split()[0])
    assert right >= 350
