"""simple-faster-rcnn's optimiser."""

from __future__ import annotations

from oxidet import nn
from oxidet.optim import SGD, Adam
from oxidet.optim.optimizer import Optimizer


def parameter_groups(model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, object]]:
    """One group per trainable parameter: biases learn at twice the rate and do not decay."""
    return [
        {
            "params": [parameter],
            "lr": lr * 2 if "bias" in name else lr,
            "weight_decay": 0.0 if "bias" in name else weight_decay,
        }
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


def faster_rcnn_optimizer(
    model: nn.Module, lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 0.0005
) -> SGD:
    """SGD with simple-faster-rcnn's parameter groups.

    One group per trainable parameter: biases learn at twice the rate and do not decay.
    """
    return SGD(parameter_groups(model, lr, weight_decay), lr=lr, momentum=momentum)


def scale_lr(optimizer: Optimizer, decay: float = 0.1) -> Optimizer:
    """Multiply the rate of every group, and return the optimiser."""
    for group in optimizer.param_groups:
        group["lr"] *= decay
    return optimizer


def adam(model: nn.Module, lr: float, weight_decay: float) -> Adam:
    """Adam with simple-faster-rcnn's parameter groups; it needs about a tenth of SGD's rate."""
    return Adam(parameter_groups(model, lr, weight_decay), lr=lr)
