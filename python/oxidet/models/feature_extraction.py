"""What a network computes on the way to its result, by name.

``create_feature_extractor(model, {"layer3": "c4"})`` makes of a network one that returns the
feature maps asked for, and computes nothing that they do not need.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from oxidet import nn
from oxidet._arrays import listed
from oxidet.nn.primitive import Primitive
from oxidet.nn.recording import record
from oxidet.nn.symbol import current_trace
from oxidet.nn.watching import Watcher, is_layer, operation_name

ReturnNodes = Mapping[str, str] | Iterable[str]

_TABLES = ("_parameters", "_buffers", "_modules")


class FeatureExtractor(nn.Module):
    """A network that returns some of its intermediate values; see :func:`create_feature_extractor`.

    Its layers are those of the original, not copies: what trains one trains the other, and both
    switch to evaluation mode together. Parameters have the original's names.

    Attributes
    ----------
    return_nodes
        For training mode (True) and evaluation mode (False), the nodes with the names that they
        are returned under.
    preprocess
        The original's, if it has one.
    """

    preprocess: Any
    return_nodes: dict[bool, dict[str, str]]

    _argument = "return_nodes"  # that named the nodes

    def __init__(self, model: nn.Module, return_nodes: Mapping[bool, Mapping[str, str]]) -> None:
        # A copy that nobody else sees, whose children and parameters are this module's own.
        self.__dict__["_source"] = copy.copy(model)
        super().__init__()
        self._share()
        self.training = model.training
        self.compiled: bool = model.compiled and model._plans_forward
        if hasattr(model, "preprocess"):
            self.preprocess = model.preprocess
        self.return_nodes = {mode: dict(nodes) for mode, nodes in return_nodes.items()}

    def _share(self) -> None:
        source = self.__dict__["_source"]
        for table in _TABLES:
            self.__dict__[table] = source.__dict__[table]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__["_source"] = copy.copy(self.__dict__["_source"])
        self._share()

    # The original's forward may ask for its mode.
    @property
    def training(self) -> bool:
        """Whether the extractor is in training mode."""
        source: nn.Module = self.__dict__["_source"]
        return source.training

    @training.setter
    def training(self, mode: bool) -> None:
        object.__setattr__(self.__dict__["_source"], "training", mode)

    def forward(self, *inputs: Any, **options: Any) -> dict[str, Any]:
        """The original's inputs to its intermediate values by name, in the order they arise."""
        collector = _Collector(self, self.return_nodes[self.training])
        run = self.__dict__["_source"].forward
        if current_trace.get() is not None:
            with collector.watching():
                run(*inputs, **options)
        else:
            # Plans of what is inside would hide what happens there, and so would the arithmetic of
            # arrays, which is NumPy's.
            tensors = [nn.Tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]
            with nn.eager(), collector.watching():
                run(*tensors, **options)
            if not any(isinstance(x, nn.Tensor) for x in inputs):
                collector.found = {k: _as_array(v) for k, v in collector.found.items()}
        missing = [node for node in collector.wanted if node not in collector.found]
        if missing:
            mode = "training" if self.training else "evaluation"
            raise ValueError(
                f"{self._argument}: expected nodes that run in {mode} mode, got {missing[0]!r}, "
                "which does not"
            )
        return {collector.wanted[node]: value for node, value in collector.found.items()}

    def extra_repr(self) -> str:
        """The nodes of the current mode."""
        return f"return_nodes={self.return_nodes[self.training]}"

    def drop_unused(self, *shapes: tuple[int, ...]) -> FeatureExtractor:
        """Let go of the layers that do not run, and of their parameters; returns the extractor.

        What runs is found by recording the evaluation mode on inputs of these shapes. The original
        keeps all of its layers.

        >>> from oxidet.models import resnet18
        >>> from oxidet.models.feature_extraction import create_feature_extractor
        >>> extractor = create_feature_extractor(resnet18(), ["layer3"])
        >>> "fc.weight" in extractor.state_dict()
        True
        >>> "fc.weight" in extractor.drop_unused((1, 3, 64, 64)).state_dict()
        False
        """
        used = {call.module for call in record(self, *shapes).calls}
        # Containers whose own forward was cut short, and those that have none.
        for module in self.modules():
            if any(below in used for below in module.modules()):
                used.add(module)
        for name, child in list(self.named_children()):
            self.add_module(name, _without(child, used))
        return self


def _without(module: nn.Module, used: set[nn.Module]) -> nn.Module | None:
    """A module without what is not in ``used``: itself if all is, else a copy; None for nothing."""
    if module not in used:
        return None
    if all(below in used for below in module.modules()):
        return module
    kept = copy.copy(module)
    for name, child in list(kept.named_children()):
        kept.add_module(name, _without(child, used))
    return kept


