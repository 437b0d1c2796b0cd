"""Operators with weights, pooling, and means over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oxidet.nn import _arithmetic
from oxidet.nn import functional as F
from oxidet.nn.symbol import trace_error
from oxidet.onnx._folding import integers
from oxidet.onnx._table import INT, INTS, operator
from oxidet.onnx._values import UnorderedProductError, Value, axis_of, image, plain, whole

if TYPE_CHECKING:
    from oxidet.onnx._graph import Operation

Array = NDArray[Any]


def _same_pads(
    auto_pad: str, size: Sequence[int], kernel: Sequence[int], stride: Any, dilation: Any
) -> list[tuple[int, int]]:
    """TensorFlow's padding: as many windows as strides, an odd zero at the end (or start)."""
    pads = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
    return pads


def _window(
    x: Any, kernel: Sequence[int], auto_pad: str, pads: Any, strides: Any, dilations: Any
) -> tuple[tuple[int, int], tuple[int, int], list[tuple[int, int]]]:
    """Stride, dilation and ((top, bottom), (left, right))."""
    if len(kernel) != 2:
        raise ValueError(f"kernel_shape: expected two axes, got {tuple(kernel)}")
    stride, dilation = strides or (1, 1), dilations or (1, 1)
    given = pads or (0, 0, 0, 0)
    if len(stride) != 2 or len(dilation) != 2 or len(given) != 4:
        raise ValueError(
            f"strides: expected windows of two axes, got strides {stride}, dilations {dilation}, "
            f"pads {given}"
        )
    if min(given) < 0 or min(*stride, *dilation, *kernel) < 1:
        raise ValueError(f"pads: expected 0 or more, and steps of 1 or more, got {given}, {stride}")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        sides = _same_pads(auto_pad, x.shape[2:], kernel, stride, dilation)
    elif auto_pad == "VALID":
        sides = [(0, 0), (0, 0)]
    elif auto_pad == "NOTSET":
        sides = [(given[0], given[2]), (given[1], given[3])]
    else:
        raise ValueError(f"auto_pad: expected SAME_UPPER, SAME_LOWER or VALID, got {auto_pad!r}")
    return stride, dilation, sides


@operator(
    "Conv",
    weights={1: "kernel", 2: "vector"},
    auto_pad="NOTSET",
    dilations=INTS,
    group=1,
    kernel_shape=INTS,
    pads=INTS,
    strides=INTS,
)
def _conv(
    op: Operation,
    x: Value,
    weight: Any,
    bias: Any = None,
    *,
    auto_pad: str,
    dilations: Any,
    group: int,
    kernel_shape: Any,
    pads: Any,
    strides: Any,
) -> Value:
    data, kernel = image(x), weight.shape[2:]
    if kernel_shape is not None and tuple(kernel_shape) != tuple(kernel):
        raise ValueError(f"kernel_shape: expected {tuple(kernel)}, got {kernel_shape}")
    stride, dilation, sides = _window(data, kernel, auto_pad, pads, strides, dilations)
    padding: Any = tuple(sides)
    return whole(F.conv2d(data, weight, bias, stride, padding, dilation, group))


@operator("Gemm", weights={1: "linear", 2: "vector"}, alpha=1.0, beta=1.0, transA=0, transB=0)
def _gemm(op: Operation, x: Value, weight: Any, bias: Any = None, **options: Any) -> Value:
    # The attributes are in the weights.
    return _linear(op, x, weight, bias)


@operator("MatMul", weights={1: "linear"})
def _matmul(op: Operation, x: Value, weight: Any) -> Value:
    return _linear(op, x, weight, None)


def _linear(op: Operation, x: Value, weight: Any, bias: Any) -> Value:
    if x.order != op.order:
        error = trace_error("the weights expect a vector in another order")
        raise UnorderedProductError(str(error), op, x.order)
    return whole(F.linear(plain(x._replace(order=None)), weight, bias))


