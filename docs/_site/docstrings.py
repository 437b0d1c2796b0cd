"""How the docstrings of oxidet become pages: an extension of griffe, which reads the sources.

Docstrings are in NumPy's style, written to be read in a terminal as well. What its reStructuredText
has and Markdown has not is put into Markdown here: roles (:func:`nms`), ``::`` before a block, and
tables. A section "Returns" that is a sentence stays a sentence.
"""

from __future__ import annotations

import builtins
import contextlib
import re
from typing import Any

import griffe

_log = griffe.get_logger(__name__)
_ROLE = re.compile(r":(?:func|class|meth|attr|mod|data|exc):`(?:[^`<]*<)?(~?)([^`<>]+)>?`")
_TABLE = re.compile(r"^( *)(=+(?: +=+)+)\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(
    r"^( *)(Returns|Yields)\n\1-{6,7}\n(.*?)(?=^\1[A-Z][A-Za-z ]+\n\1-{3,}$|\Z)",
    re.MULTILINE | re.DOTALL,
)


class Docstrings(griffe.Extension):
    """Rewrites every docstring once the whole package is known."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called by griffe when the package is loaded."""
        _Rewriter(pkg).rewrite(pkg)


class _Rewriter:
    def __init__(self, package: griffe.Module) -> None:
        self.package = package
        self.homes: dict[str, list[str]] = {}  # where classes and functions of a name are defined
        self._find_homes(package)

    def _find_homes(self, module: griffe.Module) -> None:
        for name, member in module.members.items():
            if member.is_alias:
                continue
            if isinstance(member, griffe.Module):
                self._find_homes(member)
            else:
                self.homes.setdefault(name, []).append(member.path)

    def rewrite(self, thing: griffe.Object) -> None:
        """Put the docstring of ``thing``, and those of what it contains, into Markdown."""
        if thing.docstring is not None:
            text = _SECTION.sub(_sentence, thing.docstring.value)
            text = _TABLE.sub(_table, text)
            text = re.sub(r"^ *::\n\n", "", text, flags=re.MULTILINE)
            text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
            if not re.search(r"^ *Examples\n *---", text, re.MULTILINE):
                text = re.sub(r"\n\n(?=>>> )", "\n\nExamples\n--------\n", text, count=1)
            thing.docstring.value = _ROLE.sub(
                lambda role: self._link(role[2], thing, bool(role[1])), text
            )
        for parameter in getattr(thing, "parameters", ()):
            if str(parameter.annotation) == "Any":  # says nothing that the name does not
                parameter.annotation = None
        for member in thing.members.values():
            if not member.is_alias:
                self.rewrite(member)

    def _link(self, name: str, thing: griffe.Object, short: bool) -> str:
        """The name as code, with a link to where it is documented, if it is."""
        label = name.rpartition(".")[2] if short else name
        first, _, rest = name.partition(".")
        path = name if first == "oxidet" else self._resolve(first, thing)
        if path is None:
            if not hasattr(builtins, name):
                _log.warning(f"{thing.path}: the docstring names {name}, which is not known there")
            return f"`{label}`"
        if rest and first != "oxidet":
            path = f"{path}.{rest}"
        with contextlib.suppress(KeyError, griffe.AliasResolutionError):
            path = self.package[path.removeprefix("oxidet.")].canonical_path
        return f'<autoref optional identifier="{path}">`{label}`</autoref>'

    def _resolve(self, name: str, thing: griffe.Object) -> str | None:
        """The path of what ``name`` means where ``thing`` is defined."""
        scope: griffe.Object | None = thing
        while scope is not None:
            for owner in _classes(scope):
                if name in owner.members:
                    return owner.members[name].path
            scope = scope.parent
        with contextlib.suppress(griffe.NameResolutionError):
            return thing.resolve(name)
        homes = self.homes.get(name, [])
        return homes[0] if len(homes) == 1 else None


def _classes(scope: griffe.Object) -> list[griffe.Object]:
    """A scope, and if it is a class, those it inherits from."""
    return [scope, *scope.mro()] if isinstance(scope, griffe.Class) else [scope]


def _table(found: re.Match[str]) -> str:
    """A simple table of reStructuredText as one of Markdown."""
    indent, rule, body = found.groups()
    spans = [match.span() for match in re.finditer("=+", rule)]
    lines = [line.removeprefix(indent) for line in body.splitlines()]
    head = lines[: lines.index(rule)] if rule in lines else [""]
    rows = [*head, rule, *(lines[len(head) + 1 :] if rule in lines else lines)]
    ends = [start for start, _ in spans[1:]] + [None]
    out = []
    for row in rows:
        cells = (row[start:end].strip() for (start, _), end in zip(spans, ends, strict=True))
        out.append(f"{indent}| {' | '.join('---' if row is rule else cell for cell in cells)} |")
    return "\n".join(out)


def _sentence(found: re.Match[str]) -> str:
    """The section with its text as a description, not as the name of a type."""
    indent, title, body = found.groups()
    lines = body.rstrip().splitlines()
    if any(line.startswith(f"{indent} ") for line in lines):  # "name" or "type", then its text
        return found[0]
    text = "\n".join(f"    {line}" if line else "" for line in lines)
    return f"{indent}{title}\n{indent}{'-' * len(title)}\n{indent}:\n{text}\n\n"
