"""Networks, one file a family, with torchvision's names."""

from __future__ import annotations

from oxidet.models.classifier import Classifier
from oxidet.models.lenet import LeNet5, lenet5
from oxidet.models.registry import get_model, list_models, register_model
from oxidet.models.resnet import ResNet, resnet18, resnet34, resnet50, resnet101, resnet152
from oxidet.models.vgg import VGG, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "VGG",
    "Classifier",
    "LeNet5",
    "ResNet",
    "get_model",
    "lenet5",
    "list_models",
    "register_model",
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
