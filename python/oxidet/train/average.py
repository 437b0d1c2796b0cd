"""A model whose weights are the running average of those that training goes through."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

from oxidet import _core, nn
from oxidet._arrays import number
from oxidet.nn._memory import flat, flat_like
from oxidet.nn.tensor import writing


class AveragedModel:
    """An exponential moving average of a model's parameters and batch norm statistics.

    After each step every value becomes ``d * average + (1 - d) * value``, with ``d = min(decay,
    (1 + n) / (10 + n))`` for the n-th update as in TensorFlow, so that the first weights are soon
    forgotten. The networks of the Inception papers are judged by such an average, of decay 0.9999.

    Parameters
    ----------
    model
        The model to start from; it is copied, and the copy is in evaluation mode.
    decay
        What remains of the average after a step, 0 to 1.

    Examples
    --------
    >>> from oxidet import nn
    >>> from oxidet.train import AveragedModel
    >>> net = nn.Linear(1, 1, bias=False)
    >>> net.weight = [[0.0]]
    >>> average = AveragedModel(net, decay=0.1)
    >>> net.weight = [[1.0]]
    >>> average.update(net)
    >>> round(average.model.weight.item(), 3)
    0.9
    """

    decay: float
    model: nn.Module
    updates: int

    def __init__(self, model: nn.Module, decay: float = 0.9999) -> None:
        self.decay = number(decay, "decay", 0, 1)
        self.model = copy.deepcopy(model).eval()
        self.updates = 0

    def update(self, model: nn.Module) -> None:
        """Take in the weights of another step. Counts, such as those of batch norm, are copied."""
        kept = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        moving, targets = [], []
        for average, current in zip(_values(self.model), _values(model), strict=True):
            if average.dtype.kind == "f":
                moving.append(average)
                targets.append(current.data)
            else:
                average.copy_(current.data)
        with writing(moving) as averages:
            arrays = [flat(array) for array in averages]
            _core.average_arrays(arrays, flat_like(targets, averages), 1 - kept)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates."""
        return {"updates": self.updates, "model": dict(self.model.state_dict())}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        self.model.load_state_dict(state_dict["model"])
        self.updates = int(state_dict["updates"])


def _values(model: nn.Module) -> Any:
    return chain(model.parameters(), model.buffers())
