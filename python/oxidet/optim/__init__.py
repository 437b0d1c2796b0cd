"""Optimisers and learning-rate schedules, named as in torch.optim."""

from __future__ import annotations

from oxidet.optim import lr_scheduler
from oxidet.optim.adam import Adam, AdamW
from oxidet.optim.optimizer import Optimizer
from oxidet.optim.rmsprop import RMSprop
from oxidet.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
