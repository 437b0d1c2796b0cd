"""Train Faster R-CNN on blood cells from scratch: the whole way from pictures to figures.

    python examples/train_bccd.py BCCD_DIR --out runs/bccd --resume

BCCD_DIR is a folder in PASCAL VOC's layout with the splits train, val and test, such as that of
https://github.com/Shenggan/BCCD_Dataset. ``--recipe reference`` is that of a plain script around
torchvision's detector, to compare with; ``--recipe best`` (the default) is ours, and every choice
in it has an option. Weights are chosen on val; test is looked at once, at the end.

The run can be stopped at any time, by Ctrl-C, a signal or a power cut: ``--resume`` continues it
to the same bits, or starts it where there is nothing to continue.

In the folder of the run are then ``best.npz`` (for ``oxidet.models.detection.load_detector``),
``results.json``, ``curves.png``, ``precision_recall.png`` and twelve annotated pictures of test.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import oxidet
from oxidet.data import Mosaic, VOCBboxDataset
from oxidet.models.detection import (
    AugmentedDetector,
    Detector,
    build_detector,
    load_detector,
    save_detector,
)
from oxidet.ops import box_iou
from oxidet.optim import Optimizer
from oxidet.optim.lr_scheduler import LambdaLR
from oxidet.train import Trainer, evaluate_detector
from oxidet.train.evaluate import Evaluation, ImageResult
from oxidet.transforms import (
    ColorJitter,
    Compose,
    OnImage,
    RandomFlip,
    RandomIoUCrop,
    Sample,
    ScaleJitter,
    Transform,
)

CLASSES = ("RBC", "WBC", "Platelets")
PICTURES = 12


def open_split(folder: Path, split: str) -> VOCBboxDataset:
    """One split, with the numbers of its files as they are."""
    return VOCBboxDataset(
        folder, split, use_difficult=True, class_names=CLASSES, coordinates="edges"
    )


def build(options: argparse.Namespace) -> Detector:
    """The detector with fresh weights; mean and deviation are those of the pictures."""
    oxidet.manual_seed(options.seed)
    if options.small:
        # The first five of ResNet-18's eight blocks, and a tenth of the parameters around them.
        network: dict[str, Any] = {
            "model": "faster_rcnn",
            "levels": ("layer1", "layer2", "layer3.0"),
            "out_channels": 64,
            "representation_size": 128,
        }
    else:
        network = {"model": "fasterrcnn_resnet_fpn"}
    return build_detector(
        **network,
        backbone=options.backbone,
        norm_layer="batch",
        class_names=CLASSES,
        min_size=320,
        max_size=427,
        image_mean=(0.65, 0.61, 0.62),
        image_std=(0.2, 0.2, 0.2),
    )


# --- the recipes


class Sometimes:
    """A transform that is applied to a share of the images."""

    def __init__(self, transform: Transform, p: float) -> None:
        self.transform, self.p = transform, p

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return self.transform(sample, rng) if rng.random() < self.p else sample

    def __repr__(self) -> str:
        return f"Sometimes({self.transform!r}, p={self.p:g})"


def reference_rate(optimizer: Optimizer, steps: int) -> LambdaLR:
    """A linear warm-up of 60 steps times half a cosine over all steps, counted from 1."""

    def factor(step: int) -> float:
        k = step + 1
        return min(1.0, k / 60) * 0.5 * (1 + math.cos(math.pi * k / steps))

    return LambdaLR(optimizer, factor)


def reference_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """What the script around torchvision does, in our trainer's words."""
    return {
        "epochs": options.epochs or 18,
        "batch_size": 4,
        "drop_last": True,
        "optimizer": "sgd",
        "lr": 0.02,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": reference_rate,
        "max_grad_norm": 5.0,
        "augment": RandomFlip(x=0.5, y=0.5),
    }


def best_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Our own, as the options have it."""
    chain: list[Transform] = [RandomFlip(x=0.5, y=0.5)]
    if options.iou_crop:
        chain.append(Sometimes(RandomIoUCrop(), options.iou_crop))
    if options.scale_jitter:
        low, high = options.scale_jitter
        chain.append(ScaleJitter((low, high), fill=(166, 156, 158)))  # about the pictures' mean
    if options.color:
        # No exchange of channels: the stain tells white cells and platelets from red ones.
        jitter = OnImage(ColorJitter(0.2, 0.2, 0.2, 0.02), random=True)
        chain.append(Sometimes(jitter, options.color))
    return {
        "epochs": options.epochs or 40,
        "batch_size": options.batch_size,
        "accumulate": options.accumulate,
        "drop_last": True,
        "optimizer": options.optimizer,
        "lr": options.lr,
        "weight_decay": options.weight_decay,
        "schedule": options.schedule,
        "warmup": options.warmup,
        "max_grad_norm": 5.0,
        "ema": options.ema or None,
        "multi_scale": options.multi_scale,
        "early_stop": options.early_stop,
        "augment": Compose(chain),
    }


# --- the evaluation of the reference


def average_precision(results: Sequence[ImageResult], label: int, iou_thresh: float = 0.5) -> float:
    """Area under the envelope of precision against recall for one class.

    As PASCAL VOC has it, but with boxes of continuous edges: over all images by descending score, a
    detection is right if the object it overlaps most does so by ``iou_thresh`` and is still free.
    """
    scores: list[float] = []
    right: list[bool] = []
    objects = 0
    for result in results:
        truth = result.truth.boxes[result.truth.labels == label]
        mine = result.found.labels == label
        found = result.found.boxes[mine]
        free = np.ones(len(truth), bool)
        objects += len(truth)
        scores += result.found.scores[mine].tolist()  # best first
        overlaps = box_iou(found, truth) if len(truth) else np.zeros((len(found), 1))
        for row in overlaps:
            nearest = int(np.argmax(row))
            hit = bool(row[nearest] >= iou_thresh and free[nearest]) if len(truth) else False
            if hit:
                free[nearest] = False
            right.append(hit)
    if not right or not objects:
        return 0.0
    hits = np.asarray(right)[np.argsort(-np.asarray(scores), kind="stable")].cumsum()
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(hits / objects, prepend=0.0) * envelope).sum())


def scores_of(result: Evaluation) -> dict[str, Any]:
    """Mean and classes by the reference's evaluation, and the usual figures beside them."""
    ap = {name: average_precision(result.results, k) for k, name in enumerate(CLASSES)}
    return {
        "mean_ap50": float(np.mean(list(ap.values()))),
        "ap50": ap,
        "voc_mean_ap50": result.mean_ap,
        # JSON has no NaN, which stands for what nothing could be measured on.
        "coco": {k: None if math.isnan(v) else v for k, v in result.coco_figures.items()},
    }


