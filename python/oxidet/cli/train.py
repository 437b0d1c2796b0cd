"""``oxidet train``: a detector for one's own labelled images, or the shipped ones once more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

import oxidet
from oxidet import weights as weight_files
from oxidet.cli import _options, _output
from oxidet.cli._check import check_training_data
from oxidet.cli._data import DIGITS, has_split, open_data
from oxidet.cli._models import TORCHVISION, known_model, read_metadata, resolve
from oxidet.cli._usage import UsageError
from oxidet.data import Mosaic, RepeatFactorSampler
from oxidet.models.detection import Detector, build_detector, load_detector, save_detector
from oxidet.train import Trainer
from oxidet.train.digits import train_digit_detector, train_lenet
from oxidet.train.loop import BEST, LAST
from oxidet.transforms import (
    Compose,
    RandomFlip,
    RandomIoUCrop,
    RandomPhotometricDistort,
    RandomZoomOut,
    ScaleJitter,
    Transform,
)

DEFAULT_MODEL = "faster_rcnn_small"
# Learning rates per image in a step, below what makes the losses grow. The first have batch norm,
# which the frozen one of the others lacks.
LEARNING_RATE = {
    "faster_rcnn_small": 5e-3,
    "fasterrcnn_resnet_fpn": 5e-3,
    "fasterrcnn_resnet50_fpn": 1.25e-3,
    "fasterrcnn_resnet50_fpn_v2": 1.25e-3,
    "faster_rcnn": 1.25e-3,
}
DEFAULT_LEARNING_RATE = 1e-3
ADAM_SHARE = 0.04  # of those rates, for Adam and AdamW
MAX_GRAD_NORM = 10.0
WARMUP_STEPS = 300
FINAL = "final.npz"  # what takes the place of BEST without validation

WITH_BACKBONE = ("fasterrcnn_resnet_fpn", "faster_rcnn", "faster_rcnn_resnet")
PREDICTOR = "roi_heads.box_predictor.cls_score.weight"

# Where the detectors keep what torchvision's classifiers call otherwise.
_RESNET = {
    **{f"{part}.": f"extractor.{part}." for part in ("conv1", "bn1")},
    **{f"layer{stage}.": f"extractor.layer{stage}." for stage in (1, 2, 3)},
    "layer4.": "head.classifier.layer4.",
}
FROM_CLASSIFIER = {
    "faster_rcnn_vgg16": {
        "features.": "extractor.",
        "classifier.0.": "head.classifier.0.",
        "classifier.3.": "head.classifier.2.",
    },
    "faster_rcnn_resnet": _RESNET,
    "faster_rcnn_resnet101": _RESNET,
}
# The layers that tell classes apart, by the beginnings of their names.
PREDICTORS = ("head.cls_loc.", "head.score.", "roi_heads.box_predictor.")


class OptimizerName(str, Enum):
    """Optimisers."""

    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


class ScheduleName(str, Enum):
    """What becomes of the learning rate."""

    cosine = "cosine"
    step = "step"
    one_cycle = "one_cycle"
    none = "none"


class Augmentation(str, Enum):
    """How much images are changed at random."""

    none = "none"
    flip = "flip"
    medium = "medium"
    strong = "strong"


class MetricName(str, Enum):
    """What the best weights are chosen by."""

    voc = "voc"
    voc07 = "voc07"
    coco = "coco"


# Mirrored; also larger, smaller and with other colours; also parts of the image, on a canvas.
AUGMENTATIONS: dict[str, tuple[Transform, ...]] = {
    "none": (),
    "flip": (RandomFlip(),),
    "medium": (RandomPhotometricDistort(), ScaleJitter((0.75, 1.5)), RandomFlip()),
    "strong": (
        RandomPhotometricDistort(),
        RandomZoomOut(side_range=(1.0, 2.0)),
        RandomIoUCrop(),
        RandomFlip(),
    ),
}


def train(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIR|digits",
            rich_help_panel=_options.DATA,
            help="A folder of labelled images in VOC's or COCO's form, or 'digits' for the recipe "
            "of the shipped weights.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            rich_help_panel=_options.OUTPUT,
            help="Folder of the run, made where missing.",
        ),
    ] = Path("run"),
    data_format: _options.Format = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            rich_help_panel="Network",
            help="The network, by default that of --weights, else faster_rcnn_small; "
            "fasterrcnn_resnet_fpn is the next larger one. 'oxidet info' lists all. With 'digits' "
            "also lenet5.",
            autocompletion=_options.complete_model,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel="Network",
            help="Network under fasterrcnn_resnet_fpn (default resnet18), faster_rcnn or "
            "faster_rcnn_resnet.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE|digits",
            rich_help_panel="Network",
            help="Start from these weights: of a detector, torchvision's and simple-faster-rcnn's "
            "included, or of a classifier for what it has in common. Layers for other classes "
            "start fresh.",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_options.DATA,
            help="Images to train on, as for eval: train, 'all' for all there are.",
        ),
    ] = "train",
    validation_split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_options.DATA,
            help="And this what to choose the best weights on; by default val where there is one; "
            "'none' for none.",
        ),
    ] = None,
    coordinates: _options.Coordinates = _options.CoordinateForm.voc,
    min_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            rich_help_panel="Network",
            help="Short side that images are scaled to.",
        ),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="PIXELS", rich_help_panel="Network", help="Limit of the long side."
        ),
    ] = None,
    multi_scale: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            rich_help_panel="Images",
            help="Short sides, one of which every step draws.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel="Learning",
            help="Passes through the data; default 14.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch",
            "--batch-size",
            min=1,
            metavar="N",
            rich_help_panel="Learning",
            help="Images in a step; 1 for networks that cannot mix sizes.",
        ),
    ] = None,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel="Learning",
            help="Batches whose gradients make one step.",
        ),
    ] = 1,
    lr: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="RATE",
            rich_help_panel="Learning",
            help="Learning rate; by default one that suits network and batch.",
        ),
    ] = None,
    optimizer: Annotated[
        OptimizerName,
        typer.Option(metavar="sgd|adam|adamw", rich_help_panel="Learning", help="Optimiser."),
    ] = OptimizerName.sgd,
    weight_decay: Annotated[
        float,
        typer.Option(min=0, metavar="DECAY", rich_help_panel="Learning", help="Weight decay."),
    ] = 5e-4,
    schedule: Annotated[
        ScheduleName,
        typer.Option(metavar="NAME", rich_help_panel="Learning", help="How the rate falls."),
    ] = ScheduleName.cosine,
    warmup: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel="Learning",
            help="Steps in which the rate rises; default 300, at most a tenth of the run.",
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="DECAY",
            rich_help_panel="Learning",
            help="Average the weights, such as by 0.999.",
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            rich_help_panel="Network",
            help="A layer that does not learn; may be repeated.",
        ),
    ] = None,
    freeze_batch_norm: Annotated[
        bool,
        typer.Option(
            "--freeze-batch-norm", rich_help_panel="Network", help="No batch norm learns."
        ),
    ] = False,
    augment: Annotated[
        Augmentation,
        typer.Option(
            metavar="LEVEL",
            rich_help_panel="Images",
            help="Changes at random: mirrored (flip); also in colour and size (medium); also cut "
            "and on larger canvases (strong).",
        ),
    ] = Augmentation.flip,
    mosaic: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            rich_help_panel="Images",
            help="Share of images put together from four.",
        ),
    ] = 0.0,
    balance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            rich_help_panel="Images",
            help="Repeat images of classes that fewer than this share of the images show.",
        ),
    ] = None,
    metric: Annotated[
        MetricName,
        typer.Option(
            metavar="voc|voc07|coco",
            rich_help_panel="Learning",
            help="What the best weights are chosen by.",
        ),
    ] = MetricName.voc,
    evaluate_every: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", rich_help_panel="Learning", help="Epochs between evaluations."
        ),
    ] = 1,
    early_stop: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel="Learning",
            help="Stop after N evaluations that brought no better.",
        ),
    ] = None,
    on_error: _options.ErrorHandling = _options.OnError.stop,
    check: Annotated[
        bool,
        typer.Option(
            " /--no-check",
            rich_help_panel=_options.DATA,
            help="Do not look through the data first.",
        ),
    ] = True,
    num_workers: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel=_options.RUN,
            help="Threads that read and change images ahead.",
        ),
    ] = 2,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", rich_help_panel=_options.OUTPUT, help="Also write DIR/tensorboard."
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", rich_help_panel=_options.RUN, help="Of all that is random."
        ),
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=_options.OUTPUT,
            help="Continue a run that was stopped, to the same bits.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", rich_help_panel=_options.OUTPUT, help="Replace a run in the folder."
        ),
    ] = False,
    threads: _options.Threads = None,
) -> None:
    """Train a detector on labelled images.

    The data is looked through first. Classes are found in it. The folder of the run gets best.npz,
    the detector that scored highest on the validation images (without those final.npz, the last
    one); last.npz, from which --resume continues; and log.jsonl. Ctrl-C finishes the step under way
    and saves.

    \b
    Examples:
      oxidet train --data cells/ --out runs/cells --epochs 20
      oxidet train --data cells/ --out runs/fpn --model fasterrcnn_resnet_fpn \\
          --min-size 320 --max-size 427 --batch 4 --augment medium --ema 0.999
      oxidet train --data coco/ --out runs/coco --weights model.pth \\
          --model fasterrcnn_resnet50_fpn --early-stop 5
      oxidet train --data digits --out runs/digits
    """
    _options.set_threads(threads)
    _check_folder(out, resume, overwrite)
    run: dict[str, Any] = {"seed": seed, "resume": resume, "overwrite": overwrite}
    if epochs is not None:
        run["epochs"] = epochs
    try:
        if data == DIGITS:
            _refuse_with_recipe(weights=weights, lr=lr, batch_size=batch_size)
            path = _train_digits(model, out, run)
        else:
            if model is not None:
                known_model(model)  # before a look through the data, which takes time
            if check and not resume:
                check_training_data(data, data_format, split, coordinates.value, on_error.option)
            oxidet.manual_seed(seed)
            options: dict[str, Any] = {
                "data_format": data_format,
                "coordinates": coordinates.value,
                "on_error": on_error.option,
            }
            dataset = open_data(data, split, **options)
            changes = _sizes_and_backbone(min_size, max_size, backbone)
            detector = _detector(model, weights, dataset.class_names, changes)
            if detector.class_names != dataset.class_names:  # the same names in another order
                dataset = open_data(data, split, class_names=detector.class_names, **options)
            validation = _open_validation(data, validation_split, dataset.class_names, options)
            run["batch_size"] = batch_size or 1
            rate = LEARNING_RATE.get(_name(detector), DEFAULT_LEARNING_RATE)
            if optimizer is not OptimizerName.sgd:
                rate *= ADAM_SHARE
            run["lr"] = rate * run["batch_size"] * accumulate if lr is None else lr
            if balance is not None:
                run["sampler"] = RepeatFactorSampler(dataset, balance, seed=seed)
            run.update(
                accumulate=accumulate,
                optimizer=optimizer.value,
                weight_decay=weight_decay,
                schedule=None if schedule is ScheduleName.none else schedule.value,
                ema=ema,
                freeze=freeze or (),
                freeze_batch_norm=freeze_batch_norm,
                augment=_augmentation(augment),
                multi_scale=_lengths(multi_scale),
                metric=metric.value,
                evaluate_every=evaluate_every,
                early_stop=early_stop,
                on_error=on_error.option,
                num_workers=num_workers,
                tensorboard=tensorboard,
            )
            images = run["sampler"] if balance is not None else dataset
            steps = -(-len(images) // (run["batch_size"] * accumulate)) * run.get("epochs", 14)
            run["warmup"] = min(WARMUP_STEPS, steps // 10) if warmup is None else warmup
            shown = dataset if mosaic == 0 else Mosaic(dataset, p=mosaic)
            path = _train_detector(detector, shown, validation, out, run)
    except KeyboardInterrupt:
        if (out / LAST).exists():
            _output.note(f"{out / LAST} has the state of the run; --resume continues it")
        raise
    _output.say(f"trained weights: {_output.printable(path)}")


def _check_folder(out: Path, resume: bool, overwrite: bool) -> None:
    begun = (out / LAST).exists()
    if resume and not begun:
        raise ValueError(f"--resume: expected a folder with {LAST}, got {out}")
    if begun and not (resume or overwrite):
        raise ValueError(
            f"--out: expected a folder without a run, got {out} (--resume to continue that run, "
            "--overwrite to start anew)"
        )


def _refuse_with_recipe(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"--{name.replace('_', '-')}: expected none with --data digits, whose recipe has "
                f"its own, got {value}"
            )


def _train_digits(model: str | None, out: Path, run: dict[str, Any]) -> Path:
    if model == "lenet5":
        train_lenet(out, **run)
        return out / "lenet5_digits.npz"
    if model not in (None, "faster_rcnn_small"):
        raise UsageError(f"--model: expected faster_rcnn_small or lenet5 for digits, got {model!r}")
    return train_digit_detector(out, **run)


def _open_validation(
    data: str, split: str | None, class_names: tuple[str, ...], options: dict[str, Any]
) -> Any:
    if split == "none":
        return None
    if split is None and not has_split(data, "val", options["data_format"]):
        _output.note("no split val, so no validation: the last weights are the result")
        return None
    return open_data(data, split or "val", class_names=class_names, use_difficult=True, **options)


def _augmentation(level: Augmentation) -> Transform | None:
    chosen = AUGMENTATIONS[level.value]
    if not chosen:
        return None
    return chosen[0] if len(chosen) == 1 else Compose(chosen)


def _lengths(text: str | None) -> tuple[int, ...] | None:
    """``"320,352"`` as numbers."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--multi-scale: expected lengths such as 320,352, got {text!r}") from None


