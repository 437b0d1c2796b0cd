"""Feature pyramids, their building blocks, and pooling from them."""

from __future__ import annotations

import numpy as np
import pytest

import oxidet
from conftest import check_gradients
from oxidet import nn, ops


def test_a_pyramid_can_be_part_of_a_plan() -> None:
    pyramid = ops.FeaturePyramidNetwork([4, 6], 8, ops.LastLevelMaxPool()).eval()
    rng = np.random.default_rng(0)
    # Sizes that are not multiples of each other.
    maps = {
        "a": rng.standard_normal((1, 4, 11, 9)).astype(np.float32),
        "b": rng.standard_normal((1, 6, 5, 4)).astype(np.float32),
    }
    eager = pyramid(maps)
    pyramid.compiled = True
    planned = pyramid(maps)
    assert list(planned) == list(eager) == ["a", "b", "pool"]
    for name, level in eager.items():
        np.testing.assert_allclose(planned[name], level, atol=1e-5)


def test_frozen_batch_norm_reads_the_state_of_a_batch_norm() -> None:
    norm = nn.BatchNorm2d(3)
    x = np.random.default_rng(0).standard_normal((4, 3, 5, 6)).astype(np.float32)
    norm(x)
    frozen = nn.Sequential(ops.FrozenBatchNorm2d(3))
    state = {f"0.{key}": value for key, value in norm.state_dict().items()}
    assert "0.num_batches_tracked" in state
    frozen.load_state_dict(state)
    assert "0.num_batches_tracked" in state  # of the caller
    assert list(frozen.parameters()) == []
    np.testing.assert_array_equal(frozen.eval()(x), norm.eval()(x))
    tensor = nn.Tensor(x, requires_grad=True)
    frozen.train()(tensor).sum().backward()
    factor = norm.weight.numpy() / np.sqrt(norm.running_var.numpy() + 1e-5)
    np.testing.assert_allclose(tensor.grad, np.broadcast_to(factor[:, None, None], x.shape), 1e-5)
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 3, H, W\)"):
        frozen(np.zeros((1, 4, 2, 2)))


def test_frozen_batch_norm_can_be_part_of_a_plan() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), ops.FrozenBatchNorm2d(8), nn.ReLU()).eval()
    network[1].running_var = np.linspace(0.5, 2, 8)
    x = np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)
    eager = network(x)
    network.compiled = True
    np.testing.assert_allclose(network(x), eager, atol=1e-5)


def test_conv_norm_activation_keeps_the_size_by_default() -> None:
    x = np.zeros((1, 4, 9, 10))
    for kernel, dilation in [(3, 1), (5, 2), ((3, 1), 1), (1, (2, 1))]:
        block = ops.Conv2dNormActivation(4, 6, kernel, dilation=dilation).eval()
        assert block(x).shape == (1, 6, 9, 10)
        assert block.out_channels == 6
    plain = ops.Conv2dNormActivation(4, 6, norm_layer=None, activation_layer=None)
    assert [name for name, _ in plain.named_parameters()] == ["0.weight", "0.bias"]
    normed = ops.Conv2dNormActivation(4, 6)
    assert "0.bias" not in normed.state_dict()


def test_pyramid_of_older_files_and_wrong_maps() -> None:
    pyramid = ops.FeaturePyramidNetwork([4, 6], 8)
    other = nn.ModuleDict({"fpn": ops.FeaturePyramidNetwork([4, 6], 8)})
    bare = {
        f"fpn.{kind}.{i}.{name}": pyramid.state_dict()[f"{kind}.{i}.0.{name}"]
        for kind in ("inner_blocks", "layer_blocks")
        for i in range(2)
        for name in ("weight", "bias")
    }
    other.load_state_dict(bare)
    for key, value in pyramid.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[f"fpn.{key}"], value)
    with pytest.raises(ValueError, match="x: expected 2 maps, got 1"):
        pyramid({"0": np.zeros((1, 4, 8, 8))})
    with pytest.raises(ValueError, match="in_channels_list: expected an integer from 1"):
        ops.FeaturePyramidNetwork([4, 0], 8)
    with pytest.raises(TypeError, match="extra_blocks: expected an ExtraFPNBlock"):
        ops.FeaturePyramidNetwork([4], 8, nn.ReLU())  # type: ignore[arg-type]


def maps(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"0": 64, "other": 3, "1": 32, "2": 16, "3": 8}
    return {name: rng.standard_normal((2, 3, n, n)).astype(np.float32) for name, n in sizes.items()}


def test_levels_of_the_specification() -> None:
    pool = ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 2, 2).eval()
    pool(maps(), [np.zeros((0, 4)), np.zeros((0, 4))], [(256, 200), (100, 256)])
    assert pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    sides = [112, 111.9, 224, 223.99, 448, 447.9, 896, 0, 5000]
    boxes = np.array([[0, 0, side, side] for side in sides])
    assert pool.map_levels is not None
    assert pool.map_levels(boxes).tolist() == [1, 0, 2, 1, 3, 2, 3, 0, 3]
    assert pool.map_levels(np.array([[5, 0, 0, 5]])).tolist() == [-1]


