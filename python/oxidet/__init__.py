"""oxidet: CNN classification and Faster R-CNN detection on the CPU, NumPy in and NumPy out.

The kernels are Rust; the networks are Python. Submodules:

========================  =====================================================================
``oxidet.data``           image reading, VOC and digit data sets, the loader
``oxidet.detection``      drop-in tools of chainercv and simple-faster-rcnn, boxes in (y, x) order
``oxidet.models``         networks that classify, and detectors in ``oxidet.models.detection``
``oxidet.nn``             tensors with a tape, layers and containers, named as in torch.nn
``oxidet.onnx``           networks to ONNX files, and from them
``oxidet.ops``            box and region operators, named as in torchvision.ops
``oxidet.optim``          optimisers and learning-rate schedules, named as in torch.optim
``oxidet.pretrained``     the weights that come with the package
``oxidet.train``          trainers of classifiers and detectors, checkpoints, evaluation
``oxidet.transforms``     resizing, flipping and normalising images and boxes
``oxidet.visualize``      drawing detections, and what networks compute
``oxidet.weights``        weight files: torch's, safetensors, npz
========================  =====================================================================

A submodule is loaded when it is first used: ``import oxidet`` loads the compiled kernels only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oxidet._core import __version__

# The names below are loaded by __getattr__; the imports are how type checkers see them.
if TYPE_CHECKING:
    from oxidet import (
        data,
        detection,
        models,
        nn,
        onnx,
        ops,
        optim,
        pretrained,
        simple_faster_rcnn,
        train,
        transforms,
        visualize,
        weights,
    )
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
    "models",
    "nn",
    "onnx",
    "ops",
    "optim",
    "precision",
    "pretrained",
    "receptive_field",
    "set_num_threads",
    "set_precision",
    "set_weight_storage",
    "show_versions",
    "simple_faster_rcnn",
    "summary",
    "train",
    "transforms",
    "visualize",
    "weight_storage",
    "weights",
]

# Where the functions and classes are defined; the other names of __all__ are submodules.
_HOMES = {
    "Detection": "detections",
    "Detections": "detections",
    "ReceptiveField": "_receptive_field",
    "Summary": "_summary",
    "get_num_threads": "_runtime",
    "get_precision": "_precision",
    "get_weight_storage": "_weight_storage",
    "manual_seed": "_random",
    "precision": "_precision",
    "receptive_field": "_receptive_field",
    "set_num_threads": "_runtime",
    "set_precision": "_precision",
    "set_weight_storage": "_weight_storage",
    "show_versions": "_runtime",
    "summary": "_summary",
    "weight_storage": "_weight_storage",
}


# Type checkers go by the imports above, and so know a name that does not exist.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load what is asked for; afterwards it is an ordinary attribute."""
        if name in _HOMES:
            value = getattr(importlib.import_module(f"oxidet.{_HOMES[name]}"), name)
        elif name in __all__:
            value = importlib.import_module(f"oxidet.{name}")
        else:
            raise AttributeError(f"module 'oxidet' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
