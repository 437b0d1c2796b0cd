"""A compiled module in training: one node on the tape, with the values and gradients of layer by
layer."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import oxidet
from oxidet import nn, optim
from oxidet.models import get_model
from oxidet.nn import functional as F
from oxidet.nn import training_plans

Outcome = tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray], list[Any]]


class Compiled(nn.Module):
    """A module whose forward is given as a function of it and its inputs."""

    compiled = True

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        scale = 0.3 if parameter.ndim > 1 else 0.5
        center = 1.0 if name.endswith("weight") and parameter.ndim == 1 else 0.0
        parameter.copy_(center + scale * rng.normal(size=parameter.shape))
    return model


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in leaves(item) if leaf is not None]
    return [value]


def outcome(model: nn.Module, inputs: list[Any], eager: bool) -> Outcome:
    """Outputs, gradients of parameters, buffers and gradients of inputs of one pass both ways."""
    oxidet.manual_seed(3)
    tensors = [nn.Tensor(x, requires_grad=True) if wanted else x for x, wanted in inputs]
    with nn.eager() if eager else contextlib.nullcontext():
        outputs = leaves(model(*tensors))
    rng = np.random.default_rng(1)
    loss: Any = 0.0
    for output in outputs:
        loss = loss + (output * rng.normal(size=output.shape).astype(np.float32)).sum()
    loss.backward()
    gradients = {
        name: np.asarray(p.grad) for name, p in model.named_parameters() if p.grad is not None
    }
    buffers = {name: np.array(b) for name, b in model.named_buffers()}
    return (
        [np.asarray(o) for o in outputs],
        gradients,
        buffers,
        [t.grad for t in tensors if isinstance(t, nn.Tensor)],
    )


def plans_of(model: nn.Module) -> list[Any]:
    cache = model.__dict__.get("_training_plan_cache")
    return [] if cache is None else [p for p in cache.plans.values() if p.plan is not None]


def assert_same(model: nn.Module, *inputs: Any, wanted: bool = True, tol: float = 2e-5) -> None:
    """The plan computes what the layers compute one by one."""
    other = copy.deepcopy(model)
    given = [(x, wanted) for x in inputs]
    with oxidet.precision("direct"):
        got, expected = outcome(model, given, False), outcome(other, given, True)
    assert plans_of(model)
    assert not plans_of(other)
    for a, b in zip(got[0], expected[0], strict=True):
        assert_close(a, b, tol)
    for table in (1, 2):
        assert got[table].keys() == expected[table].keys()
        for name in got[table]:
            assert_close(got[table][name], expected[table][name], tol)
    for a, b in zip(got[3], expected[3], strict=True):
        assert_close(a, b, tol)


def assert_close(a: np.ndarray, b: np.ndarray, tol: float) -> None:
    assert a.shape == b.shape
    if b.size:
        # A gradient that is zero but for rounding (a bias before a batch norm) has no scale.
        assert np.abs(a - b).max() <= tol * max(float(np.abs(b).max()), 1e-2)


def image(*shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv(i: int, o: int, k: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **options)


MODULES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "a layer": (lambda: Compiled(lambda m, x: m.a(x), a=conv(3, 8)), [(2, 3, 7, 6)]),
    "layer, batch norm, ReLU": (
        lambda: Compiled(
            lambda m, x: F.relu(m.n(m.a(x))), a=conv(3, 8, bias=False), n=nn.BatchNorm2d(8)
        ),
        [(2, 3, 7, 6)],
    ),
    "batch norm and clamp": (
        lambda: Compiled(lambda m, x: F.clamp(m.n(x), 0.0, 6.0), n=nn.BatchNorm2d(4)),
        [(3, 4, 5, 5)],
    ),
    "batch norm without factors": (
        lambda: Compiled(
            lambda m, x: m.a(F.relu(m.n(x))), a=conv(4, 4), n=nn.BatchNorm2d(4, affine=False)
        ),
        [(3, 4, 5, 5)],
    ),
    "a residual": (
        lambda: Compiled(lambda m, x: F.relu(m.n(m.a(x)) + x), a=conv(8, 8), n=nn.BatchNorm2d(8)),
        [(2, 8, 6, 6)],
    ),
    "a residual that comes first": (
        lambda: Compiled(
            lambda m, x: F.relu(m.s(x) + m.n(m.a(x))),
            a=conv(8, 16, stride=2),
            n=nn.BatchNorm2d(16),
            s=nn.Sequential(nn.Conv2d(8, 16, 1, 2), nn.BatchNorm2d(16)),
        ),
        [(2, 8, 6, 6)],
    ),
    "a layer with a residual": (
        lambda: Compiled(lambda m, x: F.relu(m.b(F.relu(m.a(x))) + x), a=conv(6, 6), b=conv(6, 6)),
        [(2, 6, 6, 6)],
    ),
    "a layer twice": (
        lambda: Compiled(lambda m, x: m.a(F.relu(m.a(x))), a=conv(5, 5)),
        [(2, 5, 6, 6)],
    ),
    "a value with itself": (
        lambda: Compiled(lambda m, x: m.a(x + x), a=conv(3, 3)),
        [(2, 3, 4, 4)],
    ),
    "a sum of many": (
        lambda: Compiled(
            lambda m, x: F.relu(m.a(x) + m.b(x) + x) + x, a=conv(4, 4), b=conv(4, 4, 1)
        ),
        [(2, 4, 5, 5)],
    ),
    "concatenations": (
        lambda: Compiled(
            lambda m, x: m.b(nn.functional.cat([x, F.relu(m.a(x)), x], 1)),
            a=conv(3, 5),
            b=conv(11, 2),
        ),
        [(2, 3, 5, 5)],
    ),
    "slices of channels": (
        lambda: Compiled(lambda m, x: m.a(x)[:, 2:5] * 2.0 + 1.0, a=conv(3, 8)),
        [(2, 3, 5, 5)],
    ),
    "pooling": (
        lambda: Compiled(
            lambda m, x: F.avg_pool2d(F.max_pool2d(m.a(x), 3, 2, 1), 2, 1), a=conv(3, 8)
        ),
        [(2, 3, 9, 8)],
    ),
    "flatten and linear": (
        lambda: Compiled(
            lambda m, x: m.c(F.relu(m.b(F.flatten(F.relu(m.a(x)), 1)))),
            a=conv(3, 4),
            b=nn.Linear(4 * 5 * 6, 7),
            c=nn.Linear(7, 3, bias=False),
        ),
        [(3, 3, 5, 6)],
    ),
    "global mean": (
        lambda: Compiled(
            lambda m, x: m.b(F.flatten(F.adaptive_avg_pool2d(m.a(x), 1), 1)),
            a=conv(3, 4),
            b=nn.Linear(4, 3),
        ),
        [(3, 3, 5, 6)],
    ),
    "resizing": (
        lambda: Compiled(
            lambda m, x: (
                F.interpolate(m.a(x), size=(9, 7), mode="nearest")
                + F.interpolate(x, size=(9, 7), mode="bilinear")
            ),
            a=conv(3, 3),
        ),
        [(2, 3, 4, 5)],
    ),
    "sigmoid and tanh": (
        lambda: Compiled(lambda m, x: F.tanh(m.b(F.sigmoid(m.a(x)))), a=conv(3, 4), b=conv(4, 2)),
        [(2, 3, 4, 5)],
    ),
    "softmax": (
        lambda: Compiled(
            lambda m, x: (F.softmax(m.a(x), 1), F.log_softmax(m.a(x), 1)), a=nn.Linear(6, 5)
        ),
        [(4, 6)],
    ),
    "response norm": (
        lambda: Compiled(lambda m, x: F.local_response_norm(F.relu(m.a(x)), 3), a=conv(3, 6)),
        [(2, 3, 4, 4)],
    ),
    "dropout": (
        lambda: Compiled(
            lambda m, x: m.e(F.flatten(m.d(m.a(x)), 1)),
            a=conv(3, 8),
            d=nn.Dropout2d(0.3),
            e=nn.Sequential(nn.Linear(8 * 16, 9), nn.Dropout(0.5), nn.ReLU()),
        ),
        [(5, 3, 4, 4)],
    ),
    "groups, depthwise and dilation": (
        lambda: Compiled(
            lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))),
            a=conv(8, 8, groups=8),
            b=conv(8, 12, groups=4),
            c=nn.Conv2d(12, 4, 3, padding=2, dilation=2),
        ),
        [(2, 8, 6, 7)],
    ),
    "several inputs and outputs": (
        lambda: Compiled(
            lambda m, x, y: {"sum": m.a(x) + y, "both": [m.a(x), F.relu(y)], "same": y},
            a=conv(3, 4),
        ),
        [(2, 3, 4, 4), (2, 4, 4, 4)],
    ),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("wanted", [True, False])
def test_values_and_gradients_are_those_of_the_layers(name: str, wanted: bool) -> None:
    make, shapes = MODULES[name]
    assert_same(randomize(make()), *(image(*shape) for shape in shapes), wanted=wanted)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("resnet18", 40, {}),
        ("densenet121", 40, {"num_classes": 5}),
        ("googlenet", 64, {"num_classes": 5, "aux_logits": True}),
        ("lenet5", 32, {}),
    ],
)
def test_networks(name: str, size: int, options: dict[str, Any]) -> None:
    oxidet.manual_seed(0)
    channels = 1 if name == "lenet5" else 3
    assert_same(get_model(name, **options), image(4, channels, size, size), tol=1e-4)


def test_frozen_layers_have_no_gradient_and_follow_their_weights() -> None:
    model = Compiled(
        lambda m, x: m.c(F.relu(m.n(m.b(F.relu(m.a(x)))))),
        a=conv(3, 4),
        b=conv(4, 4),
        n=nn.BatchNorm2d(4),
        c=conv(4, 2),
    )
    randomize(model)
    model.a.requires_grad_(False)
    model.n.eval().requires_grad_(False)
    x = image(2, 3, 6, 6)
    assert_same(model, x, wanted=False)
    assert model.a.weight.grad is None
    assert model.c.weight.grad is not None
    model.a.weight = 2 * model.a.weight.data
    model.n.running_var = 3 * model.n.running_var.data
    model.zero_grad()
    assert_same(model, x, wanted=False)
    model.a.requires_grad_()
    model.zero_grad()
    assert_same(model, x, wanted=False)
    assert model.a.weight.grad is not None


def test_fixed_statistics_with_trained_factors() -> None:
    model = Compiled(lambda m, x: F.relu(m.n(m.a(x))), a=conv(3, 4), n=nn.BatchNorm2d(4))
    randomize(model)
    model.n.eval()
    model.n.running_mean = [0.1, 0.2, 0.3, 0.4]
    assert_same(model, image(2, 3, 5, 5))


def test_a_plan_serves_every_step_and_batch_size() -> None:
    model = randomize(Compiled(lambda m, x: m.b(F.relu(m.a(x))), a=conv(3, 4), b=conv(4, 2)))
    eager = copy.deepcopy(model)
    optimizers = [optim.SGD(m.parameters(), lr=1e-4, momentum=0.9) for m in (model, eager)]
    for batch in (2, 3, 1, 2):
        x = image(batch, 3, 6, 6, seed=batch)
        for m, optimizer in zip((model, eager), optimizers, strict=True):
            optimizer.zero_grad()
            with nn.eager() if m is eager else contextlib.nullcontext():
                (m(x) * m(x)).sum().backward()
            optimizer.step()
    assert len(plans_of(model)) == 1
    for a, b in zip(model.parameters(), eager.parameters(), strict=True):
        assert_close(a.data, b.data, 1e-4)


def test_the_way_back_can_be_gone_twice_if_it_is_kept() -> None:
    model = randomize(Compiled(lambda m, x: F.relu(m.n(m.a(x))), a=conv(3, 4), n=nn.BatchNorm2d(4)))
    loss = model(image(2, 3, 5, 5)).sum()
    loss.backward(retain_graph=True)
    once = np.array(model.a.bias.grad), np.array(model.n.bias.grad)
    loss.backward()
    assert_close(np.asarray(model.n.bias.grad), 2 * once[1], 1e-6)
    with pytest.raises(RuntimeError, match="already used"):
        loss.backward()


def test_what_leads_to_unused_outputs_alone_gets_no_gradient() -> None:
    layers = {name: conv(3, 3) for name in "abc"}
    model = randomize(
        Compiled(lambda m, x, y: (m.a(x), F.relu(m.b(m.a(x) + y)), m.c(x), x), **layers)
    )
    for used in range(16):
        x, y = (nn.Tensor(image(2, 3, 5, 5, seed=s), requires_grad=True) for s in (1, 2))
        model.zero_grad()
        outputs = model(x, y)
        chosen = [output for i, output in enumerate(outputs) if used >> i & 1]
        if not chosen:
            continue
        sum(output.sum() for output in chosen).backward()
        expected = {"a": used & 3, "b": used & 2, "c": used & 4}
        for name, is_reached in expected.items():
            assert (layers[name].weight.grad is not None) == bool(is_reached), (used, name)
            assert (layers[name].bias.grad is not None) == bool(is_reached), (used, name)
        assert x.grad is not None
        assert (y.grad is not None) == bool(used & 2), used


def test_a_tensor_may_be_several_inputs() -> None:
    model = randomize(Compiled(lambda m, x, y: m.a(x) * 2 + m.a(y), a=conv(3, 4)))
    x = nn.Tensor(image(2, 3, 5, 5), requires_grad=True)
    model(x, x).sum().backward()
    assert plans_of(model)
    once = nn.Tensor(image(2, 3, 5, 5), requires_grad=True)
    with nn.eager():
        model.a(once).sum().backward()
    assert_close(x.grad, 3 * once.grad, 1e-6)


def test_a_parameter_may_be_an_input() -> None:
    model = randomize(Compiled(lambda m, x: F.linear(x, m.a.weight), a=nn.Linear(4, 4)))
    model(model.a.weight).sum().backward()
    assert plans_of(model)
    w = np.asarray(model.a.weight)
    assert_close(model.a.weight.grad, np.tile(2 * w.sum(0), (4, 1)), 1e-5)


def test_what_is_learned_may_change_between_the_ways() -> None:
    model = randomize(Compiled(lambda m, x: m.b(m.a(x)), a=conv(3, 4), b=conv(4, 2)))
    x = nn.Tensor(image(2, 3, 5, 5))
    model.a.requires_grad_(False)
    result = model(x).sum()
    x.requires_grad_()
    model.a.requires_grad_()
    model.b.bias.requires_grad_(False)
    result.backward()
    assert x.grad is None
    assert model.a.weight.grad is None
    assert model.b.bias.grad is None
    assert np.abs(model.b.weight.grad).max() > 0


def test_layers_outside_of_the_module_can_be_frozen_and_learn_again() -> None:
    outside = randomize(conv(4, 2))
    model = randomize(Compiled(lambda m, x: outside(m.a(x)), a=conv(3, 4)))
    for learns in (True, False, True):
        outside.requires_grad_(learns)
        outside.zero_grad()
        result = model(image(2, 3, 5, 5))
        with nn.eager():
            assert_close(np.asarray(result), np.asarray(model(image(2, 3, 5, 5))), 1e-5)
        result.sum().backward()
        assert (outside.weight.grad is not None) == learns
        outside.weight = outside.weight.data * 2
    assert plans_of(model)


def test_gradients_are_added_in_place_once_they_are_there() -> None:
    model = randomize(Compiled(_layer, a=conv(3, 4)))
    held = []
    for _ in range(2):
        model(image(2, 3, 5, 5)).sum().backward()
        held.append(model.a.weight.grad)
    assert np.shares_memory(*held)


def test_a_batch_norm_whose_result_is_dropped_follows_the_batch() -> None:
    def forward(m: Any, x: Any) -> Any:
        m.n(m.a(x))
        return F.relu(m.n(m.a(x)) + x)

    model = randomize(Compiled(forward, a=conv(3, 3), n=nn.BatchNorm2d(3)))
    model(image(2, 3, 5, 5)).sum().backward()
    assert int(model.n.num_batches_tracked) == 2


def test_what_no_plan_can_do_runs_layer_by_layer() -> None:
    model = Compiled(lambda m, x: m.a(x) * float(np.asarray(m.a(x)).mean()), a=conv(3, 4))
    assert isinstance(model(image(2, 3, 5, 5)), nn.Tensor)
    scaled = Compiled(lambda m, x: m.a(x) * m.a.bias.reshape(1, 4, 1, 1), a=conv(3, 4))
    scaled(image(2, 3, 5, 5)).sum().backward()
    assert scaled.a.bias.grad is not None
    assert not plans_of(model)
    assert not plans_of(scaled)


def test_one_value_a_channel_is_refused_as_layer_by_layer() -> None:
    model = Compiled(lambda m, x: m.n(x), n=nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(image(1, 4, 1, 1))
    assert int(model.n.num_batches_tracked) in (0, 1)


def test_nothing_is_recorded_without_gradients() -> None:
    model = Compiled(lambda m, x: m.n(x), n=nn.BatchNorm2d(4))
    with nn.no_grad():
        result = model(image(2, 4, 3, 3))
    assert not plans_of(model)
    assert not getattr(result, "requires_grad", False)
    assert int(model.n.num_batches_tracked) == 1


def test_a_model_with_plans_can_be_copied_and_pickled() -> None:
    model = randomize(Compiled(_layer, a=conv(3, 4)))
    model(image(2, 3, 5, 5)).sum().backward()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert "_training_plan_cache" not in other.__dict__
        assert_close(
            np.asarray(other(image(2, 3, 5, 5))), np.asarray(model(image(2, 3, 5, 5))), 1e-6
        )


def _layer(m: Any, x: Any) -> Any:
    return m.a(x)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_the_number_of_threads_does_not_change_a_bit(threads: int) -> None:
    make, shapes = MODULES["a residual that comes first"]
    before = oxidet.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            oxidet.set_num_threads(count)
            results.append(outcome(randomize(make()), [(image(*shapes[0]), True)], False))
    finally:
        oxidet.set_num_threads(before)
    one, many = results
    assert all(np.array_equal(one[1][name], many[1][name]) for name in one[1])
    assert np.array_equal(one[0][0], many[0][0])


def test_memory_is_shared_between_activations_and_gradients() -> None:
    layers = [nn.Sequential(conv(8, 8), nn.ReLU()) for _ in range(10)]
    model = nn.Sequential(*layers)
    model.compiled = True
    model(image(2, 8, 6, 6))
    [plan] = plans_of(model)
    value = 4 * 2 * 8 * 6 * 6
    # Ten activations that are kept, and two gradients at a time.
    assert plan.plan.memory(2) <= 12 * value


def test_memory_goes_from_one_size_of_image_to_the_next() -> None:
    model = nn.Sequential(*[nn.Sequential(conv(8, 8), nn.ReLU()) for _ in range(4)])
    model.compiled = True
    for size in (12, 6, 9, 12, 5):
        for _ in range(2):
            model(image(2, 8, size, size)).sum().backward()
    at_rest = [plan.plan.memory_at_rest() for plan in plans_of(model)]
    assert len(at_rest) == 4
    most = max(plan.plan.memory(2) for plan in plans_of(model))
    assert 0 < sum(at_rest) <= 1.5 * most
    # Two passes at once need the memory of two.
    first, second = model(image(2, 8, 12, 12)), model(image(2, 8, 12, 12))
    (first * second).sum().backward()
    assert sum(plan.plan.memory_at_rest() for plan in plans_of(model)) >= 2 * most


def test_memory_of_many_passes_at_once_does_not_stay() -> None:
    model = nn.Sequential(conv(4, 4), nn.ReLU())
    model.compiled = True
    x = image(1, 4, 6, 6)
    passes = [model(x) for _ in range(12)]
    for result in passes:
        result.sum().backward()
    [plan] = plans_of(model)
    one = plan.plan.memory(1)
    assert plan.plan.memory_at_rest() >= 12 * one
    for _ in range(100):
        model(x).sum().backward()
    assert one <= plan.plan.memory_at_rest() <= 1.5 * one
    # Nor that of passes that nobody goes back through, or goes back through twice.
    for _ in range(100):
        model(x)
        result = model(x).sum()
        result.backward(retain_graph=True)
        result.backward()
    assert one <= plan.plan.memory_at_rest() <= 4 * one


def test_the_least_recently_used_plan_goes() -> None:
    model = Compiled(_layer, a=conv(3, 4))
    sizes = range(5, 5 + training_plans.MOST_PLANS)
    for size in sizes:
        model(image(1, 3, size, size))
    first, second = plans_of(model)[:2]
    model(image(1, 3, sizes[0], sizes[0]))
    model(image(1, 3, 50, 50)).sum().backward()
    assert first in plans_of(model)
    assert second not in plans_of(model)
    model(image(1, 3, sizes[0], sizes[0])).sum().backward()
    assert plans_of(model).index(first) == 0
    # That of the plan used last, which is not the one made last.
    assert training_plans.times(model)[0].forward == 1e3 * first.plan.seconds()[0][0]


@pytest.fixture
def time_limit() -> Iterator[None]:
    """End the test rather than wait forever for a child that hangs."""

    def expire(*_: object) -> None:
        raise TimeoutError("the child hangs")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.usefixtures("time_limit")
def test_a_forked_child_packs_anew() -> None:
    """The lock of the weights packed before may be held for ever."""
    model = Compiled(_layer, a=conv(3, 4))
    expected = [model(image(1, 3, size, size)).sum().item() for size in (5, 6)]
    model = Compiled(_layer, a=model.a)
    model(image(1, 3, 5, 5))
    cache = model.__dict__["_training_plan_cache"]
    [plan], packed = plans_of(model), cache.packed
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if cache.packed is packed or plans_of(model) != [plan]:
                os._exit(2)
            results = [model(image(1, 3, size, size)).sum() for size in (5, 6)]
            for result in results:
                result.backward()
            status = 0 if [result.item() for result in results] == expected else 3
        finally:
            os._exit(status)
    try:
        _, status = os.waitpid(pid, 0)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    assert os.waitstatus_to_exitcode(status) == 0
    assert cache.packed is packed


def test_most_plans() -> None:
    model = Compiled(_layer, a=conv(3, 4))
    for size in range(5, 5 + training_plans.MOST_PLANS + 3):
        model(image(1, 3, size, size))
    assert len(plans_of(model)) == training_plans.MOST_PLANS
