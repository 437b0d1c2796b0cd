"""Initial values of parameters, under torch.nn.init's names.

Each function overwrites a parameter and returns it. Random values come from the package's own
generator, which :func:`oxidet.manual_seed` sets; they are drawn in the order of the indices, so
they do not depend on how a layer keeps its weights in memory. The numbers differ from torch's for
the same seed, their distribution does not.

The *fans* of a weight are the number of inputs that meet in one output and the number of outputs
that one input reaches. For a convolution's weight (O, C / groups, kh, kw) they are
``C / groups * kh * kw`` and ``O * kh * kw`` (not divided by the groups, as in torch); for a linear
layer's (out, in), ``in`` and ``out``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from oxidet import _random
from oxidet._arrays import F32
from oxidet.nn.tensor import Stored

__all__ = [
    "caffe_xavier_",
    "calculate_gain",
    "constant_",
    "fan_in_uniform_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "trunc_normal_",
    "uniform_",
    "variance_scaling_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_S = TypeVar("_S", bound=Stored)

_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "selu": 3 / 4,
}
# trunc_normal_ draws again what falls outside; below this share of hits that takes too long.
_LEAST_SHARE = 1e-3
# Numbers that are drawn at a time.
_PIECE = 1 << 15


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before a non-linearity are widened to keep the variance.

    ``param`` is the negative slope of ``"leaky_relu"``, by default 0.01.

    Examples
    --------
    >>> round(calculate_gain("relu"), 4), round(calculate_gain("leaky_relu", 1.0), 4)
    (1.4142, 1.0)
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else float(param)) ** 2))
    if nonlinearity not in _GAINS:
        known = ", ".join([*_GAINS, "leaky_relu"])
        raise ValueError(f"nonlinearity: expected one of {known}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def constant_(tensor: _S, val: float) -> _S:
    """Fill with one value."""
    _stored(tensor).copy_(np.float32(val))
    return tensor


def zeros_(tensor: _S) -> _S:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: _S) -> _S:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def uniform_(tensor: _S, a: float = 0.0, b: float = 1.0) -> _S:
    """Fill from the uniform distribution on [a, b]."""
    if not a <= b:
        raise ValueError(f"b: expected at least a={a}, got {b}")
    return _fill(tensor, lambda shape: _uniform(shape, a, b))


def normal_(tensor: _S, mean: float = 0.0, std: float = 1.0) -> _S:
    """Fill from the normal distribution."""
    _deviation(std)
    return _fill(tensor, lambda shape: _normal(shape, mean, std))


def trunc_normal_(
    tensor: _S, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> _S:
    """Fill from the normal distribution restricted to [a, b].

    ``a`` and ``b`` are values, not multiples of ``std``.

    Raises
    ------
    ValueError
        If the interval is empty, or holds less than a thousandth of the distribution.
    """
    _deviation(std)
    if not a < b:
        raise ValueError(f"b: expected more than a={a}, got {b}")
    share = _share_between(a, b, mean, std)
    if share < _LEAST_SHARE:
        raise ValueError(
            f"a, b: expected at least {_LEAST_SHARE} of the normal distribution with mean {mean} "
            f"and std {std} inside, got {share:.3g} in [{a}, {b}]"
        )
    values = _normal(_stored(tensor).shape, mean, std)
    while (outside := (values < a) | (values > b)).any():
        values[outside] = _normal((int(outside.sum()),), mean, std)
    tensor.copy_(values)
    return tensor


def xavier_uniform_(tensor: _S, gain: float = 1.0) -> _S:
    """Fill from U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks"
    (2010), formula 16.
    """
    bound = gain * math.sqrt(6 / max(sum(_fans(tensor)), 1))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: _S, gain: float = 1.0) -> _S:
    """Fill from N(0, std^2), std = gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / max(sum(_fans(tensor)), 1)))


