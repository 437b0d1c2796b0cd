"""How ``--help`` looks, and which module each command is in.

``oxidet --help`` lists the commands without importing them: typer is all it needs. A command is
imported when it is run, completed, or asked for its own help.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

WIDEST = 100  # columns; longer lines are hard to read
NARROWEST = 40
NAMES = 26  # columns; the text of a longer name starts a line lower
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
ARGUMENTS, OPTIONS = "Arguments", "Options"  # the groups of what names none

Row = tuple[str, str]


class Entry(NamedTuple):
    """Where a command is, and what it does in a few words."""

    module: str
    function: str
    summary: str


GROUPS = {
    "Find objects": {
        "detect": Entry("detect", "detect", "Detect objects in images."),
        "demo": Entry("demo", "demo", "Detect handwritten digits, and show how well."),
    },
    "Train a detector": {
        "check-data": Entry("check_data", "check", "Look for what is wrong with labelled images."),
        "train": Entry("train", "train", "Train a detector on labelled images."),
        "eval": Entry("evaluate", "evaluate", "Measure a detector's average precision."),
    },
    "Files and machine": {
        "convert": Entry("convert", "convert", "Convert weights of other projects."),
        "info": Entry("info", "info", "Describe this installation or a weight file."),
    },
}
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}

EXAMPLES = """\
oxidet demo
oxidet detect photo.jpg --weights digits --save-images found
oxidet detect photos/ --weights run/best.npz --json found.json
oxidet train --data cells/ --out run"""


class Page:
    """Lines of help that fit the terminal, with headings that stand out in one."""

    def __init__(self) -> None:
        self.width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._bold = sys.stdout.isatty() and not plain
        self._lines: list[str] = []

    def usage(self, text: str) -> None:
        """The first line."""
        head = "Usage: "
        lines = self._wrapped(text, self.width - len(head))
        self._lines += [(head if n == 0 else " " * len(head)) + s for n, s in enumerate(lines)]

    def text(self, text: str) -> None:
        """Paragraphs; one that begins with a line ``\\b`` is kept as it is."""
        for paragraph in inspect.cleandoc(text).split("\n\n"):
            self._lines.append("")
            first, _, rest = paragraph.partition("\n")
            if first.strip() != "\b":
                self._lines += textwrap.wrap(paragraph, self.width, break_on_hyphens=False)
                continue
            for line in rest.split("\n"):
                heading = not line.startswith(" ") and line.endswith(":")
                self._lines.append(self._headed(line) if heading else line)

    def sections(self, sections: Mapping[str, Sequence[Row]]) -> None:
        """Headings, and under them names with what they mean, in the same columns everywhere."""
        names = [name for rows in sections.values() for name, _ in rows]
        column = max(len(name) for name in names if len(name) <= NAMES)
        indent = " " * (column + 4)
        for title, rows in sections.items():
            self._lines += ["", self._headed(f"{title}:")]
            for name, text in rows:
                lines = self._wrapped(text, self.width - len(indent))
                if len(name) > column or not lines:
                    self._lines.append(f"  {name}")
                else:
                    self._lines.append(f"  {name:{column}}  {lines.pop(0)}")
                self._lines += [indent + line for line in lines]

    def _wrapped(self, text: str, width: int) -> list[str]:
        """Lines; what is in brackets, such as a default, stays together."""
        kept = re.sub(r"\[[^]]*\]", lambda match: match[0].replace(" ", "\xa0"), text)
        lines = textwrap.wrap(kept, width, break_on_hyphens=False)
        return [line.replace("\xa0", " ") for line in lines]

    def _headed(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self._bold else text

    def __str__(self) -> str:
        return "\n".join(self._lines)


def option_row(option: Any) -> Row:
    """An option's spellings with its value, and its text with the default."""
    long_last = sorted(option.opts, key=lambda name: name.startswith("--"))
    names = ", ".join(long_last)
    if option.secondary_opts:
        names = ", ".join(filter(str.strip, [*option.opts, *option.secondary_opts]))
    elif not option.is_flag:
        names += f" {option.metavar or 'VALUE'}"
    text = option.help or ""
    default = option.default.value if isinstance(option.default, Enum) else option.default
    if option.required:
        text += " [required]"
    elif not option.is_flag and option.show_default and default not in (None, "", ()):
        text += f" [default: {default}]"
    return names, text.strip()


def _sections(params: Sequence[Any]) -> dict[str, list[Row]]:
    """Arguments and options by the groups that they name; options that name none come last."""
    sections: dict[str, list[Row]] = {}
    for param in params:
        if param.hidden:
            continue
        group = getattr(param, "rich_help_panel", None)
        if param.param_type_name == "argument":
            row = (param.metavar, param.help or "")
            sections.setdefault(group or ARGUMENTS, []).append(row)
        else:
            sections.setdefault(group or OPTIONS, []).append(option_row(param))
    rest = sections.pop(OPTIONS, [])
    grouped = set(sections) - {ARGUMENTS}
    return {**sections, ("Other options" if grouped else OPTIONS): rest}


def _usage(params: Sequence[Any]) -> list[str]:
    """What a command needs, as in the first line of the help."""
    words = []
    for param in params:
        if param.param_type_name == "argument":
            word = param.metavar + ("..." if param.nargs != 1 else "")
            words.append(word if param.required else f"[{word}]")
        elif param.required:
            words.append(f"{param.opts[0]} {param.metavar}")
    return words


class Command(TyperCommand):
    """A command whose help has its options in groups and its examples last."""

    def get_help(self, ctx: Any) -> str:
        """The page."""
        page = Page()
        params: Sequence[Any] = self.get_params(ctx)
        page.usage(" ".join([ctx.command_path, *_usage(params), "[OPTIONS]"]))
        text, mark, examples = (self.help or "").partition("\b\n")
        page.text(text)
        page.sections(_sections(params))
        if mark:
            page.text(mark + examples)
        return str(page)


class Commands(TyperGroup):
    """All commands. Those in ``commands`` stand for the real ones until one is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is named, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest

    def get_help(self, ctx: Any) -> str:
        """The page."""
        page = Page()
        page.usage(f"{ctx.command_path} COMMAND [OPTIONS]")
        page.text(self.help or "")
        groups = {
            title: [(name, entry.summary) for name, entry in commands.items()]
            for title, commands in GROUPS.items()
        }
        page.sections(groups)
        page.sections(_sections(self.get_params(ctx)))
        page.text("\b\nExamples:\n" + textwrap.indent(EXAMPLES, "  "))
        page.text(f"'{ctx.command_path} COMMAND --help' explains a command.")
        return str(page)


def load(name: str) -> Any:
    """Import a command."""
    entry = COMMANDS[name]
    function = getattr(importlib.import_module(f"oxidet.cli.{entry.module}"), entry.function)
    app = typer.Typer(rich_markup_mode=None, add_completion=False, context_settings=SETTINGS)
    app.command(name, cls=Command)(function)
    return typer.main.get_command(app)
