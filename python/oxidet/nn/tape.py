"""The tape: what was computed from what, and walking it backwards.

Every recorded operation is a :class:`Node` that points at the tensors it was computed from. Nodes
are numbered in the order they were made, and an operation can only use what exists, so going
through them by descending number is a topological order: a heap of the nodes reached so far is all
that ``backward`` needs, however deep the network.
"""

from __future__ import annotations

import contextlib
import contextvars
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet.nn._memory import add_to

if TYPE_CHECKING:
    from oxidet.nn.primitive import Context, Primitive
    from oxidet.nn.tensor import Tensor

_numbers = itertools.count()
_recording: contextvars.ContextVar[bool] = contextvars.ContextVar("recording", default=True)


def is_grad_enabled() -> bool:
    """Whether operations on tensors are recorded."""
    return _recording.get()


@contextlib.contextmanager
def set_grad_enabled(mode: bool) -> Iterator[None]:
    """Record operations, or do not, inside a ``with`` block (of this thread)."""
    token = _recording.set(bool(mode))
    try:
        yield
    finally:
        _recording.reset(token)


def no_grad() -> contextlib.AbstractContextManager[None]:
    """Do not record operations inside a ``with`` block: ``with no_grad(): ...``.

    >>> from oxidet import nn
    >>> x = nn.Tensor([1.0], requires_grad=True)
    >>> with nn.no_grad():
    ...     (x * 2).requires_grad
    False
    """
    return set_grad_enabled(False)


class Node:
    """One recorded operation: the primitive, what it saved, and the tensors it was given."""

    __slots__ = ("context", "number", "parents", "primitive")

    def __init__(
        self, primitive: Primitive, context: Context, parents: tuple[Tensor | None, ...]
    ) -> None:
        self.number = next(_numbers)
        self.primitive = primitive
        self.context: Context | None = context
        self.parents = parents

    def gradients(self, grad: NDArray[Any]) -> tuple[NDArray[Any] | None, ...]:
        """Gradients of the parents from the gradient of the result."""
        if self.context is None:
            raise RuntimeError(
                f"backward: the tape behind this {self.primitive.name} was already used and "
                "freed; pass retain_graph=True to the first backward to keep it"
            )
        return self.primitive.backward(self.context, grad)

    def free(self) -> None:
        """Let go of saved activations and of the tensors further back."""
        self.context = None
        self.parents = ()


#: The gradients of a node's parents from that of its result; another rule than the node's own.
Rule = Callable[[Node, NDArray[Any]], "tuple[NDArray[Any] | None, ...]"]


def backward(root: Tensor, grad: NDArray[Any], retain_graph: bool) -> None:
    """Add the gradient of ``root``, weighted by ``grad``, to every leaf that asks for one.

    Activations are freed as soon as their node has been used, unless ``retain_graph``.
    """
    _walk(
        root, grad, Node.gradients, lambda leaf, g, fresh: leaf._accumulate(g, fresh), retain_graph
    )


def pull_back(
    root: Tensor, grad: NDArray[Any], leaf: Tensor, rules: Mapping[str, Rule]
) -> NDArray[Any]:
    """What arrives at ``leaf`` if ``grad`` goes from ``root`` back through the tape.

    Unlike in :func:`backward`, nothing is added to any tensor's ``grad`` and no gradient of another
    leaf is computed; primitives named in ``rules`` hand back what their rule says. With no rules,
    that is the gradient. The tape is freed on the way.
    """
    arrived = np.zeros(leaf.shape, np.float32)

    def gradients(node: Node, grad: NDArray[Any]) -> tuple[NDArray[Any] | None, ...]:
        if node.context is not None:
            node.context.needs_input_grad = tuple(
                parent is not None and (parent is leaf or parent._node is not None)
                for parent in node.parents
            )
        return rules.get(node.primitive.name, Node.gradients)(node, grad)

    def deliver(tensor: Tensor, gradient: NDArray[Any], _: bool) -> None:
        nonlocal arrived
        if tensor is leaf:
            arrived = np.asarray(arrived + gradient)

    _walk(root, grad, gradients, deliver, retain_graph=False)
    return arrived


def _walk(
    root: Tensor,
    grad: NDArray[Any],
    gradients: Rule,
    deliver: Callable[[Tensor, NDArray[Any], bool], None],
    retain_graph: bool,
) -> None:
    """Go back from ``root``: through each node by ``gradients``, and out at the leaves.

    ``deliver`` is told whether the gradient is an array that nobody else has.
    """
    if root._node is None:
        deliver(root, grad, False)
        return
    pending: dict[int, NDArray[Any]] = {root._node.number: grad}
    # Those of the pending that nobody else has.
    ours: set[int] = set()
    heap: list[tuple[int, Node]] = [(-root._node.number, root._node)]
    while heap:
        _, node = heapq.heappop(heap)
        fresh = node.primitive.fresh_gradients and gradients is Node.gradients
        passed = gradients(node, pending.pop(node.number))
        for parent, gradient in zip(node.parents, passed, strict=True):
            if parent is None or not parent.requires_grad or gradient is None:
                continue
            if gradient.shape != parent.shape:
                raise RuntimeError(
                    f"this is a bug in oxidet: {node.primitive.name} returned a gradient of shape "
                    f"{gradient.shape} for an input of shape {parent.shape}"
                )
            if parent._node is None:
                deliver(parent, gradient, fresh)
                continue
            number = parent._node.number
            if number not in pending:
                pending[number] = gradient
                heapq.heappush(heap, (-number, parent._node))
                if fresh:
                    ours.add(number)
            elif number in ours:
                add_to(pending[number], gradient)
            else:
                pending[number] = np.asarray(pending[number] + gradient)
                ours.add(number)
        if not retain_graph:
            node.free()
