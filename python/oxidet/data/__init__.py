"""Data sets, image reading and the loader. Items are ``(img, bbox, label, difficult)``.

Images are float32 ``(3, H, W)``, RGB, 0..255; boxes ``(y_min, x_min, y_max, x_max)``; labels count
from 0.
"""

from oxidet.data.bbox_dataset import Annotation, BboxDataset, read_class_names
from oxidet.data.check import ClassSummary, DataReport, check_data
from oxidet.data.coco import COCO_BBOX_LABEL_NAMES, COCOBboxDataset, COCODetection
from oxidet.data.digits import Digits, lenet_input, load_digits
from oxidet.data.image import ImageError, read_image
from oxidet.data.loader import DataLoader, ItemError, stack
from oxidet.data.mosaic import Mosaic
from oxidet.data.open_dataset import open_dataset
from oxidet.data.sampler import RepeatFactorSampler, repeat_factors
from oxidet.data.scenes import DigitScenes
from oxidet.data.voc import VOC_BBOX_LABEL_NAMES, VOCBboxDataset

__all__ = [
    "COCO_BBOX_LABEL_NAMES",
    "VOC_BBOX_LABEL_NAMES",
    "Annotation",
    "BboxDataset",
    "COCOBboxDataset",
    "COCODetection",
    "ClassSummary",
    "DataLoader",
    "DataReport",
    "DigitScenes",
    "Digits",
    "ImageError",
    "ItemError",
    "Mosaic",
    "RepeatFactorSampler",
    "VOCBboxDataset",
    "check_data",
    "lenet_input",
    "load_digits",
    "open_dataset",
    "read_class_names",
    "read_image",
    "repeat_factors",
    "stack",
]
