"""Draws the pictures of the documentation, and every kind of plot on light and on dark paper.

::

    python docs/make_pictures.py                 # docs/images/scene.png and explain.png
    python docs/make_pictures.py --every plots   # one PNG of each plot and theme, to look at

Needs oxidet[plots,digits].
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from oxidet import Detections, models, pretrained, visualize
from oxidet.data import DigitScenes
from oxidet.models.detection import fasterrcnn_resnet_fpn

mpl.use("agg")
IMAGES = Path(__file__).parent / "images"
LARGEST = 200_000  # bytes of a picture in the documentation


def digits() -> tuple[np.ndarray, Detections]:
    """A scene, and the digits found in it from left to right."""
    image = DigitScenes("test")[4][0]
    found = pretrained.digit_detector().predict(image)
    return image, found[found.boxes[:, 0].argsort()]


def photograph() -> np.ndarray:
    """scikit-learn's flower, (427, 640, 3)."""
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image("flower.jpg"))


def crowd(count: int = 60, classes: int = 20) -> tuple[np.ndarray, Detections]:
    """Many boxes on a photograph, of more classes than there are names for colours."""
    rng = np.random.default_rng(0)
    image = photograph()
    corners = rng.uniform((0, 0), (560, 360), (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(15, 90, (count, 2))])
    names = tuple(f"class {i}" for i in range(classes))
    labels, scores = rng.integers(0, classes, count), rng.uniform(0.3, 1, count)
    return image, Detections(boxes, labels, scores, class_names=names)


def run_log() -> list[dict[str, Any]]:
    """A training run as a trainer writes it."""
    rng = np.random.default_rng(0)
    steps = [
        {
            "event": "step",
            "iteration": i,
            "lr": 1e-3 * (0.1 if i > 700 else 1) * min(1, i / 50),
            **{
                name: scale * np.exp(-i / 300) * rng.lognormal(0, 0.3) + 0.02
                for name, scale in (
                    ("rpn_loc_loss", 0.2), ("rpn_cls_loss", 0.6), ("roi_loc_loss", 0.5),
                    ("roi_cls_loss", 1.5), ("total_loss", 2.8),
                )
            },
        }
        for i in range(1, 1001)
    ]  # fmt: skip
    evaluations = [
        {
            "event": "evaluation",
            "iteration": i,
            "map": 0.9 * (1 - np.exp(-i / 250)),
            "ap": {
                name: at * (1 - np.exp(-i / 250))
                for name, at in (("platelet", 0.82), ("red", 0.88), ("white", 0.97))
            },
        }
        for i in range(100, 1001, 100)
    ]
    return steps + evaluations


