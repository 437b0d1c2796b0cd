"""``oxidet train``: a detector for one's own labelled images, or the shipped ones once more."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from oxidet.cli import _options


class OptimizerName(str, Enum):
    """Optimisers."""

    sgd = "sgd"
    adam = "adam"
    adamw = "adamw"


class ScheduleName(str, Enum):
    """What becomes of the learning rate."""

    cosine = "cosine"
    step = "step"
    one_cycle = "one_cycle"
    none = "none"


class Augmentation(str, Enum):
    """How much images are changed at random."""

    none = "none"
    flip = "flip"
    medium = "medium"
    strong = "strong"


class MetricName(str, Enum):
    """What the best weights are chosen by."""

    voc = "voc"
    voc07 = "voc07"
    coco = "coco"


def train(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIR|digits",
            rich_help_panel=_options.DATA,
            help="A folder of labelled images in VOC's or COCO's form, or 'digits' for the recipe "
            "of the shipped weights.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            rich_help_panel=_options.OUTPUT,
            help="Folder of the run, made where missing.",
        ),
    ] = Path("run"),
    data_format: _options.Format = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            rich_help_panel="Network",
            help="The network, by default that of --weights, else faster_rcnn_small; "
            "fasterrcnn_resnet_fpn is the next larger one. 'oxidet info' lists all. With 'digits' "
            "also lenet5.",
            autocompletion=_options.complete_model,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel="Network",
            help="Network under fasterrcnn_resnet_fpn (default resnet18), faster_rcnn or "
            "faster_rcnn_resnet.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE|digits",
            rich_help_panel="Network",
            help="Start from these weights: of a detector, torchvision's and simple-faster-rcnn's "
            "included, or of a classifier for what it has in common. Layers for other classes "
            "start fresh.",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_options.DATA,
            help="Images to train on, as for eval: train, 'all' for all there are.",
        ),
    ] = "train",
    validation_split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_options.DATA,
            help="And this what to choose the best weights on; by default val where there is one; "
            "'none' for none.",
        ),
    ] = None,
    coordinates: _options.Coordinates = _options.CoordinateForm.voc,
    min_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            rich_help_panel="Network",
            help="Short side that images are scaled to.",
        ),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="PIXELS", rich_help_panel="Network", help="Limit of the long side."
        ),
    ] = None,
    multi_scale: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            rich_help_panel="Images",
            help="Short sides, one of which every step draws.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel="Learning",
            help="Passes through the data; default 14.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch",
            "--batch-size",
            min=1,
            metavar="N",
            rich_help_panel="Learning",
            help="Images in a step; 1 for networks that cannot mix sizes.",
        ),
    ] = None,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel="Learning",
            help="Batches whose gradients make one step.",
        ),
    ] = 1,
    lr: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="RATE",
            rich_help_panel="Learning",
            help="Learning rate; by default one that suits network and batch.",
        ),
    ] = None,
    optimizer: Annotated[
        OptimizerName,
        typer.Option(metavar="sgd|adam|adamw", rich_help_panel="Learning", help="Optimiser."),
    ] = OptimizerName.sgd,
    weight_decay: Annotated[
        float,
        typer.Option(min=0, metavar="DECAY", rich_help_panel="Learning", help="Weight decay."),
    ] = 5e-4,
    schedule: Annotated[
        ScheduleName,
        typer.Option(metavar="NAME", rich_help_panel="Learning", help="How the rate falls."),
    ] = ScheduleName.cosine,
    warmup: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel="Learning",
            help="Steps in which the rate rises; default 300, at most a tenth of the run.",
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="DECAY",
            rich_help_panel="Learning",
            help="Average the weights, such as by 0.999.",
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            rich_help_panel="Network",
            help="A layer that does not learn; may be repeated.",
        ),
    ] = None,
    freeze_batch_norm: Annotated[
        bool,
        typer.Option(
            "--freeze-batch-norm", rich_help_panel="Network", help="No batch norm learns."
        ),
    ] = False,
    augment: Annotated[
        Augmentation,
        typer.Option(
            metavar="LEVEL",
            rich_help_panel="Images",
            help="Changes at random: mirrored (flip); also in colour and size (medium); also cut "
            "and on larger canvases (strong).",
        ),
    ] = Augmentation.flip,
    mosaic: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            rich_help_panel="Images",
            help="Share of images put together from four.",
        ),
    ] = 0.0,
    balance: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            rich_help_panel="Images",
            help="Repeat images of classes that fewer than this share of the images show.",
        ),
    ] = None,
    metric: Annotated[
        MetricName,
        typer.Option(
            metavar="voc|voc07|coco",
            rich_help_panel="Learning",
            help="What the best weights are chosen by.",
        ),
    ] = MetricName.voc,
    evaluate_every: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", rich_help_panel="Learning", help="Epochs between evaluations."
        ),
    ] = 1,
    early_stop: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel="Learning",
            help="Stop after N evaluations that brought no better.",
        ),
    ] = None,
    on_error: _options.ErrorHandling = _options.OnError.stop,
    check: Annotated[
        bool,
        typer.Option(
            " /--no-check",
            rich_help_panel=_options.DATA,
            help="Do not look through the data first.",
        ),
    ] = True,
    num_workers: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel=_options.RUN,
            help="Threads that read and change images ahead.",
        ),
    ] = 2,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", rich_help_panel=_options.OUTPUT, help="Also write DIR/tensorboard."
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", rich_help_panel=_options.RUN, help="Of all that is random."
        ),
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel=_options.OUTPUT,
            help="Continue a run that was stopped, to the same bits.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", rich_help_panel=_options.OUTPUT, help="Replace a run in the folder."
        ),
    ] = False,
    threads: _options.Threads = None,
) -> None:
    """Train a detector on labelled images.

    The data is looked through first. Classes are found in it. The folder of the run gets best.npz,
    the detector that scored highest on the validation images (without those final.npz, the last
    one); last.npz, from which --resume continues; and log.jsonl. Ctrl-C finishes the step under way
    and saves.

    \b
    Examples:
      oxidet train --data cells/ --out runs/cells --epochs 20
      oxidet train --data cells/ --out runs/fpn --model fasterrcnn_resnet_fpn \\
          --min-size 320 --max-size 427 --batch 4 --augment medium --ema 0.999
      oxidet train --data coco/ --out runs/coco --weights model.pth \\
          --model fasterrcnn_resnet50_fpn --early-stop 5
      oxidet train --data digits --out runs/digits
    """
    import oxidet
    from oxidet.cli import _output, _training
    from oxidet.cli._check import check_training_data
    from oxidet.cli._data import DIGITS, open_data
    from oxidet.cli._models import known_model
    from oxidet.data import Mosaic, RepeatFactorSampler
    from oxidet.train.loop import LAST

    _options.set_threads(threads)
    _training.check_folder(out, resume, overwrite)
    if weights is not None and not resume:
        _training.refuse_own_weights(out, weights)
    run: dict[str, Any] = {"seed": seed, "resume": resume, "overwrite": overwrite}
    if epochs is not None:
        run["epochs"] = epochs
    try:
        if data == DIGITS:
            _training.refuse_with_recipe(weights=weights, lr=lr, batch_size=batch_size)
            path = _training.train_digits(model, out, run)
        else:
            if model is not None:
                known_model(model)  # before a look through the data, which takes time
            if check and not resume:
                check_training_data(data, data_format, split, coordinates.value, on_error.option)
            oxidet.manual_seed(seed)
            options: dict[str, Any] = {
                "data_format": data_format,
                "coordinates": coordinates.value,
                "on_error": on_error.option,
            }
            dataset = open_data(data, split, **options)
            changes = _training.sizes_and_backbone(min_size, max_size, backbone)
            detector = _training.detector_for(model, weights, dataset.class_names, changes)
            if detector.class_names != dataset.class_names:  # the same names in another order
                dataset = open_data(data, split, class_names=detector.class_names, **options)
            validation = _training.open_validation(
                data, validation_split, dataset.class_names, options
            )
            run["batch_size"] = batch_size or 1
            if lr is None:
                lr = _training.learning_rate(detector, optimizer) * run["batch_size"] * accumulate
            run["lr"] = lr
            if balance is not None:
                run["sampler"] = RepeatFactorSampler(dataset, balance, seed=seed)
            run.update(
                accumulate=accumulate,
                optimizer=optimizer.value,
                weight_decay=weight_decay,
                schedule=None if schedule is ScheduleName.none else schedule.value,
                ema=ema,
                freeze=freeze or (),
                freeze_batch_norm=freeze_batch_norm,
                augment=_training.augmentation(augment),
                multi_scale=_training.lengths(multi_scale),
                metric=metric.value,
                evaluate_every=evaluate_every,
                early_stop=early_stop,
                on_error=on_error.option,
                num_workers=num_workers,
                tensorboard=tensorboard,
            )
            images = run["sampler"] if balance is not None else dataset
            steps = -(-len(images) // (run["batch_size"] * accumulate)) * run.get("epochs", 14)
            run["warmup"] = min(_training.WARMUP_STEPS, steps // 10) if warmup is None else warmup
            shown = dataset if mosaic == 0 else Mosaic(dataset, p=mosaic)
            path = _training.train_detector(detector, shown, validation, out, run)
    except KeyboardInterrupt:
        if (out / LAST).exists():
            _output.note(f"{out / LAST} has the state of the run; --resume continues it")
        raise
    _output.say(f"trained weights: {_output.printable(path)}")
