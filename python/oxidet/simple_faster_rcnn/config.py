"""The options of simple-faster-rcnn, as the object that its programs share.

``opt`` is what its training loops read and what :class:`FasterRCNNTrainer`, :class:`Dataset`,
:class:`FasterRCNNVGG16` and the functions beside them take as defaults. Nothing outside
``oxidet.simple_faster_rcnn`` looks at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Config:
    """Options with the original's names and defaults.

    Those without effect here are kept so that programs and checkpoints that set them work:
    ``env`` and ``port`` (there is no visdom server), ``data``, ``pretrained_model`` (weights are
    loaded explicitly), ``use_chainer`` (which the original does not use either).

    Examples
    --------
    >>> from oxidet.simple_faster_rcnn import Config
    >>> opt = Config()
    >>> opt._parse({"voc_data_dir": "VOC2007", "epoch": 7})
    >>> opt.epoch, opt.lr
    (7, 0.001)
    >>> opt._parse({"epochs": 7})
    Traceback (most recent call last):
        ...
    ValueError: epochs: expected an option of simple-faster-rcnn, got one that it has not
    """

    voc_data_dir: str = "VOCdevkit/VOC2007"
    min_size: int = 600
    max_size: int = 1000
    num_workers: int = 8
    test_num_workers: int = 8
    rpn_sigma: float = 3.0
    roi_sigma: float = 1.0
    weight_decay: float = 0.0005
    lr_decay: float = 0.1
    lr: float = 1e-3
    env: str = "faster-rcnn"
    port: int = 8097
    plot_every: int = 40
    data: str = "voc"
    pretrained_model: str = "vgg16"
    epoch: int = 14
    use_adam: bool = False
    use_chainer: bool = False
    use_drop: bool = False
    debug_file: str = "/tmp/debugf"
    test_num: int = 10000
    load_path: str | None = None
    caffe_pretrain: bool = False
    caffe_pretrain_path: str = "checkpoints/vgg16_caffe.pth"

    def _parse(self, kwargs: Mapping[str, Any]) -> None:
        """Set options by name; ValueError, before anything is set, for one that there is not."""
        known = {field.name for field in fields(self)}
        for name in kwargs:
            if name not in known:
                raise ValueError(
                    f"{name}: expected an option of simple-faster-rcnn, got one that it has not"
                )
        for name, value in kwargs.items():
            setattr(self, name, value)

    def _state_dict(self) -> dict[str, Any]:
        """All options and their values."""
        return asdict(self)


opt: Config = Config()
"""The options of this process."""
