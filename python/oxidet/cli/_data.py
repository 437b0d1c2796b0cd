"""The data sets that ``--data`` and ``--split`` name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from oxidet.data import DigitScenes, VOCBboxDataset
from oxidet.data.digits import SPLITS

DIGITS = "digits"


def open_dataset(
    data: str,
    split: str,
    *,
    scenes: int,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    use_difficult: bool = False,
    coordinates: Literal["voc", "inclusive", "edges"] = "voc",
) -> Any:
    """Digit scenes, or the split of a directory in VOC's layout.

    ``scenes`` and ``seed`` are for the first, ``use_difficult`` and ``coordinates`` for the second.
    ``class_names``, if given, are those of the detector: labels count in them.
    """
    if data == DIGITS:
        if split not in SPLITS:
            raise ValueError(f"--split: expected one of {', '.join(SPLITS)}, got {split!r}")
        if class_names is not None and tuple(class_names) != DigitScenes.class_names:
            raise ValueError(
                f"--weights: expected a detector of the digits 0 to 9, got one of "
                f"{', '.join(class_names)}"
            )
        return DigitScenes(split, length=scenes, seed=seed)  # type: ignore[arg-type]
    return VOCBboxDataset(
        data,
        split,
        use_difficult=use_difficult,
        class_names=class_names,
        coordinates=coordinates,
    )
