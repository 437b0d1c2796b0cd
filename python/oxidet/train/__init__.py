"""Training: losses and steps of the detectors, the loop around them."""

from __future__ import annotations

from oxidet.train.faster_rcnn import FasterRCNNTrainer, LossTuple, faster_rcnn_optimizer, loc_loss

__all__ = ["FasterRCNNTrainer", "LossTuple", "faster_rcnn_optimizer", "loc_loss"]
