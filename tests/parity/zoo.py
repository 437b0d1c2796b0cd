"""Networks beside their twins in torchvision or timm: the same weights, the same numbers out.

The twin is torch's, with random weights and batch-norm statistics as after training; ours loads its
``state_dict``. Errors are max|a - b| / max|b|.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close
from oxidet import nn
from oxidet.nn import _pooling


def randomise_statistics(theirs: Any) -> Any:
    """Batch norms of a torch module as after training: not the identity."""
    import torch

    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return theirs


def copy_weights(ours: nn.Module, theirs: Any) -> nn.Module:
    """Give ``ours`` the whole state of ``theirs``; keys and shapes must be the same."""
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours


def twins(
    ours: Callable[[], nn.Module], theirs: Callable[[], Any], seed: int = 0
) -> tuple[nn.Module, Any]:
    """Build both and make them equal; ``theirs`` decides the weights."""
    import torch

    torch.manual_seed(seed)
    twin = randomise_statistics(theirs())
    return copy_weights(ours(), twin), twin


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compare_logits(
    ours: nn.Module, theirs: Any, shape: tuple[int, ...], tolerance: float = 1e-4
) -> None:
    """Evaluation mode on one batch: the plan, and layer by layer."""
    import torch

    x = images(*shape)
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor(x)).numpy()
    assert_close(ours.eval()(x), expected, tolerance, f"plan for {shape}")
    with nn.eager():
        assert_close(ours(x), expected, tolerance, f"layers for {shape}")


def keep_from_kinks(ours: nn.Module, theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a deep network smooth where it is: no ReLU near 0, no maximum of two near values.

    With random weights one unit in 1e5 sits so close to such a place that rounding decides, and
    gradients of 1e-3 and more hang on it: torch's own are up to 0.2 away from what it computes in
    float64. So batch norms are set to let every channel through or block it, one in four, and mean
    pools stand in for maximum pools, in both networks.
    """
    import torch

    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.2, 0.4)
                blocked = torch.rand(module.bias.shape) < 0.25
                module.bias.copy_(torch.where(blocked, -1.0, 1.0))
    copy_weights(ours, theirs)
    means = torch.nn.functional.avg_pool2d
    monkeypatch.setattr(torch.nn.functional, "max_pool2d", _mean_pool(means))
    for place in (nn.functional, _pooling):
        monkeypatch.setattr(place, "max_pool2d", _mean_pool(nn.functional.avg_pool2d))


def _mean_pool(average: Callable[..., Any]) -> Callable[..., Any]:
    def pool(
        input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, *_: Any, **__: Any
    ) -> Any:
        return average(input, kernel_size, stride, padding)

    return pool


def without_dropout(ours: nn.Module, theirs: Any) -> None:
    """Let dropouts pass everything: the two draw different masks. For training mode."""
    import torch

    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def compare_training_step(
    ours: nn.Module,
    theirs: Any,
    shape: tuple[int, ...],
    auxiliary: Sequence[float] = (),
    tolerance: float = 1e-3,
) -> None:
    """One step in training mode: outputs, gradients and running statistics.

    By direct sums: Winograd's rounding would decide other ReLUs and maxima near ties, and no two
    gradients of a deep network agree then; its own error is tested layer by layer.

    With ``auxiliary`` the networks return tuples, and these are the weights of the losses of all
    outputs but the first. Gradients that are nothing but rounding, such as that of a bias before a
    batch norm, are compared on the scale of the largest.
    """
    import torch

    without_dropout(ours, theirs)
    x = images(*shape)
    with oxidet.precision("direct"):
        got, expected = ours.train()(x), theirs.train()(torch.tensor(x))
    if not auxiliary:
        got, expected = (got,), (expected,)
    assert len(got) == len(expected) == 1 + len(auxiliary)
    target = np.random.default_rng(1).integers(0, expected[0].shape[1], shape[0])
    weights = (1.0, *auxiliary)
    loss = sum(
        w * nn.functional.cross_entropy(y, target) for w, y in zip(weights, got, strict=True)
    )
    their_loss = sum(
        w * torch.nn.functional.cross_entropy(y, torch.tensor(target))
        for w, y in zip(weights, expected, strict=True)
    )
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert_close(a, b.detach(), tolerance, f"output {i}")
    loss.backward()
    their_loss.backward()
    gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert list(gradients) == [name for name, _ in ours.named_parameters()]
    scale = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, parameter in ours.named_parameters():
        if np.abs(gradients[name]).max() < 1e-5 * scale:
            assert np.abs(parameter.grad).max() < 2e-5 * scale, name
        else:
            assert_close(parameter.grad, gradients[name], tolerance, f"gradient of {name}")
    state = theirs.state_dict()
    for name, buffer in ours.named_buffers():
        assert_close(buffer, state[name], 1e-4, name)
