"""Which object a prediction stands for, by a matrix of qualities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from oxidet import _arrays
from oxidet._same_kind import same_kind


class Matcher:
    """Gives every prediction an object, or none.

    The best object of a prediction is its match if the quality reaches ``high_threshold``; with a
    quality from ``low_threshold`` on it has none (``BETWEEN_THRESHOLDS``), and below neither
    (``BELOW_LOW_THRESHOLD``).

    Parameters
    ----------
    high_threshold
        Quality of a match.
    low_threshold
        At most that; below it a prediction is background.
    allow_low_quality_matches
        Whether the best predictions of every object, all of them on a tie, match whatever the
        thresholds say. Each then has its own best object, which need not be the one it is best for.

    Notes
    -----
    As torchvision's ``Matcher``. Of equal qualities the first object counts, NaN counts as the
    highest quality, and thresholds are rounded to the type of the matrix. An object whose best
    quality is 0 is "best" matched by every prediction that does not touch it.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models.detection import Matcher
    >>> iou = np.array([[0.8, 0.5, 0.1, 0.0], [0.1, 0.4, 0.2, 0.1]], np.float32)
    >>> Matcher(0.7, 0.3)(iou)
    array([ 0, -2, -1, -1])
    >>> Matcher(0.7, 0.3, allow_low_quality_matches=True)(iou)
    array([ 0,  0, -1, -1])
    """

    high_threshold: float
    low_threshold: float

    BELOW_LOW_THRESHOLD = -1
    BETWEEN_THRESHOLDS = -2

    def __init__(
        self,
        high_threshold: float,
        low_threshold: float,
        allow_low_quality_matches: bool = False,
    ) -> None:
        self.high_threshold = _arrays.number(high_threshold, "high_threshold")
        self.low_threshold = _arrays.number(low_threshold, "low_threshold")
        if not self.low_threshold <= self.high_threshold:
            raise ValueError(
                f"low_threshold: expected at most high_threshold, {high_threshold}, "
                f"got {low_threshold}"
            )
        self.allow_low_quality_matches = allow_low_quality_matches

    @same_kind
    def __call__(self, match_quality_matrix: ArrayLike) -> NDArray[np.int64]:
        """Matches of all predictions.

        Parameters
        ----------
        match_quality_matrix
            Quality, such as the IoU, of each of M objects with each of N predictions, (M, N).

        Returns
        -------
        int64 (N,): index of the object, -1 (below) or -2 (between).

        Raises
        ------
        ValueError
            The matrix has not two dimensions, or there are no objects or no predictions.
        """
        (quality,) = _arrays.floats(match_quality_matrix=match_quality_matrix)
        if quality.ndim != 2:
            raise ValueError(f"match_quality_matrix: expected shape (M, N), got {quality.shape}")
        if quality.size == 0:
            what = "ground-truth box" if len(quality) == 0 else "proposal"
            raise ValueError(
                f"match_quality_matrix: expected at least one {what}, got shape {quality.shape}"
            )
        matches: NDArray[np.int64] = _arrays.kernel("match_predictions", quality)(
            quality,
            float(self.high_threshold),
            float(self.low_threshold),
            bool(self.allow_low_quality_matches),
        )
        return matches
