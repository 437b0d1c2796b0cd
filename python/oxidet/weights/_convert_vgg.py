"""VGG classifiers as Caffe and chainercv store them, under the names of oxidet's network.

All have the same layers and axes: convolutions (out, in, 3, 3), linear layers (out, in) over C, H,
W. They differ in names, in the order of the colour channels that the first convolution takes, and
in the scale of the pixels: 0..255 less a mean, where torchvision's networks take 0..1, normalised.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from oxidet.weights._convert import DescribedWeights, StateDict

Channels = Literal["RGB", "BGR"]

#: Mean over ImageNet's pixels (red, green, blue), which VGG's authors subtract.
VGG_MEAN = (123.68, 116.779, 103.939)
_TORCHVISION_MEAN, _TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_KEY = re.compile(
    r"(conv[1-5]_\d{1,2}|fc[678])(?:/conv)?[./_](W|w|weights?|b|bias|biases|0|1)", re.ASCII
)
_LINEAR = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
# The linear layers where the dropout stands before them instead of behind.
_OLD_LINEAR = {"classifier.1": "classifier.0", "classifier.4": "classifier.3"}


def from_chainercv(
    state: Mapping[str, Any], *, channels: Channels = "RGB", normalized: bool = False
) -> DescribedWeights:
    """Convert chainercv's VGG-16 (``conv1_1/conv/W`` to ``fc8/b``) for ``oxidet.models.vgg16``.

    Parameters
    ----------
    state
        What :func:`load` reads from chainercv's ``.npz``.
    channels, normalized
        The images that the converted network shall take, as for :func:`from_caffe`.

    Returns
    -------
    A state_dict and the recipe that goes with it, for :func:`load_into`.

    Raises
    ------
    ValueError
        A key is missing, unknown, or of a shape that is no VGG's; the message names it.
    """
    return _convert(state, "RGB", channels, normalized, "state: expected chainercv's VGG-16")


def from_caffe(
    state: Mapping[str, Any], *, channels: Channels = "BGR", normalized: bool = False
) -> DescribedWeights:
    """Convert the weights of a VGG in Caffe's layout, of any depth without batch norm.

    Understood are the names of Caffe's layers, followed by ``.0`` and ``.1`` (as
    :func:`load_caffemodel` has it), ``.weight`` and ``.bias``, or ``/W`` and ``/b``; and the keys
    of the conversions for torch, ``features.0.weight`` ... with the linear layers at
    ``classifier.1``, ``4`` and ``6`` or at torchvision's ``0``, ``3`` and ``6``. The file does not
    say that it is in Caffe's layout: a torchvision file given here comes out wrong.

    Parameters
    ----------
    state
        Names to arrays.
    channels
        Order of the channels that the converted network shall take: ``"BGR"`` as
        Caffe's, or ``"RGB"``, for which the first convolution's input channels are reversed.
    normalized
        Fold torchvision's normalisation into the first convolution, so that the
        network takes the same images as torchvision's (RGB; ``channels`` has no say). The outputs
        stay the same but for the border: padding stands for the mean colour, and torchvision's is
        up to 0.5 of 255 away from VGG's.

    Returns
    -------
    A state_dict and the recipe that goes with it, for :func:`load_into`.

    Raises
    ------
    ValueError
        A key is missing, unknown, or of a shape that is no VGG's; the message names it.

    Examples
    --------
    >>> from oxidet import models, weights
    >>> caffe = weights.load_caffemodel("VGG_ILSVRC_16_layers.caffemodel")   # doctest: +SKIP
    >>> model = models.vgg16()                                               # doctest: +SKIP
    >>> weights.load_into(model, weights.from_caffe(caffe))                  # doctest: +SKIP
    """
    return _convert(state, "BGR", channels, normalized, "state: expected a VGG in Caffe's layout")


def _convert(
    state: Mapping[str, Any], given: Channels, wanted: Channels, normalized: bool, expected: str
) -> DescribedWeights:
    if wanted not in ("RGB", "BGR"):
        raise ValueError(f"channels: expected 'RGB' or 'BGR', got {wanted!r}")
    from oxidet.transforms import ImageClassification

    converted = _rename(state, expected)
    first: NDArray[Any] = converted["features.0.weight"]
    if normalized:
        wanted = "RGB"
    if given != wanted:
        first = first[:, ::-1]
    if normalized:
        # pixel - VGG_MEAN = 255 (std x + mean) - VGG_MEAN for x normalised as torchvision's.
        scale = 255 * np.array(_TORCHVISION_STD)
        shift = 255 * np.array(_TORCHVISION_MEAN) - VGG_MEAN
        bias = converted["features.0.bias"] + (first * shift[:, None, None]).sum((1, 2, 3))
        first = first * scale[:, None, None]
        converted["features.0.bias"] = bias.astype(np.float32)
        preprocess = ImageClassification(224)
    else:
        mean = VGG_MEAN if wanted == "RGB" else VGG_MEAN[::-1]
        preprocess = ImageClassification(224, mean=mean, std=1, channels=wanted, scale=1)
    converted["features.0.weight"] = np.ascontiguousarray(first, np.float32)
    return DescribedWeights(converted, preprocess)


def _rename(state: Mapping[str, Any], expected: str) -> StateDict:
    """torchvision's names, in the order of the network."""
    found: dict[str, dict[str, tuple[str, Any]]] = {}
    for key, value in state.items():
        layer, kind = _parse(key, expected)
        if kind in found.setdefault(layer, {}):
            raise ValueError(f"{expected}, got {layer} twice ({key!r})")
        found[layer][kind] = (key, np.asarray(value))
    renamed: StateDict = OrderedDict()
    for layer, path in _paths(found, expected).items():
        for kind in ("weight", "bias"):
            if kind not in found.get(layer, {}):
                raise ValueError(f"{expected}, got no {kind} of {layer}")
            key, array = found[layer].pop(kind)
            if kind == "bias":
                array = array.reshape(-1)  # Caffe's older form has four dimensions everywhere
            elif layer.startswith("fc"):
                array = _linear(array)
            elif array.ndim != 4 or array.shape[2:] != (3, 3):
                hint = ", as TensorFlow has them" if array.shape[:2] == (3, 3) else ""
                raise ValueError(
                    f"{expected}, of which {key!r} has shape (out, in, 3, 3), "
                    f"got {array.shape}{hint}"
                )
            renamed[f"{path}.{kind}"] = array.astype(np.float32, copy=False)
    return renamed


