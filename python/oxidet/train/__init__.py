"""Training: losses and steps of the detectors, the loop around them, and their evaluation."""

from __future__ import annotations

from oxidet.simple_faster_rcnn import (
    FasterRCNNTrainer,
    LossTuple,
    faster_rcnn_optimizer,
    loc_loss,
)
from oxidet.train.average import AveragedModel
from oxidet.train.checkpoint import load_checkpoint, save_checkpoint
from oxidet.train.classifier import ClassifierTrainer, accuracy
from oxidet.train.evaluate import Evaluation, ImageResult, evaluate_detector
from oxidet.train.ground_truth import check_ground_truth
from oxidet.train.log import JsonLog, read_log
from oxidet.train.loop import NonFiniteError, TrainingLoop
from oxidet.train.matching import Matches, Mistakes, match, mistakes
from oxidet.train.progress import Progress
from oxidet.train.schedules import make_optimizer, make_schedule
from oxidet.train.trainer import Trainer

__all__ = [
    "AveragedModel",
    "ClassifierTrainer",
    "Evaluation",
    "FasterRCNNTrainer",
    "ImageResult",
    "JsonLog",
    "LossTuple",
    "Matches",
    "Mistakes",
    "NonFiniteError",
    "Progress",
    "Trainer",
    "TrainingLoop",
    "accuracy",
    "check_ground_truth",
    "evaluate_detector",
    "faster_rcnn_optimizer",
    "load_checkpoint",
    "loc_loss",
    "make_optimizer",
    "make_schedule",
    "match",
    "mistakes",
    "read_log",
    "save_checkpoint",
]
