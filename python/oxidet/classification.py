"""What a classification network says about a picture: its likeliest classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import as_float32, labels, read_only
from oxidet._arrays import names as as_names
from oxidet._text import printable

BAR = 20  # characters of a certain class's bar


class ClassProbability(NamedTuple):
    """One class and how probable it is."""

    label: int
    """Index of the class, from 0."""
    name: str
    """Its name, or the index as text where there are no names."""
    probability: float
    """0..1."""


class Classification(Sequence[ClassProbability]):
    """The likeliest classes of one picture, the likeliest first. It cannot be changed.

    A sequence of :class:`ClassProbability`; prints as a table, in a notebook beside the picture.

    Parameters
    ----------
    labels
        (K,) indices of the classes.
    probabilities
        (K,) their probabilities, 0..1, in falling order.
    class_names
        A name for every class of the network, or None.
    image
        The picture, in any form that ``oxidet.data.read_image`` takes, or None.

    Examples
    --------
    >>> from oxidet.classification import Classification
    >>> found = Classification([2, 0], [0.75, 0.2], class_names=("cat", "dog", "tiger"))
    >>> found
    Classification: tiger (0.750)
      label  name   probability
          2  tiger  0.750  ###############
          0  cat    0.200  ####
    >>> found[0].name, found.names, [row.probability for row in found]
    ('tiger', ['tiger', 'cat'], [0.75, 0.2])
    """

    __slots__ = ("class_names", "image", "labels", "probabilities")

    labels: NDArray[np.int64]
    """(K,) int64."""
    probabilities: NDArray[np.float32]
    """(K,) float32."""
    class_names: tuple[str, ...] | None
    image: Any

    def __init__(
        self,
        labels: Any,
        probabilities: Any,
        *,
        class_names: Sequence[str] | None = None,
        image: Any = None,
    ) -> None:
        shares = as_float32(probabilities, "probabilities", ndim=1, form="(K,)")
        indices = _labels(labels, len(shares))
        names = None if class_names is None else as_names(class_names, "class_names")
        if names is not None and len(indices) and indices.max() >= len(names):
            raise ValueError(f"labels: expected 0 to {len(names) - 1}, got one of {indices.max()}")
        for name, value in (
            ("labels", read_only(indices.astype(np.int64))),
            ("probabilities", read_only(shares.copy())),
            ("class_names", names),
            ("image", image),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name}: a Classification cannot be changed")

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> ClassProbability: ...
    @overload
    def __getitem__(self, index: slice) -> Classification: ...
    def __getitem__(self, index: int | slice) -> ClassProbability | Classification:
        if isinstance(index, slice):
            return Classification(
                self.labels[index],
                self.probabilities[index],
                class_names=self.class_names,
                image=self.image,
            )
        label = int(self.labels[index])
        # The shortest decimal that is this float32.
        return ClassProbability(label, self._name(label), float(str(self.probabilities[index])))

    def __iter__(self) -> Iterator[ClassProbability]:
        return (self[row] for row in range(len(self)))

    def _name(self, label: int) -> str:
        return str(label) if self.class_names is None else self.class_names[label]

    @property
    def names(self) -> list[str]:
        """The name of each class."""
        return [self._name(int(label)) for label in self.labels]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Classification):
            return NotImplemented
        return (
            np.array_equal(self.labels, other.labels)
            and np.array_equal(self.probabilities, other.probabilities)
            and self.class_names == other.class_names
        )

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, ({name: getattr(self, name) for name in self.__slots__},)

    def __repr__(self) -> str:
        names = [printable(name) for name in self.names]
        width = max([4, *map(len, names)])
        lines = [f"Classification: {self._summary()}", f"  label  {'name':<{width}}  probability"]
        for name, row in zip(names, self, strict=True):
            bar = "#" * round(BAR * row.probability)
            lines.append(
                f"  {row.label:5d}  {name:<{width}}  {row.probability:.3f}  {bar}".rstrip()
            )
        return "\n".join(lines)

    def _summary(self) -> str:
        if not len(self):
            return "no classes"
        return f"{printable(self[0].name)} ({self[0].probability:.3f})"

    def _repr_html_(self) -> str:
        from oxidet.visualize.html import classification_html

        return classification_html(self)


def _labels(given: Any, count: int) -> NDArray[Any]:
    return labels(given, "labels", count)


def _rebuild(values: dict[str, Any]) -> Classification:
    return Classification(**values)
