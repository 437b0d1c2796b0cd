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
from oxidet.cli._data import DIGITS, open_data
from oxidet.cli._models import known_model, read_metadata, resolve
from oxidet.models.detection import Detector, build_detector, save_detector
from oxidet.optim.lr_scheduler import warmup_cosine
from oxidet.train import Trainer
from oxidet.train.digits import train_digit_detector, train_lenet
from oxidet.train.loop import BEST, LAST
from oxidet.transforms import RandomFlip

# Learning rates per image in a step, below what makes the losses grow. The small network has batch
# norm, which the frozen one of the others lacks.
LEARNING_RATE = {"faster_rcnn_small": 5e-3}
DEFAULT_LEARNING_RATE = 1e-3
MAX_GRAD_NORM = 10.0
WARMUP_STEPS = 300
FINAL = "final.npz"  # what takes the place of BEST without validation

# Where the detectors keep what torchvision's classifiers call otherwise.
FROM_CLASSIFIER = {
    "faster_rcnn_vgg16": {
        "features.": "extractor.",
        "classifier.0.": "head.classifier.0.",
        "classifier.3.": "head.classifier.2.",
    },
    "faster_rcnn_resnet": {
        **{f"{part}.": f"extractor.{part}." for part in ("conv1", "bn1")},
        **{f"layer{stage}.": f"extractor.layer{stage}." for stage in (1, 2, 3)},
        "layer4.": "head.classifier.layer4.",
    },
}


class DataFormat(str, Enum):
    """Forms of labelled data."""

    voc = "voc"


def train(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIR|digits",
            help="A directory in the layout of PASCAL VOC (Annotations, ImageSets/Main, "
            "JPEGImages), or 'digits' for the recipe of the shipped weights.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the run, made where missing.")
    ],
    data_format: Annotated[
        DataFormat, typer.Option("--format", help="Form of the data in DIR.")
    ] = DataFormat.voc,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="faster_rcnn_small (default), faster_rcnn_vgg16 or faster_rcnn_resnet; with "
            "'digits' also lenet5.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE|digits",
            help="Start from these weights, of a detector or of torchvision's vgg16 or resnet50; "
            "tensors that do not fit start fresh.",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="ImageSets/Main/NAME.txt lists what to train on.")
    ] = "train",
    validation_split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="And this what to choose the best weights on; by default val where there is a "
            "val.txt; 'none' for none.",
        ),
    ] = None,
    coordinates: _options.Coordinates = _options.CoordinateForm.voc,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Passes through the data.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Learning rate; default: 0.005 an image for the small network, "
            "0.001 for the others.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Images in a step; 1, unless all images have one size."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of all that is random.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was stopped, to the same bits.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run in the folder.")
    ] = False,
    threads: _options.Threads = None,
) -> None:
    """Train a detector on labelled images.

    Classes are found in the data. The folder of the run gets best.npz, the detector that scored
    highest on the validation images (without those final.npz, the last one); last.npz, from which
    --resume continues; and log.jsonl. Ctrl-C finishes the step under way and saves.

    \b
    Examples:
      oxidet train --data cells/ --out runs/cells --epochs 20
      oxidet train --data cells/ --out runs/more --weights runs/cells/best.npz
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
            oxidet.manual_seed(seed)
            options: dict[str, Any] = {"split": split, "coordinates": coordinates.value}
            dataset = open_data(data, scenes=0, **options)
            validation = _open_validation(data, validation_split, dataset, options)
            detector = _detector(model, weights, dataset.class_names)
            rate = LEARNING_RATE.get(_name(detector), DEFAULT_LEARNING_RATE)
            run["batch_size"] = batch_size or 1
            run["lr"] = rate * run["batch_size"] if lr is None else lr
            path = _train_detector(detector, dataset, validation, out, run)
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
            raise ValueError(
                f"--{name.replace('_', '-')}: expected none with --data digits, whose recipe has "
                f"its own, got {value}"
            )


def _train_digits(model: str | None, out: Path, run: dict[str, Any]) -> Path:
    if model == "lenet5":
        train_lenet(out, **run)
        return out / "lenet5_digits.npz"
    if model not in (None, "faster_rcnn_small"):
        raise ValueError(f"--model: expected faster_rcnn_small or lenet5 for digits, got {model!r}")
    return train_digit_detector(out, **run)


def _open_validation(data: str, split: str | None, dataset: Any, options: dict[str, Any]) -> Any:
    if split is None and not (Path(data) / "ImageSets" / "Main" / "val.txt").is_file():
        _output.note("no val.txt, so no validation: the last weights are the result")
        return None
    if split == "none":
        return None
    return open_data(
        data,
        scenes=0,
        class_names=dataset.class_names,
        use_difficult=True,
        **{**options, "split": split or "val"},
    )


def _detector(model: str | None, weights: str | None, class_names: tuple[str, ...]) -> Detector:
    """A detector of the data's classes, fresh or with the weights of a file as far as they fit."""
    path = None if weights is None else resolve(weights)
    written = None if path is None else read_metadata(path).get("detector")
    options = {} if written is None else json.loads(written)
    if model is not None and model != options.get("model"):
        options = {}
    options["model"] = known_model(model or options.get("model", "faster_rcnn_small"))
    options.update(n_fg_class=len(class_names), class_names=class_names)
    detector = build_detector(**options)
    if path is not None:
        _start_from(detector, weight_files.load(path), str(path))
    return detector


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
    names = ", ".join(dataset.class_names)
    counts = _output.count(len(dataset), "image")
    if validation is not None:
        counts += f" to train on, {len(validation)} to validate on"
    _output.say(f"{_name(detector)}: {names}; {counts}", stderr=True)
    trainer = Trainer(
        detector,
        dataset,
        out,
        validation=validation,
        schedule=_schedule,
        max_grad_norm=MAX_GRAD_NORM,
        augment=RandomFlip(),
        **run,
    )
    best = trainer.run()
    if best is not None:
        _output.say(f"best mAP at IoU 0.5 on the validation images: {best:.4f}")
        return out / BEST
    save_detector(out / FINAL, detector)
    return out / FINAL


def _schedule(optimizer: Any, steps: int) -> Any:
    """A short warm-up, without which fresh networks may diverge, then half a cosine to zero."""
    return warmup_cosine(optimizer, min(WARMUP_STEPS, steps // 10), steps)
