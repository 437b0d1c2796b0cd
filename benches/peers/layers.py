"""Layers, networks and box tools beside torch and torchvision, as a Markdown table.

    python benches/peers/layers.py [--threads N] [--processor-time] [--seconds S] [--only TEXT]

Both sides get the same weights, inputs and number of threads, each its input in the memory order
it likes: oxidet channels-last, torch both orders, of which the faster counts. A line is timed only
after its results agreed. Milliseconds are medians with quartiles; "speed" is torch's time over
oxidet's, so below 1 oxidet is slower.

On a busy machine, ``--threads 1 --processor-time`` counts the time the process had a processor
instead of the time that passed.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from measure import Case, Timing, check, measure

import oxidet
from oxidet import models, nn, ops
from oxidet.simple_faster_rcnn import FasterRCNNVGG16
from oxidet.train import FasterRCNNTrainer, faster_rcnn_optimizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from parity import torch_faster_rcnn, torch_training, torch_weights

COLUMNS = ("oxidet", "torch", "torch channels_last")
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def channels_last(array: np.ndarray) -> np.ndarray:
    """The same NCHW array in channels-last memory."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def copy_weights(ours: nn.Module, theirs: torch.nn.Module) -> None:
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})


def forward_case(
    name: str, ours: nn.Module, theirs: torch.nn.Module, x: np.ndarray, tolerance: float = 1e-4
) -> Case:
    """The forward pass of a layer or network in evaluation mode."""
    copy_weights(ours, theirs)
    ours.eval()
    theirs.eval()
    mine = channels_last(x) if x.ndim == 4 else x

    def run(model: torch.nn.Module, tensor: torch.Tensor) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode():
                return model(tensor)

        return call

    variants = {"torch": run(theirs, torch.from_numpy(x))}
    if x.ndim == 4:
        last = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
        tensor = torch.from_numpy(x).to(memory_format=torch.channels_last)
        variants["torch channels_last"] = run(last, tensor)

    def call() -> Any:
        with nn.no_grad():
            return ours(mine)

    return Case(name, call, variants, tolerance)


def training_case(name: str, ours: nn.Module, theirs: torch.nn.Module, x: np.ndarray) -> Case:
    """Forward and backward of a layer, with the gradients of input and parameters."""
    copy_weights(ours, theirs)
    ours.train()
    theirs.train()
    with torch.no_grad():
        grad = normal(*theirs(torch.from_numpy(x)).shape)
    mine, my_grad = channels_last(x), channels_last(grad)

    def call() -> list[Any]:
        ours.zero_grad()
        tensor = nn.Tensor(mine, requires_grad=True)
        ours(tensor).backward(my_grad)
        return [tensor.grad, *(p.grad for p in ours.parameters())]

    def run(order: torch.memory_format) -> Callable[[], list[Any]]:
        model = theirs.to(memory_format=order)
        start = torch.from_numpy(x).to(memory_format=order)
        weight = torch.from_numpy(grad).to(memory_format=order)

        def call() -> list[Any]:
            model.zero_grad()
            tensor = start.clone().requires_grad_()
            model(tensor).backward(weight)
            return [tensor.grad, *(p.grad for p in model.parameters())]

        return call

    variants = {
        "torch": run(torch.contiguous_format),
        "torch channels_last": run(torch.channels_last),
    }
    return Case(name, call, variants, 1e-4, results=list)


