"""VGG, Simonyan and Zisserman, "Very deep convolutional networks" (arXiv 1409.1556).

Stacks of 3 x 3 convolutions between 2 x 2 max pools, then three fully connected layers. Layer
names, initialisation and text are torchvision's, so its checkpoints load. :func:`grow` is how the
paper itself started its deeper networks.
"""

from __future__ import annotations

from typing import Any

from oxidet import nn
from oxidet._arrays import choice
from oxidet.models.alexnet import local_response_norm
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init

# Output channels of each convolution, stage by stage; a 2 x 2 max pool ends each stage. The keys
# are the paper's configurations. Kernels are 3 x 3, but those of a pair (channels, 1) are 1 x 1.
CONFIGURATIONS: dict[str, tuple[tuple[int | tuple[int, int], ...], ...]] = {
    "A": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "A-LRN": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "B": ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    "C": ((64,) * 2, (128,) * 2, (256, 256, (256, 1)), *((512, 512, (512, 1)),) * 2),
    "D": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "E": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}


def make_features(configuration: str, batch_norm: bool = False) -> nn.Sequential:
    """The convolutional part of a VGG, with torchvision's indices.

    ``configuration`` is one of the paper's: ``"A"``, ``"A-LRN"``, ``"B"``, ``"C"``, ``"D"``,
    ``"E"``.
    """
    choice(configuration, "configuration", tuple(CONFIGURATIONS))
    layers: list[nn.Module] = []
    channels = 3
    for stage in CONFIGURATIONS[configuration]:
        for entry in stage:
            width, kernel = entry if isinstance(entry, tuple) else (entry, 3)
            layers.append(nn.Conv2d(channels, width, kernel, padding=kernel // 2))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
            if configuration == "A-LRN" and len(layers) == 2:
                layers.append(local_response_norm())
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


def initialize(module: nn.Module) -> None:
    """torchvision's initial weights of one layer: Kaiming normal (fan out), or N(0, 0.01)."""
    if isinstance(module, nn.Conv2d):
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        init.normal_(module.weight, 0.0, 0.01)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        init.zeros_(module.bias)


class VGG(Classifier):
    """A VGG network for (N, 3, H, W) images; returns (N, num_classes) logits.

    Parameters
    ----------
    features
        The convolutional part, ending in 512 channels; see :func:`make_features`.
    num_classes
        Number of classes.
    init_weights
        Whether to draw torchvision's initial weights; else layers keep their own.
    dropout
        Probability with which the first two fully connected layers drop an output in training.
    """

    avgpool: nn.AdaptiveAvgPool2d
    classifier: nn.Sequential

    def __init__(
        self,
        features: nn.Module,
        num_classes: int = 1000,
        init_weights: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not isinstance(features, nn.Module):
            raise TypeError(f"features: expected a Module, got {type(features).__name__}")
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(True),
            nn.Dropout(p=dropout),
            nn.Linear(4096, num_classes),
        )
        if init_weights:
            self.apply(initialize)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W), H and W at least 32 -> (N, num_classes)."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


def initialize_as_paper(model: VGG) -> VGG:
    """Draw weights as the paper does for net A: N(0, 0.1^2), biases 0. Returns the model."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            init.normal_(module.weight, 0.0, 0.1)
            assert module.bias is not None
            init.zeros_(module.bias)
    return model


def grow(net_a: VGG, deeper: VGG) -> VGG:
    """Start a deeper VGG from a trained net A, as in section 3.1 of the paper.

    Net A's first four convolutions (that of the first stage, that of the second, the two of the
    third) and its three linear layers are copied to their places in ``deeper``; the layers between
    are drawn by :func:`initialize_as_paper`. Returns ``deeper``, which is changed. Raises
    ValueError if a layer of net A does not fit; then nothing is changed.

    Examples
    --------
    Train net A, then the rest::

        deep = grow(trained_vgg11, vgg16())
    """
    pairs = [
        *zip(
            _first_convolutions(net_a, "net_a"), _first_convolutions(deeper, "deeper"), strict=True
        ),
        *(
            (a, b)
            for a, b in zip(net_a.classifier, deeper.classifier, strict=True)
            if isinstance(a, nn.Linear) and isinstance(b, nn.Linear)
        ),
    ]
    for source, target in pairs:
        if source.weight.shape != target.weight.shape:
            raise ValueError(
                f"deeper: expected a layer of net A's shape {source.weight.shape}, got "
                f"{target.weight.shape}"
            )
    initialize_as_paper(deeper)
    for source, target in pairs:
        target.load_state_dict(source.state_dict())
    return deeper


def _first_convolutions(model: VGG, argument: str) -> list[nn.Conv2d]:
    """What net A's first four convolutions are, or become: by their place in the stages."""
    if not isinstance(model, VGG):
        raise TypeError(f"{argument}: expected a VGG, got {type(model).__name__}")
    stages: list[list[nn.Conv2d]] = [[]]
    for module in model.features.modules():
        if isinstance(module, nn.MaxPool2d):
            stages.append([])
        elif isinstance(module, nn.Conv2d):
            stages[-1].append(module)
    if len(stages) < 4 or not stages[0] or not stages[1] or len(stages[2]) < 2:
        raise ValueError(f"{argument}: expected a VGG, got stages of {[len(s) for s in stages]}")
    return [stages[0][0], stages[1][0], stages[2][0], stages[2][1]]


@register_model()
def vgg11(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-11, configuration A, with fresh weights."""
    return VGG(make_features("A"), num_classes, init_weights, dropout)


@register_model()
def vgg11_bn(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-11, configuration A, with batch norm behind every convolution, with fresh weights."""
    return VGG(make_features("A", batch_norm=True), num_classes, init_weights, dropout)


@register_model()
def vgg13(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-13, configuration B, with fresh weights."""
    return VGG(make_features("B"), num_classes, init_weights, dropout)


@register_model()
def vgg13_bn(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-13, configuration B, with batch norm behind every convolution, with fresh weights."""
    return VGG(make_features("B", batch_norm=True), num_classes, init_weights, dropout)


@register_model()
def vgg16(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-16, configuration D, with fresh weights.

    >>> from oxidet.models import vgg16
    >>> sum(p.numel() for p in vgg16().parameters())
    138357544
    """
    return VGG(make_features("D"), num_classes, init_weights, dropout)


@register_model()
def vgg16_bn(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-16, configuration D, with batch norm behind every convolution, with fresh weights."""
    return VGG(make_features("D", batch_norm=True), num_classes, init_weights, dropout)


@register_model()
def vgg19(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-19, configuration E, with fresh weights."""
    return VGG(make_features("E"), num_classes, init_weights, dropout)


@register_model()
def vgg19_bn(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-19, configuration E, with batch norm behind every convolution, with fresh weights."""
    return VGG(make_features("E", batch_norm=True), num_classes, init_weights, dropout)


@register_model()
def vgg11_lrn(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-11, configuration A-LRN (one local response normalisation), with fresh weights."""
    return VGG(make_features("A-LRN"), num_classes, init_weights, dropout)


@register_model()
def vgg16_c(num_classes: int = 1000, init_weights: bool = True, dropout: float = 0.5) -> VGG:
    """VGG-16, configuration C (1 x 1 kernels where D has a third 3 x 3), with fresh weights."""
    return VGG(make_features("C"), num_classes, init_weights, dropout)
