"""Faster R-CNN over one feature map of any network, which is found by tracing the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from oxidet import nn
from oxidet._arrays import integer
from oxidet._input_shape import recorded
from oxidet._receptive_field import receptive_fields
from oxidet.models.feature_extraction import FeatureExtractor, create_feature_extractor
from oxidet.models.registry import get_model
from oxidet.nn.recording import Recording
from oxidet.ops import RoIAlign
from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing
from oxidet.simple_faster_rcnn.region_proposal_network import RegionProposalNetwork
from oxidet.simple_faster_rcnn.roi_head import RoIHead

STRIDE = 16  # of the feature map that is used where nobody names one

Self = TypeVar("Self", bound="FasterRCNNBackbone")


class FeatureMap(NamedTuple):
    """A network up to a layer, and what comes out there.

    Attributes
    ----------
    body
        Returns the map alone, as a dict with one entry.
    layer
        Its name in the network.
    channels, stride
        Of the map; ``stride`` in pixels of the network's input.
    """

    body: FeatureExtractor
    layer: str
    channels: int
    stride: int


def feature_map(network: nn.Module, layer: str | None = None) -> FeatureMap:
    """A network cut behind a layer, without the layers that do not run before it.

    Parameters
    ----------
    network
        A network for images (N, 3, H, W) that can be traced. The result holds its layers
        themselves, not copies.
    layer
        A node as ``create_feature_extractor`` names them; by default the last module, of the
        outermost ones, through which everything passes at a stride of 16 pixels.

    Raises
    ------
    ValueError
        If there is no such layer, or it returns no map of one whole stride.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"backbone: expected a name or a Module, got {type(network).__name__}")
    if layer is None:
        layer = _last_at_stride(network, recorded(network))
    body = create_feature_extractor(network, {layer: "map"})
    recording = recorded(body)
    (batch, *shape) = (recording.batch, *recording.shapes[recording.inputs[0]])
    channels, *size = recording.shapes[recording.outputs[0]]
    if shape[0] != 3:
        raise ValueError(f"backbone: expected a network for images of 3 channels, got {shape[0]}")
    down, across = receptive_fields(recording)[recording.outputs[0]].stride
    if len(size) != 2 or down != across or down != int(down):
        raise ValueError(
            f"layer: expected one with a map of one whole stride, got {layer!r} of shape "
            f"{(batch, channels, *size)} and stride {(down, across)}"
        )
    return FeatureMap(body.drop_unused((batch, *shape)), layer, channels, int(down))


def _last_at_stride(network: nn.Module, recording: Recording) -> str:
    """The last of the outermost modules whose map everything behind depends on, at 16 pixels."""
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
            and fields[value].stride == (STRIDE, STRIDE)
            and all(made.issuperset(node.inputs) for node in behind)
        ):
            found.append((-call.depth, place, call.path))
    if not found:
        raise ValueError(
            f"layer: expected the name of a layer, as no module of {type(network).__name__} ends "
            f"in a map of stride {STRIDE}, got None"
        )
    return max(found)[2]


class _Extractor(nn.Module):
    """A network's map, brought to a number of channels by a 1 x 1 convolution."""

    compiled = True

    def __init__(self, body: FeatureExtractor, channels: int, width: int) -> None:
        super().__init__()
        self.body = body
        self.neck = nn.Conv2d(channels, width, 1)

    def forward(self, x: Any) -> Any:
        """(N, 3, H, W) -> (N, width, H / stride, W / stride)."""
        return self.neck(self.body(x)["map"])


class FasterRCNNBackbone(FasterRCNN):
    """Faster R-CNN over one feature map of a network.

    The map passes through a 1 x 1 convolution to ``width`` channels, so that the second stage has
    one size whatever the network: regions of 7 x 7 by RoI align, and two fully connected layers.
    Batch norm always uses its running statistics, as in :class:`FasterRCNNResNet`.

    Parameters
    ----------
    n_fg_class
        Number of classes without background.
    backbone
        Name of a network (see ``list_models``), built with fresh weights, or a network, whose
        layers are then the detector's. Layers behind ``layer`` are left out.
    layer
        A node as ``create_feature_extractor`` names them; by default the last module, of the
        outermost ones, through which everything passes at a stride of 16 pixels: ``"layer3"`` of a
        ResNet, ``"features.denseblock3"`` of a DenseNet, ``"inception4e"`` of GoogLeNet.
    ratios, anchor_scales
        Height over width of the anchors, and their sizes in units of 16 pixels.
    width
        Channels that both stages see.
    class_names, preprocessing
        As :class:`FasterRCNN`.

    Attributes
    ----------
    layer, feat_stride
        The layer whose map is used, and its stride in pixels.

    Raises
    ------
    ValueError
        If there is no such network or layer, or the layer returns no map of one whole stride.

    Examples
    --------
    >>> from oxidet.models.detection import faster_rcnn
    >>> detector = faster_rcnn(2, "resnet18", "layer2", class_names=("cat", "dog"))
    >>> detector.feat_stride, detector.extractor.neck
    (8, Conv2d(128, 256, kernel_size=(1, 1), stride=(1, 1)))
    """

    def __init__(
        self,
        n_fg_class: int = 20,
        backbone: str | nn.Module = "resnet50",
        layer: str | None = None,
        ratios: Sequence[float] = (0.5, 1, 2),
        anchor_scales: Sequence[float] = (8, 16, 32),
        *,
        width: int = 256,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        width = integer(width, "width", 1)
        network = get_model(backbone) if isinstance(backbone, str) else backbone
        found = feature_map(network, layer)
        rpn = RegionProposalNetwork(
            width, width, ratios=ratios, anchor_scales=anchor_scales, feat_stride=found.stride
        )
        size, features = 7, 1024
        classifier = nn.Sequential(
            nn.Linear(width * size * size, features),
            nn.ReLU(),
            nn.Linear(features, features),
            nn.ReLU(),
        )
        pool = RoIAlign((size, size), 1.0 / found.stride, sampling_ratio=2)
        super().__init__(
            _Extractor(found.body, found.channels, width),
            rpn,
            RoIHead(n_fg_class + 1, pool, classifier, features),
            class_names=class_names,
            preprocessing=preprocessing,
        )
        self.layer = found.layer
        self.feat_stride = found.stride
        self.train()

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode; batch norm stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def faster_rcnn(
    n_fg_class: int = 20,
    backbone: str | nn.Module = "resnet50",
    layer: str | None = None,
    **options: Any,
) -> FasterRCNNBackbone:
    """Faster R-CNN over a layer of any network; options as :class:`FasterRCNNBackbone`."""
    return FasterRCNNBackbone(n_fg_class, backbone, layer, **options)
