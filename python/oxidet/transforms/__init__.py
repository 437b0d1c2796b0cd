"""Transforms of images, alone or with their boxes: resizing, cropping, flipping, colours.

Images are ``(C, H, W)``, RGB of 0..255 in uint8 or float32; boxes ``(y_min, x_min, y_max, x_max)``
in continuous pixel edges. Functions work on arrays and are named and called as in
``torchvision.transforms.v2.functional``. Classes are transforms: those of an image are called
``transform(img, rng)``, those of an image with boxes ``transform(sample, rng)``, and whatever is
random is drawn from that ``numpy.random.Generator`` alone.
"""

from oxidet.transforms.classification import ImageClassification
from oxidet.transforms.color import (
    ColorJitter,
    Grayscale,
    PCAColor,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_components,
    grayscale,
    pca_color,
)
from oxidet.transforms.crop import (
    CenterCrop,
    FiveCrop,
    Pad,
    RandomCrop,
    RandomResizedCrop,
    TenCrop,
    center_crop,
    crop,
    five_crop,
    pad,
    resized_crop,
    ten_crop,
)
from oxidet.transforms.crop_sample import RandomIoUCrop
from oxidet.transforms.flip import (
    RandomFlip,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    flip,
    hflip,
    vflip,
)
from oxidet.transforms.normalize import Normalize, normalize
from oxidet.transforms.photometric import RandomPhotometricDistort
from oxidet.transforms.resize import RandomResize, Resize, resize, resized_size
from oxidet.transforms.resize_sample import ResizeShortSide
from oxidet.transforms.sample import Compose, OnImage, Sample, Transform
from oxidet.transforms.scale_sample import RandomShortestSize, RandomZoomOut, ScaleJitter
from oxidet.transforms.size import scaled_size

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "FiveCrop",
    "Grayscale",
    "ImageClassification",
    "Normalize",
    "OnImage",
    "PCAColor",
    "Pad",
    "RandomCrop",
    "RandomFlip",
    "RandomHorizontalFlip",
    "RandomIoUCrop",
    "RandomPhotometricDistort",
    "RandomResize",
    "RandomResizedCrop",
    "RandomShortestSize",
    "RandomVerticalFlip",
    "RandomZoomOut",
    "Resize",
    "ResizeShortSide",
    "Sample",
    "ScaleJitter",
    "TenCrop",
    "Transform",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "center_crop",
    "color_components",
    "crop",
    "five_crop",
    "flip",
    "grayscale",
    "hflip",
    "normalize",
    "pad",
    "pca_color",
    "resize",
    "resized_crop",
    "resized_size",
    "scaled_size",
    "ten_crop",
    "vflip",
]
