"""Keyword arguments that a function hands on: refused in its own name, not in that of another."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any


def keywords_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the arguments that a function, or a class, takes by keyword."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind in by_name)


def refuse_unknown(caller: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError, as Python does, for the first name in ``given`` that is not ``known``."""
    known = list(known)
    for name in given:
        if name not in known:
            public = [word for word in known if not word.startswith("_")]
            close = difflib.get_close_matches(name, public, 1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}{hint}")
