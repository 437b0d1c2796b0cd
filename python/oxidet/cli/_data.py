"""The data sets that ``--data`` and ``--split`` name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from oxidet import data as data_sets
from oxidet.data import DigitScenes
from oxidet.data.digits import SPLITS

DIGITS = "digits"


def open_dataset(
    data: str,
    split: str | None,
    *,
    data_format: Literal["voc", "coco"] | None = None,
    scenes: int = 0,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    use_difficult: bool = False,
    coordinates: Literal["voc", "inclusive", "edges"] = "voc",
    on_error: Literal["raise", "skip"] = "raise",
) -> Any:
    """Digit scenes, or the split of a directory in the form of VOC or COCO.

    ``scenes`` and ``seed`` are for the first, the other options as of
    ``oxidet.data.open_dataset`` for the second. ``class_names``, if given, are
    those of the detector: labels count in them.
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
    return data_sets.open_dataset(
        data,
        data_format,
        split,
        class_names=class_names,
        use_difficult=use_difficult,
        coordinates=coordinates,
        on_error=on_error,
    )
