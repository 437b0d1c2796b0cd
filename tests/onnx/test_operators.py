"""Import, operator by operator: graphs built by hand, against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from conftest import assert_close
from onnx_graphs import node, run_onnxruntime, write
from oxidet import nn
from oxidet.onnx import load

RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


IMAGE = ("N", 4, 9, 8)
LAST = ("N", 9, 8, 4)  # channels last
ROW = ("N", 6)
KERNEL = {"w": random(6, 4, 3, 3), "b": random(6)}
ASYMMETRIC = {"coordinate_transformation_mode": "asymmetric"}
CORNERS = {"coordinate_transformation_mode": "align_corners"}
TO_FIRST = node("Transpose", "x", "first", perm=(0, 3, 1, 2))


def conv(x: str = "x", y: str = "y", **attributes: Any) -> Any:
    return node("Conv", f"{x} w b", y, **attributes)


def pool(op: str, **attributes: Any) -> Any:
    return node(op, "x", "y", kernel_shape=(3, 2), **attributes)


def binary(op: str, constant: Any, swapped: bool = False) -> Any:
    """Arithmetic with a constant."""
    return [node(op, "c x" if swapped else "x c", "y")], IMAGE, {"c": constant}


# Name: nodes from x to y, shape of x, constants, and (if not 17) the operator set.
CASES: dict[str, tuple[Any, ...]] = {
    "conv": ([conv()], IMAGE, KERNEL),
    "conv strided": ([conv(strides=(2, 3), dilations=(2, 1), pads=(1, 0, 2, 1))], IMAGE, KERNEL),
    "conv without bias": ([node("Conv", "x w", "y")], IMAGE, KERNEL),
    "conv with groups": (
        [node("Conv", "x w", "y", group=2, kernel_shape=(2, 2))],
        IMAGE,
        {"w": random(6, 2, 2, 2)},
    ),
    "conv depthwise": ([node("Conv", "x w", "y", group=4)], IMAGE, {"w": random(4, 1, 3, 3)}),
    "conv same upper": ([conv(auto_pad="SAME_UPPER", strides=(2, 2))], IMAGE, KERNEL),
    "conv same lower": ([conv(auto_pad="SAME_LOWER", strides=(2, 3))], IMAGE, KERNEL),
    "conv valid": ([conv(auto_pad="VALID")], IMAGE, KERNEL),
    "conv of transposed weights": (
        [node("Transpose", "k", "w", perm=(3, 2, 0, 1)), conv()],
        IMAGE,
        {"k": KERNEL["w"].transpose(2, 3, 1, 0), "b": KERNEL["b"]},
    ),
    "gemm": ([node("Gemm", "x w b", "y")], ROW, {"w": random(6, 5), "b": random(5)}),
    "gemm scaled": (
        [node("Gemm", "x w b", "y", transB=1, alpha=0.5, beta=2.0)],
        ROW,
        {"w": random(5, 6), "b": random(1, 5)},
    ),
    "gemm of one bias": ([node("Gemm", "x w b", "y")], ROW, {"w": random(6, 5), "b": [0.5]}),
    "gemm without bias": ([node("Gemm", "x w", "y")], ROW, {"w": random(6, 5)}),
    "matmul": ([node("MatMul", "x w", "y")], ROW, {"w": random(6, 5)}),
    "matmul and sum": (
        [node("MatMul", "x w", "t"), node("Add", "b t", "y")],
        ROW,
        {"w": random(6, 5), "b": random(5)},
    ),
    "sum that is no bias": (
        [node("MatMul", "x w", "t"), node("Add", "t b", "s"), node("Add", "s t", "y")],
        ROW,
        {"w": random(6, 5), "b": random(5)},
    ),
    "response norm": (
        [node("LRN", "x", "y", size=3, alpha=0.3, beta=0.6, bias=2.0)],
        IMAGE,
    ),
    "pad": (
        [node("Pad", "x p v", "y")],
        IMAGE,
        {"p": [0, 1, 2, 0, 0, 0, 1, 3], "v": 0.5},
    ),
    "pad of version 10": ([node("Pad", "x", "y", pads=[0, 0, 1, 1, 0, 0, 0, 2])], IMAGE, {}, 9),
    "pad some axes": (
        [node("Pad", "x p - a", "y")],
        IMAGE,
        {"p": [1, 2, 0, 3], "a": [-1, 2]},
        18,
    ),
    "max pool padded at the end": ([pool("MaxPool", strides=(1, 1), pads=(0, 0, 2, 1))], IMAGE),
    "average pool whole, padded at the end": (
        [pool("AveragePool", pads=(0, 0, 2, 1), count_include_pad=1)],
        IMAGE,
    ),
    "resize nearest": (
        [node("Resize", "x - s", "y", mode="nearest", nearest_mode="floor", **ASYMMETRIC)],
        IMAGE,
        {"s": [1.0, 1.0, 2.0, 1.5]},
    ),
    "resize nearest as ONNX does": (
        [node("Resize", "x - s", "y", mode="nearest")],
        IMAGE,
        {"s": [1.0, 1.0, 2.0, 3.0]},
    ),
    "resize nearest to half": (
        [node("Resize", "x - s", "y", mode="nearest")],
        IMAGE,
        {"s": [1.0, 1.0, 0.5, 0.5]},
    ),
    "resize linear": (
        [node("Resize", "x - s", "y", mode="linear")],
        IMAGE,
        {"s": [1.0, 1.0, 1.7, 0.6]},
    ),
    "resize linear to a size": (
        [
            node("Shape", "x", "n", start=0, end=2),
            node("Concat", "n hw", "s", axis=0),
            node("Resize", "x - - s", "y", mode="linear", **CORNERS),
        ],
        IMAGE,
        {"hw": [5, 13]},
    ),
    "resize some axes": (
        [node("Resize", "x - - s", "y", mode="linear", axes=[3, 2])],
        IMAGE,
        {"s": [5, 13]},
        18,
    ),
    "upsample": ([node("Upsample", "x s", "y")], IMAGE, {"s": [1.0, 1.0, 2.0, 2.0]}, 9),
    "upsample of version 7": (
        [node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 3.0], mode="nearest")],
        IMAGE,
        {},
        8,
    ),
    "channels last, resized": (
        [
            TO_FIRST,
            conv("first", "c"),
            node("Transpose", "c", "last", perm=(0, 2, 3, 1)),
            node("Resize", "last - s", "big", mode="linear"),
            node("Pad", "big p", "y"),
        ],
        LAST,
        {**KERNEL, "s": [1.0, 2.0, 2.0, 1.0], "p": [0, 1, 2, 3, 0, 0, 0, 1]},
    ),
    "slice of rows": (
        [node("Slice", "x s e a p", "y")],
        IMAGE,
        {"s": [1, 0], "e": [-1, 99], "a": [2, 3], "p": [3, 2]},
    ),
    "batch norm": (
        [node("BatchNormalization", "x s b m v", "y", epsilon=0.01)],
        IMAGE,
        {"s": random(4), "b": random(4), "m": random(4), "v": RNG.uniform(0.5, 2, 4)},
    ),
    "batch norm of rows": (
        [node("BatchNormalization", "x s b m v", "y")],
        ROW,
        {"s": random(6), "b": random(6), "m": random(6), "v": RNG.uniform(0.5, 2, 6)},
    ),
    "relu": ([node("Relu", "x", "y")], IMAGE),
    "sigmoid": ([node("Sigmoid", "x", "y")], IMAGE),
    "tanh": ([node("Tanh", "x", "y")], ROW),
    "neg": ([node("Neg", "x", "y")], IMAGE),
    "leaky relu": ([node("LeakyRelu", "x", "y", alpha=0.3)], IMAGE),
    "hard sigmoid": ([node("HardSigmoid", "x", "y", alpha=0.3, beta=0.4)], IMAGE),
    "identity": ([node("Identity", "x", "y")], IMAGE),
    "cast": ([node("Cast", "x", "y", to=1)], IMAGE),
    "clip": ([node("Clip", "x lo hi", "y")], IMAGE, {"lo": -0.5, "hi": 0.7}),
    "clip above": ([node("Clip", "x - hi", "y")], IMAGE, {"hi": 0.7}),
    "clip nothing": ([node("Clip", "x", "y")], IMAGE),
    "clip of version 6": ([node("Clip", "x", "y", min=0.0, max=0.6)], IMAGE, {}, 9),
    "dropout": ([node("Dropout", "x", "y")], IMAGE),
    "dropout of version 7": ([node("Dropout", "x", "y", ratio=0.3)], IMAGE, {}, 9),
    "max pool": ([pool("MaxPool", strides=(2, 1), pads=(1, 0, 1, 0))], IMAGE),
    "max pool ceil": ([pool("MaxPool", strides=(2, 3), ceil_mode=1)], IMAGE),
    "max pool dilated": ([pool("MaxPool", dilations=(2, 3))], IMAGE),
    "max pool same upper": ([pool("MaxPool", strides=(2, 2), auto_pad="SAME_UPPER")], IMAGE),
    "max pool same lower": ([pool("MaxPool", strides=(2, 2), auto_pad="SAME_LOWER")], IMAGE),
    "max pool valid": ([pool("MaxPool", auto_pad="VALID")], IMAGE),
    "average pool": ([pool("AveragePool", strides=(2, 1), pads=(1, 1, 1, 1))], IMAGE),
    "average pool whole": (
        [pool("AveragePool", strides=(2, 1), pads=(1, 1, 1, 1), count_include_pad=1)],
        IMAGE,
    ),
    "average pool ceil": ([pool("AveragePool", strides=(2, 3), ceil_mode=1)], IMAGE),
    "average pool same": (
        [pool("AveragePool", strides=(2, 2), auto_pad="SAME_UPPER")],
        IMAGE,
    ),
    "average pool same lower": (
        [pool("AveragePool", strides=(2, 2), auto_pad="SAME_LOWER")],
        IMAGE,
    ),
    **{
        f"{op} of {kernel} by {stride}, {side}": (
            [
                node(
                    op,
                    "x",
                    "y",
                    kernel_shape=(kernel, kernel),
                    strides=(stride, stride),
                    auto_pad=f"SAME_{side}",
                )
            ],
            IMAGE,
        )
        for op in ("MaxPool", "AveragePool")
        for kernel, stride in ((2, 1), (3, 1), (4, 1), (5, 2), (4, 3), (2, 2), (5, 3))
        for side in ("UPPER", "LOWER")
    },
    "global average": ([node("GlobalAveragePool", "x", "y")], IMAGE),
    "global maximum": ([node("GlobalMaxPool", "x", "y")], IMAGE),
    "mean": ([node("ReduceMean", "x", "y", axes=(2, 3))], IMAGE),
    "mean without axes": ([node("ReduceMean", "x", "y", axes=(-1, -2), keepdims=0)], IMAGE),
    "mean of version 18": (
        [node("ReduceMean", "x a", "y", keepdims=0)],
        IMAGE,
        {"a": [2, 3]},
        18,
    ),
    "add a number": binary("Add", 0.5),
    "subtract a number": binary("Sub", [0.5]),
    "subtract from a number": binary("Sub", 0.5, swapped=True),
    "multiply by a number": binary("Mul", [[[[0.5]]]]),
    "divide by a number": binary("Div", 0.5),
    "add to channels": binary("Add", random(1, 4, 1, 1)),
    "add channels to": binary("Add", random(4, 1, 1), swapped=True),
    "subtract from channels": binary("Sub", random(4, 1, 1)),
    "subtract channels from": binary("Sub", random(4, 1, 1), swapped=True),
    "multiply channels": binary("Mul", random(4, 1, 1)),
    "divide channels": binary("Div", RNG.uniform(0.5, 2, (4, 1, 1))),
    "add to rows": ([node("Add", "x c", "y")], ROW, {"c": random(6)}),
    "add of two": ([node("Relu", "x", "r"), node("Add", "x r", "y")], IMAGE),
    "sub of two": ([node("Relu", "x", "r"), node("Sub", "x r", "y")], IMAGE),
    "sum of three": (
        [node("Relu", "x", "r"), node("Tanh", "x", "t"), node("Sum", "x r t", "y")],
        IMAGE,
    ),
    "concat": ([node("Relu", "x", "r"), node("Concat", "x r x", "y", axis=1)], IMAGE),
    "concat from the end": ([node("Concat", "x x", "y", axis=-3)], IMAGE),
    "flatten": ([node("Flatten", "x", "y")], IMAGE),
    "reshape": ([node("Reshape", "x s", "y")], IMAGE, {"s": [0, -1]}),
    "reshape of any batch": ([node("Reshape", "x s", "y")], IMAGE, {"s": [-1, 288]}),
    "reshape by the shape": (
        [
            node("Shape", "x", "shape"),
            node("Gather", "shape zero", "n", axis=0),
            node("Unsqueeze", "n first", "n1"),
            node("Concat", "n1 rest", "s", axis=0),
            node("Reshape", "x s", "y"),
        ],
        IMAGE,
        {"zero": 0, "first": [0], "rest": [-1]},
    ),
    "reshape by part of the shape": (
        [
            node("Shape", "x", "n", start=0, end=1),
            node("Concat", "n rest", "s", axis=0),
            node("Reshape", "x s", "y"),
        ],
        IMAGE,
        {"rest": [288]},
    ),
    "squeeze": (
        [node("GlobalAveragePool", "x", "g"), node("Squeeze", "g a", "y")],
        IMAGE,
        {"a": [2, 3]},
    ),
    "squeeze of version 11": (
        [node("GlobalAveragePool", "x", "g"), node("Squeeze", "g", "y", axes=(3, 2))],
        IMAGE,
        {},
        11,
    ),
    "squeeze and unsqueeze": (
        [
            node("ReduceMean", "x", "g", axes=(2, 3), keepdims=0),
            node("Unsqueeze", "g a", "u"),
            node("Conv", "u w", "y"),
        ],
        IMAGE,
        {"a": [2, 3], "w": random(3, 4, 1, 1)},
    ),
    "a product of squeezed rows": (
        [
            node("ReduceMean", "x", "g", axes=(2, 3), keepdims=0),
            node("MatMul", "g w", "m"),
            node("Softmax", "m", "y"),
        ],
        IMAGE,
        {"w": random(4, 3)},
    ),
    "softmax": ([node("Softmax", "x", "y", axis=1)], IMAGE),
    "softmax of rows": ([node("Softmax", "x", "y")], ROW),
    "softmax of version 11": ([node("Softmax", "x", "y")], ROW, {}, 11),
    "log softmax": ([node("LogSoftmax", "x", "y", axis=-1)], ROW),
    "slice": ([node("Slice", "x s e a", "y")], IMAGE, {"s": [1], "e": [-1], "a": [1]}),
    "slice of version 9": (
        [node("Slice", "x", "y", starts=[1], ends=[99], axes=[1])],
        IMAGE,
        {},
        9,
    ),
    "slice of nothing": (
        [node("Slice", "x s e a", "y")],
        IMAGE,
        {"s": [0, 0], "e": [2**63 - 1, 9], "a": [0, 2]},
    ),
    "split": (
        [node("Split", "x s", "a b", axis=1), node("Concat", "b a", "y", axis=1)],
        IMAGE,
        {"s": [1, 3]},
    ),
    "split evenly": ([node("Split", "x", "a b", axis=1), node("Sub", "a b", "y")], IMAGE),
    "gather a channel": ([node("Gather", "x i", "y", axis=1)], IMAGE, {"i": [-2]}),
    "gather channels backwards": ([node("Gather", "x i", "y", axis=1)], IMAGE, {"i": [3, 2, 0, 1]}),
    "transform of an input": (
        [
            node("Gather", "x i0", "p0", axis=1),
            node("Unsqueeze", "p0 one", "q0"),
            node("Mul", "q0 f", "r0"),
            node("Gather", "x i2", "p2", axis=1),
            node("Unsqueeze", "p2 one", "q2"),
            node("Concat", "r0 q2", "y", axis=1),
        ],
        IMAGE,
        {"i0": 0, "i2": 2, "one": [1], "f": 0.25},
    ),
    "constants that are computed": (
        [
            node("Constant", "", "half", value_float=0.5),
            node("ConstantOfShape", "one", "zeros"),
            node("Add", "half zeros", "sum"),
            node("Div", "w sum", "w2"),
            node("Conv", "x w2 b", "y"),
        ],
        IMAGE,
        {**KERNEL, "one": [1]},
    ),
    "channels last": (
        [
            TO_FIRST,
            conv("first", "c", auto_pad="SAME_UPPER", strides=(2, 2)),
            node("Transpose", "c", "last", perm=(0, 2, 3, 1)),
            node("Add", "last bias", "s"),
            node("Relu", "s", "y"),
        ],
        LAST,
        {**KERNEL, "bias": random(6)},
    ),
    "channels last from a mean": (
        [
            node("Sub", "x mean", "centred"),
            node("Mul", "centred scale", "scaled"),
            node("Transpose", "scaled", "first", perm=(0, 3, 1, 2)),
            conv("first", "c"),
            node("Transpose", "c", "last", perm=(0, 2, 3, 1)),
            node("ReduceMean", "last", "m", axes=(1, 2), keepdims=0),
            node("MatMul", "m v", "t"),
            node("Add", "t a", "y"),
        ],
        LAST,
        {**KERNEL, "mean": random(4), "scale": 0.5, "v": random(6, 3), "a": random(3)},
    ),
    "channels last, concatenated": (
        [
            TO_FIRST,
            conv("first", "c"),
            node("Transpose", "c", "last", perm=(0, 2, 3, 1)),
            node("Relu", "last", "r"),
            node("Concat", "last r", "both", axis=3),
            node("Slice", "both s e a", "y"),
        ],
        LAST,
        {**KERNEL, "s": [2], "e": [9], "a": [3]},
    ),
    "channels last, softmax": (
        [
            TO_FIRST,
            conv("first", "c"),
            node("Transpose", "c", "last", perm=(0, 2, 3, 1)),
            node("Softmax", "last", "y", axis=-1),
        ],
        LAST,
        KERNEL,
    ),
    "a transposed image": ([node("Transpose", "x", "y", perm=(0, 1, 3, 2))], IMAGE),
    "channels last, flattened": (
        [
            TO_FIRST,
            conv("first", "c"),
            node("Transpose", "c", "last", perm=(0, 2, 3, 1)),
            node("Reshape", "last s", "flat"),
            node("Relu", "flat", "r"),
            node("MatMul", "r v", "t"),
            node("Add", "t a", "y"),
        ],
        LAST,
        {**KERNEL, "s": [-1, 7 * 6 * 6], "v": random(7 * 6 * 6, 5), "a": random(5)},
    ),
}

# What no plan can do; it runs layer by layer.
EAGER: dict[str, tuple[Any, ...]] = {
    "product of two": ([node("Sigmoid", "x", "s"), node("Mul", "x s", "y")], IMAGE),
    "quotient of two": ([node("Sigmoid", "x", "s"), node("Div", "x s", "y")], IMAGE),
    "hard swish": ([node("HardSwish", "x", "y")], IMAGE),
    "squeeze and excite": (
        [
            node("GlobalAveragePool", "x", "g"),
            node("Conv", "g w", "c"),
            node("Sigmoid", "c", "s"),
            node("Mul", "x s", "y"),
        ],
        IMAGE,
        {"w": random(4, 4, 1, 1)},
    ),
    "divide by channels": binary("Div", RNG.uniform(0.5, 2, (1, 4, 9, 8))),
    "add an image": binary("Add", random(4, 9, 8)),
    "add rows": binary("Add", random(9, 1)),
    "mean of channels": ([node("ReduceMean", "x", "y", axes=(1,))], IMAGE),
    "shuffled channels": (
        [
            node("Reshape", "x a", "r"),
            node("Transpose", "r", "t", perm=(0, 2, 1, 3, 4)),
            node("Reshape", "t b", "y"),
        ],
        IMAGE,
        {"a": [0, 2, 2, 9, 8], "b": [0, 4, 9, 8]},
    ),
    "slice of rows backwards": (
        [node("Slice", "x s e a p", "y")],
        IMAGE,
        {"s": [8], "e": [-99], "a": [2], "p": [-2]},
    ),
    "an output flattened channels last": (
        [
            TO_FIRST,
            conv("first", "c"),
            node("Transpose", "c", "last", perm=(0, 2, 3, 1)),
            node("Flatten", "last", "y"),
        ],
        LAST,
        KERNEL,
    ),
}


def check(path: Path, case: tuple[Any, ...], planned: bool) -> None:
    nodes, shape, constants, opset = (*case, *({}, 17)[len(case) - 2 :])
    write(path, nodes, {"x": shape}, constants, opset=opset)
    model = load(path)
    assert (model.not_compiled is None) == planned, model.not_compiled
    assert model.compiled == planned
    for batch in (1, 3):
        x = random(batch, *shape[1:])
        (expected,) = run_onnxruntime(path, x)
        assert_close(model(x), expected, 1e-5, f"batch {batch}")
        with nn.eager():
            assert_close(model(x), expected, 1e-5, f"batch {batch}, layer by layer")
        assert_close(model(nn.Tensor(x)).numpy(), expected, 1e-5, f"batch {batch}, as tensors")


@pytest.mark.parametrize("name", CASES)
def test_operators_in_a_plan(name: str, tmp_path: Path) -> None:
    check(tmp_path / "model.onnx", CASES[name], planned=True)


@pytest.mark.parametrize("name", EAGER)
def test_operators_without_a_plan(name: str, tmp_path: Path) -> None:
    check(tmp_path / "model.onnx", EAGER[name], planned=False)
