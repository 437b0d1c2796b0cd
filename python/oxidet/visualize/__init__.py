"""Looking at results: ``draw`` into a picture, ``vis_bbox`` into a plot, ``save_png`` to a file;
``training_curves`` plots how a training went.

Pillow (extra ``images``) and matplotlib (extra ``plots``) are imported when first needed.
"""

from oxidet.visualize.draw import draw, save_png
from oxidet.visualize.palette import PALETTE, label_colour, voc_colormap
from oxidet.visualize.training_curves import training_curves
from oxidet.visualize.vis_bbox import vis_bbox, vis_image

__all__ = [
    "PALETTE",
    "draw",
    "label_colour",
    "save_png",
    "training_curves",
    "vis_bbox",
    "vis_image",
    "voc_colormap",
]
