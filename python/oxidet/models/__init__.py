"""Networks, one file a family, with torchvision's names."""

from __future__ import annotations

from oxidet.models.cifar_resnet import (
    CifarResNet,
    plain20_cifar10,
    plain32_cifar10,
    plain44_cifar10,
    plain56_cifar10,
    resnet20_cifar10,
    resnet32_cifar10,
    resnet44_cifar10,
    resnet56_cifar10,
    resnet110_cifar10,
)
from oxidet.models.classifier import Classifier
from oxidet.models.densenet import DenseNet, densenet121, densenet161, densenet169, densenet201
from oxidet.models.inception_resnet import (
    InceptionResnetV1,
    InceptionResnetV2,
    inception_resnet_v1,
    inception_resnet_v2,
)
from oxidet.models.inception_v3 import Inception3, InceptionOutputs, inception_v3
from oxidet.models.inception_v4 import InceptionV4, inception_v4
from oxidet.models.lenet import LeNet5, lenet5
from oxidet.models.registry import get_model, list_models, register_model
from oxidet.models.resnet import (
    ResNet,
    plain18,
    plain34,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    resnext101_64x4d,
    wide_resnet50_2,
    wide_resnet101_2,
)
from oxidet.models.vgg import VGG, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "VGG",
    "CifarResNet",
    "Classifier",
    "DenseNet",
    "Inception3",
    "InceptionOutputs",
    "InceptionResnetV1",
    "InceptionResnetV2",
    "InceptionV4",
    "LeNet5",
    "ResNet",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "get_model",
    "inception_resnet_v1",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lenet5",
    "list_models",
    "plain18",
    "plain20_cifar10",
    "plain32_cifar10",
    "plain34",
    "plain44_cifar10",
    "plain56_cifar10",
    "register_model",
    "resnet18",
    "resnet20_cifar10",
    "resnet32_cifar10",
    "resnet34",
    "resnet44_cifar10",
    "resnet50",
    "resnet56_cifar10",
    "resnet101",
    "resnet110_cifar10",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wide_resnet50_2",
    "wide_resnet101_2",
]