@operator(
    "BatchNormalization",
    weights={1: "vector", 2: "vector", 3: "statistic", 4: "statistic"},
    epsilon=1e-5,
    momentum=0.9,
    spatial=1,
    training_mode=0,
)
def _batch_norm(
    op: Operation,
    x: Value,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    *,
    epsilon: float,
    momentum: float,
    spatial: int,
    training_mode: int,
) -> Value:
    if len(x.axes) < 2 or x.axes[1] != 1:
        x = whole(plain(x))
    y = F.batch_norm(x.data, mean, var, weight, bias, op.training, 1 - momentum, epsilon)
    return Value(y, x.axes)


@operator("LRN", alpha=1e-4, beta=0.75, bias=1.0, size=INT)
def _lrn(
    op: Operation, x: Value, *, alpha: float, beta: float, bias: float, size: int | None
) -> Value:
    if size is None or size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd number of channels, got {size}")
    return whole(F.local_response_norm(image(x), size, alpha, beta, bias))


# --- pooling


def _pool_output(n: int, pad: int, span: int, stride: int, ceil_mode: bool) -> int:
    """Number of windows, as torch counts them for symmetric padding."""
    reach = n + 2 * pad - span
    count = (-(-reach // stride) if ceil_mode else reach // stride) + 1
    if ceil_mode and (count - 1) * stride >= n + pad:
        count -= 1
    return count


class _Windows(NamedTuple):
    """Symmetric padding and a ceil_mode, and which of the windows that they give are wanted."""

    padding: tuple[int, int]
    ceil_mode: bool
    rows: slice
    cols: slice

    def of(self, pooled: Any) -> Any:
        """The results of the windows that are wanted."""
        if self.rows == self.cols == slice(None):
            return pooled
        return _arithmetic.getitem_(pooled, index=(slice(None), slice(None), self.rows, self.cols))


def _symmetric(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    sides: list[tuple[int, int]],
) -> _Windows | None:
    """Windows in the same places as with uneven padding, if symmetric padding has them.

    Where a window lies depends on the padding before alone, which may be larger by whole strides if
    the windows that this adds are left out; the padding after only decides how many there are.
    Whatever hangs over the end counts for nothing.
    """
    axes = list(zip(size, kernel, stride, dilation, sides, strict=True))
    for ceil_mode in (False, True):
        found = []
        for n, k, s, d, (before, after) in axes:
            span = d * (k - 1) + 1
            wanted = (n + before + after - span) // s + 1
            for pad in range(before, k // 2 + 1, s):
                first, count = (pad - before) // s, _pool_output(n, pad, span, s, ceil_mode)
                if count >= first + wanted > 0:
                    all_of_it = (first, count) == (0, wanted)
                    part = slice(None) if all_of_it else slice(first, first + wanted)
                    found.append((pad, part))
                    break
        if len(found) == 2:
            (top, rows), (left, cols) = found
            return _Windows((top, left), ceil_mode, rows, cols)
    return None


_POOLING: dict[str, Any] = {
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "dilations": INTS,
    "kernel_shape": INTS,
    "pads": INTS,
    "strides": INTS,
}


@operator("MaxPool", storage_order=0, **_POOLING)
def _max_pool(
    op: Operation,
    x: Value,
    *,
    auto_pad: str,
    ceil_mode: int,
    dilations: Any,
    kernel_shape: Any,
    pads: Any,
    strides: Any,
    storage_order: int,
) -> Value:
    data = image(x)
    kernel: Any = kernel_shape or ()  # which _window refuses
    stride, dilation, sides = _window(data, kernel, auto_pad, pads, strides, dilations)
    windows = _given(sides, kernel, ceil_mode)
    if windows is None and not ceil_mode:
        windows = _symmetric(data.shape[2:], kernel, stride, dilation, sides)
    if windows is None:
        # What is added never wins.
        data = F.pad(data, _flat(sides), value=-math.inf)
        windows = _Windows((0, 0), bool(ceil_mode), slice(None), slice(None))
    pooled = F.max_pool2d(data, kernel, stride, windows.padding, dilation, windows.ceil_mode)
    return whole(windows.of(pooled))


def _given(sides: list[tuple[int, int]], kernel: Sequence[int], ceil_mode: int) -> _Windows | None:
    """The windows that the file says, if its padding is even."""
    if all(a == b and a <= k // 2 for (a, b), k in zip(sides, kernel, strict=True)):
        return _Windows((sides[0][0], sides[1][0]), bool(ceil_mode), slice(None), slice(None))
    return None


@operator("AveragePool", count_include_pad=0, **_POOLING)
def _average_pool(
    op: Operation,
    x: Value,
    *,
    auto_pad: str,
    ceil_mode: int,
    dilations: Any,
    kernel_shape: Any,
    pads: Any,
    strides: Any,
    count_include_pad: int,
) -> Value:
    data = image(x)
    kernel: Any = kernel_shape or ()  # which _window refuses
    stride, dilation, sides = _window(data, kernel, auto_pad, pads, strides, dilations)
    if dilation != (1, 1):
        raise ValueError(f"dilations: expected none in average pooling, got {dilation}")
    padded = any(a or b for a, b in sides)
    windows = _given(sides, kernel, ceil_mode)
    if windows is None and count_include_pad:
        data = F.pad(data, _flat(sides))
        windows = _Windows((0, 0), bool(ceil_mode), slice(None), slice(None))
    elif windows is None and not ceil_mode:
        windows = _symmetric(data.shape[2:], kernel, stride, (1, 1), sides)
    if windows is None:
        raise ValueError(
            f"pads: expected padding that average pooling can leave out of its means, got {sides} "
            f"with kernel {kernel} and strides {stride}"
        )
    include = bool(count_include_pad) and padded
    pooled = F.avg_pool2d(data, kernel, stride, windows.padding, windows.ceil_mode, include)
    return whole(windows.of(pooled))


def _flat(sides: list[tuple[int, int]]) -> tuple[int, ...]:
    """Padding as ``F.pad`` takes it: left, right, top, bottom."""
    return (*sides[1], *sides[0])


@operator("GlobalAveragePool")
def _global_average_pool(op: Operation, x: Value) -> Value:
    return whole(F.adaptive_avg_pool2d(image(x), 1))


@operator("GlobalMaxPool")
def _global_max_pool(op: Operation, x: Value) -> Value:
    return whole(F.adaptive_max_pool2d(image(x), 1))


@operator("ReduceMean", keepdims=1, noop_with_empty_axes=0)
def _reduce_mean(
    op: Operation, x: Value, axes: Any = None, *, keepdims: int, noop_with_empty_axes: int
) -> Value:
    chosen = [] if axes is None else integers(axes)
    if not chosen and noop_with_empty_axes:
        return x
    rank = len(x.axes)
    which = [axis_of(axis, rank) for axis in chosen] or list(range(rank))
    dims = [x.axes[axis] for axis in which]
    kept = x.axes if keepdims else tuple(a for i, a in enumerate(x.axes) if i not in which)
    data = x.data
    if not all(dim != 0 and data.shape[dim] == 1 for dim in dims):
        data = _arithmetic.sum_(data, dim=tuple(dims), keepdims=True, mean=True)
    return Value(data, kept)


# --- resizing


@operator(
    "Resize",
    antialias=0,
    axes=INTS,
    coordinate_transformation_mode="half_pixel",
    cubic_coeff_a=-0.75,
    exclude_outside=0,
    extrapolation_value=0.0,
    keep_aspect_ratio_policy="stretch",
    mode="nearest",
    nearest_mode="round_prefer_floor",
)
def _resize(
    op: Operation,
    x: Value,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    *,
    axes: Any,
    coordinate_transformation_mode: str,
    mode: str,
    nearest_mode: str,
    antialias: int,
    keep_aspect_ratio_policy: str,
    **others: Any,
) -> Value:
    if antialias or keep_aspect_ratio_policy != "stretch":
        raise ValueError("antialias: expected plain resizing to a size, got other options")
    rank = len(x.axes)
    if len(x.data.shape) != 4:
        raise ValueError(f"input: expected 4 dimensions (N, C, H, W), got shape {x.shape}")
    which = range(rank) if axes is None else [axis_of(axis, rank) for axis in axes]
    by_scale = sizes is None or not sizes.size
    given_amounts = scales if by_scale else sizes
    if given_amounts is None:
        raise ValueError("scales: expected these or sizes, got neither")
    amounts = given_amounts.reshape(-1).tolist()
    given = dict(zip((x.axes[i] for i in which), amounts, strict=True))
    for axis in (0, 1):
        length = given.get(axis, 1)
        if isinstance(length, (int, float)) and length not in (1, x.data.shape[axis]):
            raise ValueError(f"scales: expected rows and columns to change, got axis {axis}")
    size = [int(n) for n in x.data.shape[2:]]
    if by_scale:
        factors = [float(given.get(axis, 1)) for axis in (2, 3)]
        result = [math.floor(n * factor) for n, factor in zip(size, factors, strict=True)]
        how: dict[str, Any] = {"scale_factor": tuple(factors)}
    else:
        result = [int(given.get(axis, n)) for axis, n in zip((2, 3), size, strict=True)]
        factors = [m / n for m, n in zip(result, size, strict=True)]
        how = {"size": tuple(result)}
    if max(result) > LARGEST_SIDE:
        raise ValueError(f"sizes: expected at most {LARGEST_SIDE} rows and columns, got {result}")
    kind = _resizing(mode, coordinate_transformation_mode, nearest_mode, size, result, factors)
    return Value(F.interpolate(x.data, **how, **kind), x.axes)


#: Rows or columns of the largest picture that anyone resizes to.
LARGEST_SIDE = 1 << 16


def _resizing(
    mode: str,
    places: str,
    nearest_mode: str,
    size: list[int],
    result: list[int],
    factors: list[float],
) -> dict[str, Any]:
    """What ``interpolate`` calls a kind of resizing."""
    if mode == "linear":
        if places == "align_corners":
            return {"mode": "bilinear", "align_corners": True}
        # They differ where one pixel is left.
        if places == "half_pixel" or (places == "pytorch_half_pixel" and min(result) > 1):
            return {"mode": "bilinear", "align_corners": False}
    if mode == "nearest":
        axes = list(zip(size, result, factors, strict=True))
        wanted = [_nearest(*axis, places, nearest_mode) for axis in axes]
        if wanted == [_nearest(*axis, "asymmetric", "floor") for axis in axes]:
            return {"mode": "nearest"}
        if wanted == [_nearest(*axis, "half_pixel", "round_prefer_ceil") for axis in axes]:
            return {"mode": "nearest-exact"}
    raise ValueError(
        f"mode: expected nearest or linear resizing as torch does it, got {mode}, {places}, "
        f"{nearest_mode} from {size} to {result}"
    )


def _nearest(size: int, result: int, factor: float, places: str, rounding: str) -> list[int] | None:
    """Which pixel each of the result is, along one axis."""
    i = np.arange(result, dtype=np.float64)
    if places == "asymmetric":
        x = i / factor
    elif places in ("half_pixel", "pytorch_half_pixel"):
        x = (i + 0.5) / factor - 0.5
        if places == "pytorch_half_pixel" and result == 1:
            x = i
    elif places == "tf_half_pixel_for_nn":
        x = (i + 0.5) / factor
    elif places == "align_corners":
        x = i * (size - 1) / max(result - 1, 1)
    else:
        return None
    x = np.round(x, 5)  # a place between pixels is not moved by rounding errors
    rounded = {
        "floor": np.floor(x),
        "ceil": np.ceil(x),
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
    }.get(rounding)
    if rounded is None:
        return None
    indices: list[int] = np.clip(rounded, 0, size - 1).astype(int).tolist()
    return indices
