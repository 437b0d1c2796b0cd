"""A sample of positives and negatives in a fixed proportion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind
from oxidet.detection._sampling import Rng, draw

Masks = list[NDArray[np.uint8]]


class BalancedPositiveNegativeSampler:
    """Samples elements of each image, of which at most a share is positive.

    Parameters
    ----------
    batch_size_per_image
        Elements to select of each image; fewer where there are not enough.
    positive_fraction
        Share of positives at most. What they leave free is filled with negatives.

    Notes
    -----
    As torchvision's class of that name, except that the draws come from NumPy's generators, so the
    same seed does not give torch's sample. The global state is used as ``np.random.permutation``
    uses it: first for the positives, then for the negatives of each image.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection import BalancedPositiveNegativeSampler
    >>> sampler = BalancedPositiveNegativeSampler(4, 0.25)
    >>> label = np.array([1, 0, -1, 2, 0, 0, 0])
    >>> positive, negative = sampler([label], rng=np.random.default_rng(0))
    >>> int(positive[0].sum()), int(negative[0].sum())
    (1, 3)
    """

    batch_size_per_image: int
    positive_fraction: float

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch_size_per_image = _arrays.integer(batch_size_per_image, "batch_size_per_image", 0)
        self.positive_fraction = _arrays.number(positive_fraction, "positive_fraction", 0, 1)

    @same_kind
    def __call__(
        self, matched_idxs: Sequence[ArrayLike], *, rng: Rng = None
    ) -> tuple[Masks, Masks]:
        """Masks of the selected elements.

        Parameters
        ----------
        matched_idxs
            For each image a label of each element, (R,): 1 or above positive, 0 negative, anything
            else neither.
        rng
            Where draws come from; NumPy's global state by default.

        Returns
        -------
        For each image a uint8 mask (R,) of the selected positives, and one of the negatives.

        Raises
        ------
        ValueError
            Labels of an image have not one dimension.
        """
        images = _arrays.listed(matched_idxs, "matched_idxs")
        pairs = [self._sample(labels, rng) for labels in images]
        return [positive for positive, _ in pairs], [negative for _, negative in pairs]

    def _sample(self, labels: ArrayLike, rng: Rng) -> tuple[NDArray[Any], NDArray[Any]]:
        values = _arrays.as_array(labels, "matched_idxs")
        if values.ndim != 1:
            raise ValueError(f"matched_idxs: expected shape (R,), got {values.shape}")
        positives, negatives = np.flatnonzero(values >= 1), np.flatnonzero(values == 0)
        n_positive = min(len(positives), int(self.batch_size_per_image * self.positive_fraction))
        n_negative = min(len(negatives), self.batch_size_per_image - n_positive)
        masks = np.zeros((2, len(values)), np.uint8)
        masks[0, draw(rng, positives, n_positive)] = 1
        masks[1, draw(rng, negatives, n_negative)] = 1
        return masks[0], masks[1]
