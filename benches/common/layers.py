"""Prints layers.txt: every distinct convolution of some networks, with torchvision's names.

python benches/common/layers.py > benches/common/layers.txt
"""

from __future__ import annotations

import torch
import torchvision

NETWORKS = [
    ("VGG-16", "vgg16", 224),
    ("ResNet-18", "resnet18", 224),
    ("ResNet-50", "resnet50", 224),
    ("Inception-v3", "inception_v3", 299),
    ("DenseNet-121", "densenet121", 224),
    ("MobileNet-v2", "mobilenet_v2", 224),
    ("ResNeXt-50", "resnext50_32x4d", 224),
]
HEAD = "# network layer H W C O kernel_h kernel_w stride_h stride_w pad_h pad_w groups times"


def layers(model: torch.nn.Module, size: int) -> list[list[object]]:
    """A row per distinct convolution, in the order of the first use."""
    rows: dict[tuple[int, ...], list[object]] = {}

    def hook(name: str, conv: torch.nn.Conv2d) -> None:
        def note(_: object, inputs: tuple[torch.Tensor]) -> None:
            height, width = inputs[0].shape[2:]
            key = (height, width, conv.in_channels, conv.out_channels, *conv.kernel_size,
                   *conv.stride, *conv.padding, conv.groups)  # fmt: skip
            row = rows.setdefault(key, [name, *key, 0])
            row[-1] += 1

        conv.register_forward_pre_hook(note)

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            hook(name.removesuffix(".conv"), module)
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, size, size))
    return list(rows.values())


def main() -> None:
    print(HEAD)
    for title, name, size in NETWORKS:
        options = {"init_weights": False} if name == "inception_v3" else {}
        model = getattr(torchvision.models, name)(weights=None, **options)
        for row in layers(model, size):
            print(title, *row)


if __name__ == "__main__":
    main()
