"""Networks, one file a family, with torchvision's names."""

from __future__ import annotations

from oxidet.models.lenet import LeNet5, lenet5
from oxidet.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnet152
from oxidet.models.vgg import VGG, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "VGG",
    "LeNet5",
    "ResNet",
    "lenet5",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
]
