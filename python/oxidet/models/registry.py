"""The networks by name: ``list_models()`` and ``get_model("resnet18")``, as in torchvision."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from oxidet import nn

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def register_model(name: str | None = None) -> Callable[[Builder], Builder]:
    """Decorator that makes a builder known under ``name``, or its own name.

    Raises ValueError if the name is taken.
    """

    def register(builder: Builder) -> Builder:
        key = builder.__name__ if name is None else name
        if key in _BUILDERS:
            raise ValueError(f"name: expected a new model, got {key!r} a second time")
        _BUILDERS[key] = builder
        return builder

    return register


def list_models(
    include: str | Iterable[str] | None = None, exclude: str | Iterable[str] | None = None
) -> list[str]:
    """Names of the networks, sorted; patterns are those of a shell (``"resnet*"``).

    >>> from oxidet.models import list_models
    >>> list_models("resnet*1*")
    ['resnet101', 'resnet152', 'resnet18']
    """
    names = set(_BUILDERS)
    if include is not None:
        names = {name for pattern in _patterns(include) for name in fnmatch.filter(names, pattern)}
    for pattern in _patterns(exclude):
        names -= set(fnmatch.filter(names, pattern))
    return sorted(names)


def get_model(name: str, **config: Any) -> nn.Module:
    """Build a network by name with fresh weights; ``config`` goes to its builder.

    Raises ValueError, with the nearest names, for a network that does not exist.

    >>> from oxidet.models import get_model
    >>> get_model("resnet18", num_classes=10).fc
    Linear(in_features=512, out_features=10, bias=True)
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {type(name).__name__}")
    if name not in _BUILDERS:
        import difflib

        near = difflib.get_close_matches(name, _BUILDERS, n=3)
        hint = f" (near: {', '.join(near)})" if near else ""
        raise ValueError(f"name: expected one of list_models(){hint}, got {name!r}")
    return _BUILDERS[name](**config)


def _patterns(given: str | Iterable[str] | None) -> list[str]:
    if given is None:
        return []
    return [given] if isinstance(given, str) else list(given)
