"""Weights of related projects under the names of ours.

simple-faster-rcnn, chainercv and torchvision hold the same VGG-16 layers with the same axis order
(convolutions OIHW, linear layers (out, in) over C, H, W), so these conversions rename, and at most
turn round the input channels of the first layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from oxidet.transforms import ImageClassification

StateDict = OrderedDict[str, NDArray[Any]]


class DescribedWeights(NamedTuple):
    """Weights, the images that they expect, and what they call the classes, as far as known.

    :func:`load_into` takes them as they are.
    """

    state_dict: StateDict
    preprocess: ImageClassification | None = None
    class_names: tuple[str, ...] | None = None


# Position of each convolution in VGG-16's `features`, which `extractor` begins with.
_CONVOLUTIONS = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}


def _classifier_keys(use_drop: bool) -> tuple[str, str]:
    """fc6 and fc7 in the head; dropout between them takes an index of its own."""
    return "head.classifier.0", f"head.classifier.{3 if use_drop else 2}"


def from_chainercv_faster_rcnn(
    state: Mapping[str, Any],
    *,
    channel_order: Literal["bgr", "rgb"] = "bgr",
    use_drop: bool = False,
) -> StateDict:
    """Rename the weights of chainercv's ``FasterRCNNVGG16`` to the keys of simple-faster-rcnn.

    Those are the keys of oxidet's Faster R-CNN over VGG-16 too. ``state`` is what
    :func:`oxidet.weights.load` reads from chainercv's ``.npz``: ``extractor/conv1_1/conv/W``,
    ``rpn/score/b``, ``head/fc6/W`` and so on, 40 arrays for any number of classes.

    Channel order: chainercv feeds its network RGB in 0..255 minus a mean. simple-faster-rcnn's
    Caffe preprocessing (``caffe_pretrain=True``) feeds BGR in that range. The default reverses the
    input channels of the first convolution for it, as in the converted file that project
    publishes; ``channel_order="rgb"`` leaves them, for a caller that prepares images as chainercv.
    These weights never fit images normalised as torchvision does.

    Parameters
    ----------
    state
        Names to arrays.
    channel_order
        Order of the image channels that the converted network will be given.
    use_drop
        Name fc7 as a head built with dropout does (``head.classifier.3``).

    Returns
    -------
    The state_dict, in the order of the model.

    Raises
    ------
    ValueError
        A key is missing or unknown, named in the message; or ``channel_order`` is.
    """
    if channel_order not in ("bgr", "rgb"):
        raise ValueError(f"channel_order: expected 'bgr' or 'rgb', got {channel_order!r}")
    fc6, fc7 = _classifier_keys(use_drop)
    prefixes = {
        f"extractor/{name}/conv": f"extractor.{index}" for name, index in _CONVOLUTIONS.items()
    }
    prefixes |= {f"rpn/{name}": f"rpn.{name}" for name in ("conv1", "score", "loc")}
    prefixes |= {"head/fc6": fc6, "head/fc7": fc7}
    prefixes |= {f"head/{name}": f"head.{name}" for name in ("cls_loc", "score")}
    names = {
        f"{theirs}/{letter}": f"{ours}.{kind}"
        for theirs, ours in prefixes.items()
        for letter, kind in (("W", "weight"), ("b", "bias"))
    }
    converted = _rename(state, names, "chainercv's FasterRCNNVGG16")
    unknown = sorted(set(state) - set(names))
    if unknown:
        raise ValueError(
            f"state: expected the keys of chainercv's FasterRCNNVGG16, got also {unknown[0]!r}"
        )
    if channel_order == "bgr":
        first = converted["extractor.0.weight"]
        converted["extractor.0.weight"] = np.ascontiguousarray(first[:, ::-1])
    return converted


def vgg16_to_faster_rcnn(state: Mapping[str, Any], *, use_drop: bool = False) -> StateDict:
    """The part of a VGG-16 classifier with which Faster R-CNN starts its training.

    Convolutions ``features.N`` become ``extractor.N``, the first two linear layers the head's; the
    last one, which classifies, is dropped. Load the result with ``strict=False``: the layers of the
    RPN and the outputs of the head stay as they were initialised.

    Accepts torchvision's keys and those of the published Caffe weights for torch, which call the
    linear layers ``classifier.1`` and ``classifier.4``. Those expect BGR images in 0..255 minus a
    mean, torchvision's RGB in 0..1, normalised; the weights do not say which.

    Parameters
    ----------
    state
        The state_dict of VGG-16.
    use_drop
        Name fc7 as a head built with dropout does (``head.classifier.3``).

    Raises
    ------
    ValueError
        A key is missing, named in the message.
    """
    fc6, fc7 = _classifier_keys(use_drop)
    linear = (1, 4) if "classifier.1.weight" in state else (0, 3)
    prefixes = {f"features.{index}": f"extractor.{index}" for index in _CONVOLUTIONS.values()}
    prefixes |= {f"classifier.{linear[0]}": fc6, f"classifier.{linear[1]}": fc7}
    names = {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in prefixes.items()
        for kind in ("weight", "bias")
    }
    return _rename(state, names, "VGG-16")


def _rename(state: Mapping[str, Any], names: Mapping[str, str], model: str) -> StateDict:
    missing = [theirs for theirs in names if theirs not in state]
    if missing:
        raise ValueError(
            f"state: expected the keys of {model}, got none named {missing[0]!r} "
            f"({len(missing)} of {len(names)} missing)"
        )
    return OrderedDict((ours, np.asarray(state[theirs])) for theirs, ours in names.items())
