"""Arrays in tuples, lists and dicts: taking them out, and putting others in their place.

What remains when the arrays are taken out, the form, is a tuple of plain values that can be
compared and hashed, so it can be part of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Form = tuple[Any, ...]

LEAF: Form = ("leaf",)


class NotPlainError(Exception):
    """Something is neither an array nor plain data."""

    def __init__(self, value: Any) -> None:
        super().__init__(type(value).__name__)
        self.value = value


def take_out(value: Any, is_leaf: Callable[[Any], bool], leaves: list[Any]) -> Form:
    """The form of ``value``; its leaves are appended to ``leaves``."""
    if is_leaf(value):
        leaves.append(value)
        return LEAF
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return ("constant", kind, value)
    if kind is float:
        # By its bits: NaN is not equal to itself, and -0.0 is equal to 0.0.
        return ("float", value.hex())
    if isinstance(value, (tuple, list)):
        return ("sequence", kind, tuple([take_out(item, is_leaf, leaves) for item in value]))
    if isinstance(value, dict) and all(isinstance(key, (str, int)) for key in value):
        items = tuple([take_out(item, is_leaf, leaves) for item in value.values()])
        return ("mapping", kind, tuple(value), items)
    raise NotPlainError(value)


def put_back(form: Form, leaves: Iterator[Any]) -> Any:
    """The value of a form, with the next of ``leaves`` wherever there was one."""
    tag = form[0]
    if tag == "leaf":
        return next(leaves)
    if tag == "constant":
        return form[2]
    if tag == "float":
        return float.fromhex(form[1])
    if tag == "sequence":
        items = [put_back(item, leaves) for item in form[2]]
        if hasattr(form[1], "_fields"):  # a named tuple
            return form[1](*items)
        return items if form[1] is list else form[1](items)
    made = form[1]()
    for key, item in zip(form[2], form[3], strict=True):
        made[key] = put_back(item, leaves)
    return made
