"""``OXIDET_ISA``: the same network with the kernels of every instruction set of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import assert_close
from test_package import run_python

NAMES = ("scalar", "avx2", "avx512")

#: Prints what is in use, and saves the results of direct and default plans and of layers.
NETWORK = """
import numpy as np
import oxidet
from oxidet import nn

oxidet.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
    nn.MaxPool2d(3, 2, 1),
    nn.Conv2d(24, 40, 3, padding=1), nn.BatchNorm2d(40), nn.ReLU(),
    nn.Conv2d(40, 40, 3, padding=1, groups=40), nn.AvgPool2d(2),
    nn.Conv2d(40, 33, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
    nn.Linear(297, 50), nn.ReLU(), nn.Linear(50, 7), nn.Softmax(1),
).eval()
rng = np.random.default_rng(0)
for norm in (net[1], net[5]):
    norm.running_mean = rng.normal(0, 0.3, norm.num_features)
    norm.running_var = rng.uniform(0.5, 2, norm.num_features)
net.compiled = True
x = rng.standard_normal((2, 3, 150, 131)).astype(np.float32)
results = {}
for precision in ("direct", "winograd"):
    with oxidet.precision(precision):
        results[precision] = net(x)
        print(precision, [step.algorithm for step in net.plan(x.shape)])
with nn.eager():
    results["eager"] = net(x)
more = nn.Sequential(
    nn.ZeroPad2d((0, 1, 2, 0)), nn.LocalResponseNorm(5, 1.0), nn.Upsample(scale_factor=1.5),
    nn.Upsample(scale_factor=0.7, mode="bilinear"), nn.LocalResponseNorm(4, 0.5, 0.6),
).eval()
more.compiled = True
y = nn.Tensor(rng.standard_normal((2, 37, 9, 8)), requires_grad=True)
results["more"] = more(y.numpy())
out = more(y)
out.backward(rng.standard_normal(out.shape))
results["gradient"] = y.grad
oxidet.show_versions()
np.savez(RESULTS, **results)
"""


def run_network(isa: str, folder: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """What a process with ``OXIDET_ISA`` printed, by the first word of its lines, and computed."""
    path = folder / f"{isa}.npz"
    done = run_python(f"RESULTS = {str(path)!r}\n{NETWORK}", OXIDET_ISA=isa)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    with np.load(path) as stored:
        return rows, dict(stored)


def test_every_instruction_set_computes_the_same_and_is_named(tmp_path: Path) -> None:
    best = run_network("", tmp_path)[0]["isa"]
    available = NAMES[: NAMES.index(best) + 1]
    results = {}
    for name in NAMES:
        rows, results[name] = run_network(name, tmp_path)
        # A cap above what the machine has caps nothing.
        used = name if name in available else best
        assert rows["isa"] == used
        assert rows["kernels"].startswith(f"{used}-f32-")
        assert "winograd" in rows["winograd"]
        assert "winograd" not in rows["direct"]
    for name, result in results.items():
        for computed_by, limit in (("direct", 5e-6), ("winograd", 1e-4), ("eager", 5e-6)):
            expected = results["scalar"]["direct"]
            assert_close(result[computed_by], expected, limit, f"{computed_by}, {name}")
        np.testing.assert_allclose(result["direct"].sum(1), 1, rtol=1e-6)
        for key in ("more", "gradient"):
            assert_close(result[key], results["scalar"][key], 5e-6, f"{key}, {name}")
    # Orders of summation differ, so bits do: the cap reaches the kernels, not only the report.
    if best != "scalar":
        assert not np.array_equal(results["scalar"]["winograd"], results[best]["winograd"])


@pytest.mark.parametrize("bad", ["sse9", "AVX2", "avx2,avx512", "0"])
def test_an_illegal_cap_is_a_value_error_of_the_first_kernel(bad: str) -> None:
    done = run_python(
        "import numpy as np, oxidet\n"
        "from oxidet.nn import functional as F\n"
        "oxidet.show_versions()\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        F.relu(np.ones((1, 2), np.float32))\n"
        "    except ValueError as error:\n"
        "        print(error)",
        OXIDET_ISA=bad,
    )
    expected = f'OXIDET_ISA: expected scalar, avx2 or avx512, got "{bad}"'
    lines = done.stdout.splitlines()
    assert lines[-2:] == [expected] * 2, done.stdout + done.stderr
    rows = dict(line.split(maxsplit=1) for line in lines[:-2])
    assert (rows["isa"], rows["kernels"]) == (expected, expected)
