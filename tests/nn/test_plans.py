"""Plans: that none is ever stale, how many are kept, threads, forks, copies, and their results."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import oxidet
from conftest import assert_close
from oxidet import nn, optim
from oxidet.nn import functional as F
from oxidet.nn import init, plans

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 12, 10)).astype(np.float32)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Any) -> Any:
        return x * self.factor


class Net(nn.Module):
    """Something of everything that a plan can depend on."""

    compiled = True

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)])
        self.branches = nn.ModuleDict({"a": nn.Conv2d(8, 8, 1), "b": nn.Conv2d(8, 8, 1)})
        self.down = nn.Conv2d(8, 8, 1)
        self.scale = Scale(1.5)
        self.alpha = nn.Parameter(np.float32(0.5))
        self.register_buffer("shift", np.array([0.25], np.float32))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)
        self.power = 1
        self.plain = [nn.Conv2d(8, 8, 1).eval()]
        self.options = {"gain": 1.0}

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(block(x)) + x
        for branch in self.branches.values():
            x = x + branch(x)
        if getattr(self, "down", None) is not None:
            x = x + self.down(x)
        x = x + self.plain[0](x)
        for _ in range(self.power):
            x = self.scale(x)
        x = x * self.alpha + self.shift
        x = self.drop(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return self.head(x) * self.options["gain"]


@pytest.fixture
def net() -> Net:
    oxidet.manual_seed(0)
    made = Net().eval()
    made.stem[1].running_mean = RNG.standard_normal(8)
    made.stem[1].running_var = RNG.uniform(0.5, 2, 8)
    return made


def kept(module: nn.Module) -> list[plans.CompiledPlan]:
    """The plans that a module keeps, the eager entries left out."""
    cache = module.__dict__.get("_plan_cache")
    return [] if cache is None else [made for made in cache.plans.values() if made.plan is not None]


def layer_by_layer(module: nn.Module, *inputs: Any) -> Any:
    with nn.eager():
        return module(*inputs)


# --- every route by which a plan could go stale


def replace_state(net: Net) -> None:
    net.load_state_dict(OrderedDict((k, np.asarray(v) * 1.25) for k, v in net.state_dict().items()))


def optimiser_step(net: Net) -> None:
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    for parameter in net.parameters():
        parameter.grad = np.ones(parameter.shape)
    optimizer.step()


def write_that_fails(net: Net) -> None:
    def change(array: np.ndarray) -> None:
        array += 1
        raise KeyError("after the change")

    with pytest.raises(KeyError):
        net.head.bias.update_(change)


def rerouted(net: Net) -> None:
    original = net.stem.forward
    net.stem.forward = lambda x: -original(x)


def batch_statistics_and_back(net: Net) -> None:
    net.stem[1].train()
    net(X)
    net.stem[1].eval()


def other_stem(net: Net) -> None:
    net.stem = nn.Sequential(nn.Conv2d(3, 8, 1)).eval()


def other_conv(net: Net) -> None:
    net.stem[0] = nn.Conv2d(3, 8, 3, padding=1).eval()


def grown(net: Net) -> None:
    net.stem.append(Scale(-2.0).eval())


def shallow_copy_changed(net: Net) -> None:
    copy.copy(net).head = nn.Linear(8, 5)


def deep_copy_changed(net: Net) -> None:
    other = copy.deepcopy(net)
    other.head.bias = np.ones(5)
    other(X)


CHANGES: dict[str, Callable[[Net], Any]] = {
    "copy_": lambda net: net.stem[0].weight.copy_(net.stem[0].weight.data * 2),
    "copy_ of a number": lambda net: net.blocks[1].weight.copy_(0.125),
    "update_": lambda net: net.head.weight.update_(lambda array: np.negative(array, out=array)),
    "update_ that fails": write_that_fails,
    "assigned array": lambda net: setattr(net.head, "bias", np.arange(5.0)),
    "assigned array in a list": lambda net: setattr(net.blocks[0], "bias", np.arange(8.0)),
    "assigned tensor": lambda net: setattr(net.head, "bias", net.head.bias + nn.Tensor([1.0])),
    "assigned parameter": lambda net: setattr(net.head, "bias", nn.Parameter(np.arange(5.0))),
    "bias taken away": lambda net: setattr(net.head, "bias", None),
    "bias registered": lambda net: net.stem[0].register_parameter(
        "bias", nn.Parameter(np.arange(8.0))
    ),
    "scalar parameter": lambda net: net.alpha.copy_(-1),
    "buffer written": lambda net: net.stem[1].running_mean.copy_(np.arange(8.0)),
    "buffer assigned": lambda net: setattr(net, "shift", [4.0]),
    "buffer replaced": lambda net: setattr(net, "shift", nn.Buffer([4.0])),
    "buffer registered": lambda net: net.register_buffer("shift", [4.0]),
    "batch norm weight": lambda net: setattr(net.stem[1], "weight", np.arange(8.0)),
    "batch norm eps": lambda net: setattr(net.stem[1], "eps", 10.0),
    "initialised": lambda net: init.normal_(net.down.weight),
    "applied": lambda net: net.apply(
        lambda m: init.constant_(m.weight, 0.1) if isinstance(m, nn.Linear) else None
    ),
    "state": replace_state,
    "optimiser": optimiser_step,
    "child replaced": other_stem,
    "child of a Sequential replaced": other_conv,
    "child assigned by name": lambda net: setattr(net.stem, "2", nn.Tanh()),
    "Sequential appended": grown,
    "ModuleList appended": lambda net: net.blocks.append(nn.Conv2d(8, 8, 1).eval()),
    "ModuleDict set": lambda net: net.branches.__setitem__("c", nn.Conv2d(8, 8, 1).eval()),
    "ModuleDict replaced": lambda net: net.branches.__setitem__("b", nn.Conv2d(8, 8, 1).eval()),
    "add_module": lambda net: net.stem.add_module("2", nn.Identity()),
    "child taken away": lambda net: setattr(net, "down", None),
    "child deleted": lambda net: delattr(net, "down"),
    "child of a ModuleList deleted": lambda net: delattr(net.blocks, "1"),
    "stride": lambda net: (
        setattr(net.blocks[1], "stride", 2)
        or setattr(net.stem[0], "stride", 2)
        or setattr(net.blocks[1], "stride", 1)
    ),
    "padding": lambda net: setattr(net.stem[0], "padding", (3, 3)),
    "plain attribute": lambda net: setattr(net, "power", 3),
    "plain attribute of a child": lambda net: setattr(net.scale, "factor", 7.0),
    "plain list replaced": lambda net: setattr(net, "plain", [nn.Identity()]),
    "dict replaced": lambda net: setattr(net, "options", {"gain": 3.0}),
    "parameter of an unregistered module": lambda net: setattr(
        net.plain[0], "bias", np.arange(8.0)
    ),
    "hyper-parameter of an unregistered module": lambda net: setattr(
        net.plain[0], "weight", nn.Parameter(np.ones((8, 8, 1, 1)))
    ),
    "method replaced": rerouted,
    "batch norm in training and back": batch_statistics_and_back,
    "list in place": lambda net: (net.plain.__setitem__(0, nn.Identity()), net.clear_plans()),
    "dict in place": lambda net: (net.options.update(gain=3.0), net.clear_plans()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_change_is_missed(net: Net, name: str) -> None:
    before = net(X)
    assert len(kept(net)) == 1
    assert_close(before, layer_by_layer(net, X), 1e-5)
    CHANGES[name](net)
    expected = layer_by_layer(net, X)
    after = net(X)
    assert_close(after, expected, 1e-5)
    # Else this test would pass with a stale plan, too.
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()
    assert len(kept(net)) == 1, "the stale plan is still kept"


@pytest.mark.parametrize("change", [shallow_copy_changed, deep_copy_changed])
def test_changing_a_copy_leaves_the_original_right(net: Net, change: Callable[[Net], Any]) -> None:
    before = net(X)
    change(net)
    np.testing.assert_array_equal(net(X), before)
    assert_close(net(X), layer_by_layer(net, X), 1e-5)


@pytest.mark.parametrize("where", ["stem.1", "drop", "scale"])
def test_a_part_in_training_mode_makes_the_whole_eager(net: Net, where: str) -> None:
    net(X)
    part = net.get_submodule(where)
    part.train()
    oxidet.manual_seed(3)
    expected = layer_by_layer(net, X)
    oxidet.manual_seed(3)
    np.testing.assert_array_equal(net(X), expected)
    assert kept(net) == []
    part.eval()
    assert_close(net(X), layer_by_layer(net, X), 1e-5)
    assert len(kept(net)) == 1


def test_the_mode_of_layers_that_have_none_does_not_matter(net: Net) -> None:
    net.head = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5))
    assert net.head.training
    assert_close(net(X), layer_by_layer(net, X), 1e-5)
    assert len(kept(net)) == 1

    class Noisy(nn.Sequential):
        def forward(self, input: Any) -> Any:
            return super().forward(input * 3 if self.training else input)

    net.head = Noisy(nn.Linear(8, 5))
    np.testing.assert_array_equal(net(X), layer_by_layer(net, X))
    assert kept(net) == []


def test_dropout_in_training_drops(net: Net) -> None:
    net(X)
    net.drop.train()
    oxidet.manual_seed(3)
    got = net(X)
    oxidet.manual_seed(3)
    np.testing.assert_array_equal(got, layer_by_layer(net, X))
    oxidet.manual_seed(4)
    assert np.abs(net(X) - got).max() > 0


def test_a_training_call_gives_the_packed_weights_back(net: Net) -> None:
    net(X)
    net.train()
    assert len(kept(net)) == 1
    net(X)
    assert kept(net) == []


def test_evaluating_finds_the_plan_again(net: Net) -> None:
    net.train()
    for _ in range(2):
        with nn.evaluating(net):
            net(X)
    (plan,) = kept(net)
    net.eval()
    net(X)
    assert kept(net) == [plan]


def test_what_changes_nothing_keeps_the_plan(net: Net) -> None:
    other = Net().eval()
    net(X)
    (plan,) = kept(net)
    for change in (
        lambda: net.eval(),
        lambda: other.head.bias.copy_(1),
        lambda: setattr(other, "power", 2),
        lambda: net.requires_grad_(False),
        lambda: net.zero_grad(),
        lambda: net.state_dict(),
        lambda: copy.deepcopy(net),
        lambda: layer_by_layer(net, X),
        lambda: net(nn.Tensor(X)),
        lambda: net.plan(X.shape),
    ):
        change()
        net(X)
        assert kept(net) == [plan]


def test_settings_have_plans_of_their_own(net: Net) -> None:
    expected = net(X)
    with oxidet.precision("direct"):
        assert_close(net(X), expected, 1e-4)
        with oxidet.weight_storage("f16"):
            assert_close(net(X), expected, 1e-2)
    assert len(kept(net)) == 3
    net(X)
    assert len(kept(net)) == 3
    try:
        oxidet.set_precision("bf16")
        oxidet.set_weight_storage("bf16")
        assert oxidet.get_weight_storage() == "bf16"
        assert_close(net(X), expected, 2e-2)
    finally:
        oxidet.set_precision("winograd")
        oxidet.set_weight_storage("f32")
    assert len(kept(net)) == 4
    np.testing.assert_array_equal(net(X), expected)


@pytest.mark.parametrize("bad", ["f64", "", None, 16])
def test_an_unknown_weight_storage_is_a_value_error(bad: Any) -> None:
    with pytest.raises(ValueError, match="storage: expected one of"):
        oxidet.set_weight_storage(bad)
    with pytest.raises(ValueError, match="storage: expected one of"), oxidet.weight_storage(bad):
        pass
    assert oxidet.get_weight_storage() == "f32"


# --- how many plans there are


def test_a_plan_serves_every_batch_size(net: Net) -> None:
    images = RNG.standard_normal((7, 3, 12, 10)).astype(np.float32)
    together = net(images)
    for n in range(len(images)):
        np.testing.assert_array_equal(net(images[n : n + 1]), together[n : n + 1])
        np.testing.assert_array_equal(net(images[:n]), together[:n])
    assert net(images[:0]).shape == (0, 5)
    assert len(kept(net)) == 1


def test_the_sixteen_plans_used_last_are_kept(net: Net) -> None:
    sizes = [(8 + i, 9) for i in range(17)]
    inputs = [RNG.standard_normal((1, 3, *size)).astype(np.float32) for size in sizes]
    for x in inputs[:16]:
        net(x)
    first = net.__dict__["_plan_cache"].plans
    net(inputs[0])  # so that the second is the one unused for longest
    net(inputs[16])
    last = net.__dict__["_plan_cache"].plans
    assert len(last) == plans.MOST_PLANS == 16
    gone = [key for key in first if key not in last]
    assert [key[2] for key in gone] == [((3, *sizes[1]),)]
    assert_close(net(inputs[1]), layer_by_layer(net, inputs[1]), 1e-5)


def test_packed_weights_are_shared_by_plans_and_given_back(net: Net) -> None:
    net(X)
    packed = net.__dict__["_plan_cache"].packed
    layers, size = len(packed), packed.nbytes
    assert layers > 0
    net(x=X)  # another form of call, so another plan
    assert len(kept(net)) == 2
    assert (len(packed), packed.nbytes) == (layers, size)
    net.head.bias.copy_(1)  # one layer is packed anew, and its old form is let go
    net(X)
    net(x=X)
    assert len(kept(net)) == 2
    assert (len(packed), packed.nbytes) == (layers, size)
    net.clear_plans()
    assert (len(packed), packed.nbytes) == (0, 0)


def test_a_model_is_freed_without_the_garbage_collector(net: Net) -> None:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    made.compiled = True
    made(X)
    gone = weakref.ref(made)
    gc.disable()
    try:
        del made
        assert gone() is None
    finally:
        gc.enable()


def test_clear_plans_reaches_everything_below() -> None:
    outer = nn.Sequential(Net(), nn.ReLU()).eval()
    outer(X)
    assert len(kept(outer[0])) == 1
    outer.clear_plans()
    assert kept(outer[0]) == []


# --- results


def test_a_result_survives_the_next_call_and_is_the_callers(net: Net) -> None:
    net_of_maps = net.stem
    net_of_maps.compiled = True
    for module in (net, net_of_maps):
        first = module(X)
        copied = first.copy()
        second = module(X + 1)
        assert not np.shares_memory(first, second)
        np.testing.assert_array_equal(first, copied)
        first[...] = 0
        np.testing.assert_array_equal(module(X), copied)
        assert second.flags.writeable


@pytest.mark.parametrize("precision", ["direct", "winograd", "bf16"])
def test_the_number_of_threads_changes_no_bit(net: Net, precision: str) -> None:
    images = RNG.standard_normal((3, 3, 40, 37)).astype(np.float32)
    before = oxidet.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 8):
            oxidet.set_num_threads(threads)
            with oxidet.precision(precision):
                results.append(net(images))
    finally:
        oxidet.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


# --- threads, forks, copies


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``work`` returns in threads that begin together."""
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = work(index)
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_threads_share_a_model_and_its_plan(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [RNG.standard_normal((1 + i, 3, 24, 20)).astype(np.float32) for i in range(4)]
    expected = [copy.deepcopy(net)(x) for x in images]
    made: list[object] = []
    make = plans._make
    monkeypatch.setattr(plans, "_make", lambda *args: made.append(args) or make(*args))
    for i, results in enumerate(in_threads(4, lambda i: [net(images[i]) for _ in range(20)])):
        for result in results:
            np.testing.assert_array_equal(result, expected[i])
    assert len(made) == 1


def test_settings_of_threads_do_not_mix(net: Net) -> None:
    expected = {}
    for name in ("direct", "winograd"):
        with oxidet.precision(name):
            expected[name] = net(X)

    def work(index: int) -> str:
        name = ("direct", "winograd")[index % 2]
        with oxidet.precision(name):
            for _ in range(20):
                np.testing.assert_array_equal(net(X), expected[name])
        return name

    in_threads(4, work)


def test_a_weight_written_while_others_compute_is_seen_by_the_next_call(net: Net) -> None:
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            net(X)

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for i in range(30):
            net.head.bias.copy_(i)
            assert_close(net(X), layer_by_layer(net, X), 1e-5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


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
@pytest.mark.parametrize("planning", [False, True])
def test_a_forked_child_runs_and_makes_plans(net: Net, planning: bool) -> None:
    expected = net(X).tobytes(), net(X[:, :, :9]).tobytes()
    net.clear_plans()
    net(X)
    cache = net.__dict__["_plan_cache"]
    if planning:  # as if another thread were making a plan right now
        cache.lock.acquire()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            got = net(X).tobytes(), net(X[:, :, :9]).tobytes()
            status = 0 if got == expected else 2
        finally:
            os._exit(status)
    os.close(reader), os.close(writer)
    if planning:
        cache.lock.release()
    try:
        _, status = os.waitpid(pid, 0)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(status) == 0
    assert net(X).tobytes() == expected[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.usefixtures("time_limit")
def test_a_forked_child_packs_while_it_runs() -> None:
    # Infinity makes Winograd layers run again by direct sums, which are packed when first needed.
    conv = nn.Conv2d(64, 64, 3).eval()
    conv.compiled = True
    x = RNG.standard_normal((1, 64, 24, 24)).astype(np.float32)
    x[0, 0, 0, 0] = np.inf
    assert "winograd" in conv.plan(x.shape)[0].algorithm
    expected = conv(x).tobytes(), conv(x[..., :20]).tobytes()
    conv.clear_plans()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if (conv(x).tobytes(), conv(x[..., :20]).tobytes()) == expected else 2
        finally:
            os._exit(status)
    try:
        _, status = os.waitpid(pid, 0)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_forked_child_gets_new_locks_whatever_the_old_ones_say(net: Net) -> None:
    class TakenUnmarked:
        """A lock that another thread has taken but not yet marked as locked."""

        def locked(self) -> bool:
            return False

        def __enter__(self) -> None:
            raise AssertionError("waits for a thread that does not exist")

        def __exit__(self, *error: object) -> None:
            pass

    expected = net(X)
    cache = net.__dict__["_plan_cache"]
    packed, cache.lock = cache.packed, TakenUnmarked()
    plans._after_fork()
    assert cache.packed is packed  # nobody was at them
    np.testing.assert_array_equal(net(X), expected)
    assert net(X[:, :, :9]).shape[0] == len(X)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda net: pickle.loads(pickle.dumps(net))]
)
def test_a_copy_has_no_plans_and_makes_its_own(net: Net, duplicate: Callable[[Net], Net]) -> None:
    expected = net(X)
    other = duplicate(net)
    assert kept(other) == []
    assert_close(other(X), expected, 1e-6)
    if duplicate is copy.copy:
        assert other.head is net.head
        return
    ours = {entry.serial for _, entry, _ in net._named_state()}
    theirs = {entry.serial for _, entry, _ in other._named_state()}
    assert not ours & theirs
    # The same number of writes to both, of different values.
    net.head.bias.copy_(1)
    other.head.bias.copy_(2)
    assert_close(other(X) - net(X), np.ones((2, 5)), 1e-5)


def test_a_parameter_used_by_two_layers_is_one_to_the_plan() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    tied[1].weight = tied[0].weight
    tied.compiled = True
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    tied(x)
    tied[0].weight = np.eye(4) * 2
    assert_close(tied(x), layer_by_layer(tied, x))
    assert_close(tied(x), (x * 2 + tied[0].bias.data) * 2 + tied[1].bias.data, 1e-6)
