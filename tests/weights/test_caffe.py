"""VGG in the layouts of Caffe and chainercv, and Caffe's files."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet.weights import WeightFileError, from_caffe, from_chainercv, load_caffemodel
from oxidet.weights._caffe import read_caffemodel
from oxidet.weights._convert_vgg import VGG_MEAN
from oxidet.weights._source import Source

# VGG's convolutions per stage.
DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def layers(depth: str = "vgg16") -> dict[str, np.ndarray]:
    """Caffe's layers, with few channels in place of the real numbers."""
    rng = np.random.default_rng(0)
    state, channels = {}, 3
    for stage, count in enumerate(DEPTHS[depth], 1):
        for place in range(1, count + 1):
            shape = (stage + 1, channels, 3, 3)
            state[f"conv{stage}_{place}.weight"] = rng.standard_normal(shape, np.float32)
            state[f"conv{stage}_{place}.bias"] = rng.standard_normal(stage + 1, np.float32)
            channels = stage + 1
    for name, shape in (("fc6", (8, 6 * 49)), ("fc7", (8, 8)), ("fc8", (10, 8))):
        state[f"{name}.weight"] = rng.standard_normal(shape, np.float32)
        state[f"{name}.bias"] = rng.standard_normal(shape[0], np.float32)
    return state


def renamed(pattern: str, weight: str, bias: str, state: dict[str, Any]) -> dict[str, Any]:
    kinds = {"weight": weight, "bias": bias}
    out = {}
    for key, value in state.items():
        layer, kind = key.split(".")
        out[pattern.format(layer, kinds[kind])] = value
    return out