def kaiming_uniform_(
    tensor: _S, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> _S:
    """Fill from U(-b, b), b = gain * sqrt(3 / fan).

    Parameters
    ----------
    tensor
        A weight of at least two dimensions.
    a
        Negative slope of the leaky ReLU behind the layer.
    mode
        ``"fan_in"`` keeps the variance of activations, ``"fan_out"`` that of gradients.
    nonlinearity
        What follows the layer; see :func:`calculate_gain`.
    """
    bound = math.sqrt(3) * _kaiming_deviation(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: _S, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> _S:
    """Fill from N(0, gain^2 / fan); arguments as for :func:`kaiming_uniform_`.

    He et al., "Delving deep into rectifiers" (2015), section 2.2.

    >>> from oxidet import nn
    >>> layer = nn.Conv2d(64, 32, 3)
    >>> _ = nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    >>> bool(abs(layer.weight.numpy().std() / (2 / (32 * 9)) ** 0.5 - 1) < 0.05)
    True
    """
    return normal_(tensor, 0.0, _kaiming_deviation(tensor, a, mode, nonlinearity))


def fan_in_uniform_(tensor: _S, scale: float = 1.0) -> _S:
    """Fill from U(-b, b), b = scale / fan_in.

    LeCun et al., "Gradient-based learning applied to document recognition" (1998), appendix A,
    with ``scale=2.4``.
    """
    bound = scale / max(_fans(tensor)[0], 1)
    return uniform_(tensor, -bound, bound)


def caffe_xavier_(tensor: _S) -> _S:
    """Fill from U(-b, b), b = sqrt(3 / fan_in): Caffe's filler "xavier", which ignores the fan out.

    Caffe's "msra" is :func:`kaiming_normal_` with ``nonlinearity="relu"``.
    """
    bound = math.sqrt(3 / max(_fans(tensor)[0], 1))
    return uniform_(tensor, -bound, bound)


def variance_scaling_(tensor: _S, scale: float = 2.0) -> _S:
    """Fill from N(0, std^2) cut off at 2 std, std = sqrt(1.3 * scale / fan_in).

    The default of TensorFlow-Slim. The factor 1.3 makes up for the variance that is cut off.
    """
    std = math.sqrt(1.3 * scale / max(_fans(tensor)[0], 1))
    return trunc_normal_(tensor, 0.0, std, -2 * std, 2 * std)


def _stored(tensor: Any) -> Stored:
    if not isinstance(tensor, Stored):
        raise TypeError(f"tensor: expected a Parameter or Buffer, got {type(tensor).__name__}")
    return tensor


def _fill(tensor: _S, draw: Callable[[tuple[int, ...]], F32]) -> _S:
    """Write draws into a tensor, a few rows at a time.

    The numbers are those of one large draw. But large temporary arrays would make the C library
    keep memory for more of them: 50 MB by the end of a ResNet-50.
    """

    def write(array: F32) -> None:
        rows = max(1, _PIECE // max(1, math.prod(array.shape[1:]))) if array.ndim else 1
        for first in range(0, len(array) if array.ndim else 0, rows):
            part = array[first : first + rows]
            part[...] = draw(part.shape)
        if not array.ndim:
            array[...] = draw(())

    _stored(tensor).update_(write)
    return tensor


def _uniform(shape: tuple[int, ...], a: float, b: float) -> F32:
    draw = _random.default.generator.random(shape, np.float32)
    return draw * np.float32(b - a) + np.float32(a)


def _normal(shape: tuple[int, ...], mean: float, std: float) -> F32:
    draw = _random.default.generator.standard_normal(shape, np.float32)
    return draw * np.float32(std) + np.float32(mean)


def _deviation(std: float) -> float:
    if not std >= 0:
        raise ValueError(f"std: expected at least 0, got {std}")
    return std


def _share_between(a: float, b: float, mean: float, std: float) -> float:
    """How much of a normal distribution lies in [a, b]."""
    if std == 0:
        return float(a <= mean <= b)
    low, high = (math.erf((bound - mean) / (std * math.sqrt(2))) for bound in (a, b))
    return (high - low) / 2


def _fans(tensor: Any) -> tuple[int, int]:
    shape = _stored(tensor).shape
    if len(shape) < 2:
        raise ValueError(f"tensor: expected at least 2 dimensions to have fans, got shape {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _kaiming_deviation(tensor: Any, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode: expected 'fan_in' or 'fan_out', got {mode!r}")
    fan = _fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))
