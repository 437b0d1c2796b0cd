"""Boxes as weighted offsets, as torchvision codes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind


class BoxCoder:
    """Codes boxes ``(x1, y1, x2, y2)`` as offsets ``(t_x, t_y, t_w, t_h)`` and back.

    With centres and sizes of proposal ``p`` and reference ``g``::

        t_x = w_x (g_x - p_x) / p_w    t_w = w_w log(g_w / p_w)

    and the same for y and h.

    Parameters
    ----------
    weights
        ``(w_x, w_y, w_w, w_h)``.
    bbox_xform_clip
        Largest exponent when decoding; the default stands for growing from 16 to 1000 pixels.

    Notes
    -----
    As torchvision's ``BoxCoder``, to rounding of the logarithm and the exponential. Nothing
    protects the division: a proposal of no size gives infinities or NaN. NaN is not limited when
    decoding. Half floats are computed in float32, integers in float64.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection import BoxCoder
    >>> coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    >>> proposals = np.array([[20.0, 10.0, 60.0, 30.0]])
    >>> codes = coder.encode_single(np.array([[16.0, 12.0, 50.0, 40.0]]), proposals)
    >>> codes.round(4)
    array([[-1.75  ,  3.    , -0.8126,  1.6824]])
    >>> coder.decode(codes, [proposals])
    array([[[16., 12., 50., 40.]]])
    """

    weights: tuple[float, float, float, float]
    bbox_xform_clip: float

    def __init__(
        self,
        weights: tuple[float, float, float, float],
        bbox_xform_clip: float = math.log(1000.0 / 16),
    ) -> None:
        given = weights.tolist() if isinstance(weights, np.ndarray) else weights
        if not isinstance(given, (tuple, list)) or len(given) != 4:
            raise ValueError(f"weights: expected four numbers, got {_arrays.shown(weights)}")
        for weight in given:
            _arrays.number(weight, "weights")
        self.weights = weights
        self.bbox_xform_clip = _arrays.number(bbox_xform_clip, "bbox_xform_clip")

    @same_kind
    def encode(
        self, reference_boxes: Sequence[ArrayLike], proposals: Sequence[ArrayLike]
    ) -> tuple[NDArray[Any], ...]:
        """Offsets of several images.

        Parameters
        ----------
        reference_boxes
            For each image the box that each proposal should become, (R, 4).
        proposals
            For each image its proposals, (R, 4).

        Returns
        -------
        For each image the offsets, (R, 4).

        Raises
        ------
        ValueError
            A shape is not (R, 4), or the counts differ.
        """
        references = _concatenated(reference_boxes, "reference_boxes")
        codes = self._encode(references, _concatenated(proposals, "proposals"))
        ends = np.cumsum([len(np.asarray(boxes)) for boxes in reference_boxes], dtype=np.int64)
        return tuple(np.split(codes, ends)[:-1])

    @same_kind
    def encode_single(self, reference_boxes: ArrayLike, proposals: ArrayLike) -> NDArray[Any]:
        """Offsets of one image, (R, 4), see :meth:`encode`."""
        return self._encode(reference_boxes, proposals)

    def _encode(self, reference_boxes: ArrayLike, proposals: ArrayLike) -> NDArray[Any]:
        references, boxes = _arrays.boxes(reference_boxes=reference_boxes, proposals=proposals)
        codes: NDArray[Any] = _arrays.kernel("encode_boxes", boxes)(
            references, boxes, [float(weight) for weight in self.weights]
        )
        return codes

    @same_kind
    def decode(self, rel_codes: ArrayLike, boxes: Sequence[ArrayLike]) -> NDArray[Any]:
        """Boxes that offsets make of the boxes of several images.

        Parameters
        ----------
        rel_codes
            Offsets of all images, R times 4 K numbers: K offsets of each box one after the other.
        boxes
            For each image its boxes, (r, 4), R together.

        Returns
        -------
        Boxes in the type of ``rel_codes``, (R, K, 4); without any boxes as ``rel_codes`` came.

        Raises
        ------
        ValueError
            A shape is not (r, 4), or the numbers do not divide evenly.
        """
        if not isinstance(boxes, (list, tuple)):
            raise TypeError(f"boxes: expected a list of arrays, got {type(boxes).__name__}")
        together = _concatenated(boxes, "boxes")
        codes = _arrays.as_array(rel_codes, "rel_codes")
        if len(together) == 0:
            return self._decode(codes, together)
        if codes.size % (4 * len(together)):
            raise ValueError(
                f"rel_codes: expected 4 K numbers for each of {len(together)} boxes, "
                f"got shape {codes.shape}"
            )
        decoded = self._decode(codes.reshape(len(together), -1), together)
        return decoded.reshape(len(together), -1, 4)

    @same_kind
    def decode_single(self, rel_codes: ArrayLike, boxes: ArrayLike) -> NDArray[Any]:
        """Boxes of one image, (R, 4 K) as ``rel_codes``, see :meth:`decode`."""
        return self._decode(_arrays.as_array(rel_codes, "rel_codes"), boxes)

    def _decode(self, rel_codes: NDArray[Any], boxes: ArrayLike) -> NDArray[Any]:
        (codes,) = _arrays.floats(rel_codes=rel_codes)
        (sources,) = _arrays.boxes(boxes=boxes)
        if codes.ndim != 2 or codes.shape[1] % 4:
            raise ValueError(f"rel_codes: expected shape (R, 4 K), got {codes.shape}")
        with np.errstate(over="ignore"):
            sources = sources.astype(codes.dtype, copy=False)
        decoded: NDArray[Any] = _arrays.kernel("decode_boxes", codes)(
            codes,
            sources,
            [float(weight) for weight in self.weights],
            self.bbox_xform_clip,
        )
        return decoded


def _concatenated(boxes: Sequence[ArrayLike], argument: str) -> NDArray[Any]:
    """The boxes of all images."""
    images = enumerate(_arrays.listed(boxes, argument))
    arrays = [_arrays.boxes(**{f"{argument}[{i}]": image})[0] for i, image in images]
    return np.concatenate(arrays) if arrays else np.zeros((0, 4), np.float32)
