"""Showing how far something long has come: a bar where there is tqdm, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from oxidet._bars import new_bar

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BEFORE_FIRST_LINE = 1.0
# Short enough that the losses fit beside it.
BAR = "{desc} |{bar:8}| {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left{postfix}"


class Progress:
    """Counts steps towards ``total`` and shows them on standard error.

    With tqdm (extra ``notebook``) and a terminal or notebook to draw on, this is a tqdm bar, in a
    notebook one of widgets; otherwise a plain line every few seconds, which reads well in a file
    too.

    Parameters
    ----------
    total
        Number of steps; None if nobody knows.
    description
        What is being done.
    initial
        Steps that were done before.
    unit
        What one step is, for the rate.
    leave
        Keep the bar on the screen when it is full.
    quiet
        Show nothing.

    Examples
    --------
    >>> with Progress(2, "counting", quiet=True) as progress:
    ...     for _ in range(2):
    ...         progress.step({"loss": 0.5})
    """

    done: int
    description: str

    def __init__(
        self,
        total: int | None,
        description: str,
        *,
        initial: int = 0,
        unit: str = "it",
        leave: bool = True,
        quiet: bool = False,
    ) -> None:
        self.total = total
        self.description = description
        self.unit = unit
        self.done = self._initial = initial
        self._quiet = quiet
        self._started = time.monotonic()
        self._next_line = self._started + SECONDS_BEFORE_FIRST_LINE
        self._written = False
        self._bar = new_bar(
            False if quiet else None,
            text_format=BAR,
            total=total,
            desc=description,
            initial=initial,
            unit=unit,
            leave=leave,
            dynamic_ncols=True,
        )

    def step(
        self, values: Mapping[str, float] | None = None, description: str | None = None
    ) -> None:
        """One step is done; show ``values`` beside it."""
        self.done += 1
        if description is not None:
            self.description = description
        if self._bar is not None:
            if description is not None:
                self._bar.set_description(description, refresh=False)
            if values:
                self._bar.set_postfix_str(_show(values), refresh=False)
            self._bar.update(1)
        elif not self._quiet:
            now = time.monotonic()
            finished = self.done == self.total and self._written
            if now >= self._next_line or finished:
                self._next_line = now + SECONDS_BETWEEN_LINES
                self._written = True
                print(self._line(now, values or {}), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _line(self, now: float, values: Mapping[str, float]) -> str:
        rate = (self.done - self._initial) / max(now - self._started, 1e-9)
        parts = [f"{self.description}: {self.done}", f"{rate:.3g} {self.unit}/s"]
        if self.total is not None:
            parts[0] += f"/{self.total}"
            parts.append(f"{duration((self.total - self.done) / max(rate, 1e-9))} left")
        return ", ".join(parts + ([_show(values)] if values else []))


def duration(seconds: float) -> str:
    """A length of time for people: ``"45 s"``, ``"3:05"``, ``"2:10:09"``.

    >>> duration(45), duration(185), duration(7809)
    ('45 s', '3:05', '2:10:09')
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}" if minutes else f"{whole} s"


def _show(values: Mapping[str, float]) -> str:
    """Losses without the word, their total first: what matters most, should the line be cut."""
    shown = sorted(values.items(), key=lambda item: not item[0].startswith("total"))
    return " ".join(
        f"{name.removesuffix('_loss').removeprefix('loss_')}={value:.2g}" for name, value in shown
    )
