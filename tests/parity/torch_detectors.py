"""torchvision's detectors with weights under which there is something to find.

Fresh weights score all anchors about alike, and all regions, so what is found would be noise.
``spread_out`` gives every layer weights under which its outputs over some images have a given
spread, and batch norms statistics that are far from 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from parity.torch_weights import random_image

#: Last batch norms of bottlenecks, all of whose blocks torchvision's v1 and v2 have.
LAST = ("bn3",)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A (3, H, W) float32 picture in 0..1 of coarse to fine blobs."""
    image = 0.5 + 0.2 * random_image(height, width, seed)
    return np.clip(image, 0, 1).astype(np.float32)


@contextmanager
def _scaled(layer: nn.Module, spread: float, means: torch.Tensor | float) -> Iterator[None]:
    """While running: the first outputs of a layer set its scale and offset, channel by channel."""
    done = False

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        nonlocal done
        if done:
            return output
        done = True
        axes = [axis for axis in range(output.ndim) if axis != 1]
        std, centre = torch.std_mean(output, dim=axes)
        factor = spread / std.clamp(min=1e-3 * float(std.max()) + 1e-12)
        module.weight.mul_(factor.reshape(-1, *[1] * (module.weight.ndim - 1)))
        module.bias.copy_(means + (module.bias - centre) * factor)
        return module.forward(*inputs)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def spread_out(
    model: Any, images: Sequence[np.ndarray], seed: int = 0, *, smooth: bool = False
) -> Any:
    """Random weights for a torchvision Faster R-CNN; ``images`` are what they are made for.

    Most units are in the linear part of their ReLU, so rounding errors grow little on their way.
    With ``smooth`` all of them are far from its kink: one channel in four is blocked, the others
    let everything through. Where one unit in 1e5 sits on the kink, rounding decides, and gradients
    of 1e-3 and more hang on it.
    """
    generator = torch.Generator().manual_seed(seed)

    def means(count: int) -> torch.Tensor | float:
        if not smooth:
            return 0.3
        return torch.where(torch.rand(count, generator=generator) < 0.25, -2.0, 2.0)

    spread = 0.4 if smooth else 1.0
    tensors = [torch.from_numpy(image) for image in images]
    model.eval()
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(generator=generator)
                module.weight.div_(module.weight[0].numel() ** 0.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
                module.weight.uniform_(0.3, 0.7, generator=generator)
                module.bias.normal_(0.8, 0.2, generator=generator)
                if smooth:
                    module.weight.mul_(0.5)
                    # What is added to a shortcut stays positive.
                    adds = name.endswith((*LAST, "downsample.1"))
                    module.bias.copy_(2.0 if adds else means(len(module.bias)))
        batch, _ = model.transform(tensors)
        _set_statistics(model.backbone, batch.tensors)
        features = model.backbone(batch.tensors)
        levels = list(features.values())
        head = model.rpn.head
        for layer in head.conv.modules():
            if isinstance(layer, nn.Conv2d):
                with _scaled(layer, spread, means(len(layer.bias))):
                    head(levels[:1])
        for layer, width in ((head.cls_logits, 1.5), (head.bbox_pred, 0.2)):
            with _scaled(layer, width, 0.0):
                head(levels[:1])
        proposals, _ = model.rpn(batch, features)
        heads = model.roi_heads
        pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
        heads.box_roi_pool.scales = None
        _set_statistics(heads.box_head, pooled)
        for layer in heads.box_head.modules():
            if isinstance(layer, nn.Linear):
                with _scaled(layer, spread, means(len(layer.bias))):
                    heads.box_head(pooled)
        hidden = heads.box_head(pooled)
        predictor = heads.box_predictor
        for layer, width in ((predictor.cls_score, 2.0), (predictor.bbox_pred, 0.7)):
            with _scaled(layer, width, 0.0):
                predictor(hidden)
    return model


def _set_statistics(network: nn.Module, x: torch.Tensor) -> None:
    """Let batch norms have the statistics of their inputs, one after the other."""

    def hook(module: Any, inputs: Any) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance.clamp(min=1e-4))

    handles = [
        module.register_forward_pre_hook(hook)
        for module in network.modules()
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d))
    ]
    network(x)
    for handle in handles:
        handle.remove()


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """The state_dict as arrays."""
    return {key: value.detach().numpy().copy() for key, value in model.state_dict().items()}
