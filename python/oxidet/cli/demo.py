"""``oxidet demo``: find handwritten digits in composed scenes, and say how well it went.

Everything shown is measured here and now: the scenes are made of the test digits, which neither
training nor any choice has seen.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from oxidet.cli import _options


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", rich_help_panel=_options.OUTPUT, help="Folder for the pictures."
        ),
    ] = Path("demo-output"),
    scenes: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            metavar="N",
            rich_help_panel=_options.RUN,
            help="Scenes to show and draw.",
        ),
    ] = 6,
    evaluate_on: Annotated[
        int,
        typer.Option(
            "--evaluate-on",
            min=1,
            metavar="N",
            rich_help_panel=_options.RUN,
            help="Scenes to measure mAP on.",
        ),
    ] = 200,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            metavar="FILE|digits",
            rich_help_panel=_options.RUN,
            help="Another digit detector.",
        ),
    ] = "digits",
    threads: _options.Threads = None,
) -> None:
    """Detect handwritten digits, and show how well.

    The scenes are composed of scans that training has not seen. Prints a table of detections beside
    the truth, the mAP on 200 scenes, and LeNet-5's accuracy on the 360 test digits; draws truth and
    detections side by side into PNG files.

    \b
    Examples:
      oxidet demo
      oxidet demo --out pictures --scenes 12
    """
    from oxidet.cli import _output
    from oxidet.cli._demonstration import Scene, match, print_summary, table, test_scenes, titles
    from oxidet.cli._models import load_named_detector
    from oxidet.cli._pictures import refuse_others, save_picture
    from oxidet.cli._sheet import side_by_side
    from oxidet.data import DigitScenes, lenet_input, load_digits
    from oxidet.pretrained import digit_classifier
    from oxidet.train import evaluate_detector
    from oxidet.visualize import contact_sheet

    _options.set_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    detector = load_named_detector(weights)
    if detector.class_names != DigitScenes.class_names:
        names = ", ".join(detector.class_names)
        raise ValueError(f"--weights: expected a detector of the digits 0 to 9, got one of {names}")

    listed = list(test_scenes(scenes))
    sheet = out / "contact-sheet.png"
    refuse_others("--out", [sheet, *(out / f"{name}.png" for name, _, _ in listed)])
    shown = []
    for name, image, truth in _output.track(listed, "detecting"):
        found = detector.predict(image)
        shown.append(Scene(name, image, truth, found, match(found, truth)))
    _output.show(table(shown))

    pairs = []
    for scene in _output.track(shown, "drawing"):
        pairs.append(side_by_side(scene.image, scene.truth, scene.found, titles(scene)))
        save_picture(out / f"{scene.name}.png", pairs[-1])
    save_picture(sheet, contact_sheet(pairs, columns=2))

    started = time.perf_counter()
    result = evaluate_detector(
        detector, DigitScenes("test", length=evaluate_on), quiet=not _output.watched()
    )
    seconds = time.perf_counter() - started
    scans = load_digits("test")
    classifier = digit_classifier()
    right = int((classifier(lenet_input(scans.images)).argmax(axis=1) == scans.labels).sum())

    print_summary(
        {
            "detector": f"mAP {result.mean_ap:.3f} at IoU 0.5 on "
            f"{_output.count(result.images, 'scene')} with "
            f"{_output.count(result.objects, 'digit')} "
            f"({1000 * seconds / result.images:.0f} ms a scene)",
            "LeNet-5": f"{right / len(scans.labels):.1%} of {len(scans.labels)} test digits right",
            "pictures": f"{os.path.join(out, '')}contact-sheet.png and "
            f"{_output.count(len(shown), 'scene')}",
        }
    )
