"""Functions on arrays and tensors with torch.nn.functional's names, argument order and defaults.

Called with arrays they return arrays; called with tensors (or parameters, while recording is on)
they record and return tensors.
"""

from __future__ import annotations

from oxidet.nn._arithmetic import cat, flatten
from oxidet.nn._convolution import conv2d, linear

__all__ = ["cat", "conv2d", "flatten", "linear"]
