"""What a user can call says what it is: docstrings, annotations, and sections that name arguments.

Public are the names in ``__all__`` of every module without an underscore in its path, and of the
classes among them all methods and properties that are ours and have no underscore either. The
types behind the annotations are checked by pyright: see ``make lint``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import oxidet


def _public_modules() -> list[str]:
    """Modules without an underscore in their path that list what they offer."""
    found = pkgutil.walk_packages(oxidet.__path__, prefix="oxidet.")
    names = ["oxidet", *(module.name for module in found)]
    named = [name for name in names if not any(part.startswith("_") for part in name.split("."))]
    return [name for name in named if hasattr(importlib.import_module(name), "__all__")]


MODULES = _public_modules()


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] == "oxidet"


def _objects() -> Iterator[tuple[str, Any]]:
    """Public functions and classes, each under the first of its names."""
    seen: set[int] = set()
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            callable_ = inspect.isclass(value) or inspect.isroutine(value)
            if callable_ and _is_ours(value) and id(value) not in seen:
                seen.add(id(value))
                yield f"{module}.{name}", value


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties, those of our own base classes too."""
    for base in reversed(kind.__mro__):
        if not _is_ours(base):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or vars(kind).get(name, value) is not value:
                continue
            if isinstance(value, (staticmethod, classmethod)):
                yield name, value.__func__
            elif isinstance(value, property) or inspect.isroutine(value):
                yield name, value


def _functions(value: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions in which a public object's arguments and results are annotated."""
    if not inspect.isclass(value):
        yield "", value
        return
    if inspect.isfunction(vars(value).get("__init__")):
        yield ".__init__", inspect.unwrap(vars(value)["__init__"])
    for name, member in _members(value):
        if isinstance(member, property):
            for accessor in (member.fget, member.fset):
                if accessor is not None:
                    yield f".{name}", accessor
        else:
            yield f".{name}", inspect.unwrap(member)


OBJECTS = dict(_objects())


@pytest.mark.parametrize("module", MODULES)
def test_a_module_lists_what_it_has(module: str) -> None:
    loaded = importlib.import_module(module)
    assert inspect.getdoc(loaded)
    assert len(set(loaded.__all__)) == len(loaded.__all__)
    parts = [getattr(loaded, name) for name in loaded.__all__]  # each exists
    unlisted = [
        part.__name__
        for part in parts
        if isinstance(part, types.ModuleType) and part.__name__ not in MODULES
    ]
    assert not unlisted, "public modules without __all__"


def test_every_public_name_has_a_docstring() -> None:
    missing = []
    for path, value in OBJECTS.items():
        # That of a base class is about the base class.
        text = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
        if not text or (inspect.isclass(value) and text.startswith(f"{value.__name__}(")):
            missing.append(path)  # a dataclass or named tuple that only says its fields
        if inspect.isclass(value):
            for name, member in _members(value):
                own = name == "forward"  # says what comes in and out
                if not (member.__doc__ if own else _inherited_doc(value, name)):
                    missing.append(f"{path}.{name}")
    assert not missing, "\n".join(missing)


def _inherited_doc(kind: type, name: str) -> str | None:
    return inspect.getdoc(inspect.getattr_static(kind, name)) or inspect.getdoc(getattr(kind, name))


def test_every_public_name_is_annotated() -> None:
    missing = []
    for path, value in OBJECTS.items():
        for suffix, function in _functions(value):
            if not inspect.isfunction(function):
                continue  # a class attribute that holds a kernel
            signature = inspect.signature(function)
            free = [
                name
                for index, (name, parameter) in enumerate(signature.parameters.items())
                if parameter.annotation is parameter.empty
                and not (index == 0 and name in ("self", "cls"))
            ]
            if signature.return_annotation is signature.empty:
                free.append("return")
            if free:
                missing.append(f"{path}{suffix}: {', '.join(free)}")
    assert not missing, "\n".join(missing)


# What people call first: their docstrings have an example, which test_docstrings runs.
MOST_USED = """
    Detections precision set_num_threads summary receptive_field manual_seed
    data.DataLoader data.read_image data.lenet_input
    models.get_model models.list_models models.resnet18 models.Classifier.classify
    models.detection.build_detector models.detection.load_detector models.detection.save_detector
    models.detection.fasterrcnn_resnet_fpn models.detection.faster_rcnn
    nn.BatchNorm2d nn.Conv2d nn.CrossEntropyLoss nn.Linear nn.MaxPool2d nn.Module nn.Module.plan
    nn.ModuleDict nn.ModuleList nn.Sequential nn.Tensor nn.no_grad nn.init.kaiming_normal_
    optim.Adam optim.AdamW optim.SGD optim.lr_scheduler.StepLR
    pretrained.digit_classifier pretrained.digit_detector
    train.Trainer train.evaluate_detector train.read_log
    transforms.Compose transforms.ImageClassification transforms.Normalize transforms.RandomFlip
    weights.load weights.load_into
"""


def test_what_people_call_first_has_an_example() -> None:
    functions = [path for path, value in OBJECTS.items() if inspect.isfunction(value)]
    wanted = [f"oxidet.{name}" for name in MOST_USED.split()]
    wanted += [p for p in functions if p.startswith(("oxidet.ops.", "oxidet.nn.functional."))]
    texts = {path: text for path, text, _ in _documented()}
    missing = [path for path in wanted if ">>> " not in texts.get(path, "")]
    assert not missing, "\n".join(missing)


SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)


