"""Options that several commands share, with one wording each."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import typer

# The groups that options are listed in.
DETECTOR, DATA, OUTPUT, RUN = "Detector", "Data", "Output", "Run"


class CoordinateForm(str, Enum):
    """``coordinates`` of ``oxidet.data.VOCBboxDataset``."""

    voc = "voc"
    inclusive = "inclusive"
    edges = "edges"


def complete_model(incomplete: str) -> list[str]:
    """Names of detectors, for the shell's completion."""
    from oxidet.models.detection import DETECTORS

    return [name for name in sorted(DETECTORS) if name.startswith(incomplete)]


class DataFormat(str, Enum):
    """Forms of labelled data."""

    voc = "voc"
    coco = "coco"


class OnError(str, Enum):
    """What an image that cannot be read does."""

    stop = "stop"
    skip = "skip"

    @property
    def option(self) -> Literal["raise", "skip"]:
        """As the functions of the package spell it."""
        return "skip" if self is OnError.skip else "raise"


Format = Annotated[
    DataFormat | None,
    typer.Option(
        "--format",
        metavar="voc|coco",
        rich_help_panel=DATA,
        help="Form of the data; by default what it looks like.",
    ),
]

ErrorHandling = Annotated[
    OnError,
    typer.Option(
        "--on-error",
        metavar="stop|skip",
        rich_help_panel=DATA,
        help="Whether an image or annotation that cannot be read stops the command or is left out.",
    ),
]

Coordinates = Annotated[
    CoordinateForm,
    typer.Option(
        "--coordinates",
        metavar="FORM",
        rich_help_panel=DATA,
        help="How the numbers of VOC files become pixel edges: voc (from 1, as chainercv reads "
        "them), inclusive (from 1, last pixel included) or edges (as they are).",
    ),
]

Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="FILE|digits",
        rich_help_panel=DETECTOR,
        help="A detector written by oxidet; a checkpoint of torchvision, simple-faster-rcnn or "
        "chainercv (with --model where the file does not tell the network); or 'digits' for the "
        "shipped detector of handwritten digits.",
    ),
]

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        rich_help_panel=DETECTOR,
        help="The network that the weights are for, where the file does not say so, such as "
        "faster_rcnn_vgg16 (simple-faster-rcnn's) or fasterrcnn_resnet50_fpn (torchvision's); "
        "'oxidet info' lists all.",
        autocompletion=complete_model,
    ),
]

Normalization = Annotated[
    str | None,
    typer.Option(
        "--normalization",
        metavar="NAME",
        rich_help_panel=DETECTOR,
        help="With --model: what the weights expect pixels to be normalised by: torchvision "
        "(default), caffe (simple-faster-rcnn's caffe_pretrain) or chainercv.",
    ),
]

ClassNames = Annotated[
    str | None,
    typer.Option(
        "--class-names",
        metavar="A,B,...",
        rich_help_panel=DETECTOR,
        help="With --model: names of the classes in label order; by default VOC's 20.",
    ),
]

Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=1024,
        metavar="N",
        rich_help_panel=RUN,
        help="Threads to compute with; default: cores.",
    ),
]

Batch = Annotated[
    int,
    typer.Option(
        "--batch",
        "--batch-size",
        min=1,
        metavar="N",
        rich_help_panel=RUN,
        help="Images given to the network at once.",
    ),
]


def set_threads(threads: int | None) -> None:
    """Apply ``--threads``."""
    if threads is not None:
        import oxidet

        oxidet.set_num_threads(threads)
