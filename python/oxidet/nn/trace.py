"""Tracing: running a module's ``forward`` on symbols, which writes down a graph.

A :class:`Trace` is what primitives talk to while that happens. It knows which layer is running, so
that nodes have names, and remembers every parameter and buffer that went into the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from oxidet import _core
from oxidet._arrays import vector
from oxidet.nn import _error_layer, tape
from oxidet.nn.symbol import BatchSize, Symbol, current_trace, trace_error
from oxidet.nn.tensor import Stored

if TYPE_CHECKING:
    from oxidet.nn.module import Module
    from oxidet.nn.normalization import BatchNorm2d


class Trace:
    """A graph while it is written, by calling a method of ``owner`` on symbols."""

    builder: _core.GraphBuilder
    batch: BatchSize

    def __init__(self, owner: Module) -> None:
        self.builder = _core.GraphBuilder()
        self.batch = BatchSize()
        # Parameters and buffers in the graph that the owner does not hold, and modules called that
        # are not below it (such as those in a plain list), with their state before they were used.
        self.stored: dict[Stored, int] = {}
        self.modules: dict[Module, tuple[int, bool]] = {}
        self._paths = {module: path for path, module in owner.named_modules()}
        self._known = {entry for _, entry, _ in owner._named_state()}
        self._running: list[Module] = [owner]

    # --- called by modules

    def run(
        self, function: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Call a method of the owner on symbols."""
        token = current_trace.set(self)
        try:
            with tape.no_grad():
                return function(*inputs, **options)
        finally:
            current_trace.reset(token)

    def call(self, module: Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call a module inside the owner."""
        if module not in self._paths:
            self._paths[module] = type(module).__name__
            for below in module.modules():
                self.modules.setdefault(below, (below._structure, below.training))
        self._running.append(module)
        try:
            return module.forward(*inputs, **options)
        except ValueError as error:
            _error_layer.sign(error, module)
            raise
        finally:
            self._running.pop()

    def refuse_assignment(self, module: Module, name: str) -> None:
        """Raise a TraceError if ``module`` belongs to what is traced."""
        if module in self._paths:
            raise trace_error(
                f"forward assigns {name!r} of a {type(module).__name__}, which would happen when "
                "a plan is made and not when it runs"
            )

    def refuse_write(self, entry: Stored) -> None:
        """Raise a TraceError if ``entry`` belongs to what is traced."""
        if entry in self._known or entry in self.stored:
            raise trace_error(
                "forward writes to a parameter or buffer, which would happen when a plan is made "
                "and not when it runs"
            )

    # --- called by primitives

    def layer(self) -> str:
        """Dotted path of the layer that runs; empty in the owner itself."""
        return self._paths[self._running[-1]]

    def name(self, operation: str) -> str:
        """A name for a node: the path of its layer, with the operation if that has parts."""
        module, path = self._running[-1], self.layer()
        if not path:
            return operation
        return f"{path}.{operation}" if module._modules else path

    def input(self, shape: tuple[int, ...]) -> Symbol:
        """A new input of the graph; ``shape`` is (C, H, W) or (F,)."""
        return self.symbol(self.builder.input(shape))

    def symbol(self, value: int) -> Symbol:
        """The symbol of a value of the graph."""
        return Symbol(self, value, (self.batch, *self.builder.shape(value)))

    def value(self, symbol: Any, argument: str, ndim: int | None = None, form: str = "") -> int:
        """The graph's value behind a symbol, which has ``ndim`` axes."""
        if not isinstance(symbol, Symbol):
            self.refuse_constant(symbol, argument)
        self.refuse_foreign(symbol)
        if ndim is not None and symbol.ndim != ndim:
            raise ValueError(
                f"{argument}: expected {ndim} dimensions {form}, got shape {symbol.shape}"
            )
        return symbol._value

    def refuse_foreign(self, symbol: Symbol) -> None:
        """Raise for a symbol of a trace that is over, or of another one."""
        if symbol._trace is not self or current_trace.get() is not self:
            raise trace_error("this symbol was left behind by another call of a forward")

    def image(self, symbol: Any, argument: str = "input") -> int:
        """The value behind a symbol of shape (N, C, H, W)."""
        return self.value(symbol, argument, 4, "(N, C, H, W)")

    def constant(self, value: Any, argument: str) -> tuple[Any, tuple[int, int]]:
        """The values of a parameter, buffer or None, and what identifies them."""
        if value is None:
            return None, (0, 0)
        if not isinstance(value, Stored):
            self.refuse_constant(value, argument)
        version = value.version  # before the values are read
        self.stored.setdefault(value, version)
        return value.data, (value.serial, version)

    def vector(self, value: Any, argument: str, length: int) -> tuple[Any, tuple[int, int]]:
        """Like :meth:`constant`, as float32 of shape ``(length,)``."""
        array, key = self.constant(value, argument)
        return None if array is None else vector(array, argument, length), key

    def number(self, value: Any) -> float | None:
        """A Python or NumPy number, or that in a parameter or buffer of one element; else None."""
        if isinstance(value, (int, float, np.number)):
            return float(value)
        if isinstance(value, Stored) and value.numel() == 1:
            array, _ = self.constant(value, "other")
            return float(array.item())
        return None

    def channels(self, value: Any, symbol: Any) -> tuple[Any, tuple[int, int]] | None:
        """The values of a parameter or buffer with one for each channel of ``symbol``, else None.

        Its shape is (1, C, 1, 1) or (C, 1, 1) beside an image, (1, F) or (F,) beside rows.
        """
        if not isinstance(value, Stored) or not isinstance(symbol, Symbol):
            return None
        shape = (1, symbol.shape[1]) + (1,) * (symbol.ndim - 2)
        if value.shape not in (shape, shape[1:]):
            raise trace_error(
                f"a {type(value).__name__} of shape {value.shape} beside a symbol of shape "
                f"{symbol.shape}; a plan can only combine it with a number or with one value for "
                f"each channel, of shape {shape}"
            )
        array, key = self.constant(value, "other")
        return np.ascontiguousarray(array, np.float32).reshape(-1), key

    # --- what differs in training; see oxidet.nn.training_plans

    def batch_statistics(self, layer: BatchNorm2d, input: Symbol) -> Symbol:
        """Batch norm by the statistics of the batch."""
        raise trace_error("batch norm by the statistics of the batch, which mixes its images")

    def fixed_statistics(self, layer: BatchNorm2d, input: Symbol) -> Symbol | None:
        """Batch norm by running statistics, if its factors are trained; None if not."""
        return None

    def random_drop(self, input: Any, p: float, channels: bool) -> Symbol:
        """Dropout of elements, or of whole channels."""
        raise trace_error("dropout in training, which differs from call to call")

    def refuse_constant(self, value: Any, argument: str) -> NoReturn:
        """Raise for something that a graph cannot hold because nobody could tell it changed."""
        raise trace_error(
            f"{argument}: expected a symbol, Parameter or Buffer, got {type(value).__name__}, "
            "whose changes a plan would not notice",
            "register it with register_buffer, or set compiled = False on the module",
        )
