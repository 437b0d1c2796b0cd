"""A VOC folder of a few small pictures with rectangles of three kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NAMES = ("blue", "green", "red")
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}


def make_voc_folder(folder: Path, train: int = 6, test: int = 3) -> Path:
    """Pictures of 48 x 64 with one to three rectangles; one object in eight is difficult."""
    from PIL import Image

    rng = np.random.default_rng(5)
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True)
    splits: dict[str, list[str]] = {"trainval": [], "test": []}
    for index in range(train + test):
        name = f"{index:06d}"
        splits["trainval" if index < train else "test"].append(name)
        pixels = np.full((48, 64, 3), 120, np.uint8)
        objects = []
        for _ in range(int(rng.integers(1, 4))):
            kind = NAMES[int(rng.integers(3))]
            height, width = (int(v) for v in rng.integers(14, 28, 2))
            y, x = int(rng.integers(48 - height)), int(rng.integers(64 - width))
            pixels[y : y + height, x : x + width] = COLOURS[kind]
            difficult = int(rng.random() < 1 / 8)
            corners = {"ymin": y + 1, "xmin": x + 1, "ymax": y + height, "xmax": x + width}
            box = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
            objects.append(
                f"<object><name>{kind}</name><difficult>{difficult}</difficult>"
                f"<bndbox>{box}</bndbox></object>"
            )
        (folder / f"Annotations/{name}.xml").write_text(
            f"<annotation>{''.join(objects)}</annotation>"
        )
        Image.fromarray(pixels).save(folder / f"JPEGImages/{name}.jpg", quality=95)
    for split, ids in splits.items():
        (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(ids) + "\n")
    return folder
