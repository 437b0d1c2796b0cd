"""Module: registration, state_dict, modes, text."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from oxidet import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1, bias=False))
        self.register_buffer("steps", np.zeros((), np.int64))
        self.scale = nn.Parameter(np.ones(1))

    def forward(self, x):
        return self.body(x) * self.scale


def test_state_dict_lists_parameters_then_buffers_then_children() -> None:
    state = Net().state_dict()
    assert list(state) == ["scale", "steps", "body.0.weight", "body.0.bias", "body.1.weight"]
    assert state["steps"].dtype == np.int64
    assert state["body.0.weight"].shape == (4, 3, 3, 3)
    with pytest.raises(ValueError, match="read-only"):
        state["scale"][0] = 2


def test_load_state_dict_copies_and_raises_versions() -> None:
    net, other = Net(), Net()
    state = OrderedDict((k, np.array(v) + 1) for k, v in other.state_dict().items())
    versions = [p.version for p in net.parameters()]
    assert repr(net.load_state_dict(state)) == "<All keys matched successfully>"
    assert [p.version for p in net.parameters()] == [v + 1 for v in versions]
    state["scale"][0] = 100
    np.testing.assert_array_equal(net.scale.data, [2])


def test_load_state_dict_names_what_does_not_fit_and_writes_nothing() -> None:
    net = Net()
    before = {k: np.array(v) for k, v in net.state_dict().items()}
    state = dict(net.state_dict())
    state = {k: np.array(v) + 1 for k, v in state.items()}
    del state["scale"]
    state["extra"] = np.zeros(1)
    state["body.1.weight"] = np.zeros((2, 5, 1, 1))
    with pytest.raises(nn.StateDictError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Net:\n"
        '\tMissing key(s) in state_dict: "scale". \n'
        '\tUnexpected key(s) in state_dict: "extra". \n'
        "\tsize mismatch for body.1.weight: copying a param with shape torch.Size([2, 5, 1, 1]) "
        "from checkpoint, the shape in current model is torch.Size([2, 4, 1, 1])."
    )
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RuntimeError)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    del state["body.1.weight"]
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["scale", "body.1.weight"]
    assert result.unexpected_keys == ["extra"]


def test_a_long_list_of_wrong_keys_stays_readable() -> None:
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(100)))
    with pytest.raises(nn.StateDictError) as caught:
        net.load_state_dict({f"x{i}": np.zeros(1) for i in range(100)})
    text = str(caught.value)
    assert len(text.split("\n")) <= 10
    assert "and 188 more" in text
    assert "and 88 more" in text


def test_assignment_copies_into_a_parameter() -> None:
    layer = nn.Linear(2, 1)
    parameter, values = layer.weight, np.array([[1.0, 2.0]])
    layer.weight = values
    values[0, 0] = 7
    assert layer.weight is parameter
    assert parameter.version == 1
    np.testing.assert_array_equal(parameter.data, [[1, 2]])
    with pytest.raises(ValueError, match=r"weight: expected shape \(1, 2\), got \(3,\)"):
        layer.weight = [1.0, 2.0, 3.0]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_an_error_names_the_layer_that_it_came_from(compiled: bool, training: bool) -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(3, 2))
    inner.compiled = compiled
    network = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), inner)).train(training)
    small, smaller = np.zeros((1, 3, 6, 6), np.float32), np.zeros((1, 3, 4, 4), np.float32)
    with pytest.raises(
        ValueError, match=r"^layer 1\.1\.0: input: expected at least 5 x 5 .* 4 x 4$"
    ):
        network(smaller)
    with pytest.raises(ValueError, match=r"^layer 1\.1\.1: input: .* \(3, 3\) .* 2 x 2 pixels$"):
        network(small)
    with pytest.raises(ValueError, match=r"^layer 1: input: .* got 2 x 2 pixels$"):
        inner(small)
    with pytest.raises(ValueError, match=r"^layer 1: input: .* got 2 x 2 pixels$"):
        inner.plan(small.shape)
    with pytest.raises(ValueError, match=r"^input: "):
        inner[0](smaller)


def test_assigning_before_init_says_what_to_do() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) before assigning"):
        Forgetful()


def test_arrays_in_arrays_out_in_evaluation_and_tensors_in_training() -> None:
    net, x = Net(), np.ones((1, 3, 4, 4), np.float32)
    out = net(x)
    assert isinstance(out, nn.Tensor)
    assert out.requires_grad
    net.eval()
    assert isinstance(net(x), np.ndarray)
    np.testing.assert_array_equal(net(x), out.numpy())
    tensor = nn.Tensor(x, requires_grad=True)
    net(tensor).sum().backward()
    assert tensor.grad.shape == x.shape


def test_modes_freezing_and_paths() -> None:
    net = Net()
    assert not net.eval().body[0].training
    assert net.train().body[1].training
    net.body[0].requires_grad_(False)
    net(np.ones((1, 3, 4, 4))).sum().backward()
    grads = {name: p.grad is not None for name, p in net.named_parameters()}
    assert grads == {
        "scale": True,
        "body.0.weight": False,
        "body.0.bias": False,
        "body.1.weight": True,
    }
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.get_submodule("body.1") is net.body[1]
    assert [name for name, _ in net.named_modules()] == ["", "body", "body.0", "body.1"]
    with pytest.raises(AttributeError, match="no submodule '7'"):
        net.get_submodule("body.7")


def test_text_of_nested_modules_lists_and_empty_slots() -> None:
    net = Net()
    net.spare = nn.Linear(1, 1)
    net.spare = None
    net.blocks = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 2)])
    assert str(net) == (
        "Net(\n"
        "  (body): Sequential(\n"
        "    (0): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))\n"
        "    (1): Conv2d(4, 2, kernel_size=(1, 1), stride=(1, 1), bias=False)\n"
        "  )\n"
        "  (spare): None\n"
        "  (blocks): ModuleList(\n"
        "    (0-1): 2 x Linear(in_features=1, out_features=1, bias=True)\n"
        "    (2): Linear(in_features=1, out_features=2, bias=True)\n"
        "  )\n"
        ")"
    )
    assert str(nn.Sequential()) == "Sequential()"
    assert str(nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2, bias=False)) == (
        "Conv2d(4, 4, kernel_size=(3, 3), stride=(1, 1), padding=same, dilation=(2, 2), "
        "groups=2, bias=False)"
    )


def test_sequential_slices_and_names() -> None:
    net = nn.Sequential(OrderedDict(a=nn.Linear(1, 2), b=nn.Linear(2, 3)))
    assert list(net[:1].state_dict()) == ["a.weight", "a.bias"]
    assert net[-1].out_features == 3
    assert len(net) == 2


def test_a_tensor_in_a_list_or_dict_is_recorded_in_evaluation_too() -> None:
    class Total(nn.Module):
        def forward(self, levels):
            values = levels.values() if isinstance(levels, dict) else levels
            return sum(value * 2 for value in values)

    x = nn.Tensor([1.0], requires_grad=True)
    for levels in ([x, x], {"a": x, "b": x}):
        x.grad = None
        Total().eval()(levels).sum().backward()
        np.testing.assert_array_equal(x.grad, [4])


def test_the_module_that_is_called_decides_what_is_recorded() -> None:
    # A frozen convolution gives an array, which a batch norm in evaluation mode takes.
    net = nn.Sequential(nn.Conv2d(1, 2, 1).requires_grad_(False), nn.BatchNorm2d(2))
    net[1].eval()
    x = np.ones((1, 1, 2, 2), np.float32)
    net(x).sum().backward()
    assert net[1].weight.grad is not None
    assert isinstance(net.eval()(x), np.ndarray)


def test_only_parameters_are_registered_as_parameters() -> None:
    with pytest.raises(TypeError, match="param: expected a Parameter or None, got ndarray"):
        nn.Module().register_parameter("weight", np.ones(3))


def test_evaluating_lasts_until_the_last_block_ends() -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    net[0].eval()
    first, second = nn.evaluating(net), nn.evaluating(net)
    # As two threads would: the first to come is the first to leave.
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not any(module.training for module in net.modules())
    second.__exit__(None, None, None)
    assert [module.training for module in net.modules()] == [True, False, True]
    with pytest.raises(KeyError), nn.evaluating(net):
        raise KeyError
    assert [module.training for module in net.modules()] == [True, False, True]


class Whitened(nn.Module):
    """A module with a constant of its own."""

    compiled = True

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("scale", np.float32(2), persistent=False)
        self.register_buffer("count", np.zeros((), np.int64))

    def forward(self, x: Any) -> Any:
        return self.layer(x) * self.scale


def test_a_buffer_that_is_not_persistent_is_no_part_of_the_state_dict() -> None:
    model = nn.Sequential(Whitened())
    keys = ["0.count", "0.layer.weight", "0.layer.bias"]
    assert list(model.state_dict()) == keys
    assert [name for name, _ in model.named_buffers()] == ["0.scale", "0.count"]
    assert model.load_state_dict(model.state_dict()).missing_keys == []
    with pytest.raises(nn.StateDictError, match=r'Unexpected key.*"0\.scale"'):
        model.load_state_dict({**model.state_dict(), "0.scale": np.float32(3)})
    assert list(copy.copy(model[0]).state_dict()) == ["count", "layer.weight", "layer.bias"]
    assert list(pickle.loads(pickle.dumps(model)).state_dict()) == keys


def test_plans_see_a_change_to_a_buffer_that_is_not_persistent() -> None:
    model = Whitened().eval()
    x = np.ones((1, 2), np.float32)
    before = model(x)
    model.scale = 4.0
    assert list(model.state_dict()) == ["count", "layer.weight", "layer.bias"]
    np.testing.assert_allclose(model(x), 2 * before, rtol=1e-6)


def test_persistence_goes_with_the_registration() -> None:
    model = Whitened()
    model.register_buffer("scale", np.float32(2))
    assert "scale" in model.state_dict()
    model.register_buffer("scale", None, persistent=False)
    model.scale = nn.Parameter(np.float32(2))
    assert "scale" in model.state_dict()
    model.register_buffer("scale", np.float32(2), persistent=False)
    del model.scale
    model.scale = nn.Buffer(np.float32(2))
    assert "scale" in model.state_dict()
    with pytest.raises(TypeError, match="persistent: expected True or False, got 1"):
        model.register_buffer("other", np.zeros(1), persistent=1)
