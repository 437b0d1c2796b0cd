"""The networks by name: ``list_models()`` and ``get_model("resnet18")``, as in torchvision."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import os
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from oxidet import nn
from oxidet._arrays import extent, listed

P = ParamSpec("P")
M_co = TypeVar("M_co", bound=nn.Module, covariant=True)

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}

# What the docstring of every builder says besides.
_WITH_WEIGHTS = """\
Or with ``weights``: a file, an address, or published ones (``"DEFAULT"``, ``"IMAGENET1K_V2"``), as
for :func:`~oxidet.weights.load_into`; ``new_classifier=True`` then leaves the last layer fresh."""


class Builder(Protocol[P, M_co]):
    """A function that builds a network, and loads weights into it where asked."""

    @overload
    def __call__(self, *args: P.args, **config: P.kwargs) -> M_co: ...
    @overload
    def __call__(
        self,
        *args: Any,
        weights: str | os.PathLike[str] | None,
        new_classifier: bool = False,
        **config: Any,
    ) -> M_co: ...


def register_model(
    name: str | None = None,
) -> Callable[[Callable[P, M_co]], Builder[P, M_co]]:
    """Decorator that makes a builder known under ``name``, or its own name, and gives it weights.

    The builder takes two more keywords. ``weights`` is what :func:`oxidet.weights.load_into`
    takes: a file, an address, or published weights, of which the version is enough
    (``"DEFAULT"``, ``"IMAGENET1K_V2"``). ``new_classifier`` is handed on to it.

    Raises ValueError if the name is taken.
    """

    def register(builder: Callable[P, M_co]) -> Builder[P, M_co]:
        key = builder.__name__ if name is None else name
        if key in _BUILDERS:
            raise ValueError(f"name: expected a new model, got {key!r} a second time")
        made = _with_weights(key, builder)
        _BUILDERS[key] = made
        return made

    return register


def _with_weights(key: str, builder: Callable[P, M_co]) -> Builder[P, M_co]:
    signature = inspect.signature(builder)
    own = dict(signature.parameters)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())

    @functools.wraps(builder)
    def build(
        *args: Any,
        weights: str | os.PathLike[str] | None = None,
        new_classifier: bool = False,
        **config: Any,
    ) -> M_co:
        passed = dict(zip(own, args, strict=False)) | config
        if "num_classes" in passed:
            extent(passed["num_classes"], "num_classes")
        if weights is None:
            if new_classifier:
                raise ValueError("new_classifier: expected together with weights")
            return builder(*args, **config)
        from oxidet.weights import load_into, locate  # which are of no use to fresh networks

        given = signature.bind(*args, **config).arguments  # refuses before anything is fetched
        origin = locate(weights, key)
        if origin.published is not None:
            for option, value in origin.published.options.items():
                if (option in own or open_ended) and option not in {*given, *config}:
                    config[option] = value
        model = builder(*args, **config)
        load_into(model, origin, new_classifier=new_classifier)
        return model

    summary, _, rest = inspect.cleandoc(builder.__doc__ or "").partition("\n\n")
    build.__doc__ = "\n\n".join(part for part in (summary, _WITH_WEIGHTS, rest) if part)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, default, kind in (
            ("weights", None, "str | os.PathLike[str] | None"),
            ("new_classifier", False, "bool"),
        )
    ]
    listed = list(own.values())
    at = len(listed) - open_ended
    build.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*listed[:at], *extra, *listed[at:]]
    )
    return cast("Builder[P, M_co]", build)


def list_models(
    include: str | Iterable[str] | None = None, exclude: str | Iterable[str] | None = None
) -> list[str]:
    """Names of the networks, sorted; patterns are those of a shell (``"resnet*"``).

    >>> from oxidet.models import list_models
    >>> list_models(["resnet1*", "plain??"], exclude="*_cifar10")
    ['plain18', 'plain34', 'resnet101', 'resnet152', 'resnet18']
    """
    names = set(_BUILDERS)
    if include is not None:
        wanted = _patterns(include, "include")
        names = {name for pattern in wanted for name in fnmatch.filter(names, pattern)}
    for pattern in _patterns(exclude, "exclude"):
        names -= set(fnmatch.filter(names, pattern))
    return sorted(names)


def get_model(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    new_classifier: bool = False,
    **config: Any,
) -> nn.Module:
    """Build a network by name, as ``torchvision.models.get_model``.

    Parameters
    ----------
    name
        One of :func:`list_models`.
    weights
        None for fresh weights, or a file, an address, or published weights
        (``"DEFAULT"``, ``"IMAGENET1K_V2"``); see :func:`oxidet.weights.load_into`. The network
        then has the recipe and class names that belong to them, and as in torchvision it is in
        training mode.
    new_classifier
        Leave the last layer fresh, for other classes than those of the weights.
    **config
        Of the network's builder, such as ``num_classes``.

    Raises
    ------
    ValueError
        No such network (the message has the nearest names) or weights, or weights that do not fit.
    DownloadError, OSError
        The weights cannot be had.

    Examples
    --------
    >>> from oxidet.models import get_model
    >>> get_model("resnet18", num_classes=10).fc
    Linear(in_features=512, out_features=10, bias=True)
    """
    if not isinstance(name, str):
        raise TypeError(f"name: expected a str, got {type(name).__name__}")
    if name not in _BUILDERS:
        import difflib

        near = difflib.get_close_matches(name.lower(), _BUILDERS, n=3)
        hint = f" (near: {', '.join(near)})" if near else ""
        raise ValueError(f"name: expected one of list_models(){hint}, got {name!r}")
    return _BUILDERS[name](weights=weights, new_classifier=new_classifier, **config)


def _patterns(given: str | Iterable[str] | None, argument: str) -> list[str]:
    if given is None:
        return []
    patterns = [given] if isinstance(given, str) else listed(given, argument, "patterns")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{argument}: expected patterns of names, got {pattern!r}")
    return patterns
