"""Maps of any network for a detector, found by tracing the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from oxidet import nn
from oxidet._arrays import integer, listed
from oxidet._input_shape import recorded
from oxidet._receptive_field import receptive_fields
from oxidet.models.feature_extraction import FeatureExtractor, create_feature_extractor
from oxidet.nn.recording import Recording
from oxidet.ops import FeaturePyramidNetwork, LastLevelMaxPool

STRIDE = 16  # of the only map, where nobody names one


class FeatureMaps(NamedTuple):
    """A network up to some of its layers, and what comes out there.

    Attributes
    ----------
    body
        Returns the maps alone, as a dict with the names "0", "1", ...
    layers
        Their names in the network.
    channels, strides
        Of each map; strides in pixels of the network's input.
    """

    body: FeatureExtractor
    layers: list[str]
    channels: list[int]
    strides: list[int]


def feature_maps(
    network: nn.Module, levels: str | int | Sequence[str | int] = STRIDE
) -> FeatureMaps:
    """A network cut behind some layers, without the layers that do not run before them.

    Parameters
    ----------
    network
        A network for images (N, 3, H, W) that can be traced. The result holds its layers
        themselves, not copies.
    levels
        Layers, as ``create_feature_extractor`` names its nodes, or strides: of these the last
        module, of the outermost ones, through which everything passes at that stride. Finest first.

    Raises
    ------
    ValueError
        If there is no such layer, or it returns no map of one whole stride, or strides do not grow.

    Examples
    --------
    >>> from oxidet.models import resnet18
    >>> from oxidet.models.detection.feature_maps import feature_maps
    >>> found = feature_maps(resnet18(), [8, "layer3"])
    >>> found.layers, found.channels, found.strides
    (['layer2', 'layer3'], [128, 256], [8, 16])
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"backbone: expected a name or a Module, got {type(network).__name__}")
    wanted = [levels] if isinstance(levels, (str, int)) else listed(levels, "levels", "layers")
    if not wanted:
        raise ValueError("levels: expected the name or stride of at least one layer, got none")
    whole = recorded(network)
    layers = [
        level if isinstance(level, str) else _last_at_stride(network, whole, level)
        for level in wanted
    ]
    found = [_map(network, layer) for layer in layers]
    channels, strides = [depth for depth, _ in found], [stride for _, stride in found]
    if strides != sorted(set(strides)):
        raise ValueError(
            f"levels: expected layers of growing stride, got {layers} of strides {strides}"
        )
    body = create_feature_extractor(network, {layer: str(i) for i, layer in enumerate(layers)})
    shape = whole.shapes[whole.inputs[0]]
    return FeatureMaps(body.drop_unused((whole.batch, *shape)), layers, channels, strides)


def _map(network: nn.Module, layer: str) -> tuple[int, int]:
    """Channels and stride of what comes out of a layer."""
    recording = recorded(create_feature_extractor(network, {layer: "map"}))
    channels = recording.shapes[recording.inputs[0]][0]
    if channels != 3:
        raise ValueError(f"backbone: expected a network for images of 3 channels, got {channels}")
    depth, *size = recording.shapes[recording.outputs[0]]
    down, across = receptive_fields(recording)[recording.outputs[0]].stride
    if len(size) != 2 or down != across or down != int(down):
        raise ValueError(
            f"levels: expected layers with a map of one whole stride, got {layer!r} of shape "
            f"{(recording.batch, depth, *size)} and stride {(down, across)}"
        )
    return depth, int(down)


def _last_at_stride(network: nn.Module, recording: Recording, stride: int) -> str:
    """The last of the outermost modules whose map everything behind depends on, at a stride."""
    integer(stride, "levels", 1)
    fields = receptive_fields(recording)
    found: list[tuple[int, int, str]] = []
    for place, call in enumerate(recording.calls[1:]):
        if not call.nodes or len(call.outputs) != 1:
            continue
        [value] = call.outputs
        behind = recording.nodes[call.nodes.stop :]
        made = {value, *(node.output for node in behind)}
        is_map = len(recording.shapes[value]) == 3 and min(recording.shapes[value][1:]) > 1
        if (
            is_map
            and fields[value].stride == (stride, stride)
            and all(made.issuperset(node.inputs) for node in behind)
        ):
            found.append((-call.depth, place, call.path))
    if not found:
        raise ValueError(
            f"levels: expected names of layers, as no module of {type(network).__name__} ends "
            f"in a map of stride {stride}, got {stride}"
        )
    return max(found)[2]


class TracedBackbone(nn.Module):
    """Maps of a network as the backbone of a detector, all of one number of channels.

    One map passes a 1 x 1 convolution, called ``neck``, and is named "0". Over several there is a
    feature pyramid, ``fpn``, with the levels "0", "1", ... and "pool".

    Parameters
    ----------
    maps
        The network, cut by :func:`feature_maps`.
    out_channels
        Channels that come out.
    """

    out_channels: int
    layers: list[str]
    strides: list[int]
    body: FeatureExtractor
    neck: nn.Conv2d
    fpn: FeaturePyramidNetwork

    _mode_matters = False

    def __init__(self, maps: FeatureMaps, out_channels: int) -> None:
        super().__init__()
        self.out_channels = integer(out_channels, "out_channels", 1)
        self.layers, self.strides = maps.layers, maps.strides
        self.body = maps.body
        if len(maps.layers) == 1:
            self.neck = nn.Conv2d(maps.channels[0], out_channels, 1)
        else:
            self.fpn = FeaturePyramidNetwork(maps.channels, out_channels, LastLevelMaxPool())

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W) to maps (N, out_channels, h, w) by name, finest first."""
        maps = self.body(x)
        return {"0": self.neck(maps["0"])} if len(self.layers) == 1 else self.fpn(maps)
