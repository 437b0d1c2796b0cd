"""RoI align over a feature pyramid: each region is pooled from the level that suits its size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import (
    F32,
    as_array,
    in_type_of,
    integer,
    nchw,
    nhwc,
    number,
    pair,
    real_pair,
)
from oxidet._same_kind import same_kind
from oxidet.nn.module import Module
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.symbol import Symbol
from oxidet.nn.tensor import Tensor
from oxidet.ops._regions import as_nchw, checked_rois, empty_result, features
from oxidet.ops._roi_align import roi_align
from oxidet.ops._roi_layer import checked_sampling_ratio

Array = NDArray[Any]


def _multi_scale_roi_align(
    ctx: Context,
    *maps: Any,
    rois: F32,
    levels: NDArray[np.int64],
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int,
) -> Array:
    """The maps of the levels are the inputs; a region of level -1 gives zeros."""
    ctx.levels, ctx.rois, ctx.shapes = levels, rois, [np.shape(value) for value in maps]
    ctx.scales, ctx.sampling_ratio = scales, sampling_ratio
    pairs = [features(value) for value in maps]
    channels = np.shape(maps[0])[1]
    # In the memory order of the first map, the largest.
    first = pairs[0][1]
    pooled = empty_result(len(rois), channels, output_size, first)
    if not any(planes for _, planes in pairs):
        inputs = [x for x, _ in pairs]
        _core.roi_align_levels(inputs, rois, levels, pooled, scales, sampling_ratio)
        return nchw(pooled)
    # Planes are read in place where few pixels of them are wanted, which is decided map by map.
    result = as_nchw(pooled, first)
    result[levels < 0] = 0
    for level, ((x, planes), scale) in enumerate(zip(pairs, scales, strict=True)):
        here = np.flatnonzero(levels == level)
        part = empty_result(len(here), channels, output_size, planes)
        options = (output_size, scale, sampling_ratio, False)
        _core.roi_align(x, planes, rois[here], part, *options)
        result[here] = as_nchw(part, planes)
    return result


def _multi_scale_roi_align_backward(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    shapes = [(n, h, w, c) for n, c, h, w in ctx.shapes]
    gradients = _core.roi_align_levels_backward(
        nhwc(grad, "grad"), ctx.rois, ctx.levels, shapes, ctx.scales, ctx.sampling_ratio
    )
    needs = zip(ctx.needs_input_grad, gradients, strict=True)
    return tuple(nchw(gradient) if need else None for need, gradient in needs)


multi_scale_roi_align_ = Primitive(
    "multi_scale_roi_align", _multi_scale_roi_align, _multi_scale_roi_align_backward
)


class LevelMapper:
    """The pyramid level of each box by its area: Feature Pyramid Networks, equation 1."""

    def __init__(
        self, k_min: int, k_max: int, canonical_scale: float = 224, canonical_level: int = 4
    ) -> None:
        self.k_min = k_min
        self.k_max = k_max
        self.s0 = canonical_scale
        self.lvl0 = canonical_level

    def __call__(self, boxes: Any) -> NDArray[np.int64]:
        """(R, 4) boxes to (R,) levels from ``k_min``; -1 for negative area and NaN coordinates."""
        rows = np.ascontiguousarray(boxes, np.float32)
        return _core.roi_levels(rows, (self.k_min, self.k_max), self.s0, self.lvl0)


def _image_sizes(image_shapes: Any) -> list[tuple[float, float]]:
    """Pairs (height, width), checked."""
    if not isinstance(image_shapes, (list, tuple)):
        got = type(image_shapes).__name__
        raise TypeError(f"image_shapes: expected a list of pairs (height, width), got {got}")
    if not image_shapes:
        raise ValueError("image_shapes: expected at least one pair, got 0")
    sizes = [real_pair(size, f"image_shapes[{i}]") for i, size in enumerate(image_shapes)]
    for i, size in enumerate(sizes):
        if min(size) <= 0:
            raise ValueError(f"image_shapes[{i}]: expected positive numbers, got {size}")
    return sizes


class MultiScaleRoIAlign(Module):
    """RoI align from one level of a feature pyramid for each box, by the box's size.

    As ``torchvision.ops.MultiScaleRoIAlign``. A box of area ``canonical_scale ** 2`` is pooled from
    level ``canonical_level``, one of four times the area from the next (Feature Pyramid Networks,
    equation 1). The scale of each map is the power of two nearest to its height over the largest
    image height; scales are found in the first call and kept in ``scales``.

    Parameters
    ----------
    featmap_names
        Keys of the maps to pool from; other maps are ignored.
    output_size
        Bins of a region: an integer or a pair (rows, columns).
    sampling_ratio
        Samples of a bin on each axis; 0 or less takes the bin's size, rounded up.
    canonical_scale, canonical_level
        See above; at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> pool = ops.MultiScaleRoIAlign(["0", "1"], output_size=2, sampling_ratio=2)
    >>> maps = {"0": np.zeros((1, 3, 64, 64), "f4"), "1": np.ones((1, 3, 32, 32), "f4")}
    >>> boxes = [np.array([[0, 0, 50, 50], [0, 0, 240, 250]])]
    >>> pool.eval()(maps, boxes, [(256, 256)])[:, 0, 0, 0]
    array([0., 1.], dtype=float32)
    """

    output_size: tuple[int, int]

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: Any,
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        checked_sampling_ratio(sampling_ratio)
        number(canonical_scale, "canonical_scale", 1)
        integer(canonical_level, "canonical_level", 1)
        self.featmap_names = featmap_names
        self.sampling_ratio = sampling_ratio
        self.output_size = pair(output_size, "output_size")
        self.scales: list[float] | None = None
        self.map_levels: LevelMapper | None = None
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level

    @same_kind
    def forward(
        self,
        x: Mapping[str, Any],
        boxes: Sequence[Any],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Any:
        """Pool every box.

        Parameters
        ----------
        x
            Feature maps (N, C, H, W) by name, finest first; one C for all.
        boxes
            For each image (L, 4) boxes (x1, y1, x2, y2) in pixels of the network's input.
        image_shapes
            (height, width) of each image, without padding. Only the largest height counts, so one
            pair serves images of one size.

        Returns
        -------
        (R, C, rows, columns), the boxes of all images in order, in the floating type of the first
        map (float32 for integers), with the precision of float32. Zeros for a box with a NaN
        coordinate, and for one of negative area if there is more than one map. Differentiable in
        the maps.

        Raises
        ------
        ValueError
            If there are no image shapes, none of the maps is there, shapes do not fit, or a
            coordinate is infinite (the row of all boxes is named).
        """
        maps, rois, sizes = self._inputs(x, boxes, image_shapes)
        if self.scales is None or self.map_levels is None:
            self.scales, self.map_levels = self._setup_scales(maps, sizes)
        return self._pool(maps, rois, self.scales, self.map_levels)

    def pool(
        self,
        x: Mapping[str, Any],
        boxes: Sequence[Any],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Any:
        """As calling the module for the first time: scales are those of these maps and images.

        Nothing is kept, so a first batch of odd sizes does no harm to later ones.
        """
        maps, rois, sizes = self._inputs(x, boxes, image_shapes)
        return self._pool(maps, rois, *self._setup_scales(maps, sizes))

    def _inputs(
        self, x: Any, boxes: Any, image_shapes: Any
    ) -> tuple[list[Any], F32, list[tuple[float, float]]]:
        """Maps, regions (R, 5) and sizes, checked."""
        if not isinstance(boxes, (list, tuple)):
            raise TypeError(
                f"boxes: expected a list with an array for each image, got {type(boxes).__name__}"
            )
        maps, sizes = self._maps(x), _image_sizes(image_shapes)
        return maps, checked_rois(boxes, "boxes", np.shape(maps[0])[0]), sizes

    def _pool(
        self, maps: list[Any], rois: F32, map_scales: Sequence[float], map_levels: LevelMapper
    ) -> Any:
        if len(map_scales) != len(maps):
            raise ValueError(
                f"x: expected {len(map_scales)} maps, as in the first call, got {len(maps)}"
            )
        if len(maps) == 1:
            size, scale = self.output_size, map_scales[0]
            return roi_align(maps[0], rois, size, scale, self.sampling_ratio)
        result = multi_scale_roi_align_(
            *maps,
            rois=rois,
            levels=map_levels(rois[:, 1:]),
            output_size=self.output_size,
            scales=map_scales,
            sampling_ratio=checked_sampling_ratio(self.sampling_ratio),
        )
        return in_type_of(maps[0], result)

    def _maps(self, x: Any) -> list[Any]:
        """The maps to pool from, checked to be of as many images and channels."""
        if not isinstance(x, Mapping):
            raise TypeError(f"x: expected maps by name, got {type(x).__name__}")
        maps = {name: value for name, value in x.items() if name in self.featmap_names}
        if not maps:
            raise ValueError(f"x: expected a map named in {self.featmap_names}, got {list(x)}")
        for name, value in maps.items():
            if not isinstance(value, (Tensor, Symbol)):
                maps[name] = as_array(value, f"x[{name!r}]")
            shape = maps[name].shape
            if len(shape) != 4 or shape[2] == 0:
                raise ValueError(
                    f"x[{name!r}]: expected shape (N, C, H, W) with H above 0, got {shape}"
                )
        (batch, channels), *others = (value.shape[:2] for value in maps.values())
        if any(other != (batch, channels) for other in others):
            got = [value.shape for value in maps.values()]
            raise ValueError(
                f"x: expected {batch} images and {channels} channels in every map, as in the "
                f"first, got shapes {got}"
            )
        return list(maps.values())

    def _setup_scales(
        self, maps: Sequence[Any], image_shapes: Sequence[tuple[float, float]]
    ) -> tuple[list[float], LevelMapper]:
        height = max(height for height, _ in image_shapes)
        # Halves to even, as torch rounds.
        exponents = [round(math.log2(np.shape(value)[2] / height)) for value in maps]
        mapper = LevelMapper(
            -exponents[0], -exponents[-1], self.canonical_scale, self.canonical_level
        )
        return [2.0**exponent for exponent in exponents], mapper

    def extra_repr(self) -> str:
        """Arguments in torchvision's form."""
        return (
            f"featmap_names={self.featmap_names}, output_size={self.output_size}, "
            f"sampling_ratio={self.sampling_ratio}"
        )