CONVOLUTIONS = [
    # name, size, in, out, kernel, stride, groups
    ("ResNet conv1 7x7/2, 3 to 64 at 224", 224, 3, 64, 7, 2, 1),
    ("ResNet layer1 3x3, 64 at 56", 56, 64, 64, 3, 1, 1),
    ("ResNet layer2 3x3, 128 at 28", 28, 128, 128, 3, 1, 1),
    ("ResNet layer3 3x3, 256 at 14", 14, 256, 256, 3, 1, 1),
    ("ResNet layer4 3x3, 512 at 7", 7, 512, 512, 3, 1, 1),
    ("ResNet-50 layer1 1x1, 64 to 256 at 56", 56, 64, 256, 1, 1, 1),
    ("ResNet-50 layer3 1x1, 1024 to 256 at 14", 14, 1024, 256, 1, 1, 1),
    ("VGG-16 conv1_2 3x3, 64 at 224", 224, 64, 64, 3, 1, 1),
    ("VGG-16 conv3_2 3x3, 256 at 56", 56, 256, 256, 3, 1, 1),
    ("VGG-16 conv5_1 3x3, 512 at 14", 14, 512, 512, 3, 1, 1),
    ("MobileNet depthwise 3x3, 144 at 56", 56, 144, 144, 3, 1, 144),
]


