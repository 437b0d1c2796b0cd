"""What every detector is to the rest of the package: pictures to detections, samples to losses.

A family of detectors implements two methods on image arrays, :meth:`Detector.detect_images` and
:meth:`Detector.training_losses`. Everything that people and programs call, ``predict`` above all,
is here and built on the first; trainers are built on the second. Neither knows a family.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from oxidet import nn
from oxidet._arrays import F32, integer, names, number
from oxidet._same_kind import is_torch_tensor
from oxidet.data import ImageError, read_image
from oxidet.data.image import ImageSource
from oxidet.detections import Detections
from oxidet.models.detection.recipe import written_recipe

if TYPE_CHECKING:
    from oxidet.models.detection.stages import Stages

I64 = NDArray[np.int64]
OnError = Literal["raise", "skip"]


class Found(NamedTuple):
    """What a detector found in one image, in an order of the detector's own."""

    boxes: F32
    """(R, 4) float32, (x1, y1, x2, y2) in pixels of the image."""
    labels: I64
    """(R,) int64, from 0, indexing the detector's ``class_names``."""
    scores: F32
    """(R,) float32, 0..1."""


class Detector(nn.Module):
    """A network that finds objects in pictures. Abstract.

    Parameters
    ----------
    class_names
        Names of the foreground classes, in the order of their labels.

    Attributes
    ----------
    class_names
        As given, a tuple.
    score_threshold, nms_threshold
        What :meth:`predict` uses where it is not told otherwise: scores above 0.5, and the family's
        own IoU. Evaluation, which needs the low scores too, takes the second alone.
    """

    score_threshold: float = 0.5
    nms_threshold: float = 0.5
    class_names: tuple[str, ...]

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = names(class_names, "class_names")

    # --- what a family implements

    def detect_images(
        self,
        images: Sequence[F32],
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        *,
        scale: float = 1.0,
    ) -> list[Found]:
        """Detect objects in image arrays.

        Computes in evaluation mode without recording gradients, and leaves the detector in the mode
        it was in.

        Parameters
        ----------
        images
            (3, H, W) float32, RGB, 0..255, of any sizes.
        score_threshold, nms_threshold
            As for :meth:`predict`.
        scale
            Size of the network's input, as a multiple of the detector's own. Nothing but
            :class:`AugmentedDetector` gives it.

        Returns
        -------
        For each image a triple of boxes (R, 4) float32 (x1, y1, x2, y2) in pixels of the image,
        labels (R,) int64 from 0, and scores (R,) float32.
        """
        # How features become boxes is what one family differs from another in.
        raise NotImplementedError(f"{type(self).__name__} does not define detect_images")

    def training_losses(
        self,
        images: Sequence[F32],
        boxes: Sequence[F32],
        labels: Sequence[I64],
        *,
        rng: np.random.RandomState,
        min_size: int | None = None,
    ) -> dict[str, Any]:
        """The losses of a batch, by name; what training minimises is their sum.

        Parameters
        ----------
        images
            (3, H, W) float32, RGB, 0..255, in their original sizes. They are scaled, normalised and
            put into a batch here.
        boxes
            For each image (R, 4) float32 (x1, y1, x2, y2) in its pixels; R may be 0.
        labels
            For each image (R,) int64 from 0.
        rng
            What samples are drawn from.
        min_size
            Length of the short side for this batch, instead of the detector's own.

        Returns
        -------
        Names to tensors of one number. The names are the same for every batch.
        """
        # What is learned from is as much the family's own as how it detects.
        raise NotImplementedError(f"{type(self).__name__} does not define training_losses")

    def detect_in_stages(
        self,
        image: F32,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> Stages:
        """Detect objects in one image array, and keep what every stage came to.

        For detectors of two stages. Arguments are those of :meth:`detect_images`, for one image,
        and so is what is found, number by number.
        """
        # No stub: a detector of one stage has none to show, and need not define this.
        raise NotImplementedError(f"{type(self).__name__} does not define detect_in_stages")

    def settings(self) -> dict[str, Any]:
        """What to tell the builder to get this detector again, as it is now.

        ``model`` is the builder's name, the rest are its options, also where they were defaults, so
        that a file means the same under later defaults. What is no plain value, such as the class
        of a Module that the builder was given, keeps the detector from being saved.
        """
        return {
            "n_fg_class": len(self.class_names),
            "class_names": list(self.class_names),
            "score_threshold": self.score_threshold,
        }

    @property
    def recipe(self) -> dict[str, Any] | None:
        """:meth:`settings` as plain values, which a file that ``save_detector`` writes carries.

        None for a detector that no function of :mod:`oxidet.models.detection` can build again from
        such values alone: one around Modules of one's own.
        """
        try:
            return written_recipe(self.settings(), type(self).__name__)
        except ValueError:
            return None

    # --- pictures in, detections out

    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is an iterable, too
        self,
        images: ImageSource,
        *,
        score_threshold: float | None = ...,
        nms_threshold: float | None = ...,
        batch_size: int = ...,
        on_error: Literal["raise"] = ...,
    ) -> Detections: ...
    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is an iterable, too
        self,
        images: ImageSource,
        *,
        score_threshold: float | None = ...,
        nms_threshold: float | None = ...,
        batch_size: int = ...,
        on_error: OnError,
    ) -> Detections | None: ...
    @overload
    def predict(
        self,
        images: Iterable[Any],
        *,
        score_threshold: float | None = ...,
        nms_threshold: float | None = ...,
        batch_size: int = ...,
        on_error: Literal["raise"] = ...,
    ) -> list[Detections]: ...
    @overload
    def predict(
        self,
        images: Iterable[Any],
        *,
        score_threshold: float | None = ...,
        nms_threshold: float | None = ...,
        batch_size: int = ...,
        on_error: OnError,
    ) -> list[Detections | None]: ...
    def predict(
        self,
        images: Any,
        *,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        batch_size: int = 1,
        on_error: OnError = "raise",
    ) -> Any:
        """Detect objects in one picture, or in each of several.

        Parameters
        ----------
        images
            A path, a Pillow image, an array of 0..255, a torch tensor (3, H, W) (uint8, or floats
            of 0..1 as torchvision has them), or whatever else :func:`oxidet.data.read_image` takes;
            or several of them, of any sizes: a list, a generator or another iterable, or an array
            or a tensor with a first axis of images. Type checkers, which do not see how many axes
            there are, take an array or a tensor for one picture; ``list(batch)`` is several to them
            too.
        score_threshold
            Keep what scores above this, 0..1; by default ``self.score_threshold``, 0.5.
        nms_threshold
            IoU above which the lower-scoring of two boxes of a class is dropped; by default
            ``self.nms_threshold``.
        batch_size
            How many pictures are given to the network at once.
        on_error
            What an unreadable picture does: ``"raise"``, or ``"skip"``, which warns with its name
            and puts None in its place.

        Returns
        -------
        Detections, best first, or a list with one entry per picture. The model computes in
        evaluation mode and is left in the mode it was in.
        """
        several = _are_several(images)
        results = self._predictions(
            images if several else [images],
            score_threshold,
            nms_threshold,
            batch_size,
            on_error,
        )
        return list(results) if several else next(results)

    def iter_predict(
        self,
        images: ImageSource | Iterable[Any],
        *,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        batch_size: int = 1,
        on_error: OnError = "raise",
        progress: bool = False,
    ) -> Iterator[Detections]:
        """Detect objects in a stream of pictures, ``batch_size`` at a time.

        Arguments are those of :meth:`predict`; one picture is a stream of one. With
        ``on_error="skip"`` an unreadable picture is warned about and left out. ``progress=True``
        shows how far it has come: with tqdm a bar, in a terminal or a notebook, else a line now and
        then.
        """
        from oxidet.train.progress import Progress

        given: Any = images
        stream: Iterable[Any] = given if _are_several(given) else [given]
        total = len(stream) if isinstance(stream, Sized) else None
        results = self._predictions(stream, score_threshold, nms_threshold, batch_size, on_error)
        with Progress(total, "detecting", unit="image", quiet=not progress) as shown:
            for result in results:
                shown.step()
                if result is not None:
                    yield result

    def _predictions(
        self,
        images: Iterable[Any],
        score_threshold: float | None,
        nms_threshold: float | None,
        batch_size: int,
        on_error: str,
    ) -> Iterator[Detections | None]:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
        batch_size = integer(batch_size, "batch_size", 1)
        score = self.score_threshold if score_threshold is None else score_threshold
        nms = self.nms_threshold if nms_threshold is None else nms_threshold
        check_thresholds(score, nms)
        stream = iter(images)
        while batch := list(itertools.islice(stream, batch_size)):
            read = [self._read(image, on_error) for image in batch]
            pixels = [array for array in read if array is not None]
            found = iter(self.detect_images(pixels, score, nms) if pixels else ())
            for image, array in zip(batch, read, strict=True):
                yield None if array is None else self.as_detections(next(found), image, array)

    def _read(self, image: Any, on_error: str) -> F32 | None:
        try:
            return read_image(image)
        except (ImageError, OSError) as error:
            if on_error == "raise":
                raise
            warnings.warn(f"skipped: {error}", stacklevel=4)
            return None

    def as_detections(self, found: Found, image: Any, pixels: F32) -> Detections:
        """What was found in an image as :meth:`predict` returns it: named, and best first."""
        boxes, labels, scores = found
        order = np.argsort(-scores, kind="stable")
        return Detections(
            boxes=boxes[order],
            labels=labels[order],
            scores=scores[order],
            class_names=self.class_names,
            image_size=pixels.shape[1:],
            image=image,
            path=os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else None,
        )


def check_thresholds(score_threshold: Any, nms_threshold: Any) -> None:
    """Refuse what is no number from 0 to 1."""
    number(score_threshold, "score_threshold", 0, 1)
    number(nms_threshold, "nms_threshold", 0, 1)


def _are_several(images: Any) -> bool:
    """Whether what ``predict`` was given is pictures rather than a picture."""
    if isinstance(images, np.ndarray):
        return images.ndim == 4 or images.dtype.kind in "OU"  # images, or paths of images
    if is_torch_tensor(images):
        return bool(images.ndim == 4)
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike)):
        return False
    # A file is an iterable of lines, a Pillow image of nothing.
    return isinstance(images, Iterable) and not hasattr(images, "read")
