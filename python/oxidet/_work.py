"""How much the modules of a network have to compute for a usual input, without computing it.

A network is traced on the shape that it is made for. A detector of two stages cannot be traced as a
whole, as what its second stage gets is known only at run time; its parts are, on a photograph and
on as many regions as the first stage hands on at most.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from oxidet import nn
from oxidet._arrays import pair
from oxidet._input_shape import recorded
from oxidet.models.detection import Detector
from oxidet.models.detection.generalized_rcnn import GeneralizedRCNN
from oxidet.nn.recording import Recording, node_macs, record
from oxidet.simple_faster_rcnn import FasterRCNN as SimpleFasterRCNN

PHOTOGRAPH = (480, 640)  # height and width, of the shape that cameras make
IMAGE_CHANNELS = (1, 3)


class Work(NamedTuple):
    """Multiply-adds of one image."""

    macs: dict[str, int]
    """By dotted path; the network's own is empty. Of modules that compute any."""
    input: str
    """What is computed on, in words."""


def usual_work(model: nn.Module) -> Work | None:
    """The work of a network on an input of its usual size, found by tracing it.

    None where nobody can know that size (a part of a network that takes more channels than a
    picture has, say), or where the network cannot be traced.

    >>> from oxidet.models import resnet18
    >>> work = usual_work(resnet18())
    >>> work.input, work.macs["layer2"], work.macs[""]
    ('(1, 3, 224, 224)', 411041792, 1814073344)
    """
    try:
        if isinstance(model, Detector):
            return _of_detector(model)
        return _of_network(model)
    except Exception:
        # Whatever people's code does not bear to be traced with: to look at a network may not fail.
        return None


def _of_network(model: nn.Module) -> Work | None:
    first = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))), None)
    if isinstance(first, nn.Conv2d) and first.in_channels in IMAGE_CHANNELS:
        recording = recorded(model)
    elif isinstance(first, nn.Linear):
        recording = record(model, (1, first.in_features))
    else:
        return None
    macs: Counter[str] = Counter()
    _add(macs, recording)
    return Work(dict(macs), str((1, *recording.shapes[recording.inputs[0]])))


def _of_detector(model: Detector) -> Work | None:
    macs: Counter[str] = Counter()
    head: nn.Module
    pool: Any
    if isinstance(model, GeneralizedRCNN):
        height, width = model.transform.padded_size([model.transform.scaled_size(*PHOTOGRAPH)])
        first = record(model, (1, 3, height, width), method="convolve")
        _add(macs, first)
        regions = model.rpn._post_nms_top_n["testing"]
        name, head, pool = "roi_heads", model.roi_heads, model.roi_heads.box_roi_pool
    elif isinstance(model, SimpleFasterRCNN):
        height, width = model.preprocessing.size(*PHOTOGRAPH)
        first = record(model.extractor, (1, 3, height, width))
        _add(macs, first, "extractor")
        features = (1, *first.shapes[first.outputs[0]])
        _add(macs, record(model.rpn, features, method="slide"), "rpn")
        regions = model.rpn.proposal_layer.n_test_post_nms
        name, head, pool = "head", model.head, model.head.roi
    else:
        return None
    channels = first.shapes[first.outputs[0]][0]
    pooled = (regions, channels, *pair(pool.output_size, "output_size"))
    _add(macs, record(head, pooled, method="predict_boxes"), name)
    return Work(dict(macs), f"an image of {height} x {width} pixels and {regions} regions")


def _add(macs: Counter[str], recording: Recording, above: str = "") -> None:
    """Count what is in a recording of the module at the path ``above``."""
    for node in recording.nodes:
        count = recording.batch * node_macs(node)
        path = ".".join(filter(None, (above, node.layer)))
        while count and path:
            macs[path] += count
            path = path.rpartition(".")[0]
        macs[""] += count
