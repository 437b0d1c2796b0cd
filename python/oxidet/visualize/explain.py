"""How a Faster R-CNN came to its boxes on one picture: all its stages, as arrays and as plots."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _extras
from oxidet._arrays import F32
from oxidet.detections import Detections
from oxidet.visualize import stages as plots

if TYPE_CHECKING:
    from oxidet.models.detection.detector import Detector
    from oxidet.models.detection.stages import Level

PANEL = 4.0  # width of a picture in the figure, in inches
WIDTH = 1200  # pixels of it on a page


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a Faster R-CNN computed on one picture, stage by stage.

    :func:`explain` makes it. Boxes are (x1, y1, x2, y2), float32, in pixels of the picture.

    Attributes
    ----------
    image
        (H, W, 3) uint8 RGB: the picture; a read-only copy.
    levels
        For each feature map, finest first, its ``name``, its ``anchors`` (h, w, A, 4) and their
        ``objectness`` (h, w, A), the probability 0..1 that an anchor holds an object of any class.
        Anchors are not clipped to the picture.
    proposals, proposal_scores
        (P, 4) and (P,): the anchors that the region proposal network kept and corrected, as it
        ranks them, and their objectness.
    pooled
        (P, C, h, w) float32: what the second stage sees of each proposal.
    class_scores
        (P, K + 1) float32: the probabilities of each proposal, background first.
    candidates
        The boxes above the score threshold, before they suppress each other: of a proposal, one for
        each class that scores high enough, corrected for this class.
    detections
        What remains, as ``predict`` returns it.
    """

    image: NDArray[np.uint8]
    levels: tuple[Level, ...]
    proposals: F32
    proposal_scores: F32
    pooled: F32
    class_scores: F32
    candidates: Detections
    detections: Detections

    @property
    def anchors(self) -> list[F32]:
        """Of each level, (h, w, A, 4)."""
        return [level.anchors for level in self.levels]

    @property
    def objectness(self) -> list[F32]:
        """Of each level, (h, w, A), 0..1."""
        return [level.objectness for level in self.levels]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the columns of ``class_scores``; the first is ``"background"``."""
        return ("background", *(self.detections.class_names or ()))

    def plot(self, axes: Any = None) -> NDArray[Any]:
        """All stages side by side, with matplotlib (extra ``plots``).

        ``axes`` are six axes to draw into, by default those of a new figure. Returns them, shaped
        (2, 3) if they are new: :func:`anchors`, :func:`objectness`, :func:`proposals`,
        :func:`regions`, :func:`class_scores`, :func:`boxes`.
        """
        if axes is None:
            pyplot = _extras.require("matplotlib.pyplot", extra="plots")
            axes = pyplot.figure(figsize=self._inches(), layout="constrained").subplots(2, 3)
        return self._plot_into(np.asarray(axes, object))

    def _inches(self) -> tuple[float, float]:
        """Width and height of a figure with room for two rows of the picture."""
        height, width = self.image.shape[:2]
        return 3.75 * PANEL, 2 * min(max(PANEL * height / width, 2.4), 1.5 * PANEL) + 1.4

    def _plot_into(self, axes: NDArray[Any]) -> NDArray[Any]:
        if axes.size != len(plots.STAGES):
            raise ValueError(f"axes: expected {len(plots.STAGES)}, got {axes.size}")
        for draw, ax in zip(plots.STAGES, axes.flat, strict=True):
            draw(self, ax=ax)
        return axes

    def stages(self) -> list[tuple[str, str]]:
        """What each stage came to, in words: names and numbers, as ``print`` shows them."""
        counts = [level.objectness.size for level in self.levels]
        shapes = [level.objectness.shape for level in self.levels]
        cells = ", ".join(f"{h} x {w}" for h, w, _ in shapes)
        at_each = " or ".join(str(n) for n in sorted({n for _, _, n in shapes}))
        best = max((float(level.objectness.max(initial=0)) for level in self.levels), default=0.0)
        sure = sum(int((level.objectness > 0.5).sum()) for level in self.levels)
        busy = self.class_scores[:, 1:].max(axis=1, initial=0) > self.class_scores[:, 0]
        channels, *bins = self.pooled.shape[1:]
        return [
            ("anchors", f"{sum(counts):,}: {at_each} at each of {cells} cells"),
            ("objectness", f"above 0.5 at {sure:,} anchors, at most {best:.3f}"),
            ("proposals", f"{len(self.proposals):,}"),
            ("regions", f"{channels} channels of {' x '.join(map(str, bins))} bins of each"),
            ("class scores", f"{int(busy.sum()):,} proposals are more than background"),
            (
                "boxes",
                f"{len(self.candidates):,} above the threshold, {len(self.detections):,} after "
                "they suppressed each other",
            ),
        ]

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        lines = [f"Explanation of a picture of {height} x {width} pixels (height x width)"]
        return "\n".join([*lines, *(f"  {name:<13} {text}" for name, text in self.stages())])

    # No _repr_png_ beside it: notebooks would keep the picture twice.
    def _repr_html_(self) -> str:
        from oxidet.visualize.html import fragments

        picture = self._picture()
        return fragments.block(
            fragments.table((("stage", True), ("", True)), self.stages()),
            ""
            if picture is None
            else fragments.picture_element(picture, "the stages on the picture", WIDTH),
        )

    def _picture(self) -> Any:
        """All stages as a Pillow image; None without matplotlib."""
        figures = _require_or_none("matplotlib.figure")
        if figures is None:
            return None
        # No figure of pyplot's, which notebooks would show once more.
        size = self._inches()
        figure = figures.Figure(figsize=size, layout="constrained")
        self._plot_into(np.asarray(figure.subplots(2, 3), object))
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=1.25 * WIDTH / size[0])
        return _extras.require("PIL.Image", extra="images").open(file).convert("RGB")


def _require_or_none(module: str) -> Any:
    try:
        return _extras.require(module, extra="plots")
    except ImportError:
        return None


def explain(
    model: Detector,
    image: Any,
    *,
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
) -> Explanation:
    """Detect objects in a picture, and keep what every stage of the detector came to.

    Parameters
    ----------
    model
        A Faster R-CNN: of ``oxidet.models.detection``, over one feature map or a pyramid, or of
        ``oxidet.simple_faster_rcnn``. It computes in evaluation mode and stays in its own.
    image
        A path, a Pillow image or an array, or whatever else :func:`oxidet.data.read_image` takes.
    score_threshold, nms_threshold
        As for ``model.predict``.

    Returns
    -------
    The stages as arrays; ``plot()`` draws them, and a notebook shows them.

    Raises
    ------
    TypeError
        ``model`` is no detector of two stages, or a threshold no number.
    ValueError
        A threshold is not from 0 to 1.

    Examples
    --------
    >>> from oxidet import pretrained, visualize
    >>> from oxidet.data import DigitScenes
    >>> explained = visualize.explain(pretrained.digit_detector(), DigitScenes("test")[4][0])
    >>> explained
    Explanation of a picture of 192 x 256 pixels (height x width)
      anchors       18,432: 6 at each of 48 x 64 cells
      objectness    above 0.5 at 245 anchors, at most 1.000
      proposals     100
      regions       64 channels of 7 x 7 bins of each
      class scores  41 proposals are more than background
      boxes         40 above the threshold, 6 after they suppressed each other
    """
    from oxidet.data.image import read_image
    from oxidet.models.detection.detector import Detector, check_thresholds

    if not isinstance(model, Detector):
        raise TypeError(f"model: expected a Faster R-CNN, got {type(model).__name__}")
    score = model.score_threshold if score_threshold is None else score_threshold
    nms = model.nms_threshold if nms_threshold is None else nms_threshold
    check_thresholds(score, nms)
    # Asked beforehand: an error of the same class from within a detector is the detector's.
    if type(model).detect_in_stages is Detector.detect_in_stages:
        raise TypeError(
            f"model: expected a detector that defines detect_in_stages, got {type(model).__name__}"
        )
    pixels = read_image(image)
    stages = model.detect_in_stages(pixels, score, nms)
    picture = np.ascontiguousarray(np.rint(pixels).astype(np.uint8).transpose(1, 2, 0))
    picture.setflags(write=False)
    return Explanation(
        image=picture,
        levels=stages.levels,
        proposals=stages.proposals,
        proposal_scores=stages.proposal_scores,
        pooled=stages.pooled,
        class_scores=stages.class_scores,
        candidates=model.as_detections(stages.candidates, image, pixels),
        detections=model.as_detections(stages.found, image, pixels),
    )
