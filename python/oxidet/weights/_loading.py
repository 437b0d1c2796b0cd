"""From a file, an address or a published name into a network, or a clear answer why not.

:meth:`oxidet.nn.Module.load_state_dict` compares keys and shapes, and knows nothing else. Here is
what people meet besides: another number of classes, auxiliary heads that the network does not have,
prefixes of wrappers, the weights of another network; and files that say what images they expect.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from oxidet import nn
from oxidet._arrays import names as as_names
from oxidet.weights._convert import DescribedWeights
from oxidet.weights._fetch import fetch, is_url
from oxidet.weights._files import find_state, read_weights, save, strip_prefixes
from oxidet.weights._published import (
    PublishedWeights,
    find_published,
    imagenet_classes,
    published_as,
)
from oxidet.weights._source import WeightFileError

if TYPE_CHECKING:
    from oxidet.transforms import ImageClassification

_ENDINGS = (".npz", ".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")


class LoadReport(NamedTuple):
    """What :func:`load_into` did; as text, a line or two for a person."""

    loaded: list[str]  #: keys that were copied into the model
    dropped: list[str]  #: keys of the weights that the model has no use for
    kept: list[str]  #: keys of the model that are as they were

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors"]
        if self.dropped:
            parts.append(f"dropped {_layers(self.dropped)}")
        if self.kept:
            parts.append(f"left as they were: {_layers(self.kept)}")
        return "; ".join(parts)


class Origin(NamedTuple):
    """A file of weights, and what is known of it if it is a published one."""

    path: Path
    published: PublishedWeights | None


def locate(weights: str | os.PathLike[str], model: str | None = None) -> Origin:
    """The file that ``weights`` means: a path, an address, or the name of published weights.

    With the name of a network, ``"DEFAULT"`` and ``"IMAGENET1K_V2"`` are names too. What is not on
    this machine is fetched.
    """
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            f"weights: expected a path, an address or a name, got {type(weights).__name__}"
        )
    text = os.fspath(weights)
    if not text:
        raise ValueError("weights: expected a path, an address or a name, got nothing")
    if isinstance(text, str) and is_url(text):
        path = fetch(text)
        return Origin(path, published_as(path.name))
    path = Path(text)
    looks_like_path = not isinstance(weights, str) or os.sep in text or text.endswith(_ENDINGS)
    if looks_like_path or path.is_file():
        path.stat()  # a file that is missing is told before a network is built for it
        return Origin(path, published_as(path.name))
    published = find_published(text, model)
    return Origin(fetch(published.name), published)


def load_into(
    model: nn.Module,
    weights: str | os.PathLike[str] | Mapping[str, Any] | DescribedWeights | Origin,
    *,
    key: str | None = None,
    ignore: str | Iterable[str] = (),
    new_classifier: bool = False,
) -> LoadReport:
    """Load weights into a network, and with them what images it expects and its classes' names.

    Everything is checked before anything is written: after an exception the network is as it was.

    Dropped without being asked, and told in the report: auxiliary heads (``aux1``, ``AuxLogits``)
    that the network was built without. Prefixes that all keys share (``module.``, ``model.``) are
    taken off. Old names of keys (DenseNet's ``norm.1``) are understood.

    ``model.preprocess`` and ``model.class_names`` are set where the weights say what they are:
    published weights, files that :func:`save_from` wrote, :class:`DescribedWeights`.

    Parameters
    ----------
    model
        The network.
    weights
        A file of any kind that :func:`load` reads, its address, the name of published
        weights (see :func:`fetch`), a state_dict, or converted weights.
    key
        As for :func:`load`.
    ignore
        Parts that are not loaded, neither from the weights nor into the model: keys, names
        of modules (``"layer4"``), or patterns (``"*.bias"``).
    new_classifier
        Leave the last layer as it is, and those of auxiliary heads: to train the
        network for other classes.

    Raises
    ------
    StateDictError
        (a ValueError) The weights do not fit; the message says what to do where that is known.
    WeightFileError
        (a ValueError) As for :func:`load`.
    DownloadError
        As for :func:`fetch`.
    ValueError
        A pattern in ``ignore`` that nothing matches.

    Examples
    --------
    >>> from oxidet import weights
    >>> from oxidet.models import resnet18
    >>> trained = resnet18(num_classes=1000)      # stands for a file
    >>> model = resnet18(num_classes=3)
    >>> print(weights.load_into(model, trained.state_dict(), new_classifier=True))
    loaded 120 tensors; dropped fc; left as they were: fc
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    state, preprocess, class_names = _read(weights, key)
    own = model.state_dict()
    state = _unwrap(model, state, own)
    dropped: list[str] = []
    kept: list[str] = []

    if not isinstance(ignore, (str, Iterable)):
        raise TypeError(f"ignore: expected parts of the model as text, got {ignore!r}")
    patterns = [ignore] if isinstance(ignore, str) else list(ignore)
    for pattern in patterns:
        matched = {name for name in (*state, *own) if _matches(name, pattern)}
        if not matched:
            raise ValueError(f"ignore: expected parts of the model or weights, got {pattern!r}")
        dropped += [name for name in state if name in matched]
        kept += [name for name in own if name in matched]
    classifiers = classifier_layers(model)
    if new_classifier:
        dropped += [name for name in state if _owner(name) in classifiers]
        kept += [name for name in own if _owner(name) in classifiers]
    heads = {_head(name) for name in own}
    dropped += [name for name in state if _is_auxiliary(name) and _head(name) not in heads]

    unused, untouched = set(dropped), set(kept)
    state = OrderedDict((name, value) for name, value in state.items() if name not in unused)
    wanted = {name: value for name, value in own.items() if name not in untouched}
    _explain_misfit(model, state, wanted, classifiers)
    model.load_state_dict({**{name: own[name] for name in untouched}, **state})
    if new_classifier or not _count_fits(model, classifiers, class_names):
        class_names = None
    if preprocess is not None:
        model.preprocess = preprocess
    if class_names is not None:
        model.class_names = class_names
    return LoadReport(
        [name for name in wanted if name in state],
        list(dict.fromkeys(dropped)),
        [name for name in own if name in untouched],
    )


def save_from(model: nn.Module, path: str | os.PathLike[str], *, dtype: str | None = None) -> None:
    """Write a classification network's weights, and beside them its recipe and class names.

    :func:`load_into` and the builders (``resnet18(weights=path)``) read all of it back.

    Parameters
    ----------
    model
        The network.
    path
        A name ending in ``.npz`` or ``.safetensors``.
    dtype
        As for :func:`save`.

    Raises
    ------
    ValueError, OSError
        As for :func:`save`.
    """
    save(
        path,
        model.state_dict(),
        dtype=dtype,
        metadata=to_metadata(
            getattr(model, "preprocess", None), getattr(model, "class_names", None)
        ),
    )


def to_metadata(
    preprocess: ImageClassification | None, class_names: Sequence[str] | None
) -> dict[str, str]:
    """A recipe and class names as the text beside weights."""
    metadata = {}
    if preprocess is not None:
        metadata["preprocess"] = json.dumps(dataclasses.asdict(preprocess))
    if class_names is not None:
        written = json.dumps(as_names(class_names, "class_names"))
        if not all(isinstance(name, str) for name in class_names):
            raise TypeError(f"class_names: expected names as text, got {class_names!r}")
        metadata["class_names"] = written
    return metadata


def _from_metadata(
    metadata: Mapping[str, str], path: str
) -> tuple[ImageClassification | None, tuple[str, ...] | None]:
    from oxidet.transforms import ImageClassification

    preprocess = class_names = None
    try:
        if "preprocess" in metadata:
            given = json.loads(metadata["preprocess"])
            recipe: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in given.items()
            }
            preprocess = ImageClassification(**recipe)
        if "class_names" in metadata:
            class_names = tuple(json.loads(metadata["class_names"]))
            if not all(isinstance(name, str) for name in class_names):
                raise ValueError("expected names of classes as text")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightFileError(
            f"{path}: expected a recipe and class names beside the weights, got {error}"
        ) from None
    return preprocess, class_names


