"""Anchors of several feature maps, as torchvision generates them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _arrays, _core, nn
from oxidet._arrays import F32


class AnchorGenerator(nn.Module):
    """Anchors ``(x1, y1, x2, y2)`` of every cell of every feature map.

    Parameters
    ----------
    sizes
        Sides of the squares that the anchors equal in area, in pixels: a tuple for each feature
        map. A flat tuple is one size for each map.
    aspect_ratios
        Height / width: a tuple for each feature map; a flat tuple serves all of them.

    Attributes
    ----------
    cell_anchors
        For each map the anchors around the origin, float32 (A, 4): ratio by ratio, in each the
        sizes; corners rounded to whole numbers, half to even.

    Notes
    -----
    Lin et al., "Feature Pyramid Networks", 2017, section 4.1. As torchvision's ``AnchorGenerator``:
    corners are rounded, the anchors of a cell stand around its upper left corner, and the distance
    of two cells is the size of the batch over that of the map, rounded down (61 pixels for 13 rows
    of 800).

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection import AnchorGenerator, ImageList
    >>> generator = AnchorGenerator(sizes=((32,),), aspect_ratios=((0.5, 1.0),))
    >>> images = ImageList(np.zeros((1, 3, 32, 64), np.float32), [(32, 60)])
    >>> (anchors,) = generator(images, [np.zeros((1, 8, 1, 2), np.float32)])
    >>> anchors
    array([[-23., -11.,  23.,  11.],
           [-16., -16.,  16.,  16.],
           [  9., -11.,  55.,  11.],
           [ 16., -16.,  48.,  16.]], dtype=float32)
    """

    cell_anchors: list[F32]

    def __init__(
        self,
        sizes: Sequence[Any] = ((128, 256, 512),),
        aspect_ratios: Sequence[Any] = ((0.5, 1.0, 2.0),),
    ) -> None:
        super().__init__()
        for values, argument in ((sizes, "sizes"), (aspect_ratios, "aspect_ratios")):
            if not isinstance(values, (list, tuple)) or not values:
                got = _arrays.shown(values)
                raise TypeError(f"{argument}: expected a tuple for each feature map, got {got}")
        if not isinstance(sizes[0], (list, tuple)):
            sizes = tuple((size,) for size in sizes)
        if not isinstance(aspect_ratios[0], (list, tuple)):
            aspect_ratios = (aspect_ratios,) * len(sizes)
        self.sizes = sizes
        self.aspect_ratios = aspect_ratios
        self.cell_anchors = [
            self.generate_anchors(*pair) for pair in zip(sizes, aspect_ratios, strict=False)
        ]

    def generate_anchors(self, scales: Sequence[float], aspect_ratios: Sequence[float]) -> F32:
        """Anchors of one map around the origin, float32 (A, 4)."""
        for values, argument in ((scales, "sizes"), (aspect_ratios, "aspect_ratios")):
            for value in values:
                if not 0 < _arrays.number(value, argument) < float("inf"):
                    raise ValueError(
                        f"{argument}: expected positive finite numbers, got {_arrays.shown(value)}"
                    )
        side = _arrays.as_float32(scales, "sizes")
        root = np.sqrt(_arrays.as_float32(aspect_ratios, "aspect_ratios"))
        w: F32 = (np.reciprocal(root)[:, np.newaxis] * side).ravel()
        h: F32 = (root[:, np.newaxis] * side).ravel()
        corners: F32 = np.stack((-w, -h, w, h), axis=1)
        return np.asarray(np.round(corners / 2), np.float32)

    def num_anchors_per_location(self) -> list[int]:
        """Number of anchors in a cell of each map."""
        pairs = zip(self.sizes, self.aspect_ratios, strict=False)
        return [len(sizes) * len(ratios) for sizes, ratios in pairs]

    def grid_anchors(
        self, grid_sizes: Sequence[Sequence[int]], strides: Sequence[Sequence[Any]]
    ) -> list[F32]:
        """Anchors of each map: (height * width * A, 4), float32.

        ``grid_sizes`` and ``strides`` hold (height, width) in cells and (down, across) in pixels.
        """
        if not len(grid_sizes) == len(strides) == len(self.cell_anchors):
            raise ValueError(
                f"feature_maps: expected {len(self.cell_anchors)}, as many as there are sizes and "
                f"aspect ratios, got {len(grid_sizes)}"
            )
        return [
            _core.shifted_anchors(
                anchors.astype(np.float64),
                (float(down), float(across)),
                (int(height), int(width)),
                True,
            )
            for (height, width), (down, across), anchors in zip(
                grid_sizes, strides, self.cell_anchors, strict=True
            )
        ]

    def forward(self, image_list: Any, feature_maps: Sequence[Any]) -> list[NDArray[Any]]:
        """Anchors of each image of a batch.

        Parameters
        ----------
        image_list
            The batch: an :class:`ImageList`, or anything with its two attributes.
        feature_maps
            One (N, C, H, W) array for each level, of which only the shapes count, and the type of
            the first.

        Returns
        -------
        For each image the anchors of all maps, one map after the other: (S, 4) in the floating type
        of the first map; torch tensors if that is one.

        Raises
        ------
        ValueError
            Another number of maps than of sizes and aspect ratios.
        """
        if not (hasattr(image_list, "tensors") and hasattr(image_list, "image_sizes")):
            raise TypeError(f"image_list: expected an ImageList, got {type(image_list).__name__}")
        feature_maps = _arrays.listed(feature_maps, "feature_maps")
        for i, feature_map in enumerate(feature_maps):
            if len(getattr(feature_map, "shape", ())) < 2:
                raise ValueError(
                    f"feature_maps[{i}]: expected shape (N, C, H, W), "
                    f"got {_arrays.shown(feature_map)}"
                )
        grid_sizes = [tuple(feature_map.shape[-2:]) for feature_map in feature_maps]
        height, width = image_list.tensors.shape[-2:]
        strides = [(height // max(h, 1), width // max(w, 1)) for h, w in grid_sizes]
        anchors: Any = np.concatenate(self.grid_anchors(grid_sizes, strides))
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(feature_maps[0], torch.Tensor):
            anchors = torch.from_numpy(anchors).to(feature_maps[0])
            return [anchors.clone() if i else anchors for i in range(len(image_list.image_sizes))]
        dtype = np.dtype(feature_maps[0].dtype)
        if dtype.kind == "f":
            anchors = anchors.astype(dtype.newbyteorder("="), copy=False)
        return [anchors.copy() if i else anchors for i in range(len(image_list.image_sizes))]
