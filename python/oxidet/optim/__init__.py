"""Optimisers and learning-rate schedules, named as in torch.optim."""

from __future__ import annotations

from oxidet.optim import lr_scheduler
from oxidet.optim.optimizer import Optimizer
from oxidet.optim.sgd import SGD

__all__ = ["SGD", "Optimizer", "lr_scheduler"]
