"""The detectors that ``--weights`` and ``--model`` name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from oxidet.cli._usage import UsageError
from oxidet.models.detection import DETECTORS, Detector, load_detector
from oxidet.pretrained import PRETRAINED
from oxidet.simple_faster_rcnn import FasterRCNN
from oxidet.simple_faster_rcnn.preprocessing import NORMALIZATIONS
from oxidet.weights import load_metadata

# With torchvision's structure, which takes weights and sizes as options of its builder.
TORCHVISION = ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet_fpn")
KNOWN = f"one of {', '.join(sorted(DETECTORS))}"


def resolve(weights: str) -> Path:
    """The file that ``--weights`` means: a path, or the name of weights that come with oxidet.

    A file of that name in the working directory is written ``./digits``.
    """
    return PRETRAINED[weights].path if weights in PRETRAINED else Path(weights)


def known_model(model: str) -> str:
    """``model``, if it is the name of a detector."""
    if model not in DETECTORS:
        raise UsageError(f"--model: expected {KNOWN}, got {model!r}")
    return model


def read_metadata(path: Path) -> dict[str, str]:
    """The text beside the weights of a file that ``--weights`` may name."""
    written = load_metadata(path)
    if "checkpoint" in written:
        raise ValueError(
            f"--weights: expected a detector, got the checkpoint of a run ({path}); its "
            "best.npz is one"
        )
    return written


def load_named_detector(
    weights: str,
    model: str | None = None,
    normalization: str | None = None,
    class_names: str | None = None,
) -> Detector:
    """The detector in a file, or the one that comes with oxidet under a name.

    The other arguments are for files that do not say which network they belong to.
    """
    path = resolve(weights)
    read_metadata(path)
    if model is None:
        for option, value in (("--normalization", normalization), ("--class-names", class_names)):
            if value is not None:
                raise UsageError(f"{option}: expected together with --model")
    elif known_model(model) in TORCHVISION and normalization is not None:
        raise UsageError(
            f"--normalization: expected none for {model}, which has torchvision's, got "
            f"{normalization!r}"
        )
    if normalization is not None and normalization not in NORMALIZATIONS:
        names = ", ".join(sorted(NORMALIZATIONS))
        raise UsageError(f"--normalization: expected one of {names}, got {normalization!r}")
    options: dict[str, Any] = {}
    if class_names is not None:
        classes = [name.strip() for name in class_names.split(",")]
        options = {"n_fg_class": len(classes), "class_names": classes}
    try:
        detector = load_detector(path, model, **options)
    except ValueError as error:
        if str(error).startswith("model: "):
            raise ValueError(f"--{error}") from None
        raise
    if normalization is not None and isinstance(detector, FasterRCNN):
        # Only this; the rest of the network's own preprocessing stays.
        known: Any = normalization
        detector.preprocessing = replace(detector.preprocessing, normalization=known)
    return detector