@pytest.mark.parametrize(
    ("pattern", "weight", "bias"),
    [("{}.{}", "weight", "bias"), ("{}.{}", "0", "1"), ("{}/{}", "W", "b"), ("{}_{}", "W", "b"),
     ("{}/conv/{}", "W", "b"), ("{}/{}", "weights", "biases")],
)  # fmt: skip
@pytest.mark.parametrize("depth", list(DEPTHS))
def test_every_way_to_name_the_layers(pattern: str, weight: str, bias: str, depth: str) -> None:
    state = layers(depth)
    given = renamed(pattern, weight, bias, state)
    if "conv/" in pattern:  # chainercv's linear layers are no links of links
        given = {key.replace("/conv", "") if key[:2] == "fc" else key: given[key] for key in given}
    got = from_caffe(dict(reversed(given.items()))).state_dict
    indices = {"vgg11": [0, 3, 6, 8, 11, 13, 16, 18],
               "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
               "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]}  # fmt: skip
    paths = [f"features.{i}" for i in indices[depth]] + [f"classifier.{i}" for i in (0, 3, 6)]
    assert list(got) == [f"{path}.{kind}" for path in paths for kind in ("weight", "bias")]
    for ours, theirs in zip(got.values(), state.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("linear", [(0, 3, 6), (1, 4, 6)])
def test_conversions_for_torch(linear: tuple[int, ...]) -> None:
    expected = from_caffe(layers())
    given = dict(expected.state_dict)
    for ours, theirs in zip((0, 3, 6), linear, strict=True):
        for kind in ("weight", "bias"):
            given[f"classifier.{theirs}.{kind}"] = given.pop(f"classifier.{ours}.{kind}")
    got = from_caffe(given)
    assert list(got.state_dict) == list(expected.state_dict)
    for key, array in expected.state_dict.items():
        np.testing.assert_array_equal(got.state_dict[key], array)
    assert got.preprocess == expected.preprocess


def test_shapes_of_caffes_older_form() -> None:
    state = layers()
    old = {
        key: value.reshape((1,) * (4 - value.ndim) + value.shape) for key, value in state.items()
    }
    got = from_caffe(old).state_dict
    for ours, theirs in zip(got.values(), state.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    kernels = {**state, "fc6.weight": state["fc6.weight"].reshape(8, 6, 7, 7)}
    np.testing.assert_array_equal(
        from_caffe(kernels).state_dict["classifier.0.weight"], state["fc6.weight"]
    )


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("convert", [from_caffe, from_chainercv])
def test_the_colours_are_what_the_recipe_says(convert: Any, channels: Any) -> None:
    state = layers()
    got = convert(state, channels=channels)
    source = "BGR" if convert is from_caffe else "RGB"
    first = state["conv1_1.weight"]
    expected = first if channels == source else first[:, ::-1]
    np.testing.assert_array_equal(got.state_dict["features.0.weight"], expected)
    assert got.preprocess.channels == channels
    # One picture gives the first layer the same sums in both orders.
    assert got.preprocess.resize_size == 256
    picture = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    plain = replace(got.preprocess, resize_size=None)(picture)
    pixels = (picture[:3, :3] - np.array(VGG_MEAN)).transpose(2, 0, 1)
    reference = first if source == "RGB" else first[:, ::-1]
    np.testing.assert_allclose(
        (got.state_dict["features.0.weight"] * plain[:, :3, :3]).sum((1, 2, 3)),
        (reference * pixels).sum((1, 2, 3)),
        rtol=1e-4,
    )


@pytest.mark.parametrize("convert", [from_caffe, from_chainercv])
def test_normalisation_is_folded_into_the_first_layer(convert: Any) -> None:
    from oxidet.nn import functional as F

    plain, folded = convert(layers(), channels="RGB"), convert(layers(), normalized=True)
    assert folded.preprocess.channels == "RGB"
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 12, 12)).astype(np.float64)

    def first(converted: Any) -> np.ndarray:
        recipe = converted.preprocess
        mean, std = (
            np.reshape(np.broadcast_to(v, 3), (1, 3, 1, 1)) for v in (recipe.mean, recipe.std)
        )
        x = (pixels * recipe.scale - mean) / std
        state = converted.state_dict
        return np.asarray(
            F.conv2d(
                x.astype(np.float32),
                state["features.0.weight"],
                state["features.0.bias"],
                padding=1,
            )
        )

    expected, got = first(plain), first(folded)
    inside = np.s_[:, :, 1:-1, 1:-1]
    scale = np.abs(expected).max()
    assert np.abs(got - expected)[inside].max() < 1e-5 * scale
    assert 0 < np.abs(got - expected).max() < 0.05 * scale  # the border, as documented
    for key in folded.state_dict:
        if not key.startswith("features.0"):
            np.testing.assert_array_equal(folded.state_dict[key], plain.state_dict[key])


def change(**changes: Any) -> dict[str, Any]:
    state = {**layers(), **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (change(conv3_2__weight=None), "got no weight of conv3_2"),
        (change(fc7__bias=None), "got no bias of fc7"),
        (change(conv2_1__weight=None, conv2_1__bias=None), "no weight of conv2_1"),
        (change(conv6_1__weight=np.zeros(1)), "got a key 'conv6_1.weight'"),
        (change(conv1_9__weight=np.zeros(1)), "a layer 'conv1_9' out of order"),
        ({**layers(), "conv1_1/W": np.zeros(1)}, "conv1_1 twice"),
        (change(conv1_1__weight=np.zeros((3, 3, 3, 64))), r"got \(3, 3, 3, 64\), as TensorFlow"),
        (change(conv1_2__weight=np.zeros((2, 2, 1, 1))), r"'conv1_2.weight' has shape .*, got"),
        ({}, "got no weight of conv1_1"),
        ({"layer1.0.conv1.weight": np.zeros(1)}, "got a key 'layer1.0.conv1.weight'"),
        ({"features.1.weight": np.zeros(1)}, "got no layer 'features.0'"),
    ],
)
def test_what_is_no_vgg(state: dict[str, Any], message: str) -> None:
    for convert in (from_caffe, from_chainercv):
        with pytest.raises(ValueError, match=f"state: expected .*{message}"):
            convert(state)


def test_channels_are_checked() -> None:
    with pytest.raises(ValueError, match="channels: expected 'RGB' or 'BGR', got 'rgb'"):
        from_caffe(layers(), channels="rgb")  # type: ignore[arg-type]


