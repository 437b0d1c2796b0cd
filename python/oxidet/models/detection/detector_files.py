"""Detectors by name, and detector files: weights together with what they belong to.

A file written by :func:`save_detector` says which network it is, its class names and how pictures
are prepared, so :func:`load_detector` needs nothing but the path. Files of other projects hold
weights alone; there the caller names the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oxidet import weights
from oxidet._arrays import number
from oxidet.models.detection.builders import (
    faster_rcnn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    fasterrcnn_resnet_fpn,
)
from oxidet.models.detection.detector import Detector
from oxidet.models.detection.recipe import written_recipe
from oxidet.models.detection.recognition import recognise_torchvision
from oxidet.simple_faster_rcnn.checkpoints import (
    describe,
    fit_classifier,
    read_checkpoint,
    recognise,
)
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.resnet import faster_rcnn_resnet, faster_rcnn_resnet101
from oxidet.simple_faster_rcnn.small import faster_rcnn_small
from oxidet.simple_faster_rcnn.vgg16 import faster_rcnn_vgg16

# Those whose builders read files of torchvision, and know what goes with them.
TORCHVISION = ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet_fpn")
# Of simple-faster-rcnn's structure: a row for each class, background included.
CLASSES = "head.score.weight"

# Attributes of every detector, which no builder takes.
THRESHOLDS = ("score_threshold", "nms_threshold")
# What a fresh classifier has of its own.
CLASS_OPTIONS = ("n_fg_class", "num_classes", "class_names")

DETECTORS: dict[str, Callable[..., Detector]] = {
    "faster_rcnn": faster_rcnn,
    "faster_rcnn_resnet": faster_rcnn_resnet,
    "faster_rcnn_resnet101": faster_rcnn_resnet101,
    "faster_rcnn_small": faster_rcnn_small,
    "faster_rcnn_vgg16": faster_rcnn_vgg16,
    "fasterrcnn_resnet50_fpn": fasterrcnn_resnet50_fpn,
    "fasterrcnn_resnet50_fpn_v2": fasterrcnn_resnet50_fpn_v2,
    "fasterrcnn_resnet_fpn": fasterrcnn_resnet_fpn,
}


def build_detector(model: str, **options: Any) -> Detector:
    """A detector by name, with fresh weights.

    ``options`` are those of the named function in ``oxidet.models.detection``; ``preprocessing``
    may be a dict of :class:`Preprocessing`'s fields. ``score_threshold`` and ``nms_threshold`` are
    what :meth:`Detector.predict` then uses where it is not told otherwise.

    >>> from oxidet.models.detection import build_detector
    >>> build_detector("faster_rcnn_small", n_fg_class=3).class_names
    ('0', '1', '2')
    """
    if model not in DETECTORS:
        raise ValueError(f"model: expected one of {sorted(DETECTORS)}, got {model!r}")
    preprocessing = options.get("preprocessing")
    if isinstance(preprocessing, Mapping):
        options["preprocessing"] = Preprocessing(**preprocessing)
    # In what range they are, is looked at where they are used: a file is read as it was written.
    thresholds = {name: number(options.pop(name), name) for name in THRESHOLDS if name in options}
    detector = DETECTORS[model](**options)
    for name, value in thresholds.items():
        setattr(detector, name, value)
    return detector


def save_detector(
    path: str | os.PathLike[str], detector: Detector, *, dtype: str | None = None
) -> None:
    """Write a detector's weights and recipe to ``.npz`` or ``.safetensors``.

    ``dtype="float16"`` halves the file. The detector may come from any function of
    :mod:`oxidet.models.detection` that was given plain values. Class names, sizes and thresholds
    are those that the detector has now. The file appears whole or not at all.

    Raises
    ------
    ValueError
        A Module was given in place of a value, ``faster_rcnn(backbone=module)`` for one, so that a
        file cannot say how to build the detector.

    Examples
    --------
    >>> import os, tempfile
    >>> from oxidet.models.detection import build_detector, load_detector, save_detector
    >>> path = os.path.join(tempfile.mkdtemp(), "pets.npz")
    >>> save_detector(path, build_detector("faster_rcnn_small", class_names=("cat", "dog")))
    >>> load_detector(path).class_names
    ('cat', 'dog')
    """
    recipe = json.dumps(written_recipe(detector.settings(), type(detector).__name__))
    weights.save(path, detector.state_dict(), dtype=dtype, metadata={"detector": recipe})


def load_detector(
    path: str | os.PathLike[str], model: str | None = None, **options: Any
) -> Detector:
    """A detector with the weights of a file, in evaluation mode.

    A file of :func:`save_detector` says what it is. So do, by the names in them, checkpoints of
    torchvision's Faster R-CNN over a ResNet with a feature pyramid, of Faster R-CNN over VGG-16
    from simple-faster-rcnn (``.pth``) and from chainercv (``.npz``), and what
    ``FasterRCNNTrainer.save`` writes. Other weights, which fit a network but do not tell it,
    need its name.

    Parameters
    ----------
    path
        The file.
    model
        Name of the network, see :func:`build_detector`. Of a file that says what it is, only that
        name will do.
    options
        As in :func:`build_detector`, instead of what the file says. The number of classes is read
        from the weights. What weights do not tell is how images are prepared: simple-faster-rcnn's
        normalisation is taken from the options in the checkpoint, where it has them, else
        torchvision's; ``flavour="simple-faster-rcnn-caffe"`` chooses the other.

    Raises
    ------
    ValueError
        The file does not say which network it is for, or is for another than ``model``, its recipe
        describes none, it is no weight file (``oxidet.weights.WeightFileError``), or its weights do
        not fit the network.
    OSError
        The file cannot be opened.

    Examples
    --------
    >>> from oxidet.models.detection import load_detector
    >>> from oxidet.pretrained import PRETRAINED
    >>> load_detector(PRETRAINED["digits"].path).class_names[:3]
    ('0', '1', '2')
    """
    checkpoint = read_checkpoint(path)
    state: Mapping[str, Any] = checkpoint.state_dict
    said = None if checkpoint.recipe is None else _named_by(checkpoint.recipe)
    if model in DETECTORS and said is not None and model != said:
        raise ValueError(
            f"model: expected {said!r}, as {os.fspath(path)} is a file of that, got {model!r}"
        )
    if options.get("new_classifier") and said is not None and said not in TORCHVISION:
        raise ValueError(
            f"new_classifier: expected a file of {', '.join(TORCHVISION)}, got {os.fspath(path)}, "
            f"which is of {said}"
        )
    if checkpoint.recipe is not None and model in (None, said):
        detector = _from_recipe(checkpoint.recipe, path, options)
        if options.get("new_classifier"):  # the builder has read the weights that are left
            return detector.eval()
    elif (known := _torchvision(state, model)) is not None:
        return build_detector(**{**known, **options}, weights=os.fspath(path)).eval()
    else:
        found = recognise(checkpoint, options.get("flavour"), options.get("use_drop"))
        if model is None and found is None:
            raise ValueError(
                f"model: expected one of {sorted(DETECTORS)}, as {os.fspath(path)} does not say "
                f"which network it is for ({describe(state)}), got None"
            )
        if found is not None and model in (None, found.model):
            model, state = found.model, found.state_dict
            options = {**found.options, **options}
        if "n_fg_class" not in options and np.ndim(state.get(CLASSES, ())) == 2:
            options["n_fg_class"] = len(state[CLASSES]) - 1
        assert model is not None
        detector = build_detector(model, **options)
    detector.load_state_dict(fit_classifier(state, detector.state_dict()))
    return detector.eval()


def _torchvision(state: Mapping[str, Any], model: str | None) -> dict[str, Any] | None:
    """What to call the builder of a detector of torchvision's with; None for another."""
    if model is None:
        return recognise_torchvision(state)
    return {"model": model} if model in TORCHVISION else None


def _named_by(written: str) -> str | None:
    """The network that the text in a file names; None where it names none that there is."""
    try:
        recipe = json.loads(written)
    except (ValueError, RecursionError):
        return None
    name = recipe.get("model") if isinstance(recipe, dict) else None
    return name if isinstance(name, str) and name in DETECTORS else None


def _from_recipe(
    written: str, path: str | os.PathLike[str], options: Mapping[str, Any]
) -> Detector:
    """The detector that the text in a file describes, whatever that text is."""
    try:
        recipe = json.loads(written)
        if not isinstance(recipe, dict):
            raise ValueError("no recipe")
        if options.get("new_classifier"):
            recipe = {name: value for name, value in recipe.items() if name not in CLASS_OPTIONS}
            recipe["weights"] = os.fspath(path)
        return build_detector(**{**recipe, **options})
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{os.fspath(path)}: expected the recipe of a detector, got one that cannot be "
            f"followed ({error})"
        ) from error
