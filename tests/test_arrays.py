"""The border: arrays come out as the kernels want them, whatever they were."""

from __future__ import annotations

import numpy as np
import pytest

from oxidet import _arrays


@pytest.mark.parametrize("channels", range(7))
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", ">f4"])
@pytest.mark.parametrize("layout", ["NCHW", "channels last", "reversed", "broadcast"])
def test_nhwc_has_the_values_in_channels_last_order(channels: int, dtype: str, layout: str) -> None:
    values = np.random.default_rng(0).integers(0, 200, (2, channels, 4, 3)).astype(dtype)
    if layout == "channels last":
        values = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "reversed":
        values = values[:, ::-1, :, ::-1]
    elif layout == "broadcast":
        values = np.broadcast_to(values[:1, :, :1], values.shape)
    got = _arrays.nhwc(values, "input")
    assert got.dtype == np.float32
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, values.transpose(0, 2, 3, 1))
    as_it_is = dtype == "float32" and values.transpose(0, 2, 3, 1).flags.c_contiguous
    assert channels == 0 or np.shares_memory(got, values) == as_it_is


def test_an_array_without_axes_is_a_number() -> None:
    assert _arrays.number(np.array(0.5, np.float32), "x", 0, 1) == 0.5
    assert type(_arrays.number(np.array(3), "x")) is float
    for wrong in (np.array(True), np.array("a"), np.array([0.5])):
        with pytest.raises(TypeError, match="x: expected a number, got"):
            _arrays.number(wrong, "x")
    with pytest.raises(ValueError, match="x: expected a number of at least 0, got"):
        _arrays.number(np.array(-1.0), "x", 0)
