"""Peak memory of a process that classifies one image, its network's file included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from test_package import run_python

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads the peak in /proc"
)

#: About 308 MB were measured, of which 134 MB are packed weights, 102 MB parameters and 12 MB
#: activations. A second copy of the weights, kept or only passing, would be 100 MB more.
#: onnxruntime needed 327 MB for the same on the same machine.
LIMIT = 325e6

CLASSIFY = """
import numpy as np
import oxidet
from oxidet import models, nn, weights

oxidet.set_num_threads(2)
model = models.resnet50().eval()
model.load_state_dict(weights.load(PATH))
with nn.no_grad():
    logits = np.asarray(model(np.ones((1, 3, 224, 224), np.float32)))
assert logits.shape == (1, 1000) and np.isfinite(logits).all()
with open("/proc/self/status") as lines:
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def test_resnet50_from_a_file_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    path = tmp_path / "resnet50.pth"
    torch.save(torchvision.models.resnet50().state_dict(), path)
    done = run_python(f"PATH = {str(path)!r}\n{CLASSIFY}")
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout) * 1024
    assert peak <= LIMIT, f"{peak / 1e6:.0f} MB, expected at most {LIMIT / 1e6:.0f} MB"