def _as_array(value: Any) -> Any:
    """What a network returns for arrays: tensors only where something is recorded."""
    if isinstance(value, nn.Tensor) and not value.requires_grad:
        return value._array
    if isinstance(value, (tuple, list)):
        items = [_as_array(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: _as_array(item) for key, item in value.items()}
    return value


class _Collector(Watcher):
    """Keeps the values of some names, and stops when it has all of them."""

    def __init__(self, root: nn.Module, wanted: Mapping[str, str]) -> None:
        super().__init__(root)
        self.wanted = wanted
        self.found: dict[str, Any] = {}

    def returned(self, name: str, value: Any) -> None:
        if name in self.wanted:
            self.found[name] = value
            if len(self.found) == len(self.wanted):
                self.stop()


def create_feature_extractor(
    model: nn.Module,
    return_nodes: ReturnNodes | None = None,
    train_return_nodes: ReturnNodes | None = None,
    eval_return_nodes: ReturnNodes | None = None,
) -> FeatureExtractor:
    """A network that returns intermediate values of ``model`` and runs no further than they need.

    A node is named by the module that returns it (``"layer3"``, ``"layer1.0.conv1"``), or by an
    operation and the module in whose ``forward`` it stands (``"flatten"``, ``"layer1.0.add"``). A
    module called again, or an operation met again, has ``_1``, ``_2``, ... behind its name:
    ``"layer1.0.relu_1"`` is the block's last activation. :func:`node_names` lists them all.

    Parameters
    ----------
    model
        Any module.
    return_nodes
        Names of nodes, or a mapping from them to the names that the results get.
    train_return_nodes, eval_return_nodes
        Instead of ``return_nodes``, one of these for each mode, for networks such as GoogLeNet
        that have layers for training alone.

    Returns
    -------
    A module from the inputs of ``model`` to a dict of the values, in the order in which they arise.
    It holds the layers of ``model`` themselves, so gradients reach them and ``state_dict`` has the
    same keys; a layer that is replaced in one afterwards is not in the other. In evaluation mode it
    runs a plan (of what is needed) if ``model`` does.

    Raises
    ------
    ValueError
        If there is no such node, none is asked for, or two would have one name. That a node does
        not run in the current mode is found in the first call.

    Notes
    -----
    As torchvision's ``models.feature_extraction``, except that a module called several times is
    meant by its first call under its plain name, whether or not it has modules inside.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.models import resnet18
    >>> from oxidet.models.feature_extraction import create_feature_extractor
    >>> extractor = create_feature_extractor(resnet18().eval(), {"layer2": "c3", "layer3": "c4"})
    >>> maps = extractor(np.zeros((1, 3, 64, 64), np.float32))
    >>> {name: value.shape for name, value in maps.items()}
    {'c3': (1, 128, 8, 8), 'c4': (1, 256, 4, 4)}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    modes = (train_return_nodes, eval_return_nodes)
    if (return_nodes is None) == all(nodes is None for nodes in modes):
        raise ValueError(
            "return_nodes: expected either this or train_return_nodes and eval_return_nodes, got "
            + ("neither" if return_nodes is None else "both")
        )
    if return_nodes is not None:
        train_return_nodes = eval_return_nodes = return_nodes
    if train_return_nodes is None or eval_return_nodes is None:
        raise ValueError("train_return_nodes: expected eval_return_nodes with it, got one alone")
    checked = {
        True: _as_mapping(train_return_nodes, model),
        False: _as_mapping(eval_return_nodes, model),
    }
    return FeatureExtractor(model, checked)


def extract_layer(model: nn.Module, layer: str) -> FeatureExtractor:
    """The extractor of one node, under the name ``"values"``; errors name ``layer``."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    if not isinstance(layer, str):
        raise TypeError(f"layer: expected the name of a node, got {layer!r}")
    nodes = _as_mapping({layer: "values"}, model, "layer")
    extractor = FeatureExtractor(model, {True: nodes, False: nodes})
    extractor._argument = "layer"
    return extractor


def node_names(model: nn.Module, *shapes: tuple[int, ...]) -> list[str]:
    """The nodes that :func:`create_feature_extractor` knows, in the order in which they arise.

    ``shapes`` are those of the inputs, (N, C, H, W) or (N, F). The network is traced in evaluation
    mode, so layers for training alone are missing.

    >>> from oxidet.models import lenet5
    >>> from oxidet.models.feature_extraction import node_names
    >>> node_names(lenet5(), (1, 1, 32, 32))[-5:]
    ['flatten', 'classifier.0', 'classifier.1', 'classifier.2', 'classifier']
    """
    lister = _Lister(model)
    with lister.watching():
        record(model, *shapes)
    return lister.names


class _Lister(Watcher):
    """Writes down the names."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__(root)
        self.names: list[str] = []

    def returned(self, name: str, value: Any) -> None:
        self.names.append(name)


def _as_mapping(
    return_nodes: ReturnNodes, model: nn.Module, argument: str = "return_nodes"
) -> dict[str, str]:
    """Nodes with the names of their results, all of which there may be."""
    if isinstance(return_nodes, Mapping):
        nodes = dict(return_nodes)
    elif isinstance(return_nodes, str):
        raise TypeError(
            f"return_nodes: expected a mapping or several names, got the str {return_nodes!r}"
        )
    else:
        nodes = {name: name for name in listed(return_nodes, argument, "names")}
    if not nodes:
        raise ValueError("return_nodes: expected the name of at least one node, got none")
    for name in (*nodes, *nodes.values()):
        if not isinstance(name, str):
            raise TypeError(f"return_nodes: expected names, got {name!r}")
    if len(set(nodes.values())) < len(nodes):
        raise ValueError(
            f"return_nodes: expected a different name for each result, got {list(nodes.values())}"
        )
    paths = dict(model.named_modules())
    for name in nodes:
        if not _may_exist(name, paths):
            near = difflib.get_close_matches(name, list(filter(None, paths)), n=3, cutoff=0.5)
            hint = f" (near: {', '.join(near)})" if near else ""
            raise ValueError(
                f"{argument}: expected nodes of this {type(model).__name__}{hint}, got {name!r}"
            )
    return nodes


def _may_exist(name: str, paths: Mapping[str, nn.Module]) -> bool:
    """Whether a name is that of a module, or of an operation that a module may do."""
    plain = re.sub(r"_[1-9]\d*$", "", name)
    if name and (name in paths or plain in paths):
        return True
    parent, _, operation = plain.rpartition(".")
    known = {operation_name(primitive, {}) for primitive in Primitive.registry} | {"mean"}
    return parent in paths and not is_layer(paths[parent]) and operation in known