def _section(text: str, title: str) -> list[str]:
    """The names that a section of a docstring describes."""
    parts = SECTION.split(text)
    body = dict(zip(parts[1::2], parts[2::2], strict=True)).get(title, "")
    heads = re.findall(r"^(\S.*)\n[ ]", body, re.MULTILINE)  # with something indented below
    return [name.strip().lstrip("*") for head in heads for name in head.split(" : ")[0].split(",")]


def _documented() -> Iterator[tuple[str, str, Any]]:
    """Path, docstring and the callable that it describes."""
    for path, value in OBJECTS.items():
        yield path, inspect.getdoc(value) or "", value
        if inspect.isclass(value):
            for name, member in _members(value):
                if not isinstance(member, property):
                    yield f"{path}.{name}", inspect.getdoc(member) or "", member


def test_parameters_sections_name_the_parameters() -> None:
    wrong = []
    for path, text, function in _documented():
        described = _section(text, "Parameters")
        if not described:
            continue
        parameters = inspect.signature(function).parameters
        names = [n for n in parameters if not n.startswith("_") and n not in ("self", "cls")]
        passed_on = _section(text, "Other Parameters")  # in **options
        only_described = set(described) - set(names)
        only_taken = set(names) - {*described, *passed_on}
        if only_described or only_taken:
            wrong.append(f"{path}: only described {only_described}, only taken {only_taken}")
    assert not wrong, "\n".join(wrong)


LISTS = ("Parameters", "Other Parameters", "Attributes", "Raises")


def test_lists_hold_nothing_else() -> None:
    """What stands unindented in a list section counts as another item of it in the API pages."""
    wrong = []
    for path, text, _ in _documented():
        parts = SECTION.split(text)
        for title, body in zip(parts[1::2], parts[2::2], strict=True):
            stray = re.findall(r"^(\S.*)(?!\n[ ])$", body, re.MULTILINE) if title in LISTS else []
            wrong += [f"{path}, {title}: {line}" for line in stray]
    assert not wrong, "\n".join(wrong)


@functools.cache
def _assigned(kind: type) -> set[str]:
    """Attributes that a class declares, or that its methods set."""
    in_methods = re.findall(r"self\.(\w+)", inspect.getsource(kind))
    return {*vars(kind).get("__annotations__", ()), *in_methods}


def test_attributes_sections_name_attributes() -> None:
    wrong = []
    for path, value in OBJECTS.items():
        if not inspect.isclass(value):
            continue
        ours = [base for base in value.__mro__ if _is_ours(base)]
        wrong += [
            f"{path}.{name}"
            for name in _section(inspect.getdoc(value) or "", "Attributes")
            if not hasattr(value, name) and not any(name in _assigned(base) for base in ours)
        ]
    assert not wrong, "\n".join(wrong)
