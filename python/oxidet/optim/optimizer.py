"""What every optimiser shares: groups of parameters with their settings, and a state for each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet._arrays import F32
from oxidet.nn._memory import flat, flat_like
from oxidet.nn.tensor import Parameter, writing

#: Values and gradients of parameters, as one axis each.
Changing = tuple[list[NDArray[Any]], list[NDArray[Any]]]


@contextlib.contextmanager
def changing(parameters: list[Parameter]) -> Iterator[Changing]:
    """The values of parameters, to be changed in place inside the block, and their gradients."""
    with writing(parameters) as values:
        gradients = [np.asarray(parameter.grad) for parameter in parameters]
        yield [flat(array) for array in values], flat_like(gradients, values)


class Optimizer:
    """Base class of optimisers, with the shape of ``torch.optim.Optimizer``.

    ``param_groups`` is a list of dicts, each with ``"params"`` and a value for every setting
    (``"lr"`` and so on), which may be changed between steps. ``state`` holds what the optimiser
    remembers of each parameter.
    """

    def __init__(
        self, params: Iterable[Parameter] | Iterable[dict[str, Any]], defaults: dict[str, Any]
    ) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Parameter, dict[str, Any]] = {}
        if isinstance(params, (Parameter, np.ndarray)):
            raise TypeError(
                "params: expected parameters or dicts with a key 'params', "
                f"got a single {type(params).__name__}"
            )
        groups = list(params)
        if not groups:
            raise ValueError("params: expected at least one parameter, got none")
        if all(isinstance(group, dict) for group in groups):
            for group in groups:
                self.add_param_group(group)  # type: ignore[arg-type]
        else:
            self.add_param_group({"params": groups})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimise further parameters, with settings of their own where ``param_group`` has them.

        Raises
        ------
        TypeError
            If something in ``params`` is not a Parameter.
        ValueError
            If a parameter is given twice or belongs to a group already, or a setting is invalid.
        """
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError(
                "param_group: expected a dict with a key 'params', "
                f"got an object of type {type(param_group).__name__}"
            )
        given = param_group["params"]
        params = [given] if isinstance(given, Parameter) else list(given)
        for index, parameter in enumerate(params):
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    f"params[{index}]: expected a Parameter, got {type(parameter).__name__}"
                )
        taken = {id(p) for group in self.param_groups for p in group["params"]}
        if len({id(p) for p in params} | taken) != len(params) + len(taken):
            raise ValueError("params: expected every parameter once, got one twice")
        group = {**self.defaults, **param_group, "params": params}
        self._check_settings(group)
        self.param_groups.append(group)

    def _check_settings(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError for a setting that makes no sense."""

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update_all(parameters, group)

    def _update_all(self, parameters: list[Parameter], group: Mapping[str, Any]) -> None:
        """Change parameters of one group, which all have a gradient."""
        for parameter in parameters:
            grad = parameter.grad
            assert grad is not None
            self._update(parameter, grad, group)

    def _update(self, parameter: Parameter, grad: F32, group: Mapping[str, Any]) -> None:
        """Change one parameter by its gradient.

        Every subclass defines this or, to change all parameters in one call, ``_update_all``.
        """
        # No stub: every optimiser has a rule of its own; torch's base raises this class too.
        raise NotImplementedError(f"{type(self).__name__} defines no _update")

    def _arrays(self, parameters: list[Parameter], name: str) -> list[NDArray[Any]]:
        """What the optimiser remembers of parameters under a name, as one axis each."""
        return [flat(self.state[parameter][name]) for parameter in parameters]

    def _state(self, parameter: Parameter, *averages: str) -> dict[str, Any]:
        """The state of a parameter, with a count of its steps and averages that start at 0."""
        state = self.state.setdefault(parameter, {"step": 0})
        for name in averages:
            if name not in state:
                # In the memory order of the parameter.
                state[name] = np.zeros_like(parameter.data)
        return state

    def state_dict(self) -> dict[str, Any]:
        """Settings and state, with parameters replaced by their index over all groups.

        The form is torch's: ``{"state": {index: {...}}, "param_groups": [{...}]}``. Arrays in it
        are read-only views of the live ones.
        """
        index: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for parameter in group["params"]:
                index[id(parameter)] = len(index)
            packed = {name: value for name, value in group.items() if name != "params"}
            packed["params"] = [index[id(parameter)] for parameter in group["params"]]
            groups.append(packed)
        state = {
            index[id(parameter)]: {name: _frozen(value) for name, value in values.items()}
            for parameter, values in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned; arrays are copied.

        The settings in ``state_dict`` replace those of this optimiser. A state of torch's
        optimiser of the same name is understood too (:func:`oxidet.weights.load_checkpoint`).
        Nothing changes unless everything fits.

        Raises
        ------
        ValueError
            If the groups have other sizes, the settings are those of another optimiser, or an array
            has another shape than its parameter.
        """
        if not isinstance(state_dict, Mapping):
            got = type(state_dict).__name__
            raise TypeError(f"state_dict: expected what state_dict() returns, got {got}")
        if not {"state", "param_groups"} <= set(state_dict):
            raise ValueError(
                f"state_dict: expected the keys 'state' and 'param_groups', got {list(state_dict)}"
            )
        saved_groups, saved_state = state_dict["param_groups"], state_dict["state"]
        sizes = [len(group["params"]) for group in self.param_groups]
        saved_sizes = [len(group["params"]) for group in saved_groups]
        if sizes != saved_sizes:
            raise ValueError(
                f"state_dict: expected groups of {sizes} parameters, got {saved_sizes}"
            )
        by_index = {
            index: parameter
            for group, saved in zip(self.param_groups, saved_groups, strict=True)
            for index, parameter in zip(saved["params"], group["params"], strict=True)
        }
        groups = []
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            # A checkpoint returns tuples, such as betas, as lists.
            settings = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
            # Switches come and go with the versions of torch, numbers do not.
            numbers = {k for k, v in self.defaults.items() if not isinstance(v, bool)}
            missing = numbers - set(settings)
            if missing:
                raise ValueError(
                    f"state_dict: expected the settings of {type(self).__name__}, got those of "
                    f"another optimiser, without {', '.join(sorted(missing))}"
                )
            group = {**group, **settings, "params": group["params"]}
            self._check_settings(group)
            groups.append(group)
        state = {}
        for index, values in saved_state.items():
            if index not in by_index:
                raise ValueError(f"state_dict: expected the state of a parameter, got {index!r}")
            parameter = by_index[index]
            state[parameter] = {
                name: _like(parameter, value, f"state_dict['state'][{index}][{name!r}]")
                for name, value in values.items()
            }
        self.param_groups, self.state = groups, state

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _frozen(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _like(parameter: Parameter, value: Any, argument: str) -> Any:
    """A copy of an array, in the memory order of its parameter; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    if argument.endswith("['step']") and value.ndim == 0:  # torch counts in a tensor
        return int(value)
    if value.shape != parameter.shape:
        raise ValueError(f"{argument}: expected shape {parameter.shape}, got {value.shape}")
    copy = np.empty_like(parameter.data)
    copy[...] = value
    return copy
