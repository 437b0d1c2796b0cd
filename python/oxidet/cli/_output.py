"""What the commands print: tables on stdout; progress, notes, warnings and errors on stderr.

A terminal gets colours, bars and tables that fit it. Anything else gets plain text in which
nothing is folded or cut off.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from oxidet._atomic import atomic_write

T = TypeVar("T")

UNLIMITED = 10_000  # columns of what is no terminal
NARROWEST = 76  # columns that the tables need
LONGEST = 600  # characters of an error's line
SECONDS_BETWEEN_LINES = 10.0  # of progress where there is no terminal


def console(stderr: bool = False) -> Console:
    """A console on the standard streams as they are now."""
    out = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out = Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=UNLIMITED)
    return out


def watched() -> bool:
    """Whether somebody would see progress: standard error is a terminal."""
    return console(stderr=True).is_terminal


def table(*columns: str, left: Iterable[str] = (), title: str | None = None) -> Table:
    """An empty table with headed columns, numbers right-aligned except in the columns ``left``."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    words = set(left)
    for column in columns:
        if column in words:
            made.add_column(column, overflow="fold")
        else:
            made.add_column(column, justify="right", no_wrap=True)
    return made


def grid() -> Table:
    """An empty table of names and values without head or lines."""
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    return made


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "image"), count(2, "image")
    ('1 image', '2 images')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def show(renderable: RenderableType, *, stderr: bool = False) -> None:
    """Print a table or the like; without the spaces that fill up its lines, unless in colour.

    In a terminal too narrow for a table, its lines go on in the next one rather than lose columns.
    """
    out = console(stderr)
    if out.is_terminal:
        if isinstance(renderable, Table) and renderable.show_header:
            out.width = max(out.width, NARROWEST)
        out.print(renderable)
        return
    with out.capture() as capture:
        out.print(renderable)
    print(*(line.rstrip() for line in capture.get().splitlines()), sep="\n", file=out.file)


def say(text: str = "", *, style: str = "", stderr: bool = False) -> None:
    """Print a line."""
    console(stderr).print(Text(text, style=style), soft_wrap=True)


def error(message: str) -> None:
    """Print one line on stderr that begins with ``error:``."""
    _labelled("error", "bold red", message)


def warning(message: str) -> None:
    """Print one line on stderr that begins with ``warning:``."""
    _labelled("warning", "yellow", message)


def note(message: str) -> None:
    """Print one line on stderr that begins with ``note:``."""
    _labelled("note", "cyan", message)


def _labelled(label: str, style: str, message: str) -> None:
    line = Text.assemble((f"{label}:", style), f" {one_line(message)}")
    console(stderr=True).print(line, soft_wrap=True)


def one_line(message: str) -> str:
    """A message without line breaks, not longer than a person reads."""
    line = printable(" ".join(message.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."


def printable(text: str | os.PathLike[str]) -> str:
    """Text, or a path, with control characters and undecodable bytes written as escapes.

    >>> printable("ok"), printable("a\\x1b[31m.png")
    ('ok', 'a\\\\x1b[31m.png')
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in os.fspath(text)
    )


def describe(problem: BaseException) -> str:
    """What an exception says, for a person who does not read tracebacks."""
    if isinstance(problem, OSError) and problem.strerror:
        name = problem.filename
        reason = problem.strerror
        return f"{os.fsdecode(name)}: {reason}" if isinstance(name, (str, bytes)) else reason
    from oxidet.data import ItemError

    if isinstance(problem, ItemError) and problem.__cause__ is not None:
        return describe(problem.__cause__)
    if isinstance(problem, MemoryError):
        return "not enough memory"
    if isinstance(problem, (ValueError, TypeError, ImportError, OSError, ArithmeticError)) and str(
        problem
    ):
        return str(problem)
    return f"{type(problem).__name__}: {problem} (--debug shows where)"


def json_text(content: Mapping[str, Any]) -> str:
    """JSON with a line for each entry, and for each item of a list of objects.

    >>> print(json_text({"a": [1, 2], "b": [{"c": 3}, {"c": 4}]}), end="")
    {
     "a": [1, 2],
     "b": [
      {"c": 3},
      {"c": 4}
     ]
    }
    """

    def text(value: Any) -> str:
        return json.dumps(value, allow_nan=False)

    entries = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n  ".join(text(item) for item in value)
            entries.append(f" {text(key)}: [\n  {items}\n ]")
        else:
            entries.append(f" {text(key)}: {text(value)}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def prepare_file(file: str | None) -> None:
    """Refuse, before there is a result to lose, a file that cannot be written."""
    if file is None or file == "-":
        return
    Path(file).resolve().parent.mkdir(parents=True, exist_ok=True)
    if Path(file).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)


def write_json(file: str, content: Mapping[str, Any]) -> None:
    """Write JSON to a file that appears whole or not at all, or, for ``"-"``, to stdout."""
    text = json_text(content)
    if file == "-":
        print(text, end="")
        return
    with atomic_write(file, "w") as stream:
        stream.write(text)


class Rate(ProgressColumn):
    """How many images a second."""

    def render(self, task: Task) -> Text:
        """Nothing until there is something to measure."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


class Counter:
    """How far something has come, how fast, and how long the rest takes: a bar in a terminal, which
    vanishes when done.

    ``shown=False`` shows nothing anywhere, ``True`` a line on stderr now and then where there is no
    terminal; the first one comes late enough that short work has none.
    """

    def __init__(
        self, total: int, description: str, done: int = 0, *, shown: bool | None = None
    ) -> None:
        self.total, self.description, self.done, self._before = total, description, done, done
        self._started = time.monotonic()
        self._next_line = self._started + SECONDS_BETWEEN_LINES
        out = console(stderr=True)
        self._lines = shown is True and not out.is_terminal
        self._bar = None
        if out.is_terminal and shown is not False:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                Rate(),
                TimeRemainingColumn(),
                console=out,
                transient=True,
            )
            self._task = self._bar.add_task(description, total=total, completed=done)

    def __enter__(self) -> Counter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self) -> None:
        """One more is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.advance(self._task)
            return
        now = time.monotonic()
        if self._lines and now >= self._next_line and self.done < self.total:
            from oxidet.train.progress import duration

            self._next_line = now + SECONDS_BETWEEN_LINES
            rate = (self.done - self._before) / (now - self._started)
            left = duration((self.total - self.done) / rate)
            say(
                f"{self.description} {self.done}/{self.total}, {rate:.1f}/s, {left} left",
                stderr=True,
            )


def track(items: Sequence[T], description: str) -> Iterator[T]:
    """The items, with progress shown while they are taken."""
    with Counter(len(items), description) as counter:
        for item in items:
            yield item
            counter.step()
