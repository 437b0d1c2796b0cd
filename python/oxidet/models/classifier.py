"""What all classification networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from oxidet import nn
from oxidet._arrays import integer
from oxidet._same_kind import is_torch_tensor
from oxidet.classification import Classification
from oxidet.data.image import ImageError
from oxidet.transforms import ImageClassification

BATCH = 16  # pictures computed at a time; their activations are what takes memory


class Classifier(nn.Module):
    """Base of the classification networks: images (N, C, H, W) to logits (N, num_classes).

    ``preprocess`` makes a picture into what the network takes. It is a class attribute, and may be
    replaced on one model by assignment, as may ``class_names``.
    """

    compiled = True

    preprocess: ImageClassification = ImageClassification(224)
    """The network's own recipe."""

    auxiliary_weight: float = 0.3
    """Share of the loss of each auxiliary head in training, where the network has any."""

    class_names: tuple[str, ...] | None = None
    """What the outputs mean, one name per class; None where nobody said."""

    @overload
    def classify(
        self, image: list[Any] | tuple[Any, ...], top: int = 5
    ) -> list[Classification]: ...
    @overload
    def classify(self, image: Any, top: int = 5) -> Classification: ...
    def classify(self, image: Any, top: int = 5) -> Classification | list[Classification]:
        """The likeliest classes of a picture, or of each of a list of pictures.

        The network computes in evaluation mode, without recording anything, and is left in the
        mode it was in. Weights are what they are: fresh ones know nothing.

        Parameters
        ----------
        image
            Anything that :func:`oxidet.data.read_image` reads (a path, a Pillow image, an array of
            one picture in 0..255, a torch tensor of one in 0..1), or a list or tuple of such, or an
            array or a tensor of four dimensions.
        top
            How many classes, at most as many as there are.

        Returns
        -------
        A :class:`~oxidet.classification.Classification`, or a list of them for several pictures.

        Raises
        ------
        ValueError
            A picture is none (:class:`oxidet.data.ImageError` names it), ``class_names`` does not
            fit the network, or ``top`` is below 1.

        Examples
        --------
        >>> import numpy as np
        >>> from oxidet import nn
        >>> from oxidet.models import Classifier
        >>> from oxidet.transforms import ImageClassification
        >>> class MeanColour(Classifier):
        ...     preprocess = ImageClassification(8, resize_size=8, mean=0, std=1, scale=1)
        ...     class_names = ("red", "green", "blue")
        ...     def forward(self, x):
        ...         return nn.functional.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)
        >>> MeanColour().classify(np.full((10, 12, 3), (99, 101, 100), np.uint8), top=2)
        Classification: green (0.665)
          label  name   probability
              1  green  0.665  #############
              2  blue   0.245  #####
        """
        count = integer(top, "top", 1)
        if (isinstance(image, np.ndarray) or is_torch_tensor(image)) and image.ndim == 4:
            image = list(image)
        if not isinstance(image, (list, tuple)):
            return self._classified([image], count)[0]
        found = []
        for begin in range(0, len(image), BATCH):
            found += self._classified(image[begin : begin + BATCH], count, begin)
        return found

    def _classified(
        self, images: Sequence[Any], top: int, first: int | None = None
    ) -> list[Classification]:
        """One batch; ``first`` is the place of its first picture in the list that was given."""
        prepared = []
        for place, image in enumerate(images):
            try:
                prepared.append(self.preprocess(image))
            except ImageError as error:
                where = "" if first is None else f"image[{first + place}]: "
                raise ImageError(f"{where}{error}") from error
        with nn.evaluating(self), nn.no_grad():
            logits = np.asarray(self(np.stack(prepared)), np.float64)
        if logits.ndim != 2 or not np.isfinite(logits).all():
            what = "others" if logits.ndim == 2 else f"shape {logits.shape}"
            raise ValueError(
                f"{type(self).__name__}: expected finite logits (N, num_classes), got {what}"
            )
        names = self.class_names
        if names is not None and len(names) != logits.shape[1]:
            raise ValueError(
                f"class_names: expected {logits.shape[1]} names, one per output of "
                f"{type(self).__name__}, got {len(names)}"
            )
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        best = np.argsort(-shares, axis=1, kind="stable")[:, :top]
        return [
            Classification(order, share[order], class_names=names, image=image)
            for order, share, image in zip(best, shares, images, strict=True)
        ]
