"""Feature pyramid networks, and the levels that may be put on top of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from oxidet._arrays import extent, shown
from oxidet._same_kind import same_kind
from oxidet.nn import init
from oxidet.nn._activation import relu
from oxidet.nn._pooling import max_pool2d
from oxidet.nn._resampling import interpolate
from oxidet.nn.containers import ModuleList
from oxidet.nn.convolution import Conv2d
from oxidet.nn.module import Module
from oxidet.ops._conv_norm import Conv2dNormActivation


class ExtraFPNBlock(Module):
    """What may follow a feature pyramid: takes and returns lists of maps and of their names."""

    _mode_matters = False

    def forward(
        self, results: list[Any], x: list[Any], names: list[str], /
    ) -> tuple[list[Any], list[str]]:
        """Extend ``results`` (and ``names``); ``x`` are the maps that the pyramid was made of."""
        # No stub: what is computed is the subclass's; torch's modules raise this class too.
        raise NotImplementedError(f"{type(self).__name__} defines no forward")


class LastLevelMaxPool(ExtraFPNBlock):
    """One more level, "pool": every second row and column of the last one."""

    _mode_matters = False

    @same_kind
    def forward(self, x: list[Any], y: list[Any], names: list[str]) -> tuple[list[Any], list[str]]:
        """The maps ``x`` and their names, with one more; ``y`` is not used."""
        return [*x, max_pool2d(x[-1], 1, 2, 0)], [*names, "pool"]


class LastLevelP6P7(ExtraFPNBlock):
    """Two more levels, "p6" and "p7", by convolutions of stride 2, as in RetinaNet.

    ``p6`` reads the last level of the pyramid if ``in_channels == out_channels``, else the last map
    that the pyramid was made of.
    """

    p6: Conv2d
    p7: Conv2d
    use_P5: bool

    _mode_matters = False

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.p6 = Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = Conv2d(out_channels, out_channels, 3, 2, 1)
        for module in (self.p6, self.p7):
            _initialize(module)
        self.use_P5 = in_channels == out_channels

    @same_kind
    def forward(self, p: list[Any], c: list[Any], names: list[str]) -> tuple[list[Any], list[str]]:
        """The levels ``p``, made of the maps ``c``, and their names, with two more."""
        p6 = self.p6(p[-1] if self.use_P5 else c[-1])
        p7 = self.p7(relu(p6))
        return [*p, p6, p7], [*names, "p6", "p7"]


def _initialize(convolution: Conv2d) -> None:
    init.kaiming_uniform_(convolution.weight, a=1)
    if convolution.bias is not None:
        init.zeros_(convolution.bias)


class FeaturePyramidNetwork(Module):
    """Feature pyramid network (Lin et al., 2017), as ``torchvision.ops.FeaturePyramidNetwork``.

    Each map passes a 1x1 convolution; from the coarsest on, the result so far is enlarged to the
    next map's size (nearest pixel) and added; a 3x3 convolution makes each level of the sums.

    Parameters
    ----------
    in_channels_list
        Channels of each map, finest first.
    out_channels
        Channels of every level.
    extra_blocks
        A :class:`LastLevelMaxPool`, :class:`LastLevelP6P7` or other ``ExtraFPNBlock`` for levels
        beyond the coarsest.
    norm_layer
        Called with ``out_channels``, for a normalisation after each convolution.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> pyramid = ops.FeaturePyramidNetwork([10, 20], 5, ops.LastLevelMaxPool()).eval()
    >>> maps = {"0": np.zeros((1, 10, 64, 64)), "1": np.zeros((1, 20, 32, 32))}
    >>> [(name, level.shape) for name, level in pyramid(maps).items()]
    [('0', (1, 5, 64, 64)), ('1', (1, 5, 32, 32)), ('pool', (1, 5, 16, 16))]
    """

    inner_blocks: ModuleList
    layer_blocks: ModuleList

    _mode_matters = False

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: Callable[..., Module] | None = None,
    ) -> None:
        super().__init__()
        if extra_blocks is not None and not isinstance(extra_blocks, ExtraFPNBlock):
            raise TypeError(
                f"extra_blocks: expected an ExtraFPNBlock, got {type(extra_blocks).__name__}"
            )
        if not isinstance(in_channels_list, (list, tuple)) or not in_channels_list:
            raise ValueError(
                f"in_channels_list: expected the channels of at least one map, "
                f"got {shown(in_channels_list)}"
            )
        self.inner_blocks = ModuleList()
        self.layer_blocks = ModuleList()
        options: dict[str, Any] = {"norm_layer": norm_layer, "activation_layer": None}
        for in_channels in in_channels_list:
            extent(in_channels, "in_channels_list")
            self.inner_blocks.append(Conv2dNormActivation(in_channels, out_channels, 1, **options))
            self.layer_blocks.append(Conv2dNormActivation(out_channels, out_channels, 3, **options))
        for module in self.modules():
            if isinstance(module, Conv2d):
                _initialize(module)
        self.extra_blocks = extra_blocks

    @same_kind
    def forward(self, x: Mapping[str, Any]) -> OrderedDict[str, Any]:
        """Maps (N, C_i, H_i, W_i) by name, finest first, to levels (N, out_channels, H_i, W_i).

        The extra blocks' levels come last. Raises ValueError if there are not as many maps as
        ``in_channels_list`` has entries.
        """
        if not isinstance(x, Mapping):
            raise TypeError(f"x: expected maps by name, got {type(x).__name__}")
        names, maps = list(x.keys()), list(x.values())
        if len(maps) != len(self.inner_blocks):
            raise ValueError(f"x: expected {len(self.inner_blocks)} maps, got {len(maps)}")
        merged = self.inner_blocks[-1](maps[-1])
        results = [self.layer_blocks[-1](merged)]
        for index in range(len(maps) - 2, -1, -1):
            lateral = self.inner_blocks[index](maps[index])
            merged = lateral + interpolate(merged, tuple(np.shape(lateral)[2:]))
            results.insert(0, self.layer_blocks[index](merged))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, maps, names)
        return OrderedDict(zip(names, results, strict=True))

    def _adapt_state_dict(self, state_dict: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
        # Before torchvision 0.13 the blocks were bare convolutions.
        renamed = {
            f"{prefix}{blocks}.{i}.{kind}": f"{prefix}{blocks}.{i}.0.{kind}"
            for blocks in ("inner_blocks", "layer_blocks")
            for i in range(len(self.inner_blocks))
            for kind in ("weight", "bias")
        }
        if not any(key in renamed for key in state_dict):
            return state_dict
        return {renamed.get(key, key): value for key, value in state_dict.items()}
