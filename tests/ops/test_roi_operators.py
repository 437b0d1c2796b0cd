"""What all RoI operators have in common: types, regions that lie nowhere, named arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from oxidet import detection, nn, ops

RNG = np.random.default_rng(0)
MAP = RNG.standard_normal((2, 8, 9, 10))
ROIS = np.array([[0, 1, 1, 6, 7], [1, 0, 2, 9, 3], [1, 3, 3, 3.5, 8]])


def multi_scale(x: Any, rois: Any) -> Any:
    """Of one map and of half of it, with the rows of each image in a list."""
    pool = ops.MultiScaleRoIAlign(["a", "b"], 2, 2, canonical_scale=4)
    boxes = [rois[rois[:, 0] == image][:, 1:] for image in (0, 1)]
    return pool({"a": x, "b": x[:, :, :5, :5]}, boxes, [(18, 20)] * 2)


def single_scale(x: Any, rois: Any) -> Any:
    pool = ops.MultiScaleRoIAlign(["a"], 2, 2)
    boxes = [rois[rois[:, 0] == image][:, 1:] for image in (0, 1)]
    return pool({"a": x}, boxes, [(9, 10)] * 2)


Operator = Callable[[Any, Any], Any]
OPERATORS: dict[str, Operator] = {
    "roi_pool": lambda x, rois: ops.roi_pool(x, rois, 2),
    "roi_align": lambda x, rois: ops.roi_align(x, rois, 2),
    "roi_align aligned": lambda x, rois: ops.roi_align(x, rois, 2, 1.0, 2, True),
    "ps_roi_pool": lambda x, rois: ops.ps_roi_pool(x, rois, 2),
    "ps_roi_align": lambda x, rois: ops.ps_roi_align(x, rois, 2),
    "RoIPool": lambda x, rois: ops.RoIPool(2, 1.0)(x, rois),
    "RoIAlign": lambda x, rois: ops.RoIAlign(2, 1.0, 2)(x, rois),
    "PSRoIPool": lambda x, rois: ops.PSRoIPool(2, 1.0)(x, rois),
    "PSRoIAlign": lambda x, rois: ops.PSRoIAlign(2, 1.0, 2)(x, rois),
    "roi_pooling_2d": lambda x, rois: detection.roi_pooling_2d(x, rois, 2, 2, 1.0),
    "roi_pooling_2d cpu": lambda x, rois: detection.roi_pooling_2d(
        x, rois, 2, 2, 1.0, convention="cpu"
    ),
    "MultiScaleRoIAlign": multi_scale,
    "MultiScaleRoIAlign of one map": single_scale,
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


@every_operator
def test_the_result_has_the_floating_type_of_the_features(name: str) -> None:
    operator = OPERATORS[name]
    expected = operator(MAP.astype(np.float32), ROIS)
    assert expected.dtype == np.float32
    for dtype, result in [
        ("f8", "f8"),
        (">f8", "f8"),
        (">f4", "f4"),
        ("f2", "f2"),
        ("i8", "f4"),
        ("u1", "f4"),
    ]:
        got = operator(MAP.astype(dtype), ROIS)
        assert got.dtype == np.dtype(result), dtype
        assert got.dtype.isnative
        if dtype[-1] != "2" and dtype[-2:] in ("f4", "f8"):
            np.testing.assert_array_equal(got, expected)
    # The type of the regions does not matter.
    assert operator(MAP.astype(np.float32), ROIS.astype(np.float32)).dtype == np.float32
    assert operator(MAP, ROIS.astype(np.float32)).dtype == np.float64


@every_operator
def test_tensors_and_arrays_have_one_rule_of_types(name: str) -> None:
    torch = pytest.importorskip("torch")
    operator = OPERATORS[name]
    for dtype in (np.float16, np.float32, np.float64, np.int64, np.uint8):
        x = MAP.astype(dtype)
        array, tensor = operator(x, ROIS), operator(torch.from_numpy(x), torch.from_numpy(ROIS))
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_array_equal(tensor, array)


def test_deformable_convolution_has_the_same_rule() -> None:
    torch = pytest.importorskip("torch")
    offset, weight = np.zeros((2, 18, 7, 8)), np.ones((3, 8, 3, 3))
    for dtype, result in [("f8", "f8"), ("f4", "f4"), ("f2", "f2"), (">f8", "f8"), ("i4", "f4")]:
        x = MAP.astype(dtype)
        got = ops.deform_conv2d(x, offset, weight)
        assert got.dtype == np.dtype(result)
        assert got.dtype.isnative
        if dtype != ">f8":
            tensors = [torch.from_numpy(a) for a in (x, offset, weight)]
            assert ops.deform_conv2d(*tensors).numpy().dtype == got.dtype
    assert ops.DeformConv2d(8, 3, 3).eval()(MAP, offset).dtype == np.float64


@every_operator
@pytest.mark.parametrize("column", [1, 2, 3, 4])
def test_a_region_with_a_nan_coordinate_gives_zeros_and_no_gradient(name: str, column: int) -> None:
    operator = OPERATORS[name]
    # Of no height as well: the average of no samples is not asked for.
    nowhere = np.array([[0, 1, 1, 6, 7], [1, 2, 2, 2, 2], [1, 0, 0, 9, 8.5], [1, 3, 3, 3, 8]])
    nowhere[:, column] = np.nan
    rois = np.concatenate([ROIS[:1], nowhere[:1], ROIS[1:], nowhere[1:]])
    x = MAP.astype(np.float32)
    for form in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        got = operator(form, rois)
        assert not got[[1, 4, 5, 6]].any()
        np.testing.assert_array_equal(got[[0, 2, 3]], operator(form, ROIS))

    def gradient(rois: Any) -> Any:
        tensor = nn.Tensor(x, requires_grad=True)
        operator(tensor, rois).sum().backward()
        return tensor.grad

    np.testing.assert_array_equal(gradient(rois), gradient(ROIS))


LISTS = ("MultiScaleRoIAlign", "MultiScaleRoIAlign of one map")


@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in LISTS])
def test_messages_name_the_argument_of_the_signature(name: str) -> None:
    operator = OPERATORS[name]
    function = name.startswith(("roi_align", "roi_pool", "ps_"))
    function = function and not name.startswith("roi_pooling")
    boxes = "boxes" if function else "rois"
    features = "x" if name.startswith("roi_pooling") else "input"
    good = ROIS[:2].tolist()
    cases: list[tuple[type[Exception], str, Any, Any]] = [
        (ValueError, rf"{boxes}: expected shape \(R, 5\)", MAP, ROIS[:, :4]),
        (ValueError, rf"{boxes}: expected 2 dimensions \(R, 5\)", MAP, ROIS[0]),
        (TypeError, rf"{boxes}: expected an array of numbers", MAP, None),
        (TypeError, rf"{boxes}: expected an array of numbers", MAP, "rois"),
        (ValueError, f"{features}: expected 4 dimensions", MAP[0], ROIS),
        (ValueError, f"{features}: expected 4 dimensions", 3.0, ROIS),
        (TypeError, f"{features}: expected an array of numbers", None, ROIS),
        (TypeError, f"{features}: expected an array of numbers", MAP.astype(str), ROIS),
    ]
    if not name.startswith("roi_pooling"):  # which takes no list of images
        wrong = [np.zeros((1, 5))]
        cases.append((ValueError, rf"{boxes}\[0\]: expected shape \(L, 4\)", MAP, wrong))
        wrong = [np.zeros((0, 4))] * 3
        cases.append((ValueError, f"{boxes}: expected at most 2 arrays", MAP, wrong))
    for index in (2, -1, np.nan, np.inf, -np.inf, 1e30):
        rois = np.array([*good, [index, 0, 0, 1, 1]])
        message = f"{boxes}: expected a batch index of at least 0 and below 2, got .* in row 2$"
        cases.append((ValueError, message, MAP, rois))
    for far in (np.inf, -np.inf, 1e300):
        rois = np.array([*good, [1, 0, far, 1, 1]])
        message = f"{boxes}: expected finite coordinates or NaN, got .* in row 2$"
        cases.append((ValueError, message, MAP, rois))
    for error, message, x, rois in cases:
        with pytest.raises(error, match="^" + message):
            operator(x, rois)
