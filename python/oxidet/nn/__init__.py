"""Building blocks of networks, named as in torch.nn: tensors with a tape, layers, containers."""

from __future__ import annotations

from oxidet.nn import functional
from oxidet.nn._repr import get_repr_style, repr_style
from oxidet.nn.containers import ModuleDict, ModuleList, Sequential
from oxidet.nn.linear import Conv2d, Linear
from oxidet.nn.module import IncompatibleKeys, Module, StateDictError
from oxidet.nn.tape import is_grad_enabled, no_grad, set_grad_enabled
from oxidet.nn.tensor import Buffer, Parameter, Tensor

__all__ = [
    "Buffer",
    "Conv2d",
    "IncompatibleKeys",
    "Linear",
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "Sequential",
    "StateDictError",
    "Tensor",
    "functional",
    "get_repr_style",
    "is_grad_enabled",
    "no_grad",
    "repr_style",
    "set_grad_enabled",
]
