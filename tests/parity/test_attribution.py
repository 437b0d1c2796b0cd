"""Guided backpropagation, deconvolution and the gradient against torch with hooks on its ReLUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn, visualize
from oxidet.nn.tape import pull_back

torch = pytest.importorskip("torch")

RULES = {
    "gradient": lambda module, grad_input, grad_output: grad_input,
    "guided": lambda module, grad_input, grad_output: (grad_input[0].clamp(min=0),),
    "deconvolution": lambda module, grad_input, grad_output: (grad_output[0].clamp(min=0),),
}


def network(lib: Any) -> Any:
    """Overlapping pools, batch norm, a stride, two fully connected layers."""
    return lib.Sequential(
        lib.Conv2d(3, 8, 3, padding=1),
        lib.ReLU(),
        lib.MaxPool2d(3, 2, 1),
        lib.Conv2d(8, 12, 5, stride=2, bias=False),
        lib.BatchNorm2d(12),
        lib.ReLU(),
        lib.AvgPool2d(2),
        lib.Flatten(),
        lib.Linear(12 * 9, 10),
        lib.ReLU(),
        lib.Linear(10, 4),
    )


@pytest.mark.parametrize("rule", list(RULES))
def test_against_hooks(rule: str) -> None:
    torch.manual_seed(0)
    theirs = network(torch.nn)
    theirs[4].running_mean.normal_(0, 0.1)
    theirs[4].running_var.uniform_(0.5, 2)
    ours = network(nn)
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    for module in theirs.eval():
        if isinstance(module, torch.nn.ReLU):
            module.register_full_backward_hook(RULES[rule])
    x = np.random.default_rng(0).standard_normal((1, 3, 33, 33)).astype(np.float32)
    image = torch.tensor(x, requires_grad=True)
    for target in range(4):
        image.grad = None
        logits = theirs(image)
        weight = logits[0, target].detach() if rule == "deconvolution" else 1.0
        (logits[0, target] * weight).backward()
        if rule == "guided":
            got = visualize.guided_gradient(ours, x, target)
        elif rule == "deconvolution":
            got = visualize.deconvolve(ours, x, "10", target)
        else:
            tensor = nn.Tensor(x, requires_grad=True)
            seed = np.eye(4, dtype=np.float32)[target : target + 1]
            got = pull_back(ours.eval()(tensor), seed, tensor, {})[0]
        if rule == "deconvolution":
            # It starts at the logit and grows with it; where that nearly cancels, its rounding is
            # not what this is about.
            got = got * (float(weight) / float(ours.eval()(x)[0, target]))
        assert_close(got, image.grad[0].numpy(), 1e-5, f"{rule} of {target}")
        assert np.abs(got).max() > 0
