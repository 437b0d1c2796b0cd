"""simple-faster-rcnn's trainer and optimiser, which :mod:`oxidet.simple_faster_rcnn` holds."""

from oxidet.simple_faster_rcnn.optimizer import faster_rcnn_optimizer
from oxidet.simple_faster_rcnn.trainer import FasterRCNNTrainer

__all__ = ["FasterRCNNTrainer", "faster_rcnn_optimizer"]
