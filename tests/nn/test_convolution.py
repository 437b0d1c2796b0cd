"""conv2d and linear: the numeric vectors of the definition, gradients, arguments, layout."""

from __future__ import annotations

import numpy as np
import pytest

import oxidet
from conftest import assert_close, check_gradients
from oxidet import nn
from oxidet.nn import functional as F

C1 = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
K1 = np.arange(4.0).reshape(1, 1, 2, 2)


def ar(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


# Inputs and outputs as integers, so the comparison is exact.
VECTORS = {
    "C1": ((C1, K1), {}, "25 31 43 49"),
    "C2 bias": ((C1, K1, [1.0]), {}, "26 32 44 50"),
    "C3 flipped": ((C1, K1[..., ::-1, ::-1]), {}, "11 17 29 35"),
    "C4 padding 1": (
        (C1, K1),
        {"padding": 1},
        "3 8 13 6 13 25 31 12 25 43 49 18 7 8 9 0",
    ),
    "C5 padding 1 stride 2": ((C1, K1), {"padding": 1, "stride": 2}, "3 13 25 49"),
    "C6 dilation 2": ((C1, K1), {"dilation": 2}, "44"),
    "C7 pad bottom and right": (
        (C1, K1),
        {"padding": ((0, 1), (0, 1))},
        "25 31 12 43 49 18 8 9 0",
    ),
    "C7 same": ((C1, K1), {"padding": "same"}, "25 31 12 43 49 18 8 9 0"),
    "C8": (
        (ar(1, 2, 3, 3), ar(2, 2, 2, 2)),
        {},
        "268 296 352 380 684 776 960 1052",
    ),
    "C9 bias": (
        (ar(1, 2, 3, 3), ar(2, 2, 2, 2), [1.0, -1.0]),
        {},
        "269 297 353 381 683 775 959 1051",
    ),
    "C10 groups": (
        (ar(1, 4, 3, 3), ar(4, 2, 2, 2)),
        {"groups": 2},
        "268 296 352 380 684 776 960 1052 3908 4064 4376 4532 5476 5696 6136 6356",
    ),
    "C11 depthwise": (
        (ar(1, 2, 3, 3), ar(2, 1, 2, 2)),
        {"groups": 2},
        "19 25 37 43 249 271 315 337",
    ),
    "C12 batch": (
        (ar(2, 2, 3, 3), ar(2, 2, 2, 2)),
        {},
        "268 296 352 380 684 776 960 1052 772 800 856 884 2340 2432 2616 2708",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_numeric_vectors(name: str) -> None:
    arguments, options, expected = VECTORS[name]
    result = F.conv2d(*arguments, **options)
    np.testing.assert_array_equal(result.ravel(), [float(v) for v in expected.split()])


def test_numeric_vector_c13_of_the_backward_passes() -> None:
    x, w, b = (nn.Tensor(v, requires_grad=True) for v in (C1, K1, [0.0]))
    F.conv2d(x, w, b).backward([[[[1.0, 2.0], [3.0, 4.0]]]])
    np.testing.assert_array_equal(x.grad.ravel(), [0, 1, 2, 2, 10, 10, 6, 17, 12])
    np.testing.assert_array_equal(w.grad.ravel(), [37, 47, 67, 77])
    np.testing.assert_array_equal(b.grad, [10])


def test_the_three_image_examples() -> None:
    edge = np.concatenate([np.ones((50, 30)), np.zeros((50, 20))], axis=1)[None, None]
    result = F.conv2d(edge, np.array([1.0, 0.0, -1.0]).reshape(1, 1, 1, 3))
    assert result.shape == (1, 1, 50, 48)
    assert result.sum() == 100
    assert (result[..., 28:30] == 1).all()

    outline = np.full((3, 3), -1.0)
    outline[1, 1] = 8
    kernel = np.repeat(outline[None, None] / 8, 3, axis=1)
    assert (F.conv2d(np.full((1, 3, 5, 5), 7.0), kernel) == 0).all()
    pixel = np.zeros((1, 3, 5, 5))
    pixel[:, :, 2, 2] = 255
    result = F.conv2d(pixel, kernel)[0, 0]
    assert result[1, 1] == 765
    assert np.count_nonzero(result == -95.625) == 8
    step = np.zeros((1, 3, 4, 8))
    step[..., 4:] = 255
    np.testing.assert_array_equal(F.conv2d(step, kernel)[0, 0, 0], [0, 0, -286.875, 286.875, 0, 0])

    blur = np.full((1, 1, 5, 5), 1 / 25)
    result = F.conv2d(ar(1, 1, 6, 7), blur)
    assert_close(result.ravel(), [16, 17, 18, 23, 24, 25], 1e-6)


GRADIENT_CASES = {
    "plain": ((2, 3, 4, 5), (4, 3, 3, 3), {}),
    "stride and padding": ((1, 2, 5, 6), (3, 2, 3, 3), {"stride": 2, "padding": 1}),
    "asymmetric": ((1, 2, 4, 4), (2, 2, 2, 3), {"padding": ((0, 2), (1, 0)), "stride": (1, 2)}),
    "dilation": ((1, 2, 7, 6), (2, 2, 3, 2), {"dilation": (2, 3)}),
    "groups": ((1, 4, 4, 4), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "pointwise": ((2, 5, 3, 3), (4, 5, 1, 1), {}),
}


@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    input_shape, weight_shape, options = GRADIENT_CASES[name]
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal(input_shape), rng.standard_normal(weight_shape)
    b = rng.standard_normal(weight_shape[0])
    check_gradients(lambda x, w, b: F.conv2d(x, w, b, **options), x, w, b, tolerance=2e-3)


def test_linear_agrees_with_numpy_and_its_gradients_with_finite_differences() -> None:
    rng = np.random.default_rng(2)
    for batch in [(), (0,), (1,), (7,), (2, 3)]:
        x = rng.standard_normal((*batch, 5)).astype(np.float32)
        w, b = rng.standard_normal((4, 5)), rng.standard_normal(4)
        assert_close(F.linear(x, w, b), x @ w.T + b, 1e-6)
    check_gradients(F.linear, rng.standard_normal((3, 5)), w, b, tolerance=2e-3)


def test_any_array_is_accepted_and_channels_last_is_not_copied() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal((1, 6, 9, 8))
    weight = rng.standard_normal((2, 3, 3, 3))
    view = base[:, ::2, :, ::-1]
    expected = F.conv2d(np.ascontiguousarray(view, np.float32), weight)
    read_only = view.astype(">f4")
    read_only.flags.writeable = False
    for variant in (view, view.astype(np.float16).astype(np.float64), read_only):
        got = F.conv2d(variant, weight)
        assert_close(got, expected, 2e-3 if variant is not read_only else 0)
    assert F.conv2d(view, weight).transpose(0, 2, 3, 1).flags.c_contiguous
    integers = rng.integers(0, 255, (1, 3, 5, 5), dtype=np.uint8)
    np.testing.assert_array_equal(
        F.conv2d(integers, weight), F.conv2d(integers.astype(np.float32), weight)
    )


def test_no_channels_or_features_leave_the_bias() -> None:
    x, w = np.zeros((1, 0, 5, 5), np.float32), np.zeros((2, 0, 3, 3), np.float32)
    t, k = nn.Tensor(x, requires_grad=True), nn.Tensor(w, requires_grad=True)
    y = F.conv2d(t, k, [1.0, 2.0])
    np.testing.assert_array_equal(y, np.broadcast_to([[[1]], [[2]]], (1, 2, 3, 3)))
    y.sum().backward()
    assert (t.grad.shape, k.grad.shape) == (x.shape, w.shape)
    features = nn.Tensor(np.zeros((2, 0)), requires_grad=True)
    y = F.linear(features, np.zeros((3, 0)), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(y, [[1, 2, 3], [1, 2, 3]])
    y.sum().backward()
    assert features.grad.shape == (2, 0)


def test_a_stride_beyond_the_image_takes_one_pixel() -> None:
    x = nn.Tensor(C1, requires_grad=True)
    y = F.conv2d(x, K1, stride=2**31 - 1)
    np.testing.assert_array_equal(y, [[[[25]]]])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [[[[0, 1, 0], [2, 3, 0], [0, 0, 0]]]])


def test_a_layer_keeps_its_padding_in_one_form() -> None:
    for padding in (1, np.int64(1), [1, 1], ((1, 1), (1, 1))):
        assert nn.Conv2d(1, 1, 3, padding=padding).padding == (1, 1)
    assert nn.Conv2d(1, 1, 3, padding=[[0, 1], [2, 2]]).padding == ((0, 1), (2, 2))
    assert nn.Conv2d(1, 1, 3, padding="same").padding == "same"


def test_an_empty_batch_is_ordinary() -> None:
    assert F.conv2d(np.zeros((0, 3, 5, 5)), np.zeros((4, 3, 3, 3))).shape == (0, 4, 3, 3)


def test_a_last_part_of_a_batch_with_fewer_images() -> None:
    # A batch goes through in parts that share scratch memory. Here, on one thread, the last part
    # asks for more of it than those before: its few images are transformed as a whole.
    oxidet.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 64, 96, 96), np.float32)
    w = rng.standard_normal((8, 64, 3, 3), np.float32)
    assert_close(F.conv2d(x, w)[-1:], F.conv2d(x[-1:], w), 1e-4)


@pytest.mark.parametrize("channels", [(16, 24), (70, 48)])
def test_the_number_of_threads_does_not_change_a_bit(channels: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, channels[0], 33, 31))
    w = rng.standard_normal((channels[1], channels[0], 3, 3))
    results = []
    for threads in (1, 2, 3, 8):
        oxidet.set_num_threads(threads)
        t, k = nn.Tensor(x, requires_grad=True), nn.Tensor(w, requires_grad=True)
        y = F.conv2d(t, k, stride=2, padding=1)
        y.backward(np.ones(y.shape))
        results.append((y.numpy().tobytes(), t.grad.tobytes(), k.grad.tobytes()))
    assert len(set(results)) == 1


BAD = {
    "rank": (ValueError, r"input: expected 4 dimensions \(N, C, H, W\), got shape \(3, 3\)"),
    "channels": (ValueError, r"input: expected 1 channels .*, got 2 channels"),
    "too small": (ValueError, r"input: expected at least 4 x 4 pixels .*, got 3 x 3"),
    "stride": (ValueError, r"stride: expected values of at least 1, got 0"),
    "negative padding": (ValueError, r"padding: expected values of at least 0, got -1"),
    "same with stride": (ValueError, r"padding: expected a number with stride \(2, 2\)"),
    "padding word": (ValueError, r"padding: expected 'same', 'valid' or integers, got 'full'"),
    "groups": (ValueError, r"groups: expected a divisor of both"),
    "bias": (ValueError, r"bias: expected shape \(1,\), got \(2,\)"),
    "text": (TypeError, r"input: expected an array of numbers, got str"),
    "complex": (TypeError, r"weight: expected an array of numbers, got ndarray of dtype complex"),
    "float stride": (TypeError, r"stride: expected an integer or a pair of integers, got 1.5"),
    "array padding": (TypeError, r"padding: expected an integer or a pair of integers, got array"),
    "huge padding": (ValueError, r"padding: expected values of at most 2147483647, got 9223372036"),
    "huge stride": (ValueError, r"stride: expected values of at most 2147483647"),
    "huge groups": (ValueError, r"groups: expected an integer from 1 to 2147483647"),
    "beyond addresses": (ValueError, r"input: expected a result that can be addressed"),
    "beyond memory": (MemoryError, r"input: expected a result that fits into memory, got one of"),
    "product beyond memory": (MemoryError, r"input: expected a result that fits into memory"),
}
BAD_CALLS = {
    "rank": lambda: F.conv2d(C1[0, 0], K1),
    "channels": lambda: F.conv2d(ar(1, 2, 3, 3), K1),
    "too small": lambda: F.conv2d(C1, ar(1, 1, 4, 4)),
    "stride": lambda: F.conv2d(C1, K1, stride=0),
    "negative padding": lambda: F.conv2d(C1, K1, padding=-1),
    "same with stride": lambda: F.conv2d(C1, K1, stride=2, padding="same"),
    "padding word": lambda: F.conv2d(C1, K1, padding="full"),
    "groups": lambda: F.conv2d(C1, K1, groups=3),
    "bias": lambda: F.conv2d(C1, K1, [1.0, 2.0]),
    "text": lambda: F.conv2d("picture", K1),
    "complex": lambda: F.conv2d(C1, K1.astype(complex)),
    "float stride": lambda: F.conv2d(C1, K1, stride=1.5),
    "array padding": lambda: F.conv2d(C1, K1, padding=np.array([1, 1])),
    "huge padding": lambda: F.conv2d(C1, K1, padding=2**63),
    "huge stride": lambda: F.conv2d(C1, K1, stride=2**70),
    "huge groups": lambda: F.conv2d(C1, K1, groups=2**70),
    "beyond addresses": lambda: F.conv2d(C1, K1, padding=2**31 - 1),
    "beyond memory": lambda: F.conv2d(C1, K1, padding=2**22),
    "product beyond memory": lambda: F.linear(*np.zeros((2, 2**23, 1), np.float32)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name: str) -> None:
    error, message = BAD[name]
    with pytest.raises(error, match=message):
        BAD_CALLS[name]()
