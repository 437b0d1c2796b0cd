"""Files that torch itself writes, in both forms."""

from __future__ import annotations

import collections
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxidet import weights

torch = pytest.importorskip("torch")

FORMS = [pytest.param(True, id="zip"), pytest.param(False, id="legacy")]
pytestmark = pytest.mark.parametrize("zip_form", FORMS)


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 1)
    )


def save(content: Any, path: Path, zip_form: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zip_form)
    return path


def assert_states_equal(got, expected) -> None:
    """The same names, shapes, values and (half-width types aside) dtypes as torch's tensors."""
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        tensor = tensor.detach()
        if tensor.dtype in (torch.float16, torch.bfloat16):
            tensor = tensor.float()
        np.testing.assert_array_equal(got[name], tensor.numpy(), err_msg=name, strict=True)
        assert got[name].flags.c_contiguous, name


def test_state_dict_of_a_network(tmp_path: Path, zip_form: bool) -> None:
    state = network().state_dict()
    path = save(state, tmp_path / "net.pth", zip_form)
    assert_states_equal(weights.load(path), state)
    assert weights.load(path)["1.num_batches_tracked"].shape == ()


def test_torchvision_network(tmp_path: Path, zip_form: bool) -> None:
    models = pytest.importorskip("torchvision.models")
    state = models.resnet18(num_classes=3).state_dict()
    assert_states_equal(weights.load(save(state, tmp_path / "r.pth", zip_form)), state)


def test_every_dtype(tmp_path: Path, zip_form: bool) -> None:
    integers = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    floats = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
    state = {
        name: torch.tensor([[0, 1, 2], [3, 100, 1]]).to(getattr(torch, name))
        for name in (*integers, *floats, "bool")
    }
    state["scalar"] = torch.tensor(1.5)
    state["empty"] = torch.zeros(0, 3, 2)
    state["brain"] = torch.randn(1000).bfloat16()
    state["half"] = torch.randn(1000).half()
    state["special"] = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-45])
    assert_states_equal(weights.load(save(state, tmp_path / "t.pth", zip_form)), state)


def test_views_of_shared_storages(tmp_path: Path, zip_form: bool) -> None:
    base = torch.arange(96.0)
    state = {
        "base": base,
        "tied": base,
        "slice": base[10:60:3],
        "transposed": base.view(8, 12).t(),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "permuted": base.view(2, 4, 12).permute(2, 0, 1),
        "expanded": base[5:6].expand(4, 3),
        "column": base.view(8, 12)[:, 3:4],
        "row_of_channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)[1:],
    }
    assert_states_equal(weights.load(save(state, tmp_path / "v.pth", zip_form)), state)


def test_parameters(tmp_path: Path, zip_form: bool) -> None:
    parameters = dict(network().named_parameters())
    assert_states_equal(weights.load(save(parameters, tmp_path / "p.pth", zip_form)), parameters)


def test_data_parallel(tmp_path: Path, zip_form: bool) -> None:
    net = network()
    path = save(torch.nn.DataParallel(net).state_dict(), tmp_path / "d.pth", zip_form)
    assert_states_equal(weights.load(path), net.state_dict())
    assert next(iter(weights.load(path, strip_prefix=False))) == "module.0.weight"


def trained() -> tuple[Any, Any, Any]:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 5])
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    scheduler.step()
    return net, optimizer, scheduler


def test_training_checkpoint(tmp_path: Path, zip_form: bool) -> None:
    net, optimizer, scheduler = trained()
    content = {
        "epoch": 7,
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "best": 0.5,
        "rng": torch.get_rng_state(),
        "dtype": torch.float16,
        "device": torch.device("cuda:1"),
        "size": torch.Size([3, 4]),
        "history": [(1, 2.5), None, {"tags": {"a", "b"}}],
        "bytes": b"\x00\xff",
        "large": -(10**30),
    }
    path = save(content, tmp_path / "c.pth", zip_form)
    assert_states_equal(weights.load(path), net.state_dict())

    got = weights.load_checkpoint(path)
    assert list(got) == list(content)
    for name in ("epoch", "best", "history", "bytes", "large"):
        assert got[name] == content[name], name
    assert got["dtype"] == "torch.float16"
    assert got["device"] == "cuda:1"
    assert got["size"] == (3, 4)
    np.testing.assert_array_equal(got["rng"], content["rng"].numpy())
    assert got["scheduler"]["milestones"] == collections.Counter([3, 5, 5])
    assert got["optimizer"]["param_groups"][0]["momentum"] == 0.9
    for index, state in optimizer.state_dict()["state"].items():
        momentum = got["optimizer"]["state"][index]["momentum_buffer"]
        np.testing.assert_array_equal(momentum, state["momentum_buffer"].numpy())


