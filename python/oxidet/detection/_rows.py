"""One array for each image, put together to one array with a row for each box of all images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays

I32 = NDArray[np.int32]
# Results have an entry for every class up to the largest label: one wrong label must not fill the
# memory. The kernels' limit, too.
LARGEST_LABEL = 2**20 - 1
Check = Callable[[Any, str, int], NDArray[Any]]


class Rows:
    """Boxes and labels of all images, with the image every row came from.

    ``prefix`` names the arguments: with "pred" they are pred_bboxes and pred_labels.
    """

    boxes: NDArray[Any]  # (N, 4), a float or integer type
    labels: I32  # (N,)
    images: I32  # (N,), ascending from 0

    def __init__(
        self, bboxes: Iterable[ArrayLike], labels: Iterable[ArrayLike], prefix: str
    ) -> None:
        self._name = f"{prefix}_bboxes"
        listed = _arrays.listed(bboxes, self._name)
        joined = _joined(listed)
        if joined is not None and joined.ndim == 2 and joined.shape[1] == 4:
            self.boxes = joined
        else:
            arrays = [_arrays.as_array(b, f"{self._name}[{i}]") for i, b in enumerate(listed)]
            listed = [_arrays.box_shape(a, f"{self._name}[{i}]") for i, a in enumerate(arrays)]
            self.boxes = np.concatenate(listed) if listed else np.zeros((0, 4), np.float32)
        self._lengths = list(map(len, listed))
        self.images = np.repeat(np.arange(len(listed), dtype=np.int32), self._lengths)
        joined = self.companion(labels, f"{prefix}_labels", _arrays.labels)
        if joined.size and joined.max() > LARGEST_LABEL:
            raise ValueError(
                f"{prefix}_labels: expected labels from 0 to {LARGEST_LABEL}, got {joined.max()}"
            )
        self.labels = np.ascontiguousarray(joined, np.int32)

    def __len__(self) -> int:
        return len(self._lengths)

    def check_images(self, images: int, argument: str) -> None:
        """Refuse another number of images."""
        if images != len(self):
            raise ValueError(
                f"{argument}: expected {len(self)} images as in {self._name}, got {images}"
            )

    def kernel_arguments(self, boxes: NDArray[Any]) -> tuple[NDArray[Any], I32, I32]:
        """What a kernel takes, with the boxes as they became of one type."""
        return boxes, self.labels, self.images

    def companion(
        self, values: Iterable[ArrayLike], argument: str, check: Check = _arrays.numbers
    ) -> NDArray[Any]:
        """What goes with the boxes, one array for each image, in one array.

        ``check(array, name, length)`` is :func:`oxidet._arrays.numbers` or
        :func:`oxidet._arrays.labels`.
        """
        listed = _arrays.listed(values, argument)
        self.check_images(len(listed), argument)
        joined = _joined(listed)
        if (
            joined is not None
            and joined.ndim == 1
            and list(map(len, listed)) == self._lengths
            and (check is not _arrays.labels or (joined.dtype.kind in "iu" and _all_legal(joined)))
        ):
            return joined
        # The slow way, which accepts all kinds of input and names what is wrong.
        rows = [
            check(v, f"{argument}[{i}]", n)
            for i, (v, n) in enumerate(zip(listed, self._lengths, strict=True))
        ]
        return np.concatenate(rows) if rows else np.zeros(0)


def _joined(arrays: list[Any]) -> NDArray[Any] | None:
    """The arrays in one, if they are arrays of numbers of one type; else None.

    A few steps over the whole list instead of several for each array.
    """
    try:
        [dtype] = set(map(attrgetter("dtype"), arrays))
        if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
            return np.concatenate(arrays)
    except (AttributeError, ValueError):  # lists; none or several types; unequal shapes
        pass
    return None


def _all_legal(labels: NDArray[Any]) -> bool:
    return labels.size == 0 or bool(labels.min() >= 0)
