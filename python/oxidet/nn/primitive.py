"""The table of primitives: an operation is declared once, with its forward and its backward.

Called on arrays a primitive runs. Called on tensors it also records itself on the tape, if one of
them wants a gradient. Networks are written once, in terms of primitives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from oxidet.nn.tape import Node, is_grad_enabled
from oxidet.nn.tensor import Stored, Tensor

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
    """

    registry: ClassVar[dict[str, Primitive]] = {}

    def __init__(
        self,
        name: str,
        forward: Callable[..., Array],
        backward: Callable[[Context, Array], tuple[Array | None, ...]],
    ) -> None:
        if name in Primitive.registry:
            raise ValueError(f"name: expected a new primitive, got {name!r} a second time")
        self.name = name
        self.forward = forward
        self.backward = backward
        Primitive.registry[name] = self

    def __repr__(self) -> str:
        return f"Primitive({self.name!r})"

    def __call__(self, *inputs: Any, **static: Any) -> Any:
        """Run on arrays, or run and record on tensors.

        Returns an array if all inputs are arrays, parameters or buffers and nothing is recorded;
        else a :class:`Tensor`.
        """
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
