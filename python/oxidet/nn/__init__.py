"""Building blocks of networks, named as in torch.nn: tensors with a tape, layers, containers."""

from __future__ import annotations

from oxidet.nn import functional, init, utils
from oxidet.nn._repr import get_repr_style, repr_style
from oxidet.nn.activation import (
    Concat,
    Dropout,
    Dropout2d,
    Flatten,
    Identity,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from oxidet.nn.containers import ModuleDict, ModuleList, Sequential
from oxidet.nn.convolution import Conv2d
from oxidet.nn.linear import Linear
from oxidet.nn.losses import CrossEntropyLoss, MSELoss, NLLLoss, SmoothL1Loss
from oxidet.nn.mode import evaluating
from oxidet.nn.module import IncompatibleKeys, Module, StateDictError, compiled_method
from oxidet.nn.normalization import BatchNorm2d, LocalResponseNorm
from oxidet.nn.plans import eager
from oxidet.nn.pooling import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from oxidet.nn.report import PlanReport, PlanStep, ProfileReport, ProfileStep
from oxidet.nn.resampling import Upsample, ZeroPad2d
from oxidet.nn.symbol import Symbol, TraceError
from oxidet.nn.tape import is_grad_enabled, no_grad, set_grad_enabled
from oxidet.nn.tensor import Buffer, Parameter, Tensor

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Buffer",
    "Concat",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "Identity",
    "IncompatibleKeys",
    "Linear",
    "LocalResponseNorm",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "PlanReport",
    "PlanStep",
    "ProfileReport",
    "ProfileStep",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "StateDictError",
    "Symbol",
    "Tanh",
    "Tensor",
    "TraceError",
    "Upsample",
    "ZeroPad2d",
    "compiled_method",
    "eager",
    "evaluating",
    "functional",
    "get_repr_style",
    "init",
    "is_grad_enabled",
    "no_grad",
    "repr_style",
    "set_grad_enabled",
    "utils",
]
