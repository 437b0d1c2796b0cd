"""What detectors return for torch's tensors, as a type checker sees it.

Kept apart from tests/typing, which is checked where torch is not installed; `test_tensor_pictures`
has it checked.
"""

from __future__ import annotations

import torch
from typing_extensions import assert_type

from oxidet import Detections, pretrained


def predict_takes_tensors(tensor: torch.Tensor) -> None:
    detector = pretrained.digit_detector()
    assert_type(detector.predict(tensor), Detections)
    assert_type(detector.predict([tensor, tensor], batch_size=2), list[Detections])