def describe(
    origin: Origin, state: OrderedDict[str, Any], metadata: Mapping[str, str]
) -> DescribedWeights:
    """What was read from a file, with all that it, or its publisher, says of the weights."""
    if origin.published is None:
        return DescribedWeights(state, *_from_metadata(metadata, os.fspath(origin.path)))
    if origin.published.detects:
        return DescribedWeights(state)
    from oxidet.transforms import ImageClassification

    names = imagenet_classes() if origin.published.classifies else None
    return DescribedWeights(state, ImageClassification(**origin.published.recipe), names)


def _read(weights: Any, key: str | None) -> DescribedWeights:
    if isinstance(weights, DescribedWeights):
        return weights
    if isinstance(weights, Mapping):
        if any(isinstance(value, Mapping) for value in weights.values()):
            weights = find_state(dict(weights), key, "weights")
        unnamed = [name for name in weights if not isinstance(name, str)]
        if unnamed:
            raise TypeError(f"weights: expected names of tensors, got {unnamed[0]!r}")
        return DescribedWeights(strip_prefixes(OrderedDict(weights)))
    origin = weights if isinstance(weights, Origin) else locate(weights)
    return describe(origin, *read_weights(origin.path, key=key))


def _unwrap(
    model: nn.Module, state: OrderedDict[str, Any], own: Mapping[str, Any]
) -> OrderedDict[str, Any]:
    """``state`` under the names of the model: old ones renamed, a common prefix taken off."""

    def adapted(state: Mapping[str, Any]) -> OrderedDict[str, Any]:
        for path, module in model.named_modules():
            state = module._adapt_state_dict(state, f"{path}." if path else "")
        return OrderedDict(state)

    found = adapted(state)
    heads = {_head(name) for name in state}
    if len(heads) == 1 and not any(name in own for name in found):
        prefix = f"{heads.pop()}."
        inner = adapted({name.removeprefix(prefix): value for name, value in state.items()})
        if any(name in own for name in inner):
            return inner
    return found


