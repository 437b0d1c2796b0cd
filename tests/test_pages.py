"""The Python examples of README and of the pages in docs run, in order and in one namespace a page,
and print what the page says; links lead somewhere, and the site's navigation lists every page.

A block that begins with the comment ``# with ...`` needs what the comment names (torch, a foreign
file, the network) and is only compiled.
"""

from __future__ import annotations

import contextlib
import io
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from conftest import ROOT

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PAGES += sorted(path.name for path in ROOT.glob("*.md"))
# A block of Python, and the text block that may follow it: its output.
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
EXAMPLES = {page: BLOCK.findall((ROOT / page).read_text("utf-8")) for page in PAGES}
# What the examples import besides oxidet and NumPy.
NEEDED = {
    "README.md": ["PIL", "sklearn"],
    "docs/conventions.md": ["PIL"],
    "docs/how-to/classify.md": ["sklearn"],
    "docs/how-to/detect.md": ["PIL", "sklearn"],
    "docs/how-to/export.md": ["onnx"],
    "docs/how-to/serve.md": ["sklearn"],
    "docs/how-to/train.md": ["PIL", "defusedxml", "sklearn"],
    "docs/onnx.md": ["onnx", "onnxruntime"],
    "docs/quickstart.md": ["PIL", "sklearn"],
    "docs/quickstart.zh.md": ["PIL", "sklearn"],
    "docs/training.md": ["sklearn"],
}
NUMBER = re.compile(r"\d+(?:\.(\d+))?")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def assert_same_output(got: str, expected: str, code: str) -> None:
    """Equal text; decimal fractions may differ by one in their last digit, as CPUs round apart."""
    assert NUMBER.sub("#", got) == NUMBER.sub("#", expected), f"after\n{code}"
    for a, b in zip(NUMBER.finditer(got), NUMBER.finditer(expected), strict=True):
        unit = 0 if b[1] is None else 10.0 ** -len(b[1])
        assert abs(float(a[0]) - float(b[0])) <= 1.01 * unit, f"{a[0]}, not {b[0]}, after\n{code}"


@pytest.mark.parametrize("page", [page for page in PAGES if EXAMPLES[page]])
def test_examples_print_what_they_say(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in NEEDED.get(page, []):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for code, expected in EXAMPLES[page]:
        compiled = compile(code, page, "exec")
        if code.startswith("# with "):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compiled, namespace)
        assert_same_output(printed.getvalue(), expected, code)


@cache
def _anchors(path: Path) -> set[str]:
    """What links may name in a page: its headings, as the site and hosts of repositories do."""
    anchors: set[str] = set()
    text = path.read_text("utf-8")
    anchors.update(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        explicit = re.search(r"\{ #(\S+) \}$", heading)
        words = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
        anchors.add(explicit[1] if explicit else words.replace(" ", "-"))
    return anchors


def _is_there(page: str, link: str) -> bool:
    target, _, anchor = link.partition("#")
    path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
    if not path.exists():
        return False
    return not anchor or path.suffix != ".md" or anchor in _anchors(path)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = LINK.findall((ROOT / page).read_text("utf-8"))
    inside = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert not [link for link in inside if not _is_there(page, link)]
    for link in set(links) - set(inside):
        parts = urlsplit(link)
        assert parts.scheme == "https", link
        assert "." in (parts.hostname or ""), link


def test_navigation_lists_every_page_once() -> None:
    listed = re.findall(r"[ :-] ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    assert sorted(listed) == sorted([*pages, "changelog.md", "contributing.md"])


def test_conventions_are_the_same_in_readme_and_on_the_site() -> None:
    tables = [
        re.search(
            r"^\| what \| convention \|\n(?:\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE
        )
        for page in ("README.md", "docs/conventions.md")
    ]
    assert tables[0] is not None
    assert tables[1] is not None
    assert tables[0][0] == tables[1][0]


def test_extras_are_those_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE)) - {
        "test",
        "parity",
        "docs",
        "lint",
    }
    page = (ROOT / "docs/install.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == extras


def test_commands_have_the_options_that_pages_give_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    from oxidet.cli import main

    monkeypatch.setenv("COLUMNS", "100")
    given: dict[str, dict[str, str]] = {}
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8").replace("\\\n", " ")
        inline = re.findall(r"`oxidet ([a-z][a-z-]*)\b([^`]*)`", text)
        lines = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL))
        shown = re.findall(r"^(?:\$ )?oxidet ([a-z][a-z-]*)\b([^|\n]*)", lines, re.MULTILINE)
        for command, rest in (*inline, *shown):
            options = re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", rest)
            given.setdefault(command, {}).update(dict.fromkeys(options, page))
    assert {"detect", "train", "check-data"} <= set(given)
    for command, options in given.items():
        assert main([command, "--help"]) == 0, (command, options)
        known = capsys.readouterr().out
        assert not {o: page for o, page in options.items() if not re.search(rf"{o}\b", known)}
