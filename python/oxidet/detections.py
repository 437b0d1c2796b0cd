"""What a detector found in one image, in the form that people work with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32, as_array, as_float32, integer, number, pair, read_only
from oxidet._arrays import names as as_names
from oxidet._detection_formats import DetectionFormats
from oxidet._text import printable

REPR_ROWS = 8


class Detection(NamedTuple):
    """One detected object, as plain Python values."""

    box: tuple[float, float, float, float]
    """(x1, y1, x2, y2) in pixels of the original image."""
    label: int
    """From 0."""
    name: str
    """The class name; the label as text where names are not known."""
    score: float

    def __repr__(self) -> str:
        """Rounded to what a person reads; the values themselves are not."""
        box = ", ".join(f"{side:.2f}" for side in self.box)
        label = f"label={self.label}, name={self.name!r}"
        return f"Detection(box=({box}), {label}, score={self.score:.4f})"


class Detections(DetectionFormats):
    """The objects found in one image: boxes, labels and scores, row by row.

    Immutable: the arrays are read-only, and every method returns a new object.

    Indexing with an integer gives a ``Detection`` (a tuple of plain values), as iterating does.
    A slice, a boolean mask or integer positions give ``Detections``.

    Parameters
    ----------
    boxes
        ``(R, 4)``, ``(x1, y1, x2, y2)`` in pixels of the original image, edges continuous from 0 to
        width and height.
    labels
        ``(R,)`` integers from 0, indexing ``class_names``. Background is no label.
    scores
        ``(R,)``. By default all 1, as for ground truth.
    class_names
        Names in label order, if known.
    image_size
        ``(height, width)`` of the original image, if known.
    image
        The image itself, in any form that ``read_image`` takes, for drawing. It is kept as given,
        not copied.
    path
        Where the image came from.

    Raises
    ------
    ValueError
        Wrong shape or length, a label outside ``class_names``, NaN or infinity.
    TypeError
        Labels that are no integers.

    Examples
    --------
    >>> from oxidet import Detections
    >>> found = Detections(
    ...     [[10, 20, 60, 90], [15, 5, 40, 30]], [1, 0], [0.75, 0.5],
    ...     class_names=("cat", "dog"), image_size=(100, 120),
    ... )
    >>> found
    Detections: 2 objects in 100 x 120 pixels (height x width)
         score  name     x1     y1     x2     y2
      0  0.750  dog    10.0   20.0   60.0   90.0
      1  0.500  cat    15.0    5.0   40.0   30.0
    >>> len(found[found.scores > 0.6]), found[0].name, found.counts()
    (1, 'dog', {'cat': 1, 'dog': 1})
    """

    __slots__ = ("boxes", "class_names", "image", "image_size", "labels", "path", "scores")

    boxes: F32
    """(R, 4) float32, (x1, y1, x2, y2)."""
    labels: NDArray[np.int64]
    """(R,) int64, from 0."""
    scores: F32
    """(R,) float32."""
    class_names: tuple[str, ...] | None
    image_size: tuple[int, int] | None
    image: Any
    path: str | None

    def __init__(
        self,
        boxes: Any,
        labels: Any,
        scores: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        image_size: tuple[int, int] | None = None,
        image: Any = None,
        path: str | None = None,
    ) -> None:
        box_array = as_float32(boxes, "boxes")
        if box_array.size == 0 and box_array.ndim < 2:
            box_array = box_array.reshape(0, 4)
        if box_array.ndim != 2 or box_array.shape[1] != 4:
            raise ValueError(f"boxes: expected shape (R, 4), got {box_array.shape}")
        count = len(box_array)
        label_array = as_array(labels, "labels")
        if label_array.dtype.kind not in "iu" and label_array.size:
            raise TypeError(f"labels: expected integers, got dtype {label_array.dtype}")
        score_array = np.ones(count, np.float32) if scores is None else as_float32(scores, "scores")
        for name, column in (("labels", label_array), ("scores", score_array)):
            if column.shape != (count,):
                raise ValueError(f"{name}: expected shape ({count},), got {column.shape}")
        for name, values in (("boxes", box_array), ("scores", score_array)):
            if not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0, 0])
                raise ValueError(f"{name}: expected finite numbers, got {values[row]} in row {row}")
        names = None if class_names is None else as_names(class_names, "class_names")
        if count and (
            label_array.min() < 0 or (names is not None and label_array.max() >= len(names))
        ):
            limit = "" if names is None else f" to {len(names) - 1}"
            raise ValueError(
                f"labels: expected 0{limit}, got {label_array.min()} to {label_array.max()}"
            )
        self._set(
            boxes=_own(box_array, np.float32),
            labels=_own(label_array, np.int64),
            scores=_own(score_array, np.float32),
            class_names=names,
            image_size=None if image_size is None else pair(tuple(image_size), "image_size"),
            image=image,
            path=None if path is None else str(path),
        )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Detections are immutable: {name} cannot be set, use replace()")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Detections are immutable: {name} cannot be deleted")

    # -- rows ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detection]:
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[Any] | NDArray[Any]) -> Detections: ...

    def __getitem__(self, index: Any) -> Detection | Detections:
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index: expected less than {len(self)} rows, got {index}")
            x1, y1, x2, y2 = (_plain(value) for value in self.boxes[index])
            label = int(self.labels[index])
            return Detection((x1, y1, x2, y2), label, self._name(label), _plain(self.scores[index]))
        if isinstance(index, slice):
            return self._take(index)
        rows = as_array(index, "index")
        if rows.ndim != 1:
            raise ValueError(f"index: expected one dimension, got shape {rows.shape}")
        if rows.dtype == np.bool_:
            if len(rows) != len(self):
                raise ValueError(f"index: expected a mask of length {len(self)}, got {len(rows)}")
        elif rows.dtype.kind not in "iu" and rows.size:
            raise TypeError(f"index: expected integers or a boolean mask, got dtype {rows.dtype}")
        else:
            rows = rows.astype(np.int64)
        return self._take(rows)

    def _take(self, rows: Any) -> Detections:
        return self.replace(
            boxes=self.boxes[rows], labels=self.labels[rows], scores=self.scores[rows]
        )

    def _name(self, label: int) -> str:
        return str(label) if self.class_names is None else self.class_names[label]

    @property
    def names(self) -> list[str]:
        """The class name of each row."""
        return [self._name(int(label)) for label in self.labels]

    @property
    def areas(self) -> F32:
        """(R,) float32, the area of each box in square pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.asarray(sides[:, 0] * sides[:, 1], np.float32)

    def counts(self) -> dict[str, int]:
        """How many objects there are of each class that occurs, in label order."""
        labels, counts = np.unique(self.labels, return_counts=True)
        return {self._name(int(k)): int(n) for k, n in zip(labels, counts, strict=True)}

    def filter(
        self,
        min_score: float | None = None,
        names: str | Iterable[str] | None = None,
        min_area: float | None = None,
        *,
        max_score: float | None = None,
        max_area: float | None = None,
        labels: int | Iterable[int] | None = None,
    ) -> Detections:
        """The rows that meet every condition given, in their order.

        Parameters
        ----------
        min_score, max_score
            Scores of at least, and of at most this.
        names
            One class name or several.
        min_area, max_area
            Areas of at least, and of at most this many square pixels.
        labels
            One label or several.

        Raises
        ------
        ValueError
            A name or label that no class has, or a bound that is NaN.

        Examples
        --------
        >>> found = Detections([[0, 0, 8, 8], [5, 5, 95, 95]], [0, 1], [0.9, 0.6])
        >>> found.filter(min_area=100).labels, found.filter(labels=0, min_score=0.5).scores
        (array([1]), array([0.9], dtype=float32))
        """
        keep = np.ones(len(self), np.bool_)
        for argument, bound, values in (
            ("min_score", min_score, self.scores),
            ("min_area", min_area, self.areas),
        ):
            if bound is not None:
                keep &= values >= number(bound, argument, -np.inf)
        for argument, bound, values in (
            ("max_score", max_score, self.scores),
            ("max_area", max_area, self.areas),
        ):
            if bound is not None:
                keep &= values <= number(bound, argument, -np.inf)
        if names is not None:
            wanted = {names} if isinstance(names, str) else set(names)
            unknown = wanted - set(self.class_names or wanted)
            if unknown:
                raise ValueError(
                    f"names: expected some of {list(self.class_names or ())}, got {sorted(unknown)}"
                )
            keep &= np.array([name in wanted for name in self.names], np.bool_)
        if labels is not None:
            several = labels if isinstance(labels, Iterable) else [labels]
            last = None if self.class_names is None else len(self.class_names) - 1
            chosen = [integer(label, "labels", 0, last) for label in several]
            keep &= np.isin(self.labels, np.array(chosen, np.int64))
        return self._take(keep)

    def top(self, count: int) -> Detections:
        """The ``count`` rows of highest score, highest first; equal scores keep their order."""
        if count < 0:
            raise ValueError(f"count: expected at least 0, got {count}")
        return self._take(np.argsort(-self.scores, kind="stable")[:count])

    def replace(self, **changes: Any) -> Detections:
        """A copy with some of the constructor's arguments changed."""
        values = {name: getattr(self, name) for name in self.__slots__}
        unknown = changes.keys() - values.keys()
        if unknown:
            raise TypeError(f"replace: expected some of {list(values)}, got {sorted(unknown)}")
        return Detections(**{**values, **changes})

    # -- comparing, copying, showing ----------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Whether rows, names and image size are the same; image and path do not count."""
        if not isinstance(other, Detections):
            return NotImplemented
        return (
            np.array_equal(self.boxes, other.boxes)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.scores, other.scores)
            and self.class_names == other.class_names
            and self.image_size == other.image_size
        )

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, which makes the arrays read-only again.
        return _rebuild, ({name: getattr(self, name) for name in self.__slots__},)

    def __repr__(self) -> str:
        lines = [f"Detections: {self._summary()}"]
        shown = [self[row] for row in range(min(len(self), REPR_ROWS))]
        if shown:
            names = [printable(row.name) for row in shown]
            width = max(4, *map(len, names))
            corners = "".join(f"{name:>7}" for name in ("x1", "y1", "x2", "y2"))
            lines.append(f"     score  {'name':<{width}}{corners}")
            for number, row in enumerate(shown):
                corners = "".join(f"{value:7.1f}" for value in row.box)
                name = f"{names[number]:<{width}}"
                lines.append(f"{number:3d}  {row.score:5.3f}  {name}{corners}")
        if len(self) > len(shown):
            lines.append(f"     ... {len(self) - len(shown)} more")
        return "\n".join(lines)

    def _summary(self) -> str:
        text = "1 object" if len(self) == 1 else f"{len(self)} objects"
        if self.image_size is not None:
            text += f" in {self.image_size[0]} x {self.image_size[1]} pixels (height x width)"
        return text if self.path is None else f"{text}, {printable(os.path.basename(self.path))}"

    def _repr_html_(self) -> str:
        from oxidet.visualize.html import detections_html

        return detections_html(self)


def _rebuild(values: dict[str, Any]) -> Detections:
    return Detections(**values)


def _own(array: NDArray[Any], dtype: type) -> NDArray[Any]:
    """A read-only copy."""
    return read_only(array.astype(dtype, order="C", copy=True))


def _plain(value: np.float32) -> float:
    """The shortest decimal that is this float32: 0.9 rather than 0.8999999761581421."""
    return float(str(value))
