"""Random flips of an image."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oxidet import _arrays
from oxidet._same_kind import same_kind


@same_kind
def random_flip(
    img: ArrayLike,
    y_random: bool = False,
    x_random: bool = False,
    return_param: bool = False,
    copy: bool = False,
    *,
    rng: np.random.Generator | np.random.RandomState | None = None,
) -> Any:
    """Flip an image along the chosen axes, each with probability 1/2.

    Parameters
    ----------
    img
        Image, (C, H, W).
    y_random
        Whether top and bottom may change places. Drawn first.
    x_random
        Whether left and right may change places.
    return_param
        Also return what was drawn, for :func:`flip_bbox`.
    copy
        Return a new array, not a view.
    rng
        Where draws come from. By default Python's ``random``, as in chainercv: the same
        ``random.seed`` gives the same flips.

    Returns
    -------
    The image; with ``return_param`` a pair of it and ``{"y_flip": bool, "x_flip": bool}``.

    Raises
    ------
    ValueError
        ``img`` is not three-dimensional.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.detection import random_flip
    >>> rng = np.random.default_rng(1)
    >>> flipped, param = random_flip(np.zeros((3, 4, 5)), x_random=True, return_param=True, rng=rng)
    >>> param
    {'y_flip': False, 'x_flip': False}
    """
    image = _arrays.as_array(img, "img")
    if image.ndim != 3:
        raise ValueError(f"img: expected shape (C, H, W), got {image.shape}")

    both = _arrays.flag(return_param, "return_param")

    def coin() -> bool:
        return random.choice([True, False]) if rng is None else bool(rng.random() < 0.5)

    y_flip = coin() if _arrays.flag(y_random, "y_random") else False
    x_flip = coin() if _arrays.flag(x_random, "x_random") else False
    if y_flip:
        image = image[:, ::-1, :]
    if x_flip:
        image = image[:, :, ::-1]
    if _arrays.flag(copy, "copy"):
        image = image.copy()
    return (image, {"y_flip": y_flip, "x_flip": x_flip}) if both else image
