"""``oxidet convert``: weights of other projects into a file that oxidet loads as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from oxidet import models, nn, weights
from oxidet.cli import _output
from oxidet.cli._usage import UsageError
from oxidet.cli.info import BUFFERS, megabytes, print_rows
from oxidet.weights import DescribedWeights
from oxidet.weights._files import read_weights
from oxidet.weights._loading import Origin, classifier_layers, describe, to_metadata

ENDINGS = (".npz", ".safetensors")


class Layout(str, Enum):
    """How the weights are stored in the source."""

    auto = "auto"
    plain = "plain"
    chainercv = "chainercv"
    caffe = "caffe"


class Dtype(str, Enum):
    """Types that floating-point numbers can be stored in."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class ChannelOrder(str, Enum):
    """Order of colour channels."""

    rgb = "RGB"
    bgr = "BGR"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Weights in any form that oxidet reads (.pth, .pt, .safetensors, .npz, "
            ".caffemodel), their address, or the name of published ones (resnet50).",
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The file to write: .npz or .safetensors.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="The network they are for: checks that they fit, and drops what it lacks.",
        ),
    ] = None,
    layout: Annotated[
        Layout,
        typer.Option(
            "--from",
            metavar="LAYOUT",
            show_default=False,
            help="plain (names and values as they are), chainercv or caffe (VGG); by default "
            "plain, unless the names or .caffemodel say otherwise.",
        ),
    ] = Layout.auto,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="The entry of a checkpoint with the weights."),
    ] = None,
    channels: Annotated[
        ChannelOrder | None,
        typer.Option(
            "--channels",
            metavar="ORDER",
            help="With chainercv or caffe: colours that the result takes, RGB or BGR; by default "
            "as in the source.",
        ),
    ] = None,
    normalized: Annotated[
        bool,
        typer.Option(
            "--normalized",
            help="With chainercv or caffe: have the result take images as torchvision's networks.",
        ),
    ] = False,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="Store floating-point numbers as float32, float16 or (.safetensors) bfloat16.",
        ),
    ] = None,
) -> None:
    """Convert weights of other projects.

    \b
    Examples:
      oxidet convert resnet50-11ad3fa6.pth resnet50.npz --dtype float16
      oxidet convert googlenet-1378be20.pth googlenet.npz --model googlenet
      oxidet convert VGG_ILSVRC_16_layers.caffemodel vgg16.safetensors --normalized
    """
    if target.suffix.lower() not in ENDINGS:
        raise UsageError(f"TARGET: expected a name ending in {' or '.join(ENDINGS)}, got {target}")
    if model is not None and model not in models.list_models():
        models.get_model(model)  # says which are near
    origin = weights.locate(source)
    if target.exists() and origin.path.exists() and os.path.samefile(origin.path, target):
        raise UsageError(f"TARGET: expected another file than SOURCE, got {target}")
    described, metadata, layout = _read(origin, layout, key, channels, normalized)
    rows = {"from": f"{_output.printable(origin.path)} ({layout.value})"}
    if model is not None:
        network = _build(model, origin, described.state_dict)
        report = weights.load_into(network, described)
        described = described._replace(state_dict=network.state_dict())
        rows["network"] = f"{model}: {report}"
    metadata |= to_metadata(described.preprocess, described.class_names)
    kind = None if dtype is None else dtype.value
    weights.save(target, described.state_dict, dtype=kind, metadata=metadata)
    state = described.state_dict
    count = sum(int(a.size) for k, a in state.items() if not k.endswith(BUFFERS))
    rows |= {
        "to": f"{_output.printable(target)} ({megabytes(target.stat().st_size)})",
        "tensors": str(len(state)),
        "parameters": f"{count:,}",
    }
    if described.preprocess is not None:
        rows["preprocess"] = repr(described.preprocess)
    if described.class_names is not None:
        rows["classes"] = str(len(described.class_names))
    print_rows(rows)


def _read(
    origin: Origin,
    layout: Layout,
    key: str | None,
    channels: ChannelOrder | None,
    normalized: bool,
) -> tuple[DescribedWeights, dict[str, str], Layout]:
    """The weights under oxidet's names, the text beside them, and the layout that they were in."""
    state: Any
    metadata: dict[str, str] = {}
    if origin.path.suffix.lower() == ".caffemodel":
        state, found = weights.load_caffemodel(origin.path), Layout.caffe
    else:
        state, metadata = read_weights(origin.path, key=key)
        found = Layout.chainercv if "conv1_1/conv/W" in state else Layout.plain
    layout = found if layout is Layout.auto else layout
    if layout is Layout.plain:
        if channels is not None or normalized:
            raise UsageError("--channels, --normalized: expected together with chainercv or caffe")
        return describe(origin, state, metadata), metadata, layout
    convert_from = weights.from_caffe if layout is Layout.caffe else weights.from_chainercv
    options: Any = {} if channels is None else {"channels": channels.value}
    return convert_from(state, normalized=normalized, **options), metadata, layout


def _build(model: str, origin: Origin, state: Mapping[str, Any]) -> nn.Module:
    """The network with as many classes as the weights have."""
    published = origin.published
    options = dict(published.options) if published and published.model == model else {}
    network = models.get_model(model, **options)
    weight = state.get(f"{classifier_layers(network)[-1]}.weight")
    count = 0 if weight is None else len(weight)
    names = dict(network.named_parameters())
    if count and count != len(names[f"{classifier_layers(network)[-1]}.weight"].data):
        network = models.get_model(model, num_classes=count, **options)
    return network
