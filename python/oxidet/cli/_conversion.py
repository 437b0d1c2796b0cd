"""What ``oxidet convert`` reads, and the network it is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oxidet import models, nn, weights
from oxidet.cli._usage import UsageError
from oxidet.cli.convert import ChannelOrder, Layout
from oxidet.weights import DescribedWeights
from oxidet.weights._files import read_weights
from oxidet.weights._loading import Origin, classifier_layers, describe


def read(
    origin: Origin,
    layout: Layout,
    key: str | None,
    channels: ChannelOrder | None,
    normalized: bool,
) -> tuple[DescribedWeights, dict[str, str], Layout]:
    """The weights under oxidet's names, the text beside them, and the layout that they were in."""
    state: Any
    metadata: dict[str, str] = {}
    if origin.path.suffix.lower() == ".caffemodel":
        state, found = weights.load_caffemodel(origin.path), Layout.caffe
    else:
        state, metadata = read_weights(origin.path, key=key)
        found = Layout.chainercv if "conv1_1/conv/W" in state else Layout.plain
    layout = found if layout is Layout.auto else layout
    if layout is Layout.plain:
        if channels is not None or normalized:
            raise UsageError("--channels, --normalized: expected together with chainercv or caffe")
        return describe(origin, state, metadata), metadata, layout
    convert_from = weights.from_caffe if layout is Layout.caffe else weights.from_chainercv
    options: Any = {} if channels is None else {"channels": channels.value}
    return convert_from(state, normalized=normalized, **options), metadata, layout


def build(model: str, origin: Origin, state: Mapping[str, Any]) -> nn.Module:
    """The network with as many classes as the weights have."""
    published = origin.published
    options = dict(published.options) if published and published.model == model else {}
    network = models.get_model(model, **options)
    weight = state.get(f"{classifier_layers(network)[-1]}.weight")
    count = 0 if weight is None else len(weight)
    names = dict(network.named_parameters())
    if count and count != len(names[f"{classifier_layers(network)[-1]}.weight"].data):
        network = models.get_model(model, num_classes=count, **options)
    return network
