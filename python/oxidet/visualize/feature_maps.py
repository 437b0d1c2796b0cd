"""What the layers of a network respond to: feature maps of an image, and the filters themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from oxidet._arrays import integer
from oxidet.visualize._networks import layer_values, network_input, show_tiles

if TYPE_CHECKING:
    from oxidet import nn


def feature_maps(
    model: nn.Module,
    image: Any,
    layer: str,
    *,
    most: int = 64,
    common_scale: bool = False,
    ax: Any = None,
) -> Any:
    """Show the feature maps of one image as tiles, with matplotlib (extra ``plots``).

    Parameters
    ----------
    model
        Any network; it computes in evaluation mode.
    image
        (1, C, H, W) as the network takes it, or anything that ``read_image`` takes, if the network
        has a recipe of its own for preparing pictures.
    layer
        A node as ``create_feature_extractor`` names them, such as ``"layer1"``, whose result has
        shape (1, C, H, W).
    most
        How many channels to show, from the first.
    common_scale
        Whether all tiles share one scale of colours; otherwise each has its own, from its smallest
        value to its largest, and a tile that is the same everywhere is dark.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes. Each tile has its channel's number.

    Raises
    ------
    ValueError
        If there is no such layer, or its result is no feature map.
    """
    x = network_input(model, image)
    values = layer_values(model, x, layer)
    shape = np.shape(values)
    if len(shape) != 4:
        raise ValueError(f"layer: expected one with feature maps, got {layer!r} of shape {shape}")
    maps = np.asarray(values, np.float32)[0, : integer(most, "most", 1)]
    low = maps.min(axis=(1, 2), keepdims=True) if not common_scale else maps.min()
    high = maps.max(axis=(1, 2), keepdims=True) if not common_scale else maps.max()
    tiles = (maps - low) / np.maximum(high - low, np.float32(1e-12))
    height, width = maps.shape[1:]
    columns = math.ceil(math.sqrt(len(tiles) * height / width))
    of = "" if shape[1] == len(tiles) else f" of {shape[1]}"
    title = f"{layer}: {len(tiles)}{of} maps of {height} x {width}"
    numbers = [str(channel) for channel in range(len(tiles))]
    return show_tiles(ax, tiles, columns, numbers, "viridis", title)


def filters(
    model: nn.Module, layer: str, *, most: int = 64, most_inputs: int = 8, ax: Any = None
) -> Any:
    """Show the filters of a convolution as tiles, with matplotlib (extra ``plots``).

    Filters that see three channels are shown in colour; grey is 0. Others are red where a weight is
    positive and blue where it is negative. Of those that see several channels, each is a row with a
    tile for each channel, named by both.

    Parameters
    ----------
    model
        Any network.
    layer
        Path of a ``Conv2d``.
    most, most_inputs
        How many filters to show, and of each how many channels; where there is a tile for each
        channel, no more filters than channels.
    ax
        Axes to draw into; by default those of a new figure.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If there is no such layer, or it is no convolution.
    """
    from oxidet import nn

    paths = dict(model.named_modules())
    module = paths.get(layer)
    if not isinstance(module, nn.Conv2d):
        known = [path for path, m in paths.items() if isinstance(m, nn.Conv2d)]
        got = "no module" if module is None else f"a {type(module).__name__}"
        raise ValueError(
            f"layer: expected a convolution, such as {', '.join(map(repr, known[:3])) or 'none'}, "
            f"got {layer!r}, which is {got}"
        )
    weight = module.weight.numpy()
    count, channels, height, width = weight.shape
    shown = weight[: integer(most, "most", 1)]
    scale = 2 * float(np.abs(shown).max()) or 1.0
    if channels in (1, 3):
        columns = math.ceil(math.sqrt(len(shown) * height / width))
        tiles = 0.5 + shown.transpose(0, 2, 3, 1) / scale
        labels = [str(index) for index in range(len(shown))]
        of = "" if len(shown) == count else f" of {count}"
        title = f"{layer}: {len(shown)}{of} filters of {height} x {width}"
        return show_tiles(
            ax, tiles if channels == 3 else tiles[..., 0], columns, labels, "RdBu_r", title
        )
    columns = min(channels, integer(most_inputs, "most_inputs", 1))
    shown = shown[:columns, :columns]
    tiles = 0.5 + shown.reshape(-1, height, width) / scale
    labels = [f"{row},{column}" for row in range(len(shown)) for column in range(columns)]
    labels = labels if columns <= 10 else []  # no room
    title = f"{layer}: {len(shown)} of {count} filters (rows) of {height} x {width}, "
    title += f"{columns} of {channels} channels"
    return show_tiles(ax, tiles, columns, labels, "RdBu_r", title)
