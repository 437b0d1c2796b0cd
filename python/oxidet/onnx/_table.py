"""The table of operators: how each runs, its attributes, and which of its inputs are weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


class Optional_:
    """The default of an attribute that may be missing, of this type (a tuple of elements)."""

    def __init__(self, kind: type, element: type | None = None) -> None:
        self.kind = kind
        self.element = element


INTS, FLOATS = Optional_(tuple, int), Optional_(tuple, float)
INT, FLOAT, ARRAY = Optional_(int), Optional_(float), Optional_(np.ndarray)


@dataclass(frozen=True)
class Operator:
    """An operator: how it runs, its attributes with their defaults, and which inputs are weights.

    ``run(operation, *inputs, **options)``: inputs are :class:`Value`, arrays, parameters or None.
    ``weights`` maps a place among the inputs to what :mod:`oxidet.onnx._load` makes of it.
    """

    run: Callable[..., Any] | None
    attributes: Mapping[str, Any]
    weights: Mapping[int, str]

    @property
    def required(self) -> int:
        """How many inputs have to be there: those of ``run`` that have no default."""
        if self.run is None:
            return 0
        _, *inputs = inspect.signature(self.run, follow_wrapped=False).parameters.values()
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return sum(i.kind in kinds and i.default is inspect.Parameter.empty for i in inputs)


OPERATORS: dict[str, Operator] = {}

Run = Callable[..., Any]


def operator(
    *ops: str, weights: Mapping[int, str] | None = None, **attributes: Any
) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        for op in ops:
            OPERATORS[op] = Operator(run, attributes, weights or {})
        return run

    return register
