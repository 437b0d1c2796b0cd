"""simple-faster-rcnn's conversions between arrays, tensors and numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import nn

__all__ = [
    "HostArray",
    "scalar",
    "tonumpy",
    "totensor",
]


class HostArray(np.ndarray):
    """A NumPy array with the methods by which code for torch moves and converts its tensors.

    Everything is in main memory, so moving does nothing.

    >>> import numpy as np
    >>> from oxidet.simple_faster_rcnn import array_tool as at
    >>> at.totensor(np.array([1, 2])).cuda().float().numpy()
    array([1., 2.], dtype=float32)
    """

    def cuda(self, *args: Any, **kwargs: Any) -> HostArray:
        """The array itself."""
        return self

    def cpu(self) -> HostArray:
        """The array itself."""
        return self

    def detach(self) -> HostArray:
        """The array itself, which has no history."""
        return self

    def float(self) -> HostArray:
        """As float32."""
        return self.astype(np.float32, copy=False).view(HostArray)

    def long(self) -> HostArray:
        """As int64."""
        return self.astype(np.int64, copy=False).view(HostArray)

    def numpy(self) -> NDArray[Any]:
        """As an ordinary array of the same memory."""
        return self.view(np.ndarray)


def tonumpy(data: Any) -> NDArray[Any]:
    """An array as it is; of a tensor, its values.

    >>> from oxidet import nn
    >>> tonumpy(nn.Tensor([1.0, 2.0]))
    array([1., 2.], dtype=float32)
    """
    return np.asarray(data)


def totensor(data: Any, cuda: bool = True) -> HostArray:
    """What stands for a tensor in programs like the original's: see :class:`HostArray`.

    Of a tensor on the tape, its values without history. ``cuda`` is the original's and has no
    effect.
    """
    values = data.numpy() if isinstance(data, nn.Tensor) else np.asarray(data)
    return values.view(HostArray)


def scalar(data: Any) -> Any:
    """The number in an array or a tensor that holds one.

    >>> scalar(np.array([[2.5]]))
    2.5
    """
    return np.asarray(data).reshape(1)[0].item()
