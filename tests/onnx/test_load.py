"""Import of whole files: names, modes, copies, and files that are damaged or hostile."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close, check_gradients
from oxidet import nn
from oxidet.models import get_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_graphs import node, run_onnxruntime, write  # noqa: E402
from oxidet.onnx import UnsupportedOperatorError, export, load  # noqa: E402

RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small network of ours, in a file."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 5),
    )
    net[1].running_mean, net[1].running_var = random(4), RNG.uniform(0.5, 2, 4)
    export(net, tmp_path / "small.onnx", (1, 3, 8, 8))
    return tmp_path / "small.onnx"


# --- what comes out


def test_a_round_trip_keeps_names_and_values(tmp_path: Path) -> None:
    model = get_model("resnet18", num_classes=7).eval()
    export(model, tmp_path / "model.onnx", (1, 3, 32, 32))
    again = load(tmp_path / "model.onnx")
    state, found = model.state_dict(), again.state_dict()
    assert {key for key in state if "num_batches" not in key} == set(found)
    assert all(np.array_equal(state[key], found[key]) for key in found)
    assert {key for key, _ in again.named_parameters()} == {k for k, _ in model.named_parameters()}
    x = random(2, 3, 32, 32)
    assert_close(again(x), model(x), 1e-6)
    rows = [(row.name, row.fused, row.out_shape) for row in again.plan((1, 3, 32, 32))]
    assert rows[0] == ("conv1", ("batch_norm", "relu"), (1, 64, 16, 16))
    assert len(rows) == len(list(model.plan((1, 3, 32, 32))))
    export(again, tmp_path / "twice.onnx", (1, 3, 32, 32))
    assert_close(run_onnxruntime(tmp_path / "twice.onnx", x)[0], model(x), 1e-5)


def test_its_text(small: Path) -> None:
    assert repr(load(small)) == (
        "ImportedGraph(\n"
        "  input input: (N, 3, 8, 8)\n"
        "  output output\n"
        "  (0): Conv(input, dilations=(1, 1), group=1, kernel_shape=(3, 3), pads=(1, 1, 1, 1), "
        "strides=(1, 1))\n"
        "  (1): BatchNormalization(0, epsilon=9.999999747378752e-06)\n"
        "  (2): Relu(1)\n"
        "  (3): MaxPool(2, dilations=(1, 1), kernel_shape=(2, 2), pads=(0, 0, 0, 0), "
        "strides=(2, 2))\n"
        "  (4): Flatten(3, axis=1)\n"
        "  (5): Gemm(4, transB=1)\n"
        ")"
    )


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    nodes = [
        node("Add", "a b", "s"),
        node("Relu", "s", "r"),
        node("Transpose", "r", "t", perm=(0, 2, 3, 1)),
    ]
    shape = ("N", 3, 4, 5)
    path = write(tmp_path / "m.onnx", nodes, {"a": shape, "b": shape}, outputs=("t", "s"))
    model = load(path)
    assert (model.input_names, model.output_names) == (("a", "b"), ("t", "s"))
    assert model.input_shapes == ((None, 3, 4, 5), (None, 3, 4, 5))
    a, b = random(2, 3, 4, 5), random(2, 3, 4, 5)
    got = model(a, b)
    assert isinstance(got, tuple)
    for ours, theirs in zip(got, run_onnxruntime(path, a, b), strict=True):
        assert_close(ours, theirs)
    with pytest.raises(ValueError, match=r"inputs: expected 2 \(a, b\), got 1"):
        model(a)
    with pytest.raises(ValueError, match=r"b: expected 4 dimensions \('any', 3, 4, 5\), got shape"):
        model(a, b[0])
    with pytest.raises(ValueError, match="layer Add_0: "):
        model(a[:, :2], b[:, :2, :2])


def test_sizes_left_open(tmp_path: Path) -> None:
    shape = ("N", 3, "H", "W")
    nodes = [node("Conv", "x w", "c"), node("Sigmoid", "c", "s"), node("Mul", "c s", "y")]
    path = write(tmp_path / "m.onnx", nodes, {"x": shape}, {"w": random(4, 3, 3, 3)})
    model = load(path)
    assert model.input_shapes == ((None, 3, None, None),)
    assert model.compiled
    for size in ((8, 9), (5, 5)):
        x = random(2, 3, *size)
        assert_close(model(x), run_onnxruntime(path, x)[0])
    # A product of activations, which was only seen by tracing.
    assert not model.compiled
    assert "product" in str(model.not_compiled)
    assert "runs without a plan" in repr(model)


def test_channels_first(tmp_path: Path) -> None:
    nodes = [
        node("Mul", "x half", "h"),
        node("Transpose", "h", "first", perm=(0, 3, 1, 2)),
        node("Conv", "first w", "c", auto_pad="SAME_UPPER"),
        node("Transpose", "c", "last", perm=(0, 2, 3, 1)),
        node("Add", "last b", "y"),
        node("ReduceMean", "y", "m", axes=(1, 2), keepdims=0),
    ]
    constants = {"w": random(4, 3, 3, 3), "half": 0.5, "b": random(4)}
    shape = {"x": ("N", 6, 5, 3)}
    path = write(tmp_path / "m.onnx", nodes, shape, constants, outputs=("y", "m"))
    x = random(2, 6, 5, 3)
    images, means = run_onnxruntime(path, x)
    as_in_the_file = load(path)
    assert_close(as_in_the_file(x)[0], images)
    assert "input x: (N, 6, 5, 3)" in repr(as_in_the_file)
    model = load(path, channels_first=True)
    assert "input x: (N, 3, 6, 5)" in repr(model)
    got = model(x.transpose(0, 3, 1, 2))
    assert_close(got[0], images.transpose(0, 3, 1, 2))
    assert_close(got[1], means)
    assert next(iter(model.plan((1, 3, 6, 5)))).in_shape == (1, 3, 6, 5)
    export(model, tmp_path / "ours.onnx", (1, 3, 6, 5))
    again = run_onnxruntime(tmp_path / "ours.onnx", np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    assert_close(again[0], images.transpose(0, 3, 1, 2))
    table = oxidet.summary(model, (1, 3, 6, 5))
    assert table.parameters == 4 * 3 * 9 + 4


def test_many_uses_of_an_input(tmp_path: Path) -> None:
    """What is looked for behind an input is looked at once, however many ways lead there."""
    doubled = [node("Add", f"v{i} v{i}", f"v{i + 1}") for i in range(60)]
    nodes = [*doubled, node("Transpose", "v60", "y", perm=(0, 3, 1, 2))]
    path = write(tmp_path / "m.onnx", nodes, {"v0": (1, 2, 2, 3)})
    x = np.full((1, 2, 2, 3), 2.0**-60, np.float32)
    assert_close(load(path)(x), np.ones((1, 3, 2, 2)))


def test_training(small: Path) -> None:
    model = load(small)
    assert not model.training
    x = random(6, 3, 8, 8)
    before = model(x)
    statistics = model.get_submodule("1").running_mean.data.copy()
    model.train()
    loss = nn.functional.cross_entropy(model(x), np.arange(6) % 5)
    loss.backward()
    assert all(p.grad is not None and np.abs(p.grad).max() > 0 for p in model.parameters())
    assert not np.allclose(model.get_submodule("1").running_mean.data, statistics)
    model.eval()
    assert not np.allclose(model(x), before)
    # No plan is left that has the old weights.
    with nn.eager():
        expected = model(x)
    assert_close(model(x), expected)


def test_gradients(small: Path) -> None:
    model = load(small)
    check_gradients(model, random(1, 3, 8, 8), step=1e-3, tolerance=2e-2)


@pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "pickle"],
)
def test_copies_are_independent(small: Path, clone: Callable[[Any], Any]) -> None:
    model, x = load(small), random(2, 3, 8, 8)
    before = model(x)
    twin = clone(model)
    assert_close(twin(x), before, 1e-6)
    for parameter in twin.parameters():
        parameter.copy_(0)
    assert not np.any(twin(x))
    assert_close(model(x), before, 0)


def test_a_replaced_parameter_is_used(small: Path) -> None:
    model, x = load(small), random(2, 3, 8, 8)
    model(x)
    model.get_submodule("5").weight = nn.Parameter(np.zeros((5, 64), np.float32))
    model.get_submodule("5").bias = np.arange(5)
    assert_close(model(x), np.tile(np.arange(5.0), (2, 1)))


def test_names_are_made_safe(tmp_path: Path) -> None:
    names = ["onnx::Conv_1", "model/conv/kernel:0", "forward", "a", "a.b", "a b", "..", "training"]
    nodes = []
    for i, name in enumerate(names):
        made = node("Conv", "x w", "y", name=["n/1", "train", "", "", "", "", "", ""][i])
        made.input[:] = ["x" if i == 0 else f"v{i}", name]
        made.output[:] = [f"v{i + 1}" if i + 1 < len(names) else "y"]
        nodes.append(made)
    weights = {name: random(3, 3, 1, 1) for name in names}
    path = write(tmp_path / "m.onnx", nodes, {"x": ("N", 3, 2, 2)}, weights)
    model = load(path)
    x = random(2, 3, 2, 2)
    assert_close(model(x), run_onnxruntime(path, x)[0])
    keys = list(model.state_dict())
    assert sorted(keys) == sorted(set(keys))
    assert len(keys) == 8
    assert {"onnx__Conv_1", "model_conv_kernel_0", "forward_", "a_b", "_._._", "training_"} < set(
        keys
    )
    assert model.load_state_dict(model.state_dict())
    model.train().eval()


def test_a_constant_in_two_roles(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", "x w b", "g"),
        node("Gemm", "g w b", "h", transB=1),
        node("Add", "h b", "y"),
    ]
    weights = {"w": random(4, 4), "b": random(4)}
    path = write(tmp_path / "m.onnx", nodes, {"x": ("N", 4)}, weights)
    x = random(3, 4)
    assert_close(load(path)(x), run_onnxruntime(path, x)[0])


# --- files that are not right


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Einsum", "c", "e", equation="nchw->nchw", name="attention/einsum"),
        node("Einsum", "e", "f", equation="nchw->nchw"),
        node("Erf", "f", "g"),
        onnx.helper.make_node("Fancy", ["g"], ["y"], domain="com.example"),
    ]
    path = write(tmp_path / "m.onnx", nodes, {"x": (1, 3, 4, 4)}, {"w": random(3, 3, 1, 1)})
    with pytest.raises(UnsupportedOperatorError) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith(
        "unsupported operators: Einsum ('attention/einsum', 'Einsum_2'); Erf ('Erf_3'); "
        "com.example.Fancy ('Fancy_4'); supported are "
    )
    assert "AveragePool" in text


X = {"x": ("N", 3, 4, 4)}
W = {"w": random(2, 3, 1, 1)}

# Name: nodes, constants, and what the message says.
WRONG: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "an input that nothing computes": ([node("Relu", "z", "y")], {}, "Relu node 'Relu_0'.*'z'"),
    "a name twice": (
        [node("Relu", "x", "y"), node("Tanh", "x", "y")],
        {},
        "Tanh node .*: expected a new name for an output, got 'y'",
    ),
    "no such output": ([node("Relu", "x", "z")], {}, "outputs: expected values .*, got 'y'"),
    "no output": ([node("Relu", "x", "y"), node("Relu", "x", "")], {}, "expected an output"),
    "an unknown attribute": (
        [node("Relu", "x", "y", depth=3)],
        {},
        "Relu node 'Relu_0': expected no attributes but none, got 'depth'",
    ),
    "an attribute of another type": (
        [node("Conv", "x w", "y", strides="two")],
        W,
        "Conv node .*, attribute strides: expected tuple, got str",
    ),
    "floats for integers": (
        [node("Conv", "x w", "y", strides=[1.0, 2.0])],
        W,
        "attribute strides: expected tuple",
    ),
    "weights of another shape": ([node("Conv", "x w", "y")], {"w": random(2, 5, 1, 1)}, "channels"),
    "a kernel_shape that is not the weights'": (
        [node("Conv", "x w", "y", kernel_shape=(3, 3))],
        W,
        r"layer Conv_0: kernel_shape: expected \(1, 1\), got \(3, 3\)",
    ),
    "a convolution in one dimension": (
        [node("Conv", "x w", "y")],
        {"w": random(2, 3, 1)},
        r"Conv node .*: expected a convolution of images.*\(2, 3, 1\)",
    ),
    "computed weights": (
        [node("Relu", "x", "r"), node("Conv", "x r", "y")],
        {},
        "Conv node .*: expected a constant as input 1, got 'r'",
    ),
    "negative padding": ([node("Conv", "x w", "y", pads=(-1, 0, 0, 0))], W, "pads: expected 0"),
    "a stride of 0": ([node("Conv", "x w", "y", strides=(0, 1))], W, "steps of 1 or more"),
    "no groups": ([node("Conv", "x w", "y", group=0)], W, "groups"),
    "an unknown padding": ([node("Conv", "x w", "y", auto_pad="SAME")], W, "auto_pad: expected"),
    "no window": ([node("MaxPool", "x", "y")], {}, "kernel_shape: expected two axes"),
    "a window of three axes": (
        [node("MaxPool", "x", "y", kernel_shape=(1, 1, 1))],
        {},
        "kernel_shape: expected two axes",
    ),
    "a window larger than the image": ([node("MaxPool", "x", "y", kernel_shape=(9, 9))], {}, "9"),
    "an axis that is none": ([node("Concat", "x x", "y", axis=4)], {}, "axis: expected"),
    "an order that is none": (
        [node("Transpose", "x", "y", perm=(0, 0, 1, 2))],
        {},
        "perm: expected an order of 4 axes",
    ),
    "a shape that does not fit": (
        [node("Reshape", "x s", "y")],
        {"s": [0, 47]},
        "",
    ),
    "constants alone": ([node("MaxPool", "w", "y", kernel_shape=(1, 1))], W, "constants"),
    "an output of constants": ([node("Add", "w w", "y")], W, "output 'y'"),
    "a training batch norm": (
        [node("BatchNormalization", "x s s s s", "y", training_mode=1)],
        {"s": [1.0, 1.0, 1.0]},
        "evaluation mode",
    ),
    "a huge constant": (
        [node("ConstantOfShape", "s", "c"), node("Add", "x c", "y")],
        {"s": [1 << 20, 1 << 20, 1 << 20]},
        "ConstantOfShape node .*: expected constants of at most",
    ),
    "constants that grow": (
        [
            *(node("Concat", f"c{i} c{i}", f"c{i + 1}", axis=0) for i in range(40)),
            node("Add", "x c40", "y"),
        ],
        {"c0": [1.0]},
        "Concat node .*: expected constants of at most",
    ),
    "constants that broadcast": (
        [node("Add", "a b", "c"), node("Add", "x c", "y")],
        {"a": random(1 << 16, 1), "b": random(1, 1 << 16)},
        "Add node .*: expected constants of at most",
    ),
    "constants that do not fit": (
        [node("Add", "a b", "c"), node("Add", "x c", "y")],
        {"a": random(2), "b": random(3)},
        "Add node .*: expected constants that do not fit",
    ),
    "a range without end": (
        [node("Range", "a b c", "r"), node("Add", "x r", "y")],
        {"a": 0, "b": 1 << 40, "c": 1},
        "Range node",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_make_no_sense(name: str, tmp_path: Path) -> None:
    nodes, constants, message = WRONG[name]
    path = write(tmp_path / "m.onnx", nodes, X, constants)
    with pytest.raises(ValueError, match=message or None):
        load(path)(random(1, 3, 4, 4))


def change(path: Path, edit: Callable[[Any], Any]) -> Path:
    proto = onnx.load(path)
    edit(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def huge(proto: Any) -> None:
    proto.graph.initializer[0].dims[:] = [1 << 40, 3, 3, 3]


def negative(proto: Any) -> None:
    proto.graph.initializer[0].dims[0] = -4


def few_floats(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data[:] = [1.0, 2.0]


def complex_numbers(proto: Any) -> None:
    proto.graph.initializer[0].data_type = onnx.TensorProto.COMPLEX64


def strings(proto: Any) -> None:
    proto.graph.initializer[0].data_type = onnx.TensorProto.STRING


def unknown_type(proto: Any) -> None:
    proto.graph.initializer[0].data_type = 999


def whole_numbers(proto: Any) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


def no_version(proto: Any) -> None:
    del proto.opset_import[:]


def old_version(proto: Any) -> None:
    proto.opset_import[0].version = 6


def same_name(proto: Any) -> None:
    proto.graph.initializer[1].name = proto.graph.initializer[0].name


def no_graph(proto: Any) -> None:
    proto.ClearField("graph")


def sparse(proto: Any) -> None:
    proto.graph.sparse_initializer.add()


def no_weight(proto: Any) -> None:
    del proto.graph.node[0].input[1:]


def unnamed_weight(proto: Any) -> None:
    proto.graph.node[-1].input[1] = ""


def no_matrix(proto: Any) -> None:
    proto.graph.node[-1].op_type = "MatMul"
    del proto.graph.node[-1].input[1:]
    proto.graph.node[-1].ClearField("attribute")


def no_size(proto: Any) -> None:
    proto.graph.node[2].op_type = "Resize"


DAMAGE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "huge": (huge, r"initializer '0.weight': expected \d+ bytes for shape"),
    "negative": (negative, "expected a shape"),
    "few floats": (few_floats, "expected 108 values for shape"),
    "complex": (complex_numbers, "expected numbers, got type COMPLEX64"),
    "strings": (strings, "expected numbers, got type STRING"),
    "unknown type": (unknown_type, "expected numbers, got type 999"),
    "integers": (whole_numbers, "expected inputs of a floating type, got 'input' of type INT64"),
    "no version": (no_version, "expected a version of the ONNX operators, got none"),
    "old version": (old_version, "expected version 7 to .*, got 6"),
    "same name": (same_name, "expected initializers of different names"),
    "no graph": (no_graph, "expected an ONNX file, got one without a graph"),
    "sparse": (sparse, "expected dense initializers"),
    "no weight": (no_weight, "Conv node '0': expected 2 inputs, got none in place 1"),
    "unnamed weight": (unnamed_weight, "Gemm node '5': expected 2 inputs, got none in place 1"),
    "no matrix": (no_matrix, "MatMul node '5': expected 2 inputs, got none in place 1"),
    "no size": (no_size, "layer 2: scales: expected these or sizes, got neither"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files(name: str, small: Path) -> None:
    edit, message = DAMAGE[name]
    with pytest.raises(ValueError, match=message):
        load(change(small, edit))


def test_files_cut_off_or_of_another_kind(small: Path) -> None:
    whole = small.read_bytes()
    for length in (0, 1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        small.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"small\.onnx: expected"):
            load(small)
    for other in (b"\x89PNG\r\n\x1a\n" * 9, pickle.dumps({"a": 1}), b"PK\x03\x04" + bytes(99)):
        small.write_bytes(other)
        with pytest.raises(ValueError, match=r"small\.onnx: expected an ONNX file"):
            load(small)
    with pytest.raises(FileNotFoundError):
        load(small.with_name("none.onnx"))


@pytest.mark.parametrize("seed", range(60))
def test_bytes_that_are_changed(seed: int, small: Path) -> None:
    """Any file either loads or raises a ValueError."""
    rng = np.random.default_rng(seed)
    data = bytearray(small.read_bytes())
    for place in rng.integers(len(data), size=rng.integers(1, 4)):
        data[place] = rng.integers(256)
    small.write_bytes(bytes(data))
    with contextlib.suppress(ValueError):
        assert load(small).output_names


def test_sizes_that_no_memory_holds(small: Path) -> None:
    def enlarge(proto: Any) -> None:
        proto.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 1 << 40

    with pytest.raises(ValueError, match="expected a result that fits into memory"):
        load(change(small, enlarge))


# --- weights in other files


def move_out(path: Path, **entries: str) -> Any:
    """Move the first initializer's values into ``weights.bin`` (or where ``entries`` say)."""

    def edit(proto: Any) -> None:
        tensor = proto.graph.initializer[0]
        (path.parent / "weights.bin").write_bytes(bytes(16) + tensor.raw_data)
        known = {"location": "weights.bin", "offset": "16", "length": str(len(tensor.raw_data))}
        for key, value in {**known, **entries}.items():
            tensor.external_data.add(key=key, value=value)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL

    return change(path, edit)


def test_weights_beside_the_file(small: Path) -> None:
    x = random(2, 3, 8, 8)
    expected = load(small)(x)
    assert_close(load(move_out(small))(x), expected, 0)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../outside.bin"}, "expected data in the directory of the file"),
        ({"location": "/etc/passwd"}, "expected data in the directory of the file"),
        ({"location": ""}, "expected data in the directory of the file"),
        ({"location": "none.bin"}, "which is no file there"),
        ({"location": "link.bin"}, "expected data in the directory of the file"),
        ({"offset": "-16"}, "expected 432 bytes, got bytes -16"),
        ({"offset": "17"}, "expected 432 bytes, got bytes 17 to 449 of the 448"),
        ({"length": "99999999999"}, "expected 432 bytes"),
        ({"length": "many"}, "expected numbers of bytes"),
    ],
)
def test_weights_elsewhere(small: Path, entries: dict[str, str], message: str) -> None:
    (small.parent.parent / "outside.bin").write_bytes(bytes(1000))
    os.symlink(small.parent.parent / "outside.bin", small.parent / "link.bin")
    with pytest.raises(ValueError, match=message):
        load(move_out(small, **entries))