def _sizes_and_backbone(
    min_size: int | None, max_size: int | None, backbone: str | None
) -> dict[str, Any]:
    given = {"min_size": min_size, "max_size": max_size, "backbone": backbone}
    return {name: value for name, value in given.items() if value is not None}


def _detector(
    model: str | None, weights: str | None, class_names: tuple[str, ...], changes: dict[str, Any]
) -> Detector:
    """A detector of the data's classes, fresh or with the weights of a file as far as they fit."""
    path = None if weights is None else resolve(weights)
    written = None if path is None else read_metadata(path).get("detector")
    recipe = {} if written is None else json.loads(written)
    state: Mapping[str, Any] = {}
    if path is not None and written is None:
        recipe, state = _recognised(path)
    if model is not None and model != recipe.get("model"):
        recipe = {}
    name = known_model(model or recipe.get("model", DEFAULT_MODEL))
    known = tuple(recipe.get("class_names", ()))
    same = sorted(map(_key, known)) == sorted(map(_key, class_names))
    names = known if same else class_names
    options = {**recipe, "model": name, "n_fg_class": len(names), "class_names": names}
    _change(options, changes)
    if path is None:
        return build_detector(**options)
    if not recipe or written is not None:
        state = weight_files.load(path)
    if not recipe and name in TORCHVISION:
        # Its builder knows what goes with such weights: frozen norms, which layers learn.
        part = {"weights": path, "new_classifier": True} if PREDICTOR in state else {
            "weights_backbone": path
        }  # fmt: skip
        options.update({key: str(v) if key != "new_classifier" else v for key, v in part.items()})
        detector = build_detector(**options)
        what = "the predictor starts" if PREDICTOR in state else "all but the backbone starts"
        _output.note(f"{what} fresh, for {len(names)} classes")
        return detector
    detector = build_detector(**options)
    if recipe and not same:
        state = {key: v for key, v in state.items() if not key.startswith(PREDICTORS)}
    _start_from(detector, state, str(path))
    return detector


