"""A simple-faster-rcnn checkpoint, as torch.save writes it, becomes a detector by its path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oxidet.models.detection import load_detector
from oxidet.simple_faster_rcnn import VOC_BBOX_LABEL_NAMES, FasterRCNNVGG16

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from parity import torch_faster_rcnn as reference  # noqa: E402


@pytest.mark.slow  # half a gigabyte of weights
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_simple_faster_rcnn_loads_as_it_is(tmp_path: Path, zipped: bool) -> None:
    theirs = reference.FasterRCNN()
    checkpoint = {
        "model": theirs.state_dict(),
        "config": {"min_size": 600, "caffe_pretrain": True, "load_path": None},
        "vis_info": {"index": {}, "vis_kw": {}, "log_text": "", "env": "faster-rcnn"},
        "other_info": {"best_map": np.float64(0.7053)},
    }
    path = tmp_path / "fasterrcnn_12222105_0.7053"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    detector = load_detector(path)
    assert isinstance(detector, FasterRCNNVGG16)
    assert detector.preprocessing.normalization == "caffe"
    assert detector.class_names == VOC_BBOX_LABEL_NAMES
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(detector.state_dict()[key], value.numpy(), key)