def convolutions() -> Iterator[Case]:
    for name, size, c, o, k, s, groups in CONVOLUTIONS:
        options = {"stride": s, "padding": k // 2, "groups": groups}
        yield forward_case(
            f"conv forward: {name}",
            nn.Conv2d(c, o, k, **options),
            torch.nn.Conv2d(c, o, k, **options),
            normal(1, c, size, size),
        )
    for name, size, c, o, k, s, groups in CONVOLUTIONS[1:6]:
        options = {"stride": s, "padding": k // 2, "groups": groups}
        yield training_case(
            f"conv forward + backward: {name}",
            nn.Conv2d(c, o, k, **options),
            torch.nn.Conv2d(c, o, k, **options),
            normal(2, c, size, size),
        )


def other_layers() -> Iterator[Case]:
    yield forward_case(
        "linear: VGG-16 fc6, 300 regions",
        nn.Linear(25088, 4096),
        torch.nn.Linear(25088, 4096),
        normal(300, 25088),
    )
    yield forward_case(
        "max pool 3x3/2: ResNet, 64 at 112",
        nn.MaxPool2d(3, 2, 1),
        torch.nn.MaxPool2d(3, 2, 1),
        normal(1, 64, 112, 112),
    )
    yield forward_case(
        "batch norm, evaluation: 256 at 56",
        nn.BatchNorm2d(256),
        torch.nn.BatchNorm2d(256),
        normal(1, 256, 56, 56),
    )
    yield training_case(
        "batch norm, forward + backward: 64 at 56, batch 8",
        nn.BatchNorm2d(64),
        torch.nn.BatchNorm2d(64),
        normal(8, 64, 56, 56),
    )


def networks() -> Iterator[Case]:
    for name in ("resnet18", "resnet50", "vgg16"):
        torch.manual_seed(0)
        theirs = getattr(torchvision.models, name)(weights=None)
        ours = getattr(models, name)()
        yield forward_case(f"{name}, one image of 224", ours, theirs, normal(1, 3, 224, 224))


def boxes(count: int, size: tuple[int, int] = (600, 800)) -> np.ndarray:
    """(count, 4) float32 x1, y1, x2, y2: sides of 16 to 256 pixels."""
    height, width = size
    sides = RNG.uniform(16, 256, (count, 2))
    corner = RNG.uniform(0, 1, (count, 2)) * ((width, height) - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def box_tools() -> Iterator[Case]:
    for rows, columns in ((16650, 20), (1000, 1000)):
        a, b = boxes(rows), boxes(columns)
        ta, tb = torch.from_numpy(a), torch.from_numpy(b)
        yield Case(
            f"IoU: {rows} x {columns} boxes",
            lambda a=a, b=b: ops.box_iou(a, b),
            {"torch": lambda ta=ta, tb=tb: torchvision.ops.box_iou(ta, tb)},
            1e-6,
        )
    for count in (300, 2000, 12000):
        a, scores = boxes(count), RNG.permutation(count).astype(np.float32) / count
        ta, ts = torch.from_numpy(a), torch.from_numpy(scores)
        yield Case(
            f"NMS at 0.7: {count} boxes",
            lambda a=a, s=scores: ops.nms(a, s, 0.7),
            {"torch": lambda ta=ta, ts=ts: torchvision.ops.nms(ta, ts, 0.7)},
            0,
        )
    features = normal(1, 512, 37, 50)
    rois = np.concatenate([np.zeros((300, 1), np.float32), boxes(300)], axis=1)
    mine, tf, tr = channels_last(features), torch.from_numpy(features), torch.from_numpy(rois)
    yield Case(
        "RoI align: 300 regions, 7x7 of 512 at 37 x 50",
        lambda: ops.roi_align(mine, rois, (7, 7), 1 / 16, 2),
        {"torch": lambda: torchvision.ops.roi_align(tf, tr, (7, 7), 1 / 16, 2)},
    )
    yield Case(
        "RoI pool: 300 regions, 7x7 of 512 at 37 x 50",
        lambda: ops.roi_pool(mine, rois, (7, 7), 1 / 16),
        {"torch": lambda: torchvision.ops.roi_pool(tf, tr, (7, 7), 1 / 16)},
    )


def detector_training() -> Iterator[Case]:
    """One step of approximate joint training, the same regions and samples drawn."""
    torch.manual_seed(0)
    image = torch_weights.random_image(600, 800)[None]
    theirs = torch_weights.spread_out(torch_faster_rcnn.FasterRCNN(), image[0])
    ours = FasterRCNNVGG16()
    copy_weights(ours, theirs)
    truth, label = boxes(8)[:, [1, 0, 3, 2]], np.arange(8, dtype=np.int32)
    trainer, my_trainer = torch_training.Trainer(theirs), FasterRCNNTrainer(ours)
    optimizer = faster_rcnn_optimizer(ours)
    mine = channels_last(image)

    def step() -> list[Any]:
        np.random.seed(0)
        losses = my_trainer(mine, [truth], [label])
        optimizer.zero_grad()
        losses.total_loss.backward()
        optimizer.step()
        return [np.asarray(losses.total_loss)]

    def their_step() -> list[Any]:
        np.random.seed(0)
        return [trainer.step(image[0], truth, label, 1.0)["total_loss"]]

    # The loss of the first step. A proposal more or less changes what is sampled; hence the
    # tolerance.
    name = "Faster R-CNN VGG-16, training step at 600 x 800"
    yield Case(name, step, {"torch": their_step}, 1e-2, list)


def speed(timings: dict[str, Timing]) -> float:
    rivals = [timing.median for name, timing in timings.items() if name != "oxidet"]
    return min(rivals) / timings["oxidet"].median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=oxidet.get_num_threads())
    parser.add_argument("--seconds", type=float, default=2.0, help="per implementation and line")
    parser.add_argument("--only", default="", help="lines whose name contains this")
    parser.add_argument("--processor-time", action="store_true", help="needs --threads 1")
    options = parser.parse_args()
    if options.processor_time and options.threads != 1:
        parser.error("--processor-time: adds up all threads, so it needs --threads 1")
    clock = time.process_time if options.processor_time else time.perf_counter
    oxidet.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)

    oxidet.show_versions()
    print(f"torchvision {torchvision.__version__}, {platform.machine()}\n")
    print("| | oxidet, ms | torch, ms | torch channels_last, ms | speed | error |")
    print("|---|---|---|---|---|---|")
    groups = (convolutions, other_layers, networks, box_tools, detector_training)
    for case in (case for group in groups for case in group()):
        if options.only not in case.name:
            continue
        error = check(case)
        timings = measure(case, options.seconds, clock)
        columns = [
            str(timings.get(name, "")) for name in ("oxidet", "torch", "torch channels_last")
        ]
        print(
            f"| {case.name} | {' | '.join(columns)} | {speed(timings):.2f} | {error:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
