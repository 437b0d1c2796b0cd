"""Layers without state: activations, dropout, joining, flattening, and one that does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oxidet._arrays import integer, number
from oxidet.nn import _activation, _arithmetic
from oxidet.nn.module import Module


class Identity(Module):
    """Returns its input; takes and ignores any arguments, so that it can stand for any layer."""

    _mode_matters = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """The input itself."""
        return input


class ReLU(Module):
    """``max(x, 0)``. ``inplace`` is printed, and changes nothing: arrays are values here."""

    _mode_matters = False

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Any shape; the same out."""
        return _activation.relu(input)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return "inplace=True" if self.inplace else ""


class Tanh(Module):
    """Hyperbolic tangent."""

    _mode_matters = False

    def forward(self, input: Any) -> Any:
        """Any shape; the same out."""
        return _activation.tanh(input)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    _mode_matters = False

    def forward(self, input: Any) -> Any:
        """Any shape; the same out."""
        return _activation.sigmoid(input)


class Softmax(Module):
    """Softmax along axis ``dim``; see ``functional.softmax``."""

    _mode_matters = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        """Any shape; the same out."""
        return _activation.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """Log-softmax along axis ``dim``; see ``functional.log_softmax``."""

    _mode_matters = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        """Any shape; the same out."""
        return _activation.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"dim={self.dim}"


class Dropout(Module):
    """In training, zeros with probability ``p`` and scales the rest; see ``functional.dropout``."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        number(p, "p", 0, 1)
        self.p = p
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """Any shape; the same out. In evaluation the input itself."""
        return _activation.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout2d(Module):
    """In training, zeros whole channels; see ``functional.dropout2d``."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        number(p, "p", 0, 1)
        self.p = p
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        """(N, C, H, W); the same out. In evaluation the input itself."""
        return _activation.dropout2d(input, self.p, self.training)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"p={self.p}, inplace={self.inplace}"


class Concat(Module):
    """Joins a list of inputs along axis ``dim``: ``functional.cat`` as a layer.

    torch has no such module; with this one, branches that meet can be part of a Sequential, and
    are visible in ``print(model)``.

    >>> import numpy as np
    >>> from oxidet import nn
    >>> nn.Concat()([np.zeros((2, 3, 4, 4)), np.ones((2, 5, 4, 4))]).shape
    (2, 8, 4, 4)
    """

    dim: int

    _mode_matters = False

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = integer(dim, "dim")

    def forward(self, inputs: Sequence[Any]) -> Any:
        """A list or tuple of (N, C_i, H, W) -> (N, sum of C_i, H, W)."""
        if not isinstance(inputs, (list, tuple)):
            raise TypeError(
                f"inputs: expected a list or tuple of arrays, got {type(inputs).__name__}"
            )
        return _arithmetic.cat(inputs, self.dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class Flatten(Module):
    """Joins the axes from ``start_dim`` to ``end_dim`` into one, in C, H, W order.

    >>> import numpy as np
    >>> from oxidet import nn
    >>> nn.Flatten()(np.zeros((2, 3, 4, 4))).shape
    (2, 48)
    """

    _mode_matters = False

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Any) -> Any:
        """(N, C, H, W) -> (N, C * H * W), with the default axes."""
        return _arithmetic.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Arguments in torch's form."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
