"""The table of primitives: an operation is declared once, in all its forms.

Called on arrays a primitive runs. Called on tensors it also records itself on the tape, if one of
them wants a gradient. Called on symbols it adds a node to a graph. Networks are written once, in
terms of primitives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from oxidet.nn.symbol import Symbol, trace_error
from oxidet.nn.tape import Node, is_grad_enabled
from oxidet.nn.tensor import Stored, Tensor
from oxidet.nn.watching import current_watcher

Array = NDArray[Any]


class Context:
    """What a forward pass saves for its backward pass, as attributes.

    ``needs_input_grad`` has one bool per positional input: a backward pass skips the work for
    gradients that nobody wants.
    """

    needs_input_grad: tuple[bool, ...]

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad

    @property
    def recording(self) -> bool:
        """Whether a backward pass may follow; if not, there is nothing to save."""
        return any(self.needs_input_grad)

    if TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        # Reached only for what the forward pass did not save.
        raise AttributeError(f"the forward pass saved no {name!r}")


class Primitive:
    """One differentiable operation.

    Parameters
    ----------
    name
        How the operation is called in messages.
    forward
        ``forward(ctx, *arrays, **static) -> array``. Positional inputs are arrays (or None, or
        Python numbers where the operation says so); keyword arguments are never differentiated.
    backward
        ``backward(ctx, grad) -> tuple`` with the gradient of each positional input, or None.
    graph
        ``graph(trace, *inputs, **static) -> Symbol`` adds what forward computes to the graph of a
        :class:`~oxidet.nn.trace.Trace`; inputs are symbols, parameters, buffers, None and numbers.
        Without it the primitive cannot be part of a compiled module.
    fresh_gradients
        Whether every array that ``backward`` returns is a new one, of which nobody else has any
        part: others may then add to it in place.
    """

    registry: ClassVar[dict[str, Primitive]] = {}

    def __init__(
        self,
        name: str,
        forward: Callable[..., Array],
        backward: Callable[[Context, Array], tuple[Array | None, ...]],
        graph: Callable[..., Symbol] | None = None,
        *,
        fresh_gradients: bool = False,
    ) -> None:
        if name in Primitive.registry:
            raise ValueError(f"name: expected a new primitive, got {name!r} a second time")
        self.name = name
        self.forward = forward
        self.backward = backward
        self.graph = graph
        self.fresh_gradients = fresh_gradients
        Primitive.registry[name] = self

    def __repr__(self) -> str:
        return f"Primitive({self.name!r})"

    def __call__(self, *inputs: Any, **static: Any) -> Any:
        """Run on arrays, run and record on tensors, or add a node to the graph of symbols.

        Returns an array if all inputs are arrays, parameters or buffers and nothing is recorded;
        a :class:`Symbol` if one of them is a symbol; else a :class:`Tensor`.
        """
        watcher = current_watcher.get()
        if watcher is not None:
            return watcher.operate(self.name, self._run, *inputs, **static)
        return self._run(*inputs, **static)

    def _run(self, *inputs: Any, **static: Any) -> Any:
        for x in inputs:
            if type(x) is Symbol:
                return self._add_node(x, inputs, static)
        arrays = [x._array if isinstance(x, Tensor) else x for x in inputs]
        if is_grad_enabled():
            needs = tuple(isinstance(x, Tensor) and x.requires_grad for x in inputs)
        else:
            needs = (False,) * len(inputs)
        context = Context(needs)
        result = self.forward(context, *arrays, **static)
        if context.recording:
            parents = tuple(x if need else None for x, need in zip(inputs, needs, strict=True))
            return Tensor._from_node(result, Node(self, context, parents))
        if any(isinstance(x, Tensor) and not isinstance(x, Stored) for x in inputs):
            return Tensor._wrap(result)
        return result

    def _add_node(self, symbol: Symbol, inputs: tuple[Any, ...], static: dict[str, Any]) -> Symbol:
        trace = symbol._trace
        trace.refuse_foreign(symbol)
        if self.graph is None:
            raise trace_error(f"the primitive {self.name!r} has no graph form")
        return self.graph(trace, *inputs, **static)
