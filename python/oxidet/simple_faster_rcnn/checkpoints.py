"""Checkpoints of simple-faster-rcnn, of chainercv and of this package, as one thing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from oxidet import weights
from oxidet.simple_faster_rcnn.vgg16 import FLAVOURS
from oxidet.weights._files import StateDict, read_file, weights_of

if TYPE_CHECKING:
    from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN

# fc7 of the head, without and with dropout between the fully connected layers.
FC7, FC7_BEHIND_DROPOUT = "head.classifier.2.", "head.classifier.3."


class Checkpoint(NamedTuple):
    """What a file holds."""

    state_dict: StateDict
    config: dict[str, Any]
    """The options it was trained with, as far as known."""
    other_info: dict[str, Any]
    optimizer: dict[str, Any] | None
    recipe: str | None
    """How to build the detector, as JSON, in files of this package."""


def save_checkpoint(
    path: str | os.PathLike[str],
    model: FasterRCNN,
    *,
    config: Mapping[str, Any],
    other_info: Mapping[str, Any],
    vis_info: Mapping[str, Any],
    optimizer: Mapping[str, Any] | None,
) -> None:
    """Write a checkpoint with simple-faster-rcnn's entries."""
    # Here and not above: oxidet.train is built on this package.
    from oxidet.train import checkpoint

    state: dict[str, Any] = {
        "model": dict(model.state_dict()),
        "config": dict(config),
        "other_info": dict(other_info),
        "vis_info": dict(vis_info),
        "recipe": model.recipe,
    }
    if optimizer is not None:
        state["optimizer"] = optimizer
    checkpoint.save_checkpoint(path, state)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote, a ``.pth`` of the original, or weights alone.

    Raises
    ------
    ValueError
        The file holds no weights.
    OSError
        It cannot be opened.
    """
    content, metadata, name = read_file(path)
    if "checkpoint" in metadata:
        from oxidet.train.checkpoint import decode_checkpoint

        content = decode_checkpoint(content, metadata, name)
    # Where the content is a state_dict, its keys are those of layers.
    entries = content if isinstance(content, dict) else {}
    recipe = metadata.get("detector")
    if recipe is None and isinstance(entries.get("recipe"), dict):
        recipe = json.dumps(entries["recipe"])
    return Checkpoint(
        weights_of(content, name),
        _dict(entries.get("config")),
        _dict(entries.get("other_info")),
        _dict(entries.get("optimizer")) or None,
        recipe,
    )


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def fit_classifier(state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` with the key of fc7 that a detector has: dropout shifts it, and holds no weights.

    ``own`` is the detector's state_dict.
    """
    for theirs, ours in ((FC7, FC7_BEHIND_DROPOUT), (FC7_BEHIND_DROPOUT, FC7)):
        if f"{theirs}weight" not in own and f"{ours}weight" in own:
            return {
                f"{ours}{key.removeprefix(theirs)}" if key.startswith(theirs) else key: array
                for key, array in state.items()
            }
    return dict(state)


class Recognised(NamedTuple):
    """Which detector the weights of a file belong to."""

    model: str
    options: dict[str, Any]
    """Of ``build_detector``."""
    state_dict: Mapping[str, Any]
    """With the detector's keys."""


def recognise(
    checkpoint: Checkpoint, flavour: str | None = None, use_drop: bool | None = None
) -> Recognised | None:
    """The VGG-16 detector that a file is of; None if it is of none.

    Parameters
    ----------
    checkpoint
        The file.
    flavour
        Whose rules the detector shall follow; by default what the file tells: chainercv's keys are
        chainercv's, and ``caffe_pretrain`` among the options decides between the other two.
    use_drop
        Whether the detector shall have dropout; by default as in the file.

    Raises
    ------
    ValueError
        The weights cannot follow the rules of ``flavour``.
    """
    state, config = checkpoint.state_dict, checkpoint.config
    options: dict[str, Any] = {}
    if {"extractor/conv1_1/conv/W", "rpn/score/W", "head/fc6/W"} <= state.keys():
        flavour = flavour or "chainercv"
        if flavour not in ("chainercv", "simple-faster-rcnn-caffe"):
            raise ValueError(
                "flavour: expected 'chainercv' or 'simple-faster-rcnn-caffe' for weights of "
                f"chainercv, whose images are not normalised, got {flavour!r}"
            )
        order: Any = "rgb" if flavour == "chainercv" else "bgr"
        use_drop = bool(use_drop)
        state = weights.from_chainercv_faster_rcnn(state, channel_order=order, use_drop=use_drop)
    elif {"extractor.28.weight", "rpn.score.weight", "head.classifier.0.weight"} <= state.keys():
        if use_drop is None:
            use_drop = f"{FC7_BEHIND_DROPOUT}weight" in state
        caffe = config.get("caffe_pretrain") is True
        flavour = flavour or ("simple-faster-rcnn-caffe" if caffe else "simple-faster-rcnn")
        sizes = {key: config[key] for key in ("min_size", "max_size") if _is_size(config, key)}
        if sizes and flavour in FLAVOURS:
            options["preprocessing"] = replace(FLAVOURS[flavour].preprocessing, **sizes)
    else:
        return None
    options |= {"flavour": flavour, "use_drop": use_drop}
    return Recognised("faster_rcnn_vgg16", options, state)


def _is_size(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e5


def describe(state: Mapping[str, Any]) -> str:
    """What weights that no detector is recognised in may be instead."""
    if {"features.0.weight", "features.28.weight"} <= state.keys() or "conv1_1/W" in state:
        return (
            "those of a VGG-16 classifier, with which oxidet.weights.vgg16_to_faster_rcnn begins a "
            "detector"
        )
    if {"layer4.0.conv1.weight", "conv1.weight"} <= state.keys():
        return "those of a ResNet classifier"
    if not state:
        return "no weights"
    return f"weights such as {', '.join(repr(key) for key in list(state)[:3])}"