# --- the pictures


def draw(result: Evaluation, dataset: VOCBboxDataset, out: Path) -> None:
    """Curves of training and of test, and pictures with what was found and what is there."""
    from matplotlib import pyplot

    from oxidet.visualize import annotated, precision_recall, training_curves

    for name, plot in (
        ("curves.png", lambda: training_curves(out / "log.jsonl")[0].figure),
        ("precision_recall.png", lambda: precision_recall(result).figure),
    ):
        figure = plot()
        figure.savefig(out / name, dpi=150)
        pyplot.close(figure)
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    # Evenly from the whole split, not the best or the worst.
    for place in np.linspace(0, len(result.results) - 1, PICTURES).astype(int):
        image = result.results[place]
        found = image.found.filter(min_score=0.5)
        picture = annotated(dataset.image_path(image.item), found, image.truth)
        picture.save(folder / f"{Path(image.name).stem}.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, choose, test."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("data", type=Path, metavar="BCCD_DIR")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--recipe", choices=("reference", "best"), default="best")
    add("--resume", action="store_true", help="continue the run in the folder, if there is one")
    add("--epochs", type=int, help="instead of the recipe's 18 or 40")
    add("--seed", type=int, default=0)
    add("--backbone", default="resnet18")
    add("--small", action="store_true", help="the network of 2.2 million parameters, as shipped")
    add("--evaluate-every", type=int, default=3, metavar="EPOCHS")
    add("--threads", type=int, help="of the computation; by default all cores")
    add("--tensorboard", action="store_true")
    best = parser.add_argument_group("of the recipe 'best'").add_argument
    best("--batch-size", type=int, default=4)
    best("--accumulate", type=int, default=1, metavar="BATCHES")
    best("--optimizer", choices=("sgd", "adamw"), default="sgd")
    best("--lr", type=float, default=0.02)
    best("--weight-decay", type=float, default=1e-4)
    best("--schedule", choices=("cosine", "step", "one_cycle"), default="cosine")
    best("--warmup", type=int, default=60, metavar="STEPS")
    best("--ema", type=float, default=0.998, metavar="DECAY", help="0 for none")
    best("--scale-jitter", type=float, nargs=2, metavar=("LOW", "HIGH"), default=(0.75, 1.5))
    best("--iou-crop", type=float, default=0.0, metavar="SHARE")
    best("--color", type=float, default=0.5, metavar="SHARE")
    best("--mosaic", type=float, default=0.0, metavar="SHARE")
    best("--multi-scale", type=int, nargs="+", metavar="SHORT_SIDE")
    best("--early-stop", type=int, metavar="EVALUATIONS")
    options = parser.parse_args(arguments)
    if options.threads:
        oxidet.set_num_threads(options.threads)

    reference = options.recipe == "reference"
    dataset: Any = open_split(options.data, "train")
    if not reference and options.mosaic:
        dataset = Mosaic(dataset, options.mosaic)
    trainer = Trainer(
        build(options),
        dataset,
        options.out,
        validation=open_split(options.data, "val"),
        use_difficult=True,
        evaluate_every=options.evaluate_every,
        checkpoint_every=25,
        seed=options.seed,
        tensorboard=options.tensorboard,
        resume=options.resume and (options.out / "last.npz").exists(),
        **(reference_recipe(options) if reference else best_recipe(options)),
    )
    trainer.run()

    # The reference has no validation: its result is the last epoch's.
    if reference:
        save_detector(options.out / "final.npz", trainer.model)
    chosen = load_detector(options.out / ("final.npz" if reference else "best.npz"))
    test = open_split(options.data, "test")
    ways = {"test": chosen}
    if not reference:
        # Of one to four scales and overlaps from 0.5 to 0.7, these were best on val.
        ways["test_in_twelve_looks"] = AugmentedDetector(
            chosen, ("", "x", "y", "xy"), (0.875, 1.0, 1.125), iou_thresh=0.65
        )
    scores: dict[str, Any] = {
        "recipe": options.recipe,
        "epochs": trainer.epoch,
        "minutes": trainer.seconds / 60,
        "best_on_val": trainer.best,
    }
    for way, detector in ways.items():
        result = evaluate_detector(detector, test, quiet=False)
        scores[way] = scores_of(result)
        print(f"{way}: AP at IoU 0.5")
        for name, value in scores[way]["ap50"].items():
            print(f"  {name:<10} {value:.4f}")
        print(f"  {'mean':<10} {scores[way]['mean_ap50']:.4f}")
    (options.out / "results.json").write_text(json.dumps(scores, indent=2) + "\n")
    draw(result, test, options.out)


if __name__ == "__main__":
    main()
