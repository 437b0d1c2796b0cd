"""simple-faster-rcnn's data: VOC folders, as its networks take and its loops expect them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import data
from oxidet._arrays import F32
from oxidet.detection import flip_bbox, random_flip, resize_bbox
from oxidet.simple_faster_rcnn.array_tool import totensor
from oxidet.simple_faster_rcnn.config import Config, opt
from oxidet.simple_faster_rcnn.preprocessing import Preprocessing


def _preprocessing(min_size: float = 600, max_size: float = 1000) -> Preprocessing:
    """The original's rules, with the normalisation that ``opt.caffe_pretrain`` chooses."""
    normalization = "caffe" if opt.caffe_pretrain else "torchvision"
    return Preprocessing(min_size, max_size, normalization=normalization)  # type: ignore[arg-type]


def preprocess(img: Any, min_size: float = 600, max_size: float = 1000) -> F32:
    """Scale and normalise an image as the original does.

    ``img`` is (3, H, W) RGB 0..255; the short side becomes ``min_size`` unless the long one would
    exceed ``max_size``. With ``opt.caffe_pretrain`` the result is BGR 0..255 minus a mean, else RGB
    with torchvision's normalisation. Returns (3, H', W') float32.

    >>> import numpy as np
    >>> preprocess(np.zeros((3, 30, 40), np.float32), 60, 100).shape
    (3, 60, 80)
    """
    return _preprocessing(min_size, max_size)(np.asarray(img, np.float32))


def inverse_normalize(img: Any) -> F32:
    """The image again, RGB 0..255, of what :func:`preprocess` made, at its size.

    The original's, who takes one mean and deviation for all channels of the torchvision form, so
    that colours come back approximately there.
    """
    image = np.asarray(img, np.float32)
    if opt.caffe_pretrain:
        return _preprocessing().normalizer.inverse(image)
    restored: F32 = (image * np.float32(0.225) + np.float32(0.45)).clip(0, 1) * np.float32(255)
    return restored


class VOCBboxDataset(data.VOCBboxDataset):
    """:class:`oxidet.data.VOCBboxDataset` with the original's attributes.

    Items are always ``(img, bbox, label, difficult)``, ``difficult`` uint8, whatever
    ``return_difficult``. ``label_names`` are the classes, read from the folder where it has others
    than VOC's.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        split: str = "trainval",
        use_difficult: bool = False,
        return_difficult: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(data_dir, split, use_difficult, True, **options)

    @property
    def label_names(self) -> tuple[str, ...]:
        """``class_names`` under the original's name."""
        return self.class_names

    def get_example(self, i: int) -> tuple[F32, F32, NDArray[np.int32], NDArray[np.uint8]]:
        """Image, boxes, labels and difficulties of one item."""
        img, bbox, label, difficult = super().__getitem__(i)
        return img, bbox, label, difficult.astype(np.uint8)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.get_example(index)


class Transform:
    """What is done to a training item: preprocessing, and a flip of every second image.

    Flips are drawn from Python's ``random``, as in the original.
    """

    def __init__(self, min_size: float = 600, max_size: float = 1000) -> None:
        self.min_size = min_size
        self.max_size = max_size

    def __call__(self, in_data: tuple[Any, Any, Any]) -> tuple[F32, F32, Any, float]:
        """(img, bbox, label) to (img, bbox, label, scale)."""
        img, bbox, label = in_data
        prepared = preprocess(img, self.min_size, self.max_size)
        scale = prepared.shape[1] / img.shape[1]
        bbox = resize_bbox(bbox, img.shape[1:], prepared.shape[1:])
        flipped, params = random_flip(prepared, x_random=True, return_param=True)
        bbox = flip_bbox(bbox, prepared.shape[1:], x_flip=params["x_flip"])
        return flipped, bbox, label, scale


class Dataset:
    """The training items of ``opt.voc_data_dir``: ``(img, bbox, label, scale)``, preprocessed.

    ``img`` is (3, H', W'), ``bbox`` (R, 4) (y_min, x_min, y_max, x_max) in its pixels, ``scale``
    the factor of its height. ``db`` is the :class:`VOCBboxDataset` behind it.
    """

    db: VOCBboxDataset
    tsf: Transform

    def __init__(self, opt: Config, split: str = "trainval") -> None:
        self.opt = opt
        self.db = VOCBboxDataset(opt.voc_data_dir, split)
        self.tsf = Transform(opt.min_size, opt.max_size)

    def __getitem__(self, idx: int) -> tuple[F32, F32, NDArray[np.int32], float]:
        img, bbox, label, _ = self.db.get_example(idx)
        img, bbox, label, scale = self.tsf((img, bbox, label))
        return img.copy(), bbox.copy(), label.copy(), scale

    def __len__(self) -> int:
        return len(self.db)


class TestDataset:
    """The items to evaluate on: ``(img, size, bbox, label, difficult)``.

    ``img`` is preprocessed; ``size`` (height, width) and ``bbox`` are those of the original image.
    """

    db: VOCBboxDataset

    __test__ = False  # of no interest to pytest

    def __init__(self, opt: Config, split: str = "test", use_difficult: bool = True) -> None:
        self.opt = opt
        self.db = VOCBboxDataset(opt.voc_data_dir, split=split, use_difficult=use_difficult)

    def __getitem__(self, idx: int) -> tuple[Any, ...]:
        img, bbox, label, difficult = self.db.get_example(idx)
        prepared = preprocess(img, self.opt.min_size, self.opt.max_size)
        return prepared, img.shape[1:], bbox, label, difficult

    def __len__(self) -> int:
        return len(self.db)


class DataLoader(data.DataLoader):
    """:class:`oxidet.data.DataLoader` with torch's batches: every field gets an axis in front.

    Arrays become (N, ...), numbers (N,), and a tuple of numbers a list of (N,). Results have the
    methods ``cuda``, ``float``, ``numpy`` and so on, with which loops written for torch treat them.

    Parameters
    ----------
    dataset, batch_size, shuffle
        As in :class:`oxidet.data.DataLoader`. Arrays of a batch must have equal shapes, so
        images and boxes as they are need ``batch_size=1``.
    num_workers
        Threads that prepare batches ahead; 0 prepares them in the caller's thread.
    pin_memory
        torch's; without effect.
    drop_last, seed
        As in :class:`oxidet.data.DataLoader`.

    Examples
    --------
    >>> from oxidet.simple_faster_rcnn import DataLoader
    >>> loader = DataLoader([(np.zeros((3, 4, 5)), (4, 5), 0.5)])
    >>> for img, size, scale in loader:
    ...     print(img.shape, [axis.item() for axis in size], scale.float())
    (1, 3, 4, 5) [4, 5] [0.5]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            dataset,
            batch_size,
            shuffle,
            num_workers,
            seed,
            collate=_collate,
            drop_last=drop_last,
        )


def _collate(items: list[Any]) -> list[Any]:
    return [_joined(field) for field in zip(*items, strict=True)]


def _joined(values: tuple[Any, ...]) -> Any:
    if isinstance(values[0], (tuple, list)):
        return [_joined(part) for part in zip(*values, strict=True)]
    return totensor(np.stack([np.asarray(value) for value in values]))