# --- files


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def chunk(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: np.ndarray, *, old: bool, double: bool = False) -> bytes:
    kind = "<f8" if double else "<f4"
    data = chunk(8 if double else 5, array.astype(kind).tobytes())
    if old:
        shape = (1,) * (4 - array.ndim) + array.shape
        return b"".join(varint(n << 3) + varint(size) for n, size in enumerate(shape, 1)) + data
    return data + chunk(7, chunk(1, b"".join(map(varint, array.shape))))


def caffemodel(state: dict[str, np.ndarray], *, old: bool = False, double: bool = False) -> bytes:
    """A model as Caffe writes it, with the fields between that are of no interest."""
    number, name_field, blob_field = (2, 4, 6) if old else (100, 1, 7)
    grouped: dict[str, list[np.ndarray]] = {}
    for key, array in state.items():
        grouped.setdefault(key.split(".")[0], []).append(array)
    out = chunk(1, b"VGG") + chunk(3, b"data") + varint(5 << 3) + varint(1)
    out += chunk(number, chunk(name_field, b"relu"))  # a layer without arrays
    for name, arrays in grouped.items():
        body = chunk(name_field, name.encode()) + varint(50 << 3 | 5) + struct.pack("<f", 1.5)
        body += varint(51 << 3 | 1) + struct.pack("<d", 2.5)
        out += chunk(
            number,
            body + b"".join(chunk(blob_field, blob(a, old=old, double=double)) for a in arrays),
        )
    return out


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_a_caffemodel(tmp_path: Path, old: bool, double: bool) -> None:
    path = tmp_path / "vgg.caffemodel"
    path.write_bytes(caffemodel(layers(), old=old, double=double))
    state = load_caffemodel(path)
    assert list(state)[:3] == ["conv1_1.0", "conv1_1.1", "conv1_2.0"]
    got = from_caffe(state).state_dict
    for ours, theirs in zip(got.values(), layers().values(), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_any_cut_and_any_changed_byte_is_an_error_or_weights() -> None:
    small = {"a.weight": np.ones((2, 3), np.float32), "a.bias": np.ones(2, np.float32)}
    messages = []
    for old in (False, True):
        data = caffemodel(small, old=old)
        variants = [data[:end] for end in range(len(data))]
        for at in range(len(data)):
            for value in (0x80, data[at] ^ 1):
                variants.append(data[:at] + bytes([value]) + data[at + 1 :])
        for variant in variants:
            try:
                state = read_caffemodel(Source(io.BytesIO(variant), "x"))
                assert all(array.size <= 6 for array in state.values())
            except WeightFileError as error:
                messages.append(str(error))
    assert len(messages) > 300
    assert [m for m in messages if not m.startswith("x: expected ")] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no layer with weights"),
        (b"\xff" * 20, "more than 64 bits"),
        (b"\x0b\x0c", "a field of type 3"),
        (chunk(100, chunk(1, b"a") + chunk(7, chunk(5, bytes(8)) + chunk(7, chunk(1, varint(3))))),
         r"expected data of shape \(3,\) for 'a.0', got 2 numbers"),
        (chunk(100, chunk(1, b"a") + chunk(7, chunk(5, bytes(7)))), "numbers of 4 bytes"),
        (chunk(100, chunk(1, b"a") + chunk(7, b"")), "expected data for 'a.0'"),
        (chunk(100, chunk(7, chunk(5, bytes(4)))) * 2, "one layer of each name"),
        (chunk(100, chunk(7, chunk(5, bytes(4)) * 2)), "in one piece"),
        (chunk(100, chunk(7, chunk(5, bytes(4)) + chunk(7, chunk(1, varint(1 << 62) * 2)))),
         "sizes that fit in memory"),
        (chunk(100, chunk(7, chunk(5, bytes(4)) + chunk(7, chunk(1, b"\x01" * 40)))), "a shape"),
        (chunk(100, chunk(1, b"a" * 2000)), "name of a layer"),
    ],
)  # fmt: skip
def test_what_is_no_caffemodel(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.caffemodel").write_bytes(content)
    with pytest.raises(WeightFileError, match=message):
        load_caffemodel(tmp_path / "x.caffemodel")


def test_memory_is_limited(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(caffemodel(layers()))
    with pytest.raises(WeightFileError, match="max_bytes"):
        load_caffemodel(tmp_path / "x", max_bytes=20_000)