def _recognised(path: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Recipe and tensors of another project's detector; nothing of what is none."""
    try:
        detector = load_detector(path)
    except ValueError:  # of which the true reason follows, if there is no other way to read it
        return {}, {}
    return dict(detector.recipe or {}), detector.state_dict()


def _change(options: dict[str, Any], changes: dict[str, Any]) -> None:
    """Put sizes and backbone where the builder of the network takes them."""
    name = options["model"]
    if "backbone" in changes:
        if name not in WITH_BACKBONE:
            raise UsageError(
                f"--backbone: expected together with {' or '.join(WITH_BACKBONE)}, got {name}"
            )
        options["backbone"] = changes["backbone"]
    sizes = {key: value for key, value in changes.items() if key != "backbone"}
    if name in TORCHVISION or name == "faster_rcnn":
        options.update(sizes)
    elif sizes:
        built_in = options.get("preprocessing") or build_detector(name).settings()["preprocessing"]
        options["preprocessing"] = {**built_in, **sizes}


def _key(name: str) -> str:
    """What two spellings of the same class have in common, as in the data sets."""
    return name.strip().lower()


def _name(detector: Detector) -> str:
    assert detector.recipe is not None  # build_detector's have one
    return str(detector.recipe["model"])


def _start_from(detector: Detector, state: Mapping[str, Any], name: str) -> None:
    """Copy the tensors that have a name and a shape in common."""
    own = detector.state_dict()
    state = renamed(state, _name(detector))
    fitting = {key: array for key, array in state.items() if _fits(own.get(key), array)}
    if not fitting:
        raise ValueError(
            f"--weights: expected weights of {_name(detector)}, got a file in which no "
            f"name and shape is the same ({name})"
        )
    detector.load_state_dict(fitting, strict=False)
    fresh = [key for key in own if key not in fitting]
    if fresh:
        listed = ", ".join(fresh[:6]) + (", ..." if len(fresh) > 6 else "")
        _output.note(f"{len(fresh)} of {len(own)} tensors start fresh: {listed}")


def renamed(state: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The tensors of a detector, or of the classifier under one, by the detector's names."""
    prefixes = FROM_CLASSIFIER.get(model, {})
    result = {}
    for key, array in state.items():
        old = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
        result[key if old is None else prefixes[old] + key.removeprefix(old)] = array
    return result


def _fits(own: Any, array: Any) -> bool:
    return own is not None and tuple(own.shape) == tuple(array.shape)


def _train_detector(
    detector: Detector, dataset: Any, validation: Any, out: Path, run: dict[str, Any]
) -> Path:
    names = ", ".join(detector.class_names)
    counts = _output.count(len(dataset), "image")
    if validation is not None:
        counts += f" to train on, {len(validation)} to validate on"
    _output.say(
        f"{_name(detector)}: {_output.printable(names)}; {counts}; "
        f"batch {run['batch_size']}, learning rate {run['lr']:g}",
        stderr=True,
    )
    trainer = Trainer(
        detector, dataset, out, validation=validation, max_grad_norm=MAX_GRAD_NORM, **run
    )
    best = trainer.run()
    if trainer.skipped:
        _output.note(f"{_output.count(len(trainer.skipped), 'image')} left out")
    if best is not None:
        _output.say(f"best {METRICS[run['metric']]} on the validation images: {best:.4f}")
        return out / BEST
    judged: Any = trainer.judged
    save_detector(out / FINAL, judged)
    return out / FINAL


METRICS = {
    "voc": "mAP at IoU 0.5",
    "voc07": "mAP at IoU 0.5, of eleven points,",
    "coco": "mAP at IoU 0.50 to 0.95",
}
