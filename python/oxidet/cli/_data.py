"""The data sets that ``--data`` and ``--split`` name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from oxidet.cli._options import DataFormat
from oxidet.cli._usage import UsageError
from oxidet.data import DigitScenes, open_dataset
from oxidet.data.digits import SPLITS
from oxidet.data.open_dataset import find_coco, find_voc, guess_format

DIGITS = "digits"
ALL = "all"  # for --split: whatever the lists say


def open_data(
    data: str,
    split: str,
    *,
    scenes: int = 0,
    seed: int = 0,
    data_format: DataFormat | None = None,
    class_names: Sequence[str] | None = None,
    use_difficult: bool = False,
    coordinates: Literal["voc", "inclusive", "edges"] = "voc",
    on_error: Literal["raise", "skip"] = "raise",
) -> Any:
    """Digit scenes, or a split of a folder of labelled images.

    ``scenes`` and ``seed`` are for the first, the others for the second. ``class_names``, if given,
    are those of the detector: labels count in them.
    """
    if data == DIGITS:
        if split not in SPLITS:
            raise UsageError(f"--split: expected one of {', '.join(SPLITS)}, got {split!r}")
        if class_names is not None and tuple(class_names) != DigitScenes.class_names:
            raise ValueError(
                f"--weights: expected a detector of the digits 0 to 9, got one of "
                f"{', '.join(class_names)}"
            )
        return DigitScenes(split, length=scenes, seed=seed)  # type: ignore[arg-type]
    return open_dataset(
        data,
        None if data_format is None else data_format.value,
        None if split == ALL else split,
        class_names=class_names,
        use_difficult=use_difficult,
        coordinates=coordinates,
        on_error=on_error,
    )


def has_split(data: str, split: str, data_format: DataFormat | None) -> bool:
    """Whether there are images under that name, or another for the same."""
    root = Path(data)
    if (guess_format(root) if data_format is None else data_format.value) == "voc":
        return find_voc(root, split) is not None
    try:
        find_coco(root, split)
    except FileNotFoundError:
        return False
    return True
