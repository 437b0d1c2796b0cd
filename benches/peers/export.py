"""Writes one network in every runtime's format, with an input and the result in float64.

    python export.py WORKLOAD FOLDER

Weights are random, scaled so that activations neither vanish nor blow up: He initialisation, and
batch norms whose statistics were measured on random images. Their shifts are mostly positive: with
centred ones, batch norm and ReLU amplify a small error by a fifth in every layer, hundreds of times
through a deep network, which trained networks do not do. Files that exist are kept, so a second run
has nothing to do.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from workloads import ARGUMENTS, BATCH, NETWORKS, PIXELS, THREADS, Workload

WORKLOADS = {workload.key: workload for workload in NETWORKS + BATCH + PIXELS + THREADS}


def build(model: str) -> torch.nn.Module:
    """torchvision's network, in evaluation mode."""
    name, _, part = model.partition(".")
    network = getattr(torchvision.models, name)(weights=None, **ARGUMENTS.get(name, {}))
    return (getattr(network, part) if part else network).eval()


def initialize(network: torch.nn.Module) -> None:
    """Fills ``network`` with the weights described above."""
    torch.manual_seed(0)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if getattr(module, "bias", None) is not None:
            torch.nn.init.normal_(module.bias, std=0.1)
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 1.0, 0.5)
        norm.momentum = None  # a plain average over what is seen
    # Dropout stays off: only the batch norms are trained.
    for norm in norms:
        norm.train()
    with torch.no_grad():
        network(torch.randn(4, 3, 299, 299))
    network.eval()


def expected(network: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    """The result in float64, image by image to save memory."""
    network = network.double()
    with torch.inference_mode():
        return np.concatenate(
            [network(torch.from_numpy(image[None]).double()).numpy() for image in x]
        )


def to_onnx(network: torch.nn.Module, x: torch.Tensor, path: Path) -> None:
    torch.onnx.export(
        network, (x,), path, dynamo=False, opset_version=17,
        input_names=["input"], output_names=["output"],
    )  # fmt: skip


def to_openvino(onnx: Path, path: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)


def to_mnn(onnx: Path, path: Path) -> None:
    # Not the `mnnconvert` command, which installs a package to report its use.
    import _tools

    _tools.mnnconvert(
        ["mnnconvert", "-f", "ONNX", "--modelFile", str(onnx), "--MNNModel", str(path),
         "--bizCode", "peers"]
    )  # fmt: skip


def to_ncnn(network: torch.nn.Module, x: torch.Tensor, path: Path) -> None:
    """By pnnx, for a batch of one: ncnn has none. Weights stay float32 in the file."""
    import pnnx

    traced = path.with_name("traced.pt")
    torch.jit.trace(network, x[:1]).save(traced)
    shape = ",".join(str(n) for n in x[:1].shape)
    subprocess.run(
        [pnnx.EXEC_PATH, traced.name, f"inputshape=[{shape}]", "fp16=0"],
        cwd=path.parent, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    path.with_name("traced.ncnn.bin").rename(path.with_suffix(".bin"))
    path.with_name("traced.ncnn.param").rename(path)
    for left in path.parent.glob("traced*"):
        left.unlink()


def export(workload: Workload, folder: Path) -> None:
    """Fills ``folder / workload.key``; weights are shared by a network's shapes."""
    target = folder / workload.key
    target.mkdir(parents=True, exist_ok=True)
    state_path = folder / f"{workload.model}.pth"
    network = build(workload.model)
    if state_path.exists():
        network.load_state_dict(torch.load(state_path))
    else:
        initialize(network)
        torch.save(network.state_dict(), state_path)
    x = np.random.default_rng(0).standard_normal(workload.shape, dtype=np.float32)
    tensor = torch.from_numpy(x)

    def once(name: str, make: Callable[[Path], None]) -> None:
        path = target / name
        if not path.exists():
            print(f"{workload.key}: {name}", file=sys.stderr)
            unfinished = target / f"new-{name}"
            make(unfinished)
            for part in target.glob(f"new-{unfinished.stem.removeprefix('new-')}.*"):
                part.rename(target / part.name.removeprefix("new-"))

    onnx = target / "model.onnx"
    once("input.npy", lambda path: np.save(path, x))
    once("model.onnx", lambda path: to_onnx(network, tensor, path))
    once("openvino.xml", lambda path: to_openvino(onnx, path))
    once("mnn.mnn", lambda path: to_mnn(onnx, path))
    once("ncnn.param", lambda path: to_ncnn(network, tensor, path))
    once("expected.npy", lambda path: np.save(path, expected(network, x)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    export(WORKLOADS[sys.argv[1]], Path(sys.argv[2]))