def test_checkpoint_of_simple_faster_rcnn(tmp_path: Path, zip_form: bool) -> None:
    net, optimizer, _ = trained()
    content = {
        "model": net.state_dict(),
        "config": {"lr": 1e-3, "env": "faster-rcnn", "load_path": None, "use_adam": False},
        "other_info": {"best_map": np.float64(0.7012), "epoch": np.int64(9)},
        "vis_info": {"index": {"loss": 3}, "vis_kw": {}, "log_text": "", "env": "main"},
        "optimizer": optimizer.state_dict(),
    }
    path = save(content, tmp_path / "fasterrcnn_12211511_0.7012", zip_form)
    assert_states_equal(weights.load(path), net.state_dict())
    got = weights.load_checkpoint(path)
    assert got["other_info"] == {"best_map": 0.7012, "epoch": 9}
    assert type(got["other_info"]["best_map"]) is np.float64
    assert got["config"] == content["config"]
    assert got["vis_info"] == content["vis_info"]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("open('pwned', 'w')",)


def test_refusals(tmp_path: Path, zip_form: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    for content, name in [
        (network(), "torch.nn.modules.container.Sequential"),
        ({"state_dict": network().state_dict(), "args": Evil()}, "__builtin__.exec"),
        (
            {"w": torch.sparse_coo_tensor([[0]], [1.0], check_invariants=True)},
            "torch._utils._rebuild_sparse_tensor",
        ),
        ({"path": Path("a")}, "pathlib"),
        ({"f": functools.partial(print)}, "functools.partial"),
        ({"a": np.ones(3)}, "multiarray._reconstruct"),
    ]:
        save(content, path, zip_form)
        with pytest.raises(ValueError, match=f"asks for '.*{name}"):
            weights.load(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pth"]


def test_byte_order_marks(tmp_path: Path, zip_form: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch writes in the name of a big-endian machine is read as torch reads it."""
    if not zip_form:
        array = np.arange(5, dtype=np.float32)
        data = save({"x": torch.from_numpy(array)}, tmp_path / "l.pth", False).read_bytes()
        at = data.index(b"\x88", data.index(b"little_endian"))  # NEWTRUE, the flag's value
        (tmp_path / "l.pth").write_bytes(data[:at] + b"\x89" + data[at + 1 :])
        state = {"x": torch.load(tmp_path / "l.pth")["x"]}
    else:
        swapped = np.arange(5, dtype=np.float32).byteswap()
        content = {"x": torch.from_numpy(swapped)}
        with monkeypatch.context() as patch:
            patch.setattr(sys, "byteorder", "big")
            save(content, tmp_path / "l.pth", True)
        state = {"x": torch.load(tmp_path / "l.pth")["x"]}
    np.testing.assert_array_equal(state["x"].numpy(), np.arange(5, dtype=np.float32))
    assert_states_equal(weights.load(tmp_path / "l.pth"), state)


def test_torch_reads_our_safetensors(tmp_path: Path, zip_form: bool) -> None:
    package = pytest.importorskip("safetensors.torch")
    source = save(network().state_dict(), tmp_path / "net.pth", zip_form)
    weights.save(tmp_path / "w.safetensors", weights.load(source))
    net = network()
    for parameter in net.parameters():
        parameter.data.zero_()
    net.load_state_dict(package.load_file(tmp_path / "w.safetensors"))
    expected = network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())


def test_bfloat16_rounds_as_torch(tmp_path: Path, zip_form: bool) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 100_000, np.uint32)
    values = bits.view(np.float32)
    weights.save(tmp_path / "w.safetensors", {"x": values}, dtype="bfloat16")
    got = weights.load(tmp_path / "w.safetensors")["x"]
    expected = torch.from_numpy(values).bfloat16()
    np.testing.assert_array_equal(got, expected.float().numpy())
    path = save({"x": expected}, tmp_path / "b.pth", zip_form)
    np.testing.assert_array_equal(weights.load(path)["x"], got)