def test_every_box_is_pooled_from_its_level() -> None:
    features = maps()
    boxes = [
        np.array([[0, 0, 30, 40], [9, 9, 240, 250.0]]),
        np.array([[50, 0, 20, 9], [0, 0, 9, 5]]),
    ]
    pool = ops.MultiScaleRoIAlign(["0", "1", "2", "3"], (2, 3), 2).eval()
    got = pool(features, boxes, [(256, 256)] * 2)
    rois = np.array([[0, 0, 0, 30, 40], [0, 9, 9, 240, 250], [0, 0, 0, 0, 0], [1, 0, 0, 9, 5]])
    for row, (name, scale) in enumerate([("0", 1 / 4), ("2", 1 / 16), ("", 0), ("0", 1 / 4)]):
        if name:
            expected = ops.roi_align(features[name], rois[row : row + 1], (2, 3), scale, 2)[0]
            np.testing.assert_array_equal(got[row], expected)
        else:
            np.testing.assert_array_equal(got[row], np.zeros((3, 2, 3)))
    last = {
        name: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        for name, x in features.items()
    }
    np.testing.assert_array_equal(pool(last, boxes, [(256, 256)] * 2), got)


def test_one_pair_serves_images_of_one_size() -> None:
    boxes = [np.array([[0, 0, 30, 40.0]]), np.array([[9, 9, 240, 250.0]])]

    def pooled(shapes: list[tuple[int, int]]) -> np.ndarray:
        return ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 2, 2).eval()(maps(), boxes, shapes)

    expected = pooled([(256, 256), (200, 256)])
    for shapes in ([(256, 256)], [(256, 256)] * 3):
        np.testing.assert_array_equal(pooled(shapes), expected)


def test_gradients_reach_every_level_that_was_pooled() -> None:
    small = [value[:, :1, :6, :6].astype(np.float64) for value in maps().values()][:2]
    boxes = [np.array([[0, 0, 9, 9], [2, 1, 200, 140.0]]), np.array([[0, 0, 130, 150.0]])]
    pool = ops.MultiScaleRoIAlign(["a", "b"], 2, 2)
    pool.scales, pool.map_levels = [0.25, 0.125], oxidet.ops._poolers.LevelMapper(2, 3, 100, 3)
    check_gradients(lambda a, b: pool({"a": a, "b": b}, boxes, [(24, 24)] * 2), *small, step=0.1)


def test_bad_input_is_named() -> None:
    pool = ops.MultiScaleRoIAlign(["0", "1"], 2, 2)
    boxes, sizes = [np.zeros((1, 4))] * 2, [(256, 256)] * 2
    two = {"0": maps()["0"], "1": maps()["1"]}
    infinite = [np.zeros((3, 4)), np.array([[0, 0, np.inf, 0]])]
    for error, message, arguments in [
        (ValueError, "x: expected a map named in", ({"a": two["0"]}, boxes, sizes)),
        (TypeError, "x: expected maps by name, got int", (3, boxes, sizes)),
        (TypeError, "x: expected maps by name, got list", (list(two.values()), boxes, sizes)),
        (TypeError, r"x\['0'\]: expected an array", ({"0": None}, boxes, sizes)),
        (ValueError, r"x\['0'\]: expected shape \(N", ({"0": two["0"][0]}, boxes, sizes)),
        (ValueError, r"x\['0'\]: .* H above 0", ({"0": two["0"][:, :, :0]}, boxes, sizes)),
        (
            ValueError,
            "x: expected 2 images and 3 channels in every map",
            ({"0": two["0"], "1": np.zeros((2, 4, 32, 32))}, boxes, sizes),
        ),
        (ValueError, "x: expected 2 images", ({**two, "1": two["1"][:1]}, boxes, sizes)),
        (TypeError, "boxes: expected a list with an array for", (two, boxes[0], sizes)),
        (TypeError, "boxes: expected a list .* got NoneType", (two, None, sizes)),
        (
            ValueError,
            "boxes: expected at most 2 arrays",
            (two, [*boxes, boxes[0]], [*sizes, *sizes[:1]]),
        ),
        (ValueError, r"boxes\[0\]: expected shape \(L, 4\)", (two, [np.zeros(4)] * 2, sizes)),
        (ValueError, "boxes: .* finite coordinates or NaN.* in row 3", (two, infinite, sizes)),
        (TypeError, "image_shapes: expected a list of pairs", (two, boxes, 256)),
        (TypeError, "image_shapes: expected a list of pairs", (two, boxes, None)),
        (ValueError, "image_shapes: expected at least one pair", (two, boxes, [])),
        (ValueError, "image_shapes: expected at least one pair", (two, [], [])),
        (ValueError, r"image_shapes\[1\]: expected two finite", (two, boxes, [(9, 9), (9, 9, 3)])),
        (ValueError, r"image_shapes\[0\]: expected two finite", (two, boxes, [9, 9])),
        (ValueError, r"image_shapes\[0\]: expected two", (two, boxes, [(np.nan, 9), (9, 9)])),
        (ValueError, r"image_shapes\[1\]: expected positive", (two, boxes, [(9, 9), (0, 9)])),
    ]:
        with pytest.raises(error, match=message):
            pool(*arguments)
    assert pool.scales is None  # a refused call fixes nothing
    pool(two, boxes, sizes)
    with pytest.raises(ValueError, match="x: expected 2 maps, as in the first call, got 1"):
        pool({"0": two["0"]}, boxes, sizes)


def test_a_pyramid_of_nothing_is_refused() -> None:
    for wrong in ([], (), None, 3):
        with pytest.raises(ValueError, match=r"in_channels_list: expected .* at least one map"):
            ops.FeaturePyramidNetwork(wrong, 8)  # type: ignore[arg-type]
    x = np.zeros((1, 4, 8, 8))
    with pytest.raises(TypeError, match="x: expected maps by name, got list"):
        ops.FeaturePyramidNetwork([4, 4], 8)([x, x])