def classifier_layers(model: nn.Module) -> list[str]:
    """The layers that know the classes: the last of each auxiliary head, and the last of all.

    >>> from oxidet.models import resnet18
    >>> classifier_layers(resnet18())
    ['fc']
    """
    last: dict[str, str] = {}
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            last[_head(path) if _is_auxiliary(path) else ""] = path
    main = last.pop("", None)
    return [*last.values(), *([] if main is None else [main])]


def _count_fits(
    model: nn.Module, classifiers: Sequence[str], class_names: Sequence[str] | None
) -> bool:
    """Whether the network has as many outputs as there are names."""
    if class_names is None or not classifiers:
        return False
    weight: Any = model.get_submodule(classifiers[-1]).weight
    return bool(weight.shape[0] == len(class_names))


def _explain_misfit(
    model: nn.Module,
    state: Mapping[str, Any],
    wanted: Mapping[str, Any],
    classifiers: Sequence[str],
) -> None:
    """Raise for the misfits that have a name; the others are for ``load_state_dict`` to list."""
    shapes = {name: np.shape(value) for name, value in state.items()}
    common = [name for name in wanted if name in state]
    wrong = [name for name in common if shapes[name] != wanted[name].shape]
    fitting = len(common) - len(wrong)
    kind = type(model).__name__
    few = fitting < 0.5 * min(len(wanted), len(state))
    counts = {(shapes[name][:1], wanted[name].shape[:1]) for name in wrong}
    nothing: tuple[int, ...] = ()
    theirs, ours = counts.pop() if len(counts) == 1 else (nothing, nothing)
    known = not few or set(state) <= set(wanted)
    if (
        known
        and theirs
        and ours
        and theirs != ours
        and all(_owner(n) in classifiers for n in wrong)
    ):
        name = next((name for name in wrong[::-1] if name.endswith(".weight")), wrong[-1])
        layer = _owner(name)
        raise nn.StateDictError(
            f"weights: expected {ours[0]} classes in {layer} ({name} of shape "
            f"{wanted[name].shape}), got {theirs[0]}: build the network with "
            f"num_classes={theirs[0]}, or leave its own {layer} "
            "as it is with new_classifier=True"
        )
    if few or (wanted and not state):
        raise nn.StateDictError(
            f"weights: expected those of this {kind}, got those of another network: {fitting} of "
            f"its {len(wanted)} keys fit (it begins with {_some(wanted)}, they with {_some(state)})"
        )
    missing = {name for name in wanted if name not in state}
    if missing and not wrong and all(_is_auxiliary(name) for name in missing):
        heads = list(dict.fromkeys(_head(name) for name in wanted if name in missing))
        raise nn.StateDictError(
            f"weights: expected the auxiliary heads of this {kind} ({', '.join(heads)}), got none: "
            f"build it with aux_logits=False, or leave them as they are with ignore={heads}"
        )


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)


def _head(name: str) -> str:
    return name.split(".", 1)[0]


def _owner(name: str) -> str:
    """The path of the module that a key belongs to."""
    return name.rpartition(".")[0]


def _is_auxiliary(name: str) -> bool:
    return _head(name).lower().startswith("aux")


def _some(names: Iterable[str]) -> str:
    shown = [repr(name) for _, name in zip(range(2), names, strict=False)]
    return ", ".join(shown) or "nothing"


def _layers(names: Iterable[str]) -> str:
    """Keys for a person: whole heads, else the layers, at most six."""
    paths = [_head(name) if _is_auxiliary(name) else _owner(name) or name for name in names]
    unique = list(dict.fromkeys(paths))
    rest = f" and {len(unique) - 6} more" if len(unique) > 6 else ""
    return ", ".join(unique[:6]) + rest
