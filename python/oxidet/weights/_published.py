"""Weights that others have published: where they are, and what images they expect.

Addresses, the beginnings of checksums, which torchvision puts into its file names, and recipes are
those of the weights enums of torchvision 0.28 and of the configurations of timm 1.0. The names of
ImageNet's 1000 classes (``imagenet_classes.txt``) are the ``categories`` there.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_TORCHVISION = "https://download.pytorch.org/models/"
_TIMM = "https://huggingface.co/timm/{}/resolve/main/model.safetensors"
_V1, _V2 = "IMAGENET1K_V1", "IMAGENET1K_V2"

# (network, version, name of the file up to the checksum, checksum, size that the short side is
# resized to). Of several versions of a network the last is the default.
_FILES = (
    ("alexnet", _V1, "alexnet-owt", "7be5be79", 256),
    ("densenet121", _V1, "densenet121", "a639ec97", 256),
    ("densenet161", _V1, "densenet161", "8d451a50", 256),
    ("densenet169", _V1, "densenet169", "b2777c0a", 256),
    ("densenet201", _V1, "densenet201", "c1103571", 256),
    ("googlenet", _V1, "googlenet", "1378be20", 256),
    ("inception_v3", _V1, "inception_v3_google", "0cc3c7bd", 342),
    ("resnet18", _V1, "resnet18", "f37072fd", 256),
    ("resnet34", _V1, "resnet34", "b627a593", 256),
    ("resnet50", _V1, "resnet50", "0676ba61", 256),
    ("resnet50", _V2, "resnet50", "11ad3fa6", 232),
    ("resnet101", _V1, "resnet101", "63fe2227", 256),
    ("resnet101", _V2, "resnet101", "cd907fc2", 232),
    ("resnet152", _V1, "resnet152", "394f9c45", 256),
    ("resnet152", _V2, "resnet152", "f82ba261", 232),
    ("resnext50_32x4d", _V1, "resnext50_32x4d", "7cdf4587", 256),
    ("resnext50_32x4d", _V2, "resnext50_32x4d", "1a0047aa", 232),
    ("resnext101_32x8d", _V1, "resnext101_32x8d", "8ba56ff5", 256),
    ("resnext101_32x8d", _V2, "resnext101_32x8d", "110c445d", 232),
    ("resnext101_64x4d", _V1, "resnext101_64x4d", "173b62eb", 232),
    ("vgg11", _V1, "vgg11", "8a719046", 256),
    ("vgg11_bn", _V1, "vgg11_bn", "6002323d", 256),
    ("vgg13", _V1, "vgg13", "19584684", 256),
    ("vgg13_bn", _V1, "vgg13_bn", "abd245e5", 256),
    ("vgg16", "IMAGENET1K_FEATURES", "vgg16_features-amdegroot", "88682ab5", 256),
    ("vgg16", _V1, "vgg16", "397923af", 256),
    ("vgg16_bn", _V1, "vgg16_bn", "6c64b313", 256),
    ("vgg19", _V1, "vgg19", "dcbb9e9d", 256),
    ("vgg19_bn", _V1, "vgg19_bn", "c79401a0", 256),
    ("wide_resnet50_2", _V1, "wide_resnet50_2", "95faca4d", 256),
    ("wide_resnet50_2", _V2, "wide_resnet50_2", "9ba9bcbe", 232),
    ("wide_resnet101_2", _V1, "wide_resnet101_2", "32ee1156", 256),
    ("wide_resnet101_2", _V2, "wide_resnet101_2", "d733dc28", 232),
)

_DETECTORS = (
    ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
    ("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"),
)

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What the builder must be told for these files. Both were trained on images in -1..1, and published
# for images normalised like all others. Their initial values take long to draw, for nothing.
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


class PublishedWeights(NamedTuple):
    """A published file, and what it is for."""

    model: str  #: the network, as :func:`oxidet.models.get_model` names it
    version: str  #: the publisher's name of these weights, ``"IMAGENET1K_V2"``
    url: str
    file: str  #: name in the cache
    sha256: str | None  #: the first digits, where the publisher gives them
    recipe: Mapping[str, Any]  #: arguments of :class:`oxidet.transforms.ImageClassification`
    options: Mapping[str, Any]  #: arguments that the builder needs for them
    classifies: bool = True  #: whether the last layer tells ImageNet's 1000 classes apart
    detects: bool = False  #: whether they are a detector's, with the classes of COCO

    @property
    def name(self) -> str:
        """``"resnet50.IMAGENET1K_V2"``."""
        return f"{self.model}.{self.version}"


@functools.lru_cache(maxsize=1)
def _table() -> dict[str, PublishedWeights]:
    entries = []
    for model, version, stem, digest, resize in _FILES:
        file = f"{stem}-{digest}.pth"
        features = version == "IMAGENET1K_FEATURES"
        mean, std = ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3) if features else _IMAGENET
        recipe: dict[str, Any] = {
            "crop_size": 299 if model == "inception_v3" else 224,
            "resize_size": resize,
            "mean": mean,
            "std": std,
        }
        options = _OPTIONS.get(model, {})
        entries.append(
            PublishedWeights(
                model, version, _TORCHVISION + file, file, digest, recipe, options, not features
            )
        )
    for model, file in _DETECTORS:
        digest = file.rpartition("-")[2].removesuffix(".pth")
        url = _TORCHVISION + file
        entries.append(
            PublishedWeights(model, "COCO_V1", url, file, digest, {}, {}, False, detects=True)
        )
    # The size that the short side is resized to is 299 over timm's crop_pct, rounded down.
    for model, resize in (("inception_v4", 341), ("inception_resnet_v2", 333)):
        recipe = {
            "crop_size": 299,
            "resize_size": resize,
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bicubic",
        }
        tag = f"{model}.tf_in1k"
        entries.append(
            PublishedWeights(
                model, "TF_IN1K", _TIMM.format(tag), f"{tag}.safetensors", None, recipe, {}
            )
        )
    return {entry.name.lower(): entry for entry in entries}


def list_published(model: str | None = None) -> list[PublishedWeights]:
    """The published weights that :func:`fetch` knows by name, of one network or all.

    >>> from oxidet import weights
    >>> [entry.version for entry in weights.list_published("resnet50")]
    ['IMAGENET1K_V1', 'IMAGENET1K_V2']
    """
    return [entry for entry in _table().values() if model is None or entry.model == model]


def find_published(name: str, model: str | None = None) -> PublishedWeights:
    """The published weights that ``name`` means: a network, ``network.version``, or torchvision's.

    ``"resnet50"`` and ``"resnet50.DEFAULT"`` are what torchvision has as default;
    ``"ResNet50_Weights.IMAGENET1K_V2"`` is torchvision's own name. With ``model``, the version
    alone will do.

    Raises
    ------
    ValueError
        No such weights; the message lists what there is.
    """
    table = _table()
    given, _, version = name.lower().removesuffix(".").partition(".")
    network = given.removesuffix("_weights")
    if model is not None and not version and network != model:
        network, version = model, given
    if model is not None and network != model:
        raise ValueError(f"weights: expected weights of {model}, got {name!r}")
    versions = list_published(network)
    if versions and version in ("", "default"):
        return versions[-1]
    entry = table.get(f"{network}.{version}")
    if entry is not None:
        return entry
    if versions:
        known = ", ".join(entry.version for entry in versions)
        raise ValueError(f"weights: expected one of {known} for {network}, got {name!r}")
    if model is not None:
        raise ValueError(
            f"weights: expected a file or an address, as none of {model} are published, "
            f"got {name!r}"
        )
    near = difflib.get_close_matches(network, {entry.model for entry in table.values()}, n=3)
    hint = f" (near: {', '.join(sorted(near))})" if near else ""
    raise ValueError(f"name: expected a network with published weights{hint}, got {name!r}")


def published_as(file: str) -> PublishedWeights | None:
    """The published weights that are distributed under this file name."""
    return next((entry for entry in _table().values() if entry.file == file), None)


@functools.lru_cache(maxsize=1)
def imagenet_classes() -> tuple[str, ...]:
    """English names of ImageNet's 1000 classes (ILSVRC 2012), in the order of the outputs.

    >>> from oxidet.weights import imagenet_classes
    >>> names = imagenet_classes()
    >>> len(names), names[0], names[207]
    (1000, 'tench', 'golden retriever')
    """
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
