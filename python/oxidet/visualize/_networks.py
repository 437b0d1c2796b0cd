"""What the pictures of networks share: their input, a layer's values, and tiles in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet._arrays import F32, as_float32

if TYPE_CHECKING:
    from oxidet import nn

Array = NDArray[Any]


def network_input(model: nn.Module, image: Any) -> F32:
    """One image as the network takes it, (1, C, H, W): prepared as the network's own recipe says.

    An array of four axes is prepared already.
    """
    if isinstance(image, np.ndarray) and image.ndim == 4:
        x = as_float32(image, "image", ndim=4, form="(1, C, H, W)")
        if len(x) != 1:
            raise ValueError(f"image: expected one image (1, C, H, W), got shape {x.shape}")
        return x
    prepare = getattr(model, "preprocess", None) or getattr(model, "preprocessing", None)
    if prepare is None:
        raise ValueError(
            "image: expected (1, C, H, W) as the network takes it, for it has no preparation of "
            f"its own, got {type(image).__name__}"
        )
    from oxidet.data import read_image

    x = as_float32(np.asarray(prepare(read_image(image))), "image")
    return x if x.ndim == 4 else x[None]


def layer_values(model: nn.Module, x: Any, layer: str) -> Any:
    """What a layer returns, in evaluation mode: of an array an array, of a tensor a tensor."""
    from oxidet import nn
    from oxidet.models.feature_extraction import extract_layer

    extractor = extract_layer(model, layer)
    with nn.evaluating(model):
        extractor.training = False
        extractor.compiled = False  # no plan for one call
        return extractor(x)["values"]


def as_axes(ax: Any) -> Any:
    """``ax``, if it is what matplotlib draws into."""
    if not isinstance(ax, _extras.require("matplotlib.axes", extra="plots").Axes):
        raise TypeError(f"ax: expected the axes of a figure or None, got {type(ax).__name__}")
    return ax


def new_axes(ax: Any, width: float, height: float) -> Any:
    """``ax``, or the axes of a new figure of some inches."""
    if ax is not None:
        return as_axes(ax)
    pyplot = _extras.require("matplotlib.pyplot", extra="plots")
    return pyplot.figure(figsize=(width, height), layout="constrained").add_subplot()


def mosaic(tiles: Array, columns: int, gap: int = 1) -> Array:
    """Tiles (K, h, w) or (K, h, w, 3) side by side in rows, with NaN between them.

    >>> mosaic(np.arange(3.0).reshape(3, 1, 1), columns=2)
    array([[ 0., nan,  1.],
           [nan, nan, nan],
           [ 2., nan, nan]])
    """
    count, height, width = tiles.shape[:3]
    rows = -(-count // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *tiles.shape[3:])
    picture = np.full(shape, np.nan)
    for index, tile in enumerate(tiles):
        y, x = index // columns * (height + gap), index % columns * (width + gap)
        picture[y : y + height, x : x + width] = tile
    return picture


def show_tiles(
    ax: Any, tiles: Array, columns: int, labels: list[str], colours: str, title: str
) -> Any:
    """Draw tiles (K, h, w), or (K, h, w, 3) in colour, of values 0..1, with a label in each."""
    # Whole pixels of at most 48 a tile, so that the gap is narrow beside any tile.
    times = max(1, 48 // max(tiles.shape[1:3]))
    tiles = tiles.repeat(times, axis=1).repeat(times, axis=2)
    gap = max(1, tiles.shape[2] // 16)
    picture = mosaic(tiles, columns, gap)
    ax = new_axes(ax, 8, 0.5 + 8 * min(picture.shape[0] / picture.shape[1], 1.5))
    if picture.ndim == 3:  # NaN is no colour
        picture = np.dstack([np.nan_to_num(picture), ~np.isnan(picture[..., 0])])
    matplotlib = _extras.require("matplotlib", extra="plots")
    ax.imshow(picture, cmap=matplotlib.colormaps[colours], vmin=0, vmax=1, interpolation="nearest")
    ax.set_facecolor("0.6")  # behind the gaps: neither white nor black, which tiles may be
    effects = _extras.require("matplotlib.patheffects", extra="plots")
    outline = [effects.withStroke(linewidth=2, foreground="black")]
    for index, label in enumerate(labels):
        ax.text(
            index % columns * (tiles.shape[2] + gap) + tiles.shape[2] * 0.04,
            index // columns * (tiles.shape[1] + gap) + tiles.shape[1] * 0.04,
            label,
            fontsize=float(np.clip(64 / columns, 5, 9)),
            color="white",
            va="top",
            path_effects=outline,
        )
    return bare(ax, title)


def signed_picture(values: Array) -> Array:
    """(C, H, W) of either sign to (H, W, 3) or (H, W) in 0..1, where 0 becomes 0.5.

    Scaled by the 99.5th percentile of what is not 0, so that a few large values hide nothing.
    """
    size = np.abs(values)
    scale = float(np.percentile(size[size > 0], 99.5)) if size.any() else 1.0
    picture = np.clip(0.5 + values / (2 * scale), 0, 1).transpose(1, 2, 0)
    return picture if picture.shape[2] == 3 else picture.mean(axis=2)


def bare(ax: Any, title: str) -> Any:
    """Axes without ticks, with a title."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize="medium")
    return ax
