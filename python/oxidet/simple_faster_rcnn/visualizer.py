"""What simple-faster-rcnn's loops show while they train, kept instead of sent to a server."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32
from oxidet._arrays import names as as_names
from oxidet.data import VOC_BBOX_LABEL_NAMES
from oxidet.detections import Detections


class Visualizer:
    """Keeps curves, pictures and text under the names that a training loop shows them by.

    Its methods are those that the original's loop calls. The original sends everything to a visdom
    server; this needs none, and whoever wants to see something looks at the attributes.

    Attributes
    ----------
    curves
        Name to the values plotted so far.
    images
        Name to the last picture shown.
    texts
        Window to the last text shown.
    log_text
        Lines logged, each with its time.

    Examples
    --------
    >>> vis = Visualizer()
    >>> for loss in (3.5, 2.25):
    ...     vis.plot_many({"total_loss": loss})
    >>> vis.curves
    {'total_loss': [3.5, 2.25]}
    """

    env: str
    vis_kw: dict[str, Any]

    def __init__(self, env: str = "faster-rcnn", **kwargs: Any) -> None:
        self.env = env
        self.vis_kw = kwargs
        self.curves: dict[str, list[float]] = {}
        self.images: dict[str, NDArray[Any]] = {}
        self.texts: dict[str, str] = {}
        self.log_text: list[str] = []

    def plot(self, name: str, y: float, **kwargs: Any) -> None:
        """Append a value to a curve."""
        self.curves.setdefault(name, []).append(float(y))

    def plot_many(self, d: Mapping[str, float | None]) -> None:
        """Append a value to each of several curves; None is left out."""
        for name, value in d.items():
            if value is not None:
                self.plot(name, value)

    def img(self, name: str, img_: Any, **kwargs: Any) -> None:
        """Keep a picture."""
        self.images[name] = np.asarray(img_)

    def img_many(self, d: Mapping[str, Any]) -> None:
        """Keep several pictures."""
        for name, image in d.items():
            self.img(name, image)

    def text(self, text: Any, win: str = "text", **kwargs: Any) -> None:
        """Keep a text."""
        self.texts[win] = str(text)

    def log(self, info: Any, win: str = "log_text") -> None:
        """Append a line to the log, with its time."""
        self.log_text.append(f"[{time.strftime('%m%d_%H%M%S')}] {info}")
        self.texts[win] = "\n".join(self.log_text)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the curves and the log."""
        return {
            "env": self.env,
            "vis_kw": self.vis_kw,
            "curves": {name: list(values) for name, values in self.curves.items()},
            "log_text": list(self.log_text),
        }

    def load_state_dict(self, d: Mapping[str, Any]) -> Visualizer:
        """Continue from what :meth:`state_dict` returned."""
        self.env = d.get("env", self.env)
        self.vis_kw = dict(d.get("vis_kw", {}))
        self.curves = {name: list(values) for name, values in d.get("curves", {}).items()}
        self.log_text = list(d.get("log_text", []))
        return self


def visdom_bbox(
    img: Any,
    bbox: Any,
    label: Any = None,
    score: Any = None,
    label_names: Sequence[str] | None = None,
) -> F32:
    """An image with boxes drawn into a copy of it.

    Parameters
    ----------
    img
        (3, H, W) RGB, 0..255.
    bbox
        (R, 4), (y_min, x_min, y_max, x_max) in pixels.
    label, score
        (R,) classes from 0, and scores; None for boxes without them.
    label_names
        By default VOC's 20 where the labels are below 20, else numbers.

    Returns
    -------
    (3, H, W) float32, 0..1.
    """
    # Here and not above: drawing needs Pillow, training does not.
    from oxidet.visualize import draw

    boxes = np.asarray(bbox, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if label is None else np.asarray(label).reshape(-1)
    if label_names is None and labels.max(initial=0) < len(VOC_BBOX_LABEL_NAMES):
        label_names = VOC_BBOX_LABEL_NAMES
    elif label_names is not None:
        label_names = as_names(label_names, "label_names")
    found = Detections.from_chainercv(
        boxes, labels, None if score is None else np.asarray(score), class_names=label_names
    )
    drawn = draw(
        np.asarray(img, np.float32), found, labels=label is not None, scores=score is not None
    )
    return np.asarray(drawn, np.float32).transpose(2, 0, 1) / np.float32(255)
