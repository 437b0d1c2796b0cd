"""What ``oxidet train`` makes of its options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oxidet import weights as weight_files
from oxidet.cli import _output
from oxidet.cli._data import has_split, open_data
from oxidet.cli._inputs import refuse_inputs
from oxidet.cli._models import TORCHVISION, known_model, read_metadata, resolve
from oxidet.cli._usage import UsageError
from oxidet.cli.train import Augmentation, OptimizerName
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


def check_folder(out: Path, resume: bool, overwrite: bool) -> None:
    begun = (out / LAST).exists()
    if resume and not begun:
        raise ValueError(f"--resume: expected a folder with {LAST}, got {out}")
    if begun and not (resume or overwrite):
        raise ValueError(
            f"--out: expected a folder without a run, got {out} (--resume to continue that run, "
            "--overwrite to start anew)"
        )


def refuse_own_weights(out: Path, weights: str) -> None:
    """Refuse to write over what the training starts from."""
    results = [("--out", out / name) for name in (BEST, LAST, FINAL)]
    refuse_inputs(results, [("weights", resolve(weights))])


def refuse_with_recipe(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"--{name.replace('_', '-')}: expected none with --data digits, whose recipe has "
                f"its own, got {value}"
            )


def train_digits(model: str | None, out: Path, run: dict[str, Any]) -> Path:
    if model == "lenet5":
        train_lenet(out, **run)
        return out / "lenet5_digits.npz"
    if model not in (None, "faster_rcnn_small"):
        raise UsageError(f"--model: expected faster_rcnn_small or lenet5 for digits, got {model!r}")
    return train_digit_detector(out, **run)


def open_validation(
    data: str, split: str | None, class_names: tuple[str, ...], options: dict[str, Any]
) -> Any:
    if split == "none":
        return None
    if split is None and not has_split(data, "val", options["data_format"]):
        _output.note("no split val, so no validation: the last weights are the result")
        return None
    return open_data(data, split or "val", class_names=class_names, use_difficult=True, **options)


def augmentation(level: Augmentation) -> Transform | None:
    chosen = AUGMENTATIONS[level.value]
    if not chosen:
        return None
    return chosen[0] if len(chosen) == 1 else Compose(chosen)


def lengths(text: str | None) -> tuple[int, ...] | None:
    """``"320,352"`` as numbers."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--multi-scale: expected lengths such as 320,352, got {text!r}") from None


def sizes_and_backbone(
    min_size: int | None, max_size: int | None, backbone: str | None
) -> dict[str, Any]:
    given = {"min_size": min_size, "max_size": max_size, "backbone": backbone}
    return {name: value for name, value in given.items() if value is not None}


def detector_for(
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


def learning_rate(detector: Detector, optimizer: OptimizerName) -> float:
    """The rate that suits a network, for each image in a step."""
    rate = LEARNING_RATE.get(model_name(detector), DEFAULT_LEARNING_RATE)
    return rate if optimizer is OptimizerName.sgd else ADAM_SHARE * rate


def model_name(detector: Detector) -> str:
    assert detector.recipe is not None  # build_detector's have one
    return str(detector.recipe["model"])


def _start_from(detector: Detector, state: Mapping[str, Any], name: str) -> None:
    """Copy the tensors that have a name and a shape in common."""
    own = detector.state_dict()
    state = renamed(state, model_name(detector))
    fitting = {key: array for key, array in state.items() if _fits(own.get(key), array)}
    if not fitting:
        raise ValueError(
            f"--weights: expected weights of {model_name(detector)}, got a file in which no "
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


def train_detector(
    detector: Detector, dataset: Any, validation: Any, out: Path, run: dict[str, Any]
) -> Path:
    names = ", ".join(detector.class_names)
    counts = _output.count(len(dataset), "image")
    if validation is not None:
        counts += f" to train on, {len(validation)} to validate on"
    _output.say(
        f"{model_name(detector)}: {_output.printable(names)}; {counts}; "
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