def curves(classes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    found = {}
    for index in range(classes):
        hits = rng.uniform(size=300) < np.linspace(1, 0.2 + 0.6 * rng.uniform(), 300)
        right = hits.cumsum()
        found[f"class {index}"] = (right / np.arange(1, 301), right / (right[-1] * 1.1))
    return found


def confusion(classes: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    matrix = rng.poisson(0.6, (classes + 1, classes + 1))
    matrix[np.diag_indices(classes)] += rng.integers(5, 60, classes)
    return matrix


def pyramid() -> visualize.Explanation:
    """An untrained detector over a pyramid, on a photograph."""
    model = fasterrcnn_resnet_fpn(
        class_names=["flower", "leaf", "insect"], min_size=256, max_size=384
    )
    return visualize.explain(model.eval(), photograph(), score_threshold=0.2)


def plots() -> dict[str, Callable[[], Any]]:
    """By name, what makes axes."""
    image, _ = digits()
    small = pretrained.digit_detector()
    crowded = crowd()
    network = models.googlenet(init_weights=True).eval()

    def vis_bbox() -> Any:
        picture, found = crowded
        colours = [visualize.label_colour(int(label)) for label in found.labels]
        return visualize.vis_bbox(
            picture.transpose(2, 0, 1), found.boxes[:, [1, 0, 3, 2]], found.labels, found.scores,
            found.class_names, instance_colors=colours, linewidth=1.5,
        )  # fmt: skip

    return {
        "explain": lambda: visualize.explain(small, image).plot(),
        "explain_pyramid": lambda: pyramid().plot(),
        "vis_bbox": vis_bbox,
        "training_curves": lambda: visualize.training_curves(run_log()),
        "precision_recall": lambda: visualize.precision_recall(curves(5)),
        "precision_recall_many": lambda: visualize.precision_recall(curves(40)),
        "confusion_matrix": lambda: visualize.confusion_matrix(
            confusion(3), ["platelet", "red cell", "white cell"]
        ),
        "confusion_matrix_many": lambda: visualize.confusion_matrix(
            confusion(20), [f"class {i}" for i in range(20)]
        ),
        "feature_maps": lambda: visualize.feature_maps(network, photograph(), "conv2"),
        "filters": lambda: visualize.filters(network, "conv1.conv"),
        "filters_deep": lambda: visualize.filters(network, "conv3.conv"),
        "guided_backprop": lambda: visualize.guided_backprop(network, photograph()),
        "architecture": lambda: visualize.architecture(network),
        "architecture_block": lambda: visualize.architecture(network, layer="inception3a"),
    }


def pictures() -> dict[str, Callable[[], Any]]:
    """By name, what makes Pillow images."""
    image, found = digits()
    picture, many = crowd()

    def sheet() -> Any:
        wrong = Detections(found.boxes, found.labels, class_names=found.class_names)[1:]
        tiles = [visualize.annotated(image, found, wrong), visualize.annotated(picture, many)]
        return visualize.contact_sheet(
            tiles, columns=2, width=1600, titles=["one digit more than there is", "a crowd"]
        )

    return {
        "draw": lambda: visualize.draw(image, found, scale=2),
        "draw_crowd": lambda: visualize.draw(picture, many),
        "contact_sheet": sheet,
    }


def every(folder: Path, only: str) -> None:
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for name, make in {**pictures(), **plots()}.items():
        for theme in ("light", "dark"):
            if only in name:
                with visualize.theme(theme):
                    made = make()
                    path = folder / f"{name}_{theme}.png"
                    if hasattr(made, "save"):
                        made.save(path)
                    else:
                        np.ravel(np.asarray(made, object))[0].figure.savefig(path, dpi=90)
                pyplot.close("all")


def documentation() -> None:
    image, found = digits()
    _write("scene.png", visualize.draw(image, found, scale=2))
    with visualize.theme("light"):
        axes = visualize.explain(pretrained.digit_detector(), image).plot()
    file = io.BytesIO()
    axes[0, 0].figure.savefig(file, dpi=75)
    _write("explain.png", Image.open(file), "viridis", "inferno", "magma")


def _write(name: str, picture: Any, *scales: str) -> None:
    """With 256 colours: those of boxes and scores, and as many as are left from the picture."""
    picture = picture.convert("RGB")
    maps = [mpl.colormaps[scale](np.linspace(0, 1, 32)) for scale in scales]
    scores = [round(255 * v) for colours in maps for v in colours[:, :3].ravel()]
    known = [*np.ravel(visualize.PALETTE).tolist(), *scores, 0, 0, 0, 255, 255, 255]
    half = (256 - len(known) // 3) // 2
    for method in (Image.Quantize.MAXCOVERAGE, Image.Quantize.MEDIANCUT):  # rare and frequent
        known += picture.quantize(half, method).getpalette()[: 3 * half]
    palette = Image.new("P", (1, 1))
    palette.putpalette(known)
    small = picture.quantize(palette=palette, dither=Image.Dither.NONE)
    small.save(IMAGES / name, optimize=True)
    size = (IMAGES / name).stat().st_size
    print(f"{IMAGES / name}: {size:,} bytes")
    if size > LARGEST:
        raise SystemExit(f"{name}: expected at most {LARGEST:,} bytes, got {size:,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=Path, help="folder for a PNG of each plot and theme")
    parser.add_argument("--only", default="", help="those with this in their names")
    given = parser.parse_args()
    every(given.every, given.only) if given.every else documentation()
