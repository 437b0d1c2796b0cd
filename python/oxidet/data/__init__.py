"""Data sets, image reading and the loader. Items are ``(img, bbox, label, difficult)``.

Images are float32 ``(3, H, W)``, RGB, 0..255; boxes ``(y_min, x_min, y_max, x_max)``; labels count
from 0.
"""

from oxidet.data.digits import Digits, lenet_input, load_digits
from oxidet.data.image import ImageError, read_image
from oxidet.data.loader import DataLoader, ItemError, stack
from oxidet.data.scenes import DigitScenes
from oxidet.data.voc import VOC_BBOX_LABEL_NAMES, VOCBboxDataset

__all__ = [
    "VOC_BBOX_LABEL_NAMES",
    "DataLoader",
    "DigitScenes",
    "Digits",
    "ImageError",
    "ItemError",
    "VOCBboxDataset",
    "lenet_input",
    "load_digits",
    "read_image",
    "stack",
]
