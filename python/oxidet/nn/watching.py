"""Watching a module run: which modules and operations it calls, and what they return.

A :class:`Watcher` sees arrays, tensors or symbols, whichever the module runs on, so what it finds
by name is the same value in a plan, in training and in a recording.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oxidet.nn.module import Module

#: The watcher of this thread (or task), if any.
current_watcher: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar(
    "watcher", default=None
)

# Packages whose modules without children are single operations.
_LAYERS = ("oxidet.nn.", "oxidet.ops.")


class _Stop(BaseException):
    """Ends a forward whose rest nobody wants; no Exception, so that no forward swallows it."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.watcher = watcher


class Watcher:
    """Names every value that comes up while a module runs, and passes it to :meth:`returned`.

    A module's result has the dotted path of the module; an operation's in the forward of a module
    is named by both, as in ``layer1.0.add``. The second value of a name gets ``_1``, the third
    ``_2``. Operations inside a single layer, such as the product in a ``Linear``, have no name.
    """

    def __init__(self, root: Module) -> None:
        self._paths = {module: path for path, module in root.named_modules()}
        self._running: list[Module] = [root]
        self._counts: Counter[str] = Counter()
        self._outer: Watcher | None = None

    def returned(self, name: str, value: Any) -> None:
        """Called with each value in turn; a subclass does something with it."""

    def stop(self) -> None:
        """End the forward that is watched here and now."""
        raise _Stop(self)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what this thread runs inside a ``with`` block, which :meth:`stop` leaves."""
        self._outer = current_watcher.get()
        token = current_watcher.set(self)
        try:
            yield
        except _Stop as stop:
            if stop.watcher is not self:
                raise
        finally:
            current_watcher.reset(token)

    # --- called by modules and primitives

    def call(self, module: Module, run: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        """Run a module."""
        self._running.append(module)
        try:
            if self._outer is None:
                result = run(*inputs, **options)
            else:
                result = self._outer.call(module, run, *inputs, **options)
        finally:
            self._running.pop()
        if self._paths.get(module):
            self._name(self._paths[module], result)
        return result

    def operate(self, name: str, run: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        """Run an operation."""
        if self._outer is None:
            result = run(*inputs, **options)
        else:
            result = self._outer.operate(name, run, *inputs, **options)
        module = self._running[-1]
        path = self._paths.get(module)
        if path is not None and not is_layer(module):
            operation = operation_name(name, options)
            self._name(f"{path}.{operation}" if path else operation, result)
        return result

    def _name(self, name: str, value: Any) -> None:
        count = self._counts[name]
        self._counts[name] += 1
        self.returned(f"{name}_{count}" if count else name, value)


def is_layer(module: Module) -> bool:
    """Whether a module is a single operation of this package."""
    return not module._modules and type(module).__module__.startswith(_LAYERS)


def operation_name(primitive: str, options: dict[str, Any]) -> str:
    """What people call a primitive.

    >>> operation_name("reshape", {"shape": (2, 3)}), operation_name("sum", {"mean": True})
    ('flatten', 'mean')
    """
    if primitive == "reshape":
        return "flatten"
    return "mean" if primitive == "sum" and options.get("mean") else primitive
