"""Initial values: fans, gains and distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import oxidet
from oxidet import nn
from oxidet.nn import init


def conv_weight() -> nn.Parameter:
    """(O, C / groups, kh, kw) = (64, 24, 5, 3): fan_in 360, fan_out 960; 23 040 values."""
    return nn.Conv2d(48, 64, (5, 3), groups=2).weight


def linear_weight() -> nn.Parameter:
    return nn.Linear(200, 150).weight


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    """Range, mean and variance, each within five standard errors."""
    n, width = values.size, high - low
    assert low <= values.min() < low + 20 * width / n
    assert high - 20 * width / n < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < 5 * width / math.sqrt(12 * n)
    assert abs(values.var() / (width**2 / 12) - 1) < 5 * math.sqrt(0.8 / n)


def assert_normal(values: np.ndarray, mean: float, std: float) -> None:
    """Mean, variance, and the share within one, two and three deviations."""
    n = values.size
    z = (values.astype(np.float64) - mean) / std
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    for bound in (1, 2, 3):
        share = math.erf(bound / math.sqrt(2))
        error = math.sqrt(share * (1 - share) / n)
        assert abs((np.abs(z) < bound).mean() - share) < 5 * error, bound


UNIFORM = {
    "uniform": (lambda w: init.uniform_(w, -2, 3), -2, 3, "conv"),
    "default": (init.uniform_, 0, 1, "linear"),
    "kaiming": (init.kaiming_uniform_, -math.sqrt(6 / 360), math.sqrt(6 / 360), "conv"),
    "kaiming of layers": (lambda w: init.kaiming_uniform_(w, a=math.sqrt(5)),
                          -1 / math.sqrt(360), 1 / math.sqrt(360), "conv"),
    "kaiming fan_out": (lambda w: init.kaiming_uniform_(w, mode="fan_out", nonlinearity="linear"),
                        -math.sqrt(3 / 960), math.sqrt(3 / 960), "conv"),
    "xavier": (init.xavier_uniform_, -math.sqrt(6 / 1320), math.sqrt(6 / 1320), "conv"),
    "xavier of linear": (lambda w: init.xavier_uniform_(w, gain=5 / 3),
                         -5 / 3 * math.sqrt(6 / 350), 5 / 3 * math.sqrt(6 / 350), "linear"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNIFORM)
def test_uniform(case: str) -> None:
    fill, low, high, layer = UNIFORM[case]
    weight = conv_weight() if layer == "conv" else linear_weight()
    assert fill(weight) is weight
    assert_uniform(weight.data, low, high)


NORMAL = {
    "normal": (lambda w: init.normal_(w, 1.0, 0.01), 1, 0.01, "linear"),
    "default": (init.normal_, 0, 1, "conv"),
    "kaiming": (init.kaiming_normal_, 0, math.sqrt(2 / 360), "conv"),
    "kaiming fan_out": (
        lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
        0, math.sqrt(2 / 960), "conv"),
    "kaiming leaky": (lambda w: init.kaiming_normal_(w, a=0.5), 0, math.sqrt(1.6 / 200), "linear"),
    "xavier": (init.xavier_normal_, 0, math.sqrt(2 / 350), "linear"),
    "xavier of convolution": (lambda w: init.xavier_normal_(w, 2.0), 0, 2 * math.sqrt(2 / 1320),
                              "conv"),
    "wide truncation": (lambda w: init.trunc_normal_(w, std=0.1, a=-2, b=2), 0, 0.1, "conv"),
}  # fmt: skip


@pytest.mark.parametrize("case", NORMAL)
def test_normal(case: str) -> None:
    fill, mean, std, layer = NORMAL[case]
    weight = conv_weight() if layer == "conv" else linear_weight()
    assert fill(weight) is weight
    assert_normal(weight.data, mean, std)


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"), [(0, 1, -1, 1), (0, 1, 0, 5), (3, 2, 2, 4), (0, 1, 1.5, 9)]
)
def test_truncated_normal(mean: float, std: float, a: float, b: float) -> None:
    values = init.trunc_normal_(linear_weight(), mean, std, a, b).data
    assert a <= values.min()
    assert values.max() <= b

    def cdf(x: float) -> float:
        return (1 + math.erf((x - mean) / std / math.sqrt(2))) / 2

    grid = np.linspace(a, b, 9)[1:-1]
    for point in grid:
        share = (cdf(point) - cdf(a)) / (cdf(b) - cdf(a))
        error = math.sqrt(share * (1 - share) / values.size)
        assert abs((values <= point).mean() - share) < 5 * error + 1e-6, point


def test_constants() -> None:
    weight = conv_weight()
    for fill, value in [
        (init.zeros_, 0), (init.ones_, 1), (lambda w: init.constant_(w, -2.5), -2.5),
        (lambda w: init.trunc_normal_(w, 0.5, 0.0), 0.5), (lambda w: init.uniform_(w, 3, 3), 3),
    ]:  # fmt: skip
        assert (fill(weight).data == value).all()
    assert weight.version > 0


def test_the_seed_decides_and_memory_order_does_not() -> None:
    oxidet.manual_seed(3)
    conv = init.normal_(conv_weight())
    oxidet.manual_seed(3)
    conv_weight()  # what the layer draws for itself
    plain = init.normal_(nn.Parameter(np.zeros((64, 24, 5, 3))))
    np.testing.assert_array_equal(conv.data, plain.data)
    assert conv.data.strides != plain.data.strides
    assert (init.normal_(conv).data != plain.data).any()


def test_gains() -> None:
    expected = {
        "linear": 1, "conv2d": 1, "sigmoid": 1, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75,
        "leaky_relu": math.sqrt(2 / 1.0001),
    }  # fmt: skip
    for name, gain in expected.items():
        assert init.calculate_gain(name) == pytest.approx(gain), name
    assert init.calculate_gain("leaky_relu", 0) == pytest.approx(math.sqrt(2))


def test_refusals() -> None:
    weight, bias = linear_weight(), nn.Parameter(np.zeros(3))
    for call, message in [
        (lambda: init.kaiming_normal_(bias), "at least 2 dimensions to have fans, got shape"),
        (lambda: init.xavier_uniform_(bias), "at least 2 dimensions"),
        (lambda: init.kaiming_normal_(weight, mode="fan"), "mode: .* got 'fan'"),
        (lambda: init.kaiming_normal_(weight, nonlinearity="gelu"), "nonlinearity: .* got 'gelu'"),
        (lambda: init.normal_(weight, std=-1), "std: expected at least 0, got -1"),
        (lambda: init.uniform_(weight, 1, 0), "b: expected at least a=1, got 0"),
        (lambda: init.trunc_normal_(weight, a=1, b=1), "b: expected more than a=1, got 1"),
        (lambda: init.trunc_normal_(weight, a=8, b=9), "got .* in \\[8, 9\\]"),
        (lambda: init.trunc_normal_(weight, 3.0, 0.0), "got 0 in"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="tensor: expected a Parameter or Buffer, got ndarray"):
        init.zeros_(np.zeros(3))  # type: ignore[type-var]
