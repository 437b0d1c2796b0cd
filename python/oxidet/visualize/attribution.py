"""Which pixels a unit responds to: guided backpropagation and deconvolution.

Both send a value back through the layers to the image, as the gradient does; they differ from it,
and from each other, in what a ReLU hands back of what it is given:

====================  =======================================================================
gradient              where the ReLU's input was positive
deconvolution         where what is handed back is positive
guided                where both are
====================  =======================================================================

Max pooling hands everything to the place of its maximum ("unpooling by switches"), convolutions
apply their transpose, biases drop out. Other layers hand back their gradient.

Zeiler and Fergus, "Visualizing and understanding convolutional networks" (arXiv 1311.2901);
Springenberg et al., "Striving for simplicity: the all convolutional net" (arXiv 1412.6806). What
these pictures show depends little on the layers above: Adebayo et al., "Sanity checks for saliency
maps" (arXiv 1810.03292).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oxidet._arrays import F32, integer
from oxidet.visualize._networks import bare, layer_values, network_input, new_axes, signed_picture

if TYPE_CHECKING:
    from oxidet import nn
    from oxidet.nn.tape import Node

Unit = tuple[int, int]


def _guided(node: Node, grad: Any) -> tuple[Any, ...]:
    return node.gradients(np.maximum(grad, 0))


def _deconvolved(node: Node, grad: Any) -> tuple[Any, ...]:
    return (np.maximum(grad, 0),)


def guided_gradient(
    model: nn.Module, image: Any, target: int | None = None, *, layer: str | None = None
) -> F32:
    """Guided backpropagation of one output, (C, H, W) float32, zero where nothing contributes.

    Parameters
    ----------
    model
        Any network that can be trained; it computes in evaluation mode, and no ``grad`` changes.
    image
        (1, C, H, W) as the network takes it, or anything that ``read_image`` takes, if the network
        has a recipe of its own for preparing pictures.
    target
        Number of the class, or channel of ``layer``; by default the one with the largest value.
    layer
        A node as ``create_feature_extractor`` names them, whose strongest unit in the channel is
        explained; by default the network's result.

    Returns
    -------
    Like the gradient, in units of output per unit of the prepared image.

    Raises
    ------
    ValueError
        If there is no such layer or class.
    """
    return _explain(model, image, layer, target, None, {"relu": _guided}, weighted=False)


def deconvolve(
    model: nn.Module, image: Any, layer: str, channel: int | None = None, unit: Unit | None = None
) -> F32:
    """What a unit's activation becomes on the way back through a deconvolution network.

    Parameters
    ----------
    model, image
        As for :func:`guided_gradient`.
    layer
        A node as ``create_feature_extractor`` names them.
    channel
        Which feature map; by default the one with the largest activation.
    unit
        (row, column) of the unit in the map; by default the strongest. All other activations of the
        layer count as 0.

    Returns
    -------
    (C, H, W) float32. Where max pools overlap, what they hand back is added up.

    Raises
    ------
    ValueError
        If there is no such layer, channel or unit.
    """
    return _explain(model, image, layer, channel, unit, {"relu": _deconvolved}, weighted=True)


def _explain(
    model: nn.Module,
    image: Any,
    layer: str | None,
    channel: int | None,
    unit: Unit | None,
    rules: dict[str, Any],
    weighted: bool,
) -> F32:
    """Send one unit's value (or 1) back to the image."""
    from oxidet import nn
    from oxidet.nn.tape import pull_back

    x = nn.Tensor(network_input(model, image), requires_grad=True)
    if layer is None:
        with nn.evaluating(model):
            out = model(x)
    else:
        out = layer_values(model, x, layer)
    if not isinstance(out, nn.Tensor) or out.ndim not in (2, 4):
        raise ValueError(
            "layer: expected one that returns (1, C, H, W) or (1, F), got "
            f"{'the result of the network' if layer is None else repr(layer)}, which returns "
            f"{type(out).__name__} of shape {np.shape(out)}"
        )
    values = out.numpy()[0].reshape(out.shape[1], -1)
    width = out.shape[3] if out.ndim == 4 else 1
    if channel is None:
        channel = int(values.max(axis=1).argmax())
    channel = integer(channel, "channel" if weighted else "target", 0, len(values) - 1)
    place = int(values[channel].argmax())
    if unit is not None:
        row = integer(unit[0], "unit[0]", 0, values.shape[1] // width - 1)
        place = row * width + integer(unit[1], "unit[1]", 0, width - 1)
    seed = np.zeros_like(values)
    seed[channel, place] = values[channel, place] if weighted else 1.0
    return np.asarray(pull_back(out, seed.reshape(out.shape), x, rules)[0], np.float32)


def guided_backprop(
    model: nn.Module,
    image: Any,
    target: int | None = None,
    *,
    layer: str | None = None,
    ax: Any = None,
) -> Any:
    """Show :func:`guided_gradient`, whose arguments these are, beside what the network saw.

    Both are cut to the pixels that contribute; grey is 0. Needs matplotlib (extra ``plots``).
    Returns the axes, of a new figure unless ``ax`` is given.
    """
    x = network_input(model, image)
    values = guided_gradient(model, x, target, layer=layer)
    what = "the result" if layer is None else layer
    which = "largest" if target is None else str(target)
    return _show(x[0], values, ax, f"guided backpropagation of {what}, {which}")


def deconvolution(
    model: nn.Module,
    image: Any,
    layer: str,
    channel: int | None = None,
    *,
    unit: Unit | None = None,
    ax: Any = None,
) -> Any:
    """Show :func:`deconvolve`, whose arguments these are, beside what the network saw.

    Both are cut to the pixels that contribute; grey is 0. Needs matplotlib (extra ``plots``).
    Returns the axes, of a new figure unless ``ax`` is given.
    """
    x = network_input(model, image)
    values = deconvolve(model, x, layer, channel, unit)
    which = "strongest channel" if channel is None else f"channel {channel}"
    return _show(x[0], values, ax, f"deconvolution of {layer}, {which}")


def _show(image: F32, values: F32, ax: Any, title: str) -> Any:
    """An image and what belongs to its pixels, side by side in one plot."""
    rows, columns = (np.flatnonzero(values.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    top, bottom = (rows[0], rows[-1] + 1) if len(rows) else (0, image.shape[1])
    left, right = (columns[0], columns[-1] + 1) if len(columns) else (0, image.shape[2])
    low, high = image.min(), image.max()
    seen = (image[:, top:bottom, left:right] - low) / max(high - low, 1e-12)
    seen = seen.transpose(1, 2, 0)
    seen = seen if seen.shape[2] == 3 else seen.mean(axis=2)
    height, width = seen.shape[:2]
    ax = new_axes(ax, 8, 0.6 + 4 * min(height / width, 2))
    for picture, start in ((seen, 0.0), (signed_picture(values[:, top:bottom, left:right]), 1.05)):
        across = (start * width, (start + 1) * width)
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(*across, height, 0))
    ax.set_xlim(0, 2.05 * width)
    ax.set_ylim(height, 0)
    for side in ax.spines.values():
        side.set_visible(False)
    return bare(ax, f"{title}: pixels {left} to {right - 1}, {top} to {bottom - 1}")
