"""oxidet: CNN classification and Faster R-CNN detection on the CPU, NumPy in and NumPy out.

The kernels are Rust; the networks are Python. Submodules:

========================  =====================================================================
``oxidet.data``           image reading, VOC and digit data sets, the loader
``oxidet.detection``      drop-in tools of chainercv and simple-faster-rcnn, boxes in (y, x) order
``oxidet.nn``             tensors with a tape, layers and containers, named as in torch.nn
``oxidet.onnx``           networks to ONNX files, and from them
``oxidet.ops``            box and region operators, named as in torchvision.ops
``oxidet.optim``          optimisers and learning-rate schedules, named as in torch.optim
``oxidet.transforms``     resizing, flipping and normalising images and boxes
``oxidet.visualize``      drawing detections, and what networks compute
``oxidet.weights``        weight files: torch's, safetensors, npz
========================  =====================================================================
"""

from __future__ import annotations

from oxidet import data, detection, nn, onnx, ops, optim, transforms, visualize, weights
from oxidet._core import __version__
from oxidet._precision import get_precision, precision, set_precision
from oxidet._random import manual_seed
from oxidet._receptive_field import ReceptiveField, receptive_field
from oxidet._runtime import get_num_threads, set_num_threads, show_versions
from oxidet._summary import Summary, summary
from oxidet._weight_storage import get_weight_storage, set_weight_storage, weight_storage
from oxidet.detections import Detection, Detections

__all__ = [
    "Detection",
    "Detections",
    "ReceptiveField",
    "Summary",
    "__version__",
    "data",
    "detection",
    "get_num_threads",
    "get_precision",
    "get_weight_storage",
    "manual_seed",
    "nn",
    "onnx",
    "ops",
    "optim",
    "precision",
    "receptive_field",
    "set_num_threads",
    "set_precision",
    "set_weight_storage",
    "show_versions",
    "summary",
    "transforms",
    "visualize",
    "weight_storage",
    "weights",
]