def _linear(array: NDArray[Any]) -> NDArray[Any]:
    """(1, 1, out, in) of Caffe's older form, or (out, C, H, W), as (out, in)."""
    if array.ndim == 4 and array.shape[:2] == (1, 1):
        return array[0, 0]
    return array.reshape(len(array), -1) if array.ndim > 2 else array


def _parse(key: str, expected: str) -> tuple[str, str]:
    """Layer and kind out of a key: Caffe's name, or for torch's conversions the module's path."""
    named = _KEY.fullmatch(key)
    if named:
        return named[1], "weight" if named[2].lower().startswith(("w", "0")) else "bias"
    path, _, kind = key.rpartition(".")
    if kind in ("weight", "bias") and re.fullmatch(r"features\.\d+|classifier\.[01346]", path):
        path = _OLD_LINEAR.get(path, path)
        return next((fc for fc, own in _LINEAR.items() if own == path), path), kind
    raise ValueError(f"{expected}, got a key {key!r}")


def _paths(found: Mapping[str, Any], expected: str) -> dict[str, str]:
    """The modules that the layers become, in order."""
    numbers = sorted(int(name.split(".")[1]) for name in found if name.startswith("features."))
    if numbers:
        paths = {f"features.{number}": f"features.{number}" for number in numbers}
    else:
        paths, index = {}, 0
        for stage in range(1, 6):
            place = 1
            while f"conv{stage}_{place}" in found or place == 1:
                paths[f"conv{stage}_{place}"] = f"features.{index}"
                index, place = index + 2, place + 1  # the convolution and its ReLU
            index += 1  # the pool
    paths |= _LINEAR
    unknown = [name for name in found if name not in paths]
    if unknown:
        raise ValueError(f"{expected}, got a layer {unknown[0]!r} out of order")
    if "features.0" not in paths.values():
        raise ValueError(f"{expected}, got no layer 'features.0'")
    return paths
