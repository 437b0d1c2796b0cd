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
    """One recorded operation: the primitive, what it saved, and the tensors it was given.

    An operation with several results has ``outputs`` of them; its gradients are computed from a
    list with the gradient of each, or None for those that nothing was computed from.
    """

    number: int
    primitive: Primitive
    outputs: int | None
    versions: list[int | None]
    parents: tuple[Tensor | None, ...]

    __slots__ = ("context", "number", "outputs", "parents", "primitive", "versions")

    def __init__(
        self,
        primitive: Primitive,
        context: Context,
        parents: tuple[Tensor | None, ...],
        outputs: int | None = None,
    ) -> None:
        self.number = next(_numbers)
        self.primitive = primitive
        self.context: Context | None = context
        self.parents = parents
        self.outputs = outputs
        self.versions = _versions(parents)

    def gradients(self, grad: Any) -> tuple[NDArray[Any] | None, ...]:
        """Gradients of the parents from the gradient of the result, or of each of the results."""
        if self.context is None:
            raise RuntimeError(
                f"backward: the tape behind this {self.primitive.name} was already used and "
                "freed; pass retain_graph=True to the first backward to keep it"
            )
        if _versions(self.parents) != self.versions:
            raise RuntimeError(
                f"backward: a parameter of this {self.primitive.name} was written to after the "
                "call that used it, whose gradient would come out wrong; call the module again"
            )
        return self.primitive.backward(self.context, grad)

    def free(self) -> None:
        """Let go of saved activations and of the tensors further back."""
        self.context = None
        self.parents = ()


def _versions(tensors: tuple[Tensor | None, ...]) -> list[int | None]:
    """How often each of some tensors was written; None of those that never are."""
    return [getattr(tensor, "version", None) for tensor in tensors]


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
    pending = _Pending()
    pending.add(root, grad, fresh=False)
    while (node := pending.next()) is not None:
        if node.context is not None:
            node.context.keep = retain_graph
        fresh = node.primitive.fresh_gradients and gradients is Node.gradients
        passed = gradients(node, pending.pop(node))
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
            else:
                pending.add(parent, gradient, fresh)
        if not retain_graph:
            node.free()


class _Pending:
    """Gradients that have arrived at nodes, and the order in which to go through these."""

    def __init__(self) -> None:
        self._gradients: dict[int, list[NDArray[Any] | None]] = {}
        # Which of them nobody else has, as node and output.
        self._ours: set[tuple[int, int]] = set()
        self._heap: list[tuple[int, Node]] = []

    def add(self, tensor: Tensor, gradient: NDArray[Any], fresh: bool) -> None:
        """Add to the gradient of a node's result; ``fresh`` if nobody else has the array."""
        node, output = tensor._node, tensor._output
        assert node is not None
        arrived = self._gradients.get(node.number)
        if arrived is None:
            arrived = self._gradients[node.number] = [None] * (node.outputs or 1)
            heapq.heappush(self._heap, (-node.number, node))
        before, place = arrived[output], (node.number, output)
        if before is None:
            arrived[output] = gradient
            if fresh:
                self._ours.add(place)
        elif place in self._ours:
            add_to(before, gradient)
        else:
            arrived[output] = np.asarray(before + gradient)
            self._ours.add(place)

    def next(self) -> Node | None:
        """The latest node reached so far; None at the end."""
        return heapq.heappop(self._heap)[1] if self._heap else None

    def pop(self, node: Node) -> Any:
        """What arrived at a node, as its ``gradients`` takes it."""
        arrived = self._gradients.pop(node.number)
        return arrived[0] if node.outputs is None else arrived
