"""Networks as the backbones of detectors: their maps, and a feature pyramid over them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oxidet import nn
from oxidet._arrays import integer, shown
from oxidet.models import resnet
from oxidet.models.registry import get_model
from oxidet.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, LastLevelMaxPool
from oxidet.ops._feature_pyramid import ExtraFPNBlock

NormLayer = Callable[..., nn.Module]

RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
#: Parts of a ResNet in the order in which they are freed for training, and their number.
STAGES = ("layer4", "layer3", "layer2", "layer1", "conv1")


class IntermediateLayerGetter(nn.ModuleDict):
    """The children of a network up to the last one asked for, run one after the other.

    As torchvision's class of that name: for networks whose children are called in the order in
    which they were registered. Keys of the ``state_dict`` are the network's.

    Parameters
    ----------
    model
        The network, whose children become those of this module.
    return_layers
        Names of children, with the names that their results get.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models import resnet18
    >>> from oxidet.models.detection.backbone_utils import IntermediateLayerGetter
    >>> body = IntermediateLayerGetter(resnet18(), {"layer1": "fine", "layer2": "coarse"}).eval()
    >>> {name: maps.shape for name, maps in body(np.zeros((1, 3, 64, 64))).items()}
    {'fine': (1, 64, 16, 16), 'coarse': (1, 128, 8, 8)}
    """

    return_layers: dict[str, str]

    _mode_matters = False

    def __init__(self, model: nn.Module, return_layers: Mapping[str, str]) -> None:
        children = OrderedDict(model.named_children())
        missing = [name for name in return_layers if name not in children]
        if missing or not return_layers:
            raise ValueError(
                f"return_layers: expected children of this {type(model).__name__} "
                f"({', '.join(children)}), got {missing[0] if missing else 'none'}"
            )
        last = max(list(children).index(name) for name in return_layers)
        super().__init__(OrderedDict(list(children.items())[: last + 1]))
        self.return_layers = dict(return_layers)

    def forward(self, x: Any) -> OrderedDict[str, Any]:
        """(N, 3, H, W) to maps by name."""
        found: OrderedDict[str, Any] = OrderedDict()
        for name, module in self.items():
            x = module(x)
            if name in self.return_layers:
                found[self.return_layers[name]] = x
        return found


class BackboneWithFPN(nn.Module):
    """A network and a feature pyramid over some of its layers, as torchvision's class.

    Parameters
    ----------
    backbone
        The network; see :class:`IntermediateLayerGetter`.
    return_layers
        Names of its children, finest map first, with the names of the pyramid's levels.
    in_channels_list
        Channels of these maps.
    out_channels
        Channels of every level.
    extra_blocks
        Levels beyond the coarsest; by default :class:`~oxidet.ops.LastLevelMaxPool`.
    norm_layer
        Normalisation inside the pyramid; None for none.
    """

    body: IntermediateLayerGetter
    fpn: FeaturePyramidNetwork

    _mode_matters = False

    def __init__(
        self,
        backbone: nn.Module,
        return_layers: Mapping[str, str],
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: NormLayer | None = None,
    ) -> None:
        super().__init__()
        self.body = IntermediateLayerGetter(backbone, return_layers)
        self.fpn = FeaturePyramidNetwork(
            list(in_channels_list),
            out_channels,
            LastLevelMaxPool() if extra_blocks is None else extra_blocks,
            norm_layer,
        )
        self.out_channels = out_channels

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W) to levels (N, out_channels, h, w) by name, finest first."""
        return self.fpn(self.body(x))


def resnet_fpn_backbone(
    *,
    backbone_name: str,
    weights: str | os.PathLike[str] | None = None,
    norm_layer: NormLayer | None = FrozenBatchNorm2d,
    trainable_layers: int = 3,
    returned_layers: Sequence[int] | None = None,
    extra_blocks: ExtraFPNBlock | None = None,
) -> BackboneWithFPN:
    """A ResNet with a feature pyramid, as torchvision's function of that name.

    Parameters
    ----------
    backbone_name
        ``"resnet18"`` to ``"resnet152"``, or a ResNeXt or wide ResNet.
    weights
        As for :func:`oxidet.models.get_model`; None for fresh ones.
    norm_layer
        Normalisation of the ResNet; None for ``nn.BatchNorm2d``.
    trainable_layers
        How many of layer4, layer3, layer2, layer1 and conv1 are trained, 0 to 5; with 5 the first
        batch norm is, too.
    returned_layers
        Which of the stages 1 to 4 the pyramid stands on; by default all.
    extra_blocks
        Levels beyond the coarsest; by default :class:`~oxidet.ops.LastLevelMaxPool`.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection.backbone_utils import resnet_fpn_backbone
    >>> backbone = resnet_fpn_backbone(backbone_name="resnet18", trainable_layers=5).eval()
    >>> levels = backbone(np.zeros((1, 3, 64, 96), np.float32))
    >>> [(name, level.shape[2:]) for name, level in levels.items()]
    [('0', (16, 24)), ('1', (8, 12)), ('2', (4, 6)), ('3', (2, 3)), ('pool', (1, 2))]
    """
    if backbone_name not in RESNETS:
        raise ValueError(f"backbone_name: expected one of {RESNETS}, got {shown(backbone_name)}")
    network = get_model(backbone_name, weights=weights, norm_layer=norm_layer)
    return _resnet_fpn_extractor(network, trainable_layers, returned_layers, extra_blocks)


def _resnet_fpn_extractor(
    backbone: nn.Module,
    trainable_layers: int,
    returned_layers: Sequence[int] | None = None,
    extra_blocks: ExtraFPNBlock | None = None,
    norm_layer: NormLayer | None = None,
) -> BackboneWithFPN:
    """A pyramid of 256 channels over a ResNet; ``norm_layer`` is that of the pyramid."""
    if not isinstance(backbone, resnet.ResNet):
        raise TypeError(f"backbone: expected a ResNet, got {type(backbone).__name__}")
    count = integer(trainable_layers, "trainable_layers", 0, len(STAGES))
    trained = [*STAGES[:count], *(["bn1"] if count == len(STAGES) else [])]
    for name, parameter in backbone.named_parameters():
        if not name.startswith(tuple(trained)):
            parameter.requires_grad_(False)
    stages = [1, 2, 3, 4] if returned_layers is None else list(returned_layers)
    if not stages:
        raise ValueError("returned_layers: expected at least one stage, got none")
    for stage in stages:
        integer(stage, "returned_layers", 1, 4)
    widest: int = backbone.fc.in_features
    return BackboneWithFPN(
        backbone,
        {f"layer{stage}": str(level) for level, stage in enumerate(stages)},
        [widest // 2 ** (4 - stage) for stage in stages],
        256,
        extra_blocks,
        norm_layer,
    )
