"""Operators, data, transforms and weight files, as a type checker sees them."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

from oxidet import data, detection, ops, transforms, weights


def boxes_in_arrays_out(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    assert_type(ops.nms(boxes, scores, 0.5), NDArray[np.int64])
    assert_type(ops.batched_nms(boxes, scores, np.zeros(3, np.int64), 0.5), NDArray[np.int64])
    assert_type(ops.box_iou(boxes, boxes), NDArray[Any])
    assert_type(ops.box_convert(boxes, "xyxy", "cxcywh"), NDArray[Any])
    assert_type(ops.box_area([[0, 0, 4, 3]]), NDArray[Any])
    assert_type(detection.bbox_iou(boxes, boxes), NDArray[Any])
    assert_type(detection.non_maximum_suppression(boxes, 0.7, scores), NDArray[np.int32])


def images_and_data(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    picture = data.read_image(image, layout="HWC")
    assert_type(picture, NDArray[np.float32])
    assert_type(data.read_image(io.BytesIO(b"of a file")), NDArray[np.float32])
    assert_type(transforms.Normalize.torchvision()(picture), NDArray[np.float32])
    scenes = data.DigitScenes("train", size=(96, 128))
    loader = data.DataLoader(scenes, batch_size=2, shuffle=True, transform=transforms.RandomFlip())
    assert_type(loader.epoch, int)
    assert_type(len(loader), int)


def files_of_weights() -> None:
    state = weights.load("weights.safetensors")
    assert_type(state, OrderedDict[str, NDArray[Any]])
    weights.save("weights.npz", state)
