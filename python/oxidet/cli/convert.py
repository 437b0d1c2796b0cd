"""``oxidet convert``: weights of other projects into a file that oxidet loads as it is."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from oxidet.cli._usage import UsageError

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
    from oxidet import models, weights
    from oxidet.cli import _output
    from oxidet.cli._conversion import build, read
    from oxidet.cli._description import BUFFERS, megabytes, print_rows
    from oxidet.weights._loading import to_metadata

    if target.suffix.lower() not in ENDINGS:
        raise UsageError(f"TARGET: expected a name ending in {' or '.join(ENDINGS)}, got {target}")
    if model is not None and model not in models.list_models():
        models.get_model(model)  # says which are near
    origin = weights.locate(source)
    if target.exists() and origin.path.exists() and os.path.samefile(origin.path, target):
        raise UsageError(f"TARGET: expected another file than SOURCE, got {target}")
    described, metadata, layout = read(origin, layout, key, channels, normalized)
    rows = {"from": f"{_output.printable(origin.path)} ({layout.value})"}
    if model is not None:
        network = build(model, origin, described.state_dict)
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
