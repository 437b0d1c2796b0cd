"""Tensors, modules, optimisers and schedules, as a type checker sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import oxidet
from oxidet import nn, optim


class Net(nn.Module):
    """A network as a user writes it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, kernel_size=3, padding=(1, 1)), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Linear(8, classes)

    def forward(self, x: Any) -> Any:
        x = self.features(x).mean((2, 3))
        return self.classifier(nn.functional.dropout(x, 0.5, self.training))


def arithmetic_on_tensors_gives_tensors(values: NDArray[np.float32]) -> None:
    x = nn.Tensor(values, requires_grad=True)
    assert_type(x + 1, nn.Tensor)
    assert_type(1 - x, nn.Tensor)
    assert_type(-x * x / 2, nn.Tensor)
    assert_type(x[0], nn.Tensor)
    assert_type(x.sum(), nn.Tensor)
    assert_type(x.mean(dim=0, keepdim=True).reshape(-1).detach(), nn.Tensor)
    assert_type(x.shape, tuple[int, ...])
    assert_type(x.numpy(), NDArray[Any])
    (x * x).sum().backward()
    assert_type(x.grad, NDArray[Any] | None)


def modules_know_their_parts(net: Net) -> None:
    assert_type(net.train().eval(), Net)
    assert_type(net.features[0], nn.Module)
    assert_type(net.features[:2], nn.Sequential)
    assert_type(net.classifier.weight, nn.Parameter)
    assert_type(net.classifier.bias, nn.Parameter | None)
    assert_type(net.training, bool)
    assert_type(net.parameters(), Iterator[nn.Parameter])
    assert_type(net.named_modules(), Iterator[tuple[str, nn.Module]])
    for layer in net.features:
        assert_type(layer, nn.Module)
    assert_type(nn.Conv2d(3, 8, 3).kernel_size, tuple[int, int])
    net.load_state_dict(net.state_dict())
    net.classifier.weight.copy_(np.zeros((10, 8), np.float32))
    with nn.no_grad(), nn.evaluating(net), oxidet.precision("direct"):
        net(np.zeros((1, 3, 8, 8), np.float32))


def plans_are_reports(net: Net) -> None:
    plan = net.plan((1, 3, 8, 8))
    assert_type(plan, nn.PlanReport)
    assert_type(plan[0], nn.PlanStep)
    assert_type([step.macs for step in plan], list[int])
    assert_type(net.profile(np.zeros((1, 3, 8, 8), np.float32), repeats=3), nn.ProfileReport)


def a_training_step(net: Net, x: NDArray[np.float32], y: NDArray[np.int64]) -> None:
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=3)
    optimizer.zero_grad()
    nn.CrossEntropyLoss()(net(x), y).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    assert_type(schedule.get_last_lr(), list[float])
    assert_type(nn.init.kaiming_normal_(net.classifier.weight), nn.Parameter)
