"""The reference in docs/reference names every public name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from types import ModuleType

import pytest

import oxidet
from conftest import ROOT

REFERENCE = ROOT / "docs" / "reference"
# Public modules that list no names: what they define is public.
WITHOUT_LIST = (
    "oxidet.models.feature_extraction",
    "oxidet.nn.init",
    "oxidet.nn.utils",
    "oxidet.optim.lr_scheduler",
)
# Behind ``_repr_html_``, not to be called.
INSIDE = ("oxidet.visualize.html",)


def _modules() -> list[str]:
    found = pkgutil.walk_packages(oxidet.__path__, prefix="oxidet.")
    public = (
        module.name
        for module in found
        if "._" not in module.name and not module.name.startswith(INSIDE)
    )
    listed = [name for name in public if hasattr(importlib.import_module(name), "__all__")]
    return ["oxidet", *listed, *WITHOUT_LIST]


def _names(module: ModuleType) -> list[str]:
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [
        name
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", None) == module.__name__
        and (inspect.isclass(thing) or inspect.isfunction(thing))
        and not name.startswith("_")
    ]


def _documented(page: str) -> set[str]:
    """The names that a page describes, or says where they are described."""
    text = (REFERENCE / page).read_text("utf-8")
    own = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    elsewhere = re.findall(r"\]\[(oxidet\.[\w.]+)\]", text)
    return {name.rpartition(".")[2] for name in (*own, *elsewhere)} | set(
        re.findall(r"`(\w+)` is another name", text)
    )


def _documented_whole() -> set[str]:
    """Modules that a page describes with all that is in them."""
    found = set()
    for path in REFERENCE.glob("*.md"):
        for name, options in re.findall(
            r"^::: (\S+)$\n((?:    .*\n)*)", path.read_text("utf-8"), re.MULTILINE
        ):
            if "members: false" not in options:
                found.add(name)
    return found


@pytest.mark.parametrize("name", _modules())
def test_every_public_name_is_on_a_page(name: str) -> None:
    module = importlib.import_module(name)
    page = f"{name.removeprefix('oxidet.')}.md"
    if name in _documented_whole():
        return
    assert (REFERENCE / page).exists(), f"{name} has no page docs/reference/{page}"
    names = [public for public in _names(module) if not _is_package(module, public)]
    missing = set(names) - _documented(page)
    assert not missing, f"not in docs/reference/{page}: {sorted(missing)}"


def _is_package(module: ModuleType, name: str) -> bool:
    """Whether a name is a module with a page of its own."""
    thing = getattr(module, name)
    if not inspect.ismodule(thing):
        return False
    return (REFERENCE / f"{thing.__name__.removeprefix('oxidet.')}.md").exists()


@pytest.mark.parametrize("page", sorted(path.name for path in REFERENCE.glob("*.md")))
def test_what_pages_name_is_there(page: str) -> None:
    text = (REFERENCE / page).read_text("utf-8")
    paths = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    paths += re.findall(r"\]\[(oxidet[\w.]*)\]", text)
    missing = [path for path in paths if not _exists(path)]
    assert not missing
    twice = {path for path in paths if paths.count(path) > 1}
    assert not twice


def _exists(path: str) -> bool:
    try:
        pkgutil.resolve_name(path)
    except (AttributeError, ImportError):
        return False
    return True
