"""Odd arguments of every function: one sentence that names the argument, or a result; no warnings.

Each argument of a legal call is replaced by each of many things that do not belong there, and the
numbers in arrays by NaN, infinities and others at the ends of their types.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oxidet.models.detection as pieces
from every_call import BOXES, CALLS, LABELS, LOC, MAPS, OTHERS, leaves, mapped
from oxidet import detection, ops

Calls = dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]

CODER = pieces.BoxCoder((1.0, 1.0, 2.0, 2.0))
IMAGES = pieces.ImageList(np.zeros((1, 3, 32, 32)), [(32, 32)])
COCO = {
    "images": [{"id": 7}],
    "categories": [{"id": 1}],
    "annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}],
}
FOUND = [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
FURTHER: Calls = {
    "generate_anchor_base": (detection.generate_anchor_base, (16, (0.5, 1), (8, 16))),
    "eval_coco": (detection.eval_coco, (COCO, FOUND)),
    "BoxCoder.encode": (CODER.encode, ([BOXES], [OTHERS])),
    "BoxCoder.encode_single": (CODER.encode_single, (BOXES, OTHERS)),
    "BoxCoder.decode": (CODER.decode, (LOC, [OTHERS])),
    "BoxCoder.decode_single": (CODER.decode_single, (LOC, OTHERS)),
    "Matcher": (pieces.Matcher(0.7, 0.3, True), (np.linspace(0, 1, 27).reshape(3, 9),)),
    "BalancedPositiveNegativeSampler": (
        pieces.BalancedPositiveNegativeSampler(4, 0.5),
        ([LABELS],),
    ),
    "AnchorGenerator": (pieces.AnchorGenerator(((32,),), ((0.5, 1.0),)), (IMAGES, [MAPS])),
}
CONSTRUCTORS: Calls = {
    "BoxCoder()": (pieces.BoxCoder, ((1.0, 1.0, 1.0, 1.0), 3.0)),
    "Matcher()": (pieces.Matcher, (0.7, 0.3, True)),
    "BalancedPositiveNegativeSampler()": (pieces.BalancedPositiveNegativeSampler, (4, 0.5)),
    "AnchorGenerator()": (pieces.AnchorGenerator, (((32,),), ((0.5, 1.0),))),
    "AnchorTargetCreator()": (detection.AnchorTargetCreator, (256, 0.7, 0.3, 0.5)),
    "ProposalTargetCreator()": (detection.ProposalTargetCreator, (128, 0.25, 0.5, 0.5, 0.0)),
    "RoIPool()": (ops.RoIPool, (3, 1.0)),
    "RoIAlign()": (ops.RoIAlign, (3, 1.0, 2, True)),
    "PSRoIPool()": (ops.PSRoIPool, (2, 1.0)),
    "PSRoIAlign()": (ops.PSRoIAlign, (2, 1.0, 2)),
    "DeformConv2d()": (ops.DeformConv2d, (4, 4, 3, 1, 0, 1, 1, True)),
    "FeaturePyramidNetwork()": (ops.FeaturePyramidNetwork, ([4, 4], 4, None, None)),
    "LastLevelP6P7()": (ops.LastLevelP6P7, (4, 4)),
    "FrozenBatchNorm2d()": (ops.FrozenBatchNorm2d, (4, 1e-5)),
    "Conv2dNormActivation()": (ops.Conv2dNormActivation, (4, 4, 3, 1, None, 1)),
}
FUNCTIONS = {**CALLS, **FURTHER}
EVERYTHING = {**FUNCTIONS, **CONSTRUCTORS}

# A number with too many digits for Python to write, and one for a message to show.
ODD: list[Any] = [
    None, "abc", b"x", 5, -3, 2.5, True, np.nan, np.inf, -np.inf, 10**400, -(10**5000), 2**63, 1j,
    [], (), {}, {"a": 1}, set(), object(), slice("a"), range(4), ..., memoryview(b"abcd"),
    np.zeros(0), np.zeros((0, 4)), np.zeros((0, 5)), np.zeros(4), np.array(5), np.array("abc"),
    np.zeros((3, 4), bool), np.ones((3, 4), np.uint8), np.ones((30, 4), complex),
    np.full((30, 4), np.nan, np.float32), np.full((30, 4), np.inf), np.full((30, 4), -1e300),
    np.zeros((2, 3, 4)), np.zeros((2, 8, 16, 16)), np.array([None, 1], object),
    np.full(30, -1), np.full(30, 2**62), np.full(30, 127, np.int8), np.full(30, 1e300),
    np.array([[1, 2, 3, 4]], ">f8"), np.float32(np.nan), np.datetime64("2020"),
    [[1, 2], [3]], [None], [1, 2, 3, 4], [5], ["a"], [np.zeros((1, 4))], [[[1, 2, 3, 4]]],
    (np.nan, np.nan), (0, 0), (1e300, 1e300), (10**400, 3), ("a", 3), (None, None),
]  # fmt: skip
# NotImplementedError: box_convert between upright and rotated formats, as torchvision has it.
CLASSES = (TypeError, ValueError, NotImplementedError, MemoryError)
SENTENCE = re.compile(
    r"(layer \w+: )?[\w\[\]'\"., ]+: expected [^\n]+ got [^\n]+|training: expected None"
)


def complaint(function: Callable[..., Any], arguments: list[Any]) -> str:
    """What is wrong about how a call ends, or nothing."""
    np.random.seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            function(*arguments)
    except CLASSES as error:
        message = str(error)
        if len(message) > 400 or not SENTENCE.match(message):
            return f"{type(error).__name__}: {message[:200]}"
    except FileNotFoundError:  # a word is a path
        pass
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def called(function: Any) -> Any:
    if hasattr(function, "eval") and not isinstance(function, type):
        function.eval()
    return function


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_does_not_belong_there_is_named(name: str) -> None:
    function, arguments = EVERYTHING[name]
    failures = []
    for position in range(len(arguments)):
        for index, odd in enumerate(ODD):
            changed = [*arguments[:position], odd, *arguments[position + 1 :]]
            if wrong := complaint(called(function), changed):
                failures.append(f"argument {position}, odd {index}: {wrong}")
    assert not failures, "\n".join(failures[:20])


EXTREMES = [np.nan, np.inf, -np.inf, 0, -0.0, 1e300, -1e300, 1e30, 5e-324, 1e-40, -1, 2**63]


def extreme(rng: np.random.Generator, value: Any) -> Any:
    """An array with extreme numbers here and there, in some type and form."""
    if not isinstance(value, np.ndarray):
        return value
    array: np.ndarray[Any, Any] = value.copy()
    with np.errstate(all="ignore"):
        if array.dtype.kind == "f":
            array = array.astype(rng.choice(np.array(["f2", "f4", "f8"])))
            for _ in range(rng.integers(4)):
                array.flat[rng.integers(array.size)] = rng.choice(EXTREMES)
            if rng.random() < 0.1:
                array = np.round(np.nan_to_num(array).clip(-120, 120)).astype(np.int8)
    if rng.random() < 0.2:
        array = array.astype(array.dtype.newbyteorder(">"))
    if rng.random() < 0.2:
        array = np.repeat(array, 2, axis=0)[::2]
    if rng.random() < 0.2:
        array.flags.writeable = False
    return array


@pytest.mark.parametrize("name", FUNCTIONS)
def test_extreme_numbers_give_no_warning_and_native_results(name: str) -> None:
    function, arguments = FUNCTIONS[name]
    failures = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        results: list[Any] = []

        def call(*arguments: Any, results: list[Any] = results) -> None:
            results.extend(leaves(called(function)(*arguments)))

        if wrong := complaint(call, mapped(list(arguments), lambda x, rng=rng: extreme(rng, x))):
            failures.append(f"seed {seed}: {wrong}")
        if not all(x.dtype.isnative for x in results if isinstance(x, np.ndarray)):
            failures.append(f"seed {seed}: a result in foreign byte order")
    assert not failures, "\n".join(failures[:20])


def test_a_long_value_is_cut_in_messages() -> None:
    boxes = np.zeros((1, 4))
    for huge in (10**400, -(10**5000)):
        with pytest.raises(ValueError, match="iou_threshold: expected a number") as caught:
            ops.nms(boxes, [1.0], huge)
        assert len(str(caught.value)) < 200


def test_the_argument_of_the_signature_is_named() -> None:
    boxes = np.array([[0, 0, 4, 4]])
    for error, message, call in [
        (TypeError, "boxes: expected coordinates, got dtype bool",
         lambda: ops.remove_small_boxes(boxes > 2, 1)),
        (TypeError, "boxes: expected coordinates, got dtype bool",
         lambda: ops.box_convert(boxes > 2, "xyxy", "xywh")),
        (ValueError, r"boxes1: expected shape \(..., 5\), got \(1, 4\)",
         lambda: ops.box_iou(boxes, boxes, "cxcywhr")),
        (ValueError, r"boxes2: expected shape \(R, 8\), got \(8,\)",
         lambda: ops.box_iou(np.zeros((1, 8)), np.zeros(8), "xyxyxyxy")),
        (TypeError, r"y_slice.stop: expected a number, got 'a'",
         lambda: detection.crop_bbox(boxes, slice("a"))),
        (ValueError, r"x_slice.start: expected a number, got nan",
         lambda: detection.crop_bbox(boxes, None, slice(np.nan, 3))),
        (TypeError, "pred_bboxes: expected a list of arrays, got int",
         lambda: detection.eval_detection_voc(5, [], [], [], [])),
        (TypeError, "gt_labels: expected a list of arrays, got NoneType",
         lambda: detection.eval_detection_coco([], [], [], [], None)),
        (ValueError, "pred_labels: expected labels from 0 to 1048575, got 1048576",
         lambda: detection.eval_detection_coco([boxes], [[2**20]], [[1.0]], [boxes], [[0]])),
        (ValueError, "in_channels: expected an integer from 1 to 2147483647",
         lambda: ops.DeformConv2d(2**31, 2**31, 3)),
        (MemoryError, "weight: expected one that fits into memory, got [0-9]+ numbers",
         lambda: ops.DeformConv2d(2**31 - 1, 2**31 - 1, 3)),
        (TypeError, "norm_layer: expected a class of layers or None, got 3",
         lambda: ops.Conv2dNormActivation(3, 3, norm_layer=3)),
        (TypeError, "y_flip: expected True or False",
         lambda: detection.flip_bbox(boxes, (9, 9), np.zeros(2))),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("annotations", "results", "message"),
    [
        (None, FOUND, "annotations: expected COCO data .* got NoneType"),
        (COCO, None, "results: expected a path, .* got NoneType"),
        (COCO, 3, "results: expected a path, .* got int"),
        ({**COCO, "images": None}, FOUND, "images: expected a list of dictionaries, got NoneType"),
        ({**COCO, "images": [None]}, FOUND, r"images\[0\]: expected a dictionary with 'id'"),
        ({**COCO, "categories": [5]}, FOUND, r"categories\[0\]: expected a dictionary with 'id'"),
        ({**COCO, "images": [{"id": [7]}]}, FOUND, r"images\[0\]: .* number or text as 'id'"),
        ({**COCO, "images": [{"id": None}]}, FOUND, r"images\[0\]: .* number or text as 'id'"),
        ({**COCO, "images": [{"id": 7}, {"id": "a"}]}, FOUND, "images: expected ids of one type"),
        ({**COCO, "annotations": [None]}, FOUND, r"annotations\[0\]: expected a dictionary"),
        ({**COCO, "annotations": 7}, FOUND, "annotations: expected a list of dictionaries"),
        (COCO, [None], r"results\[0\]: expected a dictionary with 'image_id', got None"),
        (COCO, [*FOUND, 5], r"results\[1\]: expected a dictionary with 'image_id', got 5"),
        (COCO, [{**FOUND[0], "bbox": None}], r"results\[0\]: expected bbox"),
        (COCO, [{**FOUND[0], "bbox": [1, 2, None, 4]}], r"results\[0\]: expected bbox"),
        (COCO, [{**FOUND[0], "score": None}], r"results\[0\]: expected a number as 'score'"),
        (COCO, [{**FOUND[0], "image_id": {}}], r"results\[0\]: .* number or text as 'image_id'"),
    ],
)
def test_eval_coco_names_the_record(annotations: Any, results: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        detection.eval_coco(annotations, results)


def test_eval_coco_names_a_file_that_is_no_json(tmp_path) -> None:
    path = tmp_path / "found.json"
    path.write_text("[{")
    with pytest.raises(ValueError, match=r"results: expected a JSON file, got .*found\.json"):
        detection.eval_coco(COCO, path)


def test_a_deviation_of_zero_is_as_infinite_as_numpy_has_it() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 80, 90]], np.float32)
    creator = detection.ProposalTargetCreator()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, loc, _ = creator(boxes + 1, boxes, [1, 2], loc_normalize_std=(0, 0, 0, 0))
    assert not np.isfinite(loc).any()


def test_sides_of_unsigned_boxes_do_not_wrap() -> None:
    inverted = np.array([[9, 9, 4, 4], [0, 0, 3, 3]], np.uint8)
    assert ops.remove_small_boxes(inverted, 2).tolist() == [1]
