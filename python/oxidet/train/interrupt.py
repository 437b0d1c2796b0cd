"""Ctrl-C that waits for a safe moment."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


class SafeInterrupt:
    """Inside this block, Ctrl-C does not tear apart what :meth:`hold` encloses.

    An interrupt that comes while held raises KeyboardInterrupt when the hold ends; a second one
    raises at once and leaves :attr:`torn` True. Elsewhere in the block, and in threads other than
    the main one (which receive no signals), everything is as usual. A process that ignores Ctrl-C,
    such as one that a script started in the background, goes on ignoring it.

    >>> with SafeInterrupt() as interrupt:
    ...     with interrupt.hold():
    ...         pass  # a training step: all of it, or none
    """

    torn: bool

    def __init__(self) -> None:
        self.torn = False
        self._held = False
        self._pending = False
        self._previous: Any = None

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Put off an interrupt until this block ends."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._held and not self._pending:
            self._pending = True
            return
        self.torn = self.torn or self._held
        if callable(self._previous):
            self._previous(number, frame)

    def __enter__(self) -> SafeInterrupt:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and callable(signal.getsignal(signal.SIGINT)):
            self._previous = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
