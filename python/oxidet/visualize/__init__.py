"""Looking at results: ``draw`` into a picture, ``annotated`` beside the truth, ``contact_sheet``
for many, ``dataset_sheet`` for labelled images, ``vis_bbox`` into a plot, ``save_png`` to a file;
``training_curves`` plots how a training went, ``precision_recall`` and ``confusion_matrix`` what an
evaluation found.

Looking into detectors: ``explain`` gives all stages of a Faster R-CNN on a picture; ``anchors``,
``objectness``, ``proposals``, ``regions``, ``class_scores`` and ``boxes`` show one of them each.

Looking into networks: ``feature_maps`` and ``filters``, ``guided_backprop`` and ``deconvolution``
(as arrays: ``guided_gradient`` and ``deconvolve``), ``architecture``.

Pillow (extra ``images``) and matplotlib (extra ``plots``) are imported when first needed.
"""

from oxidet.visualize.annotated import annotated, contact_sheet
from oxidet.visualize.architecture import architecture
from oxidet.visualize.attribution import (
    deconvolution,
    deconvolve,
    guided_backprop,
    guided_gradient,
)
from oxidet.visualize.dataset_sheet import dataset_sheet
from oxidet.visualize.draw import draw, save_png
from oxidet.visualize.evaluation import confusion_matrix, precision_recall
from oxidet.visualize.explain import Explanation, explain
from oxidet.visualize.feature_maps import feature_maps, filters
from oxidet.visualize.palette import PALETTE, label_colour, voc_colormap
from oxidet.visualize.stages import (
    anchors,
    boxes,
    class_scores,
    objectness,
    proposals,
    regions,
)
from oxidet.visualize.themes import theme
from oxidet.visualize.training_curves import training_curves
from oxidet.visualize.vis_bbox import vis_bbox, vis_image

__all__ = [
    "PALETTE",
    "Explanation",
    "anchors",
    "annotated",
    "architecture",
    "boxes",
    "class_scores",
    "confusion_matrix",
    "contact_sheet",
    "dataset_sheet",
    "deconvolution",
    "deconvolve",
    "draw",
    "explain",
    "feature_maps",
    "filters",
    "guided_backprop",
    "guided_gradient",
    "label_colour",
    "objectness",
    "precision_recall",
    "proposals",
    "regions",
    "save_png",
    "theme",
    "training_curves",
    "vis_bbox",
    "vis_image",
    "voc_colormap",
]
