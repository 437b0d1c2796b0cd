"""Renaming the weights of related projects to Faster R-CNN's keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oxidet import weights

# simple-faster-rcnn's state_dict order: (key, shape of the weight, chainercv, torchvision vgg16),
# with few channels in place of the real numbers.
LAYERS = [
    ("extractor.0", (2, 3, 3, 3), "extractor/conv1_1/conv", "features.0"),
    ("extractor.2", (2, 2, 3, 3), "extractor/conv1_2/conv", "features.2"),
    ("extractor.5", (3, 2, 3, 3), "extractor/conv2_1/conv", "features.5"),
    ("extractor.7", (3, 3, 3, 3), "extractor/conv2_2/conv", "features.7"),
    ("extractor.10", (4, 3, 3, 3), "extractor/conv3_1/conv", "features.10"),
    ("extractor.12", (4, 4, 3, 3), "extractor/conv3_2/conv", "features.12"),
    ("extractor.14", (4, 4, 3, 3), "extractor/conv3_3/conv", "features.14"),
    ("extractor.17", (5, 4, 3, 3), "extractor/conv4_1/conv", "features.17"),
    ("extractor.19", (5, 5, 3, 3), "extractor/conv4_2/conv", "features.19"),
    ("extractor.21", (5, 5, 3, 3), "extractor/conv4_3/conv", "features.21"),
    ("extractor.24", (5, 5, 3, 3), "extractor/conv5_1/conv", "features.24"),
    ("extractor.26", (5, 5, 3, 3), "extractor/conv5_2/conv", "features.26"),
    ("extractor.28", (5, 5, 3, 3), "extractor/conv5_3/conv", "features.28"),
    ("rpn.conv1", (5, 5, 3, 3), "rpn/conv1", None),
    ("rpn.score", (18, 5, 1, 1), "rpn/score", None),
    ("rpn.loc", (36, 5, 1, 1), "rpn/loc", None),
    ("head.classifier.0", (8, 245), "head/fc6", "classifier.0"),
    ("head.classifier.2", (8, 8), "head/fc7", "classifier.3"),
    ("head.cls_loc", (84, 8), "head/cls_loc", None),
    ("head.score", (21, 8), "head/score", None),
]


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    state = {}
    for key, shape, *_ in LAYERS:
        state[f"{key}.weight"] = rng.standard_normal(shape).astype(np.float32)
        state[f"{key}.bias"] = rng.standard_normal(shape[0]).astype(np.float32)
    return state


def chainercv_state() -> dict[str, np.ndarray]:
    """In the order of an .npz that Chainer wrote: none in particular."""
    ours, state = arrays(), {}
    for key, _, theirs, _ in reversed(LAYERS):
        state[f"{theirs}/b"] = ours[f"{key}.bias"]
        state[f"{theirs}/W"] = ours[f"{key}.weight"]
    return state


def vgg16_state() -> dict[str, np.ndarray]:
    ours, state = arrays(), {}
    for key, _, _, theirs in LAYERS:
        if theirs:
            state[f"{theirs}.weight"] = ours[f"{key}.weight"]
            state[f"{theirs}.bias"] = ours[f"{key}.bias"]
    state["classifier.6.weight"] = np.zeros((10, 8), np.float32)
    state["classifier.6.bias"] = np.zeros(10, np.float32)
    return state


def assert_states_equal(got, expected) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def test_chainercv_rgb_only_renames(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "ccv.npz", **chainercv_state())
    state = weights.load(tmp_path / "ccv.npz")
    got = weights.from_chainercv_faster_rcnn(state, channel_order="rgb")
    assert_states_equal(got, arrays())


def test_chainercv_for_bgr_images_reverses_the_first_input_channels() -> None:
    expected = arrays()
    expected["extractor.0.weight"] = expected["extractor.0.weight"][:, [2, 1, 0]]
    assert_states_equal(weights.from_chainercv_faster_rcnn(chainercv_state()), expected)


def test_chainercv_with_dropout() -> None:
    got = list(weights.from_chainercv_faster_rcnn(chainercv_state(), use_drop=True))
    assert "head.classifier.3.weight" in got
    assert "head.classifier.2.weight" not in got


def test_chainercv_refuses_other_keys() -> None:
    state = chainercv_state()
    with pytest.raises(ValueError, match=r"got also 'head/fc8/W'"):
        weights.from_chainercv_faster_rcnn({**state, "head/fc8/W": np.zeros(1)})
    del state["rpn/loc/b"]
    with pytest.raises(ValueError, match=r"none named 'rpn/loc/b' \(1 of 40 missing\)"):
        weights.from_chainercv_faster_rcnn(state)
    with pytest.raises(ValueError, match="channel_order: expected 'bgr' or 'rgb', got 'gbr'"):
        weights.from_chainercv_faster_rcnn(state, channel_order="gbr")  # type: ignore[arg-type]


@pytest.mark.parametrize("caffe", [False, True])
def test_vgg16(caffe: bool) -> None:
    state = vgg16_state()
    if caffe:  # the published file's names of the linear layers
        renamed = {"classifier.0": "classifier.1", "classifier.3": "classifier.4"}
        for old, new in renamed.items():
            for kind in ("weight", "bias"):
                state[f"{new}.{kind}"] = state.pop(f"{old}.{kind}")
    got = weights.vgg16_to_faster_rcnn(state)
    expected = {k: v for k, v in arrays().items() if not k.startswith(("rpn", "head.cls_loc"))}
    expected = {k: v for k, v in expected.items() if not k.startswith("head.score")}
    assert_states_equal(got, expected)
    assert "head.classifier.3.bias" in weights.vgg16_to_faster_rcnn(state, use_drop=True)


def test_vgg16_refuses_another_network() -> None:
    with pytest.raises(ValueError, match=r"VGG-16, got none named 'features\.0\.weight'"):
        weights.vgg16_to_faster_rcnn({"conv1.weight": np.zeros(1)})
