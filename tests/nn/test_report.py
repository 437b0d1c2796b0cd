"""Module.plan and Module.profile: rows, tables, totals, and what they refuse."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import oxidet
from html_pages import Page
from oxidet import models, nn
from oxidet.simple_faster_rcnn import FasterRCNNSmall


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 6 * 5, 10),
    )


X = np.random.default_rng(0).standard_normal((4, 3, 12, 10)).astype(np.float32)


def test_a_plan_tells_what_it_does(net: nn.Sequential) -> None:
    report = net.plan((4, 3, 12, 10))
    assert net.training, "the mode is left as it was"
    first, last = report[0], list(report)[-1]
    assert (first.name, first.op, first.fused) == ("0", "conv2d", ("batch_norm", "relu"))
    assert (first.in_shape, first.out_shape) == ((4, 3, 12, 10), (4, 16, 12, 10))
    assert first.macs == 4 * 12 * 10 * 16 * 3 * 9
    assert first.output_bytes == 4 * 4 * 16 * 12 * 10
    assert first.weight_bytes >= 4 * 16 * 27
    assert (last.name, last.op, last.out_shape) == ("5", "linear", (4, 10))
    assert last.macs == 4 * 16 * 6 * 5 * 10
    assert report.macs == first.macs + last.macs
    assert len(report) == len(list(report))
    assert all(row.algorithm or row.op for row in report)
    assert {"weights", "arena", "scratch"} <= report.memory.keys()
    assert (report.precision, report.storage) == ("winograd", "f32")
    with oxidet.precision("direct"), oxidet.weight_storage("f16"):
        other = net.plan((1, 3, 12, 10))
    assert (other.precision, other.storage) == ("direct", "f16")
    assert 4 * other[0].macs == first.macs


def test_a_profile_tells_where_the_time_goes(net: nn.Sequential) -> None:
    report = net.eval().profile(X, repeats=5)
    assert report.repeats == 5
    assert sum(row.share for row in report) == pytest.approx(1)
    for row in report:
        assert 0 < row.fastest <= row.seconds
        assert row.gflops == pytest.approx(2e-9 * row.macs / row.seconds)
        assert row.of_peak == pytest.approx(row.gflops / report.peak_gflops)
    assert report.seconds == pytest.approx(sum(row.seconds for row in report))
    assert [row.name for row in report] == [row.name for row in net.plan(X.shape)]


@pytest.mark.parametrize("kind", ["plan", "profile"])
def test_tables_are_aligned_and_narrow(kind: str) -> None:
    model = models.resnet18().eval()
    x = np.zeros((2, 3, 224, 224), np.float32)
    report = model.plan(x.shape) if kind == "plan" else model.profile(x, repeats=1)
    text = str(report)
    assert repr(report) == text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)
    assert lines[0].startswith(f"ResNet, input (2, 3, 224, 224): {len(report)} steps, precision")
    rules = [i for i, line in enumerate(lines) if set(line) == {"─"}]
    assert rules == [3, 4 + len(report)]
    table = lines[2 : 6 + len(report)]
    # Every number of a column on the right ends where its heading ends.
    for heading in ("MMACs", "result") if kind == "plan" else ("ms", "share", "GFLOP/s"):
        end = table[0].index(heading) + len(heading)
        for line in table[2:-2] + table[-1:]:
            assert (
                len(line) < end
                or line[end - 1] != " "
                or not line[end - len(heading) : end].strip()
            ), line
    assert table[-1].startswith("total")
    assert text.count("(") == text.count(")")  # names such as "winograd f(4,3)" are whole
    assert "layer4.1.conv2" in text
    assert "bn" in table[2]


@pytest.mark.parametrize("kind", ["plan", "profile"])
def test_notebooks_get_a_table(net: nn.Sequential, kind: str) -> None:
    report = net.plan(X.shape) if kind == "plan" else net.profile(X, repeats=2)
    report.model = "<Net>"
    text = report._repr_html_()
    assert "&lt;Net&gt;" in text
    columns = 8 if kind == "plan" else 9  # of a profile one holds bars
    assert Page(text).rows == [columns] * (len(report) + 2)


def test_an_unknown_peak_is_said_to_be(net: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oxidet._core.peak_flops", lambda: 0.0)
    report = net.profile(X, repeats=1)
    assert all(np.isnan(row.of_peak) for row in report)
    assert "the peak of this machine is unknown" in str(report)
    assert str(report).splitlines()[4].split()[-1] == "?"
    assert "unknown" in Page(report._repr_html_()).words


def test_rows_make_a_data_frame(net: nn.Sequential) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(net.profile(X, repeats=2))
    assert list(frame.columns) == [field.name for field in dataclasses.fields(nn.ProfileStep)]
    assert frame.macs.sum() == net.plan(X.shape).macs


def test_a_long_name_loses_its_beginning() -> None:
    deep: nn.Module = nn.Conv2d(3, 4, 1)
    for _ in range(30):
        deep = nn.Sequential(deep)
    report = deep.plan((1, 3, 5, 5))
    assert report[0].name == ".".join("0" * 30)
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[4].startswith("…")
    assert lines[4].split()[0].endswith(".0.0.0")


def test_compiled_modules_report_the_plan_that_calls_run() -> None:
    model = models.lenet5().eval()
    x = np.zeros((3, 1, 32, 32), np.float32)
    model(x)
    (plan,) = model.__dict__["_plan_cache"].plans.values()
    model.profile(x, repeats=1)
    model.plan((1, 1, 32, 32))
    assert list(model.__dict__["_plan_cache"].plans.values()) == [plan]


def test_two_inputs() -> None:
    class Sum(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a + b

    assert Sum().plan((2, 3, 4, 4), (2, 3, 4, 4))[0].op == "add"
    with pytest.raises(ValueError, match=r"shapes\[1\]: expected a batch of 2, got 3"):
        Sum().plan((2, 3), (3, 3))
    assert len(Sum().profile(X, X)) == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 8), r"shapes\[0\]: expected \(N, C, H, W\) or \(N, F\), got \(3, 8, 8\)"),
        (8, r"shapes\[0\]: expected \(N, C, H, W\) or \(N, F\), got 8"),
        ((1, 3, 0, 8), r"shapes\[0\]: expected an integer of at least 1, got 0"),
        ((1, 4, 12, 10), "input|channels"),
        ((1, 3, 1 << 31, 1 << 31), "shapes: expected arrays that can be addressed, got"),
        ((1, 3, 1 << 64, 8), "shapes: expected arrays that can be addressed, got"),
    ],
)
def test_shapes_that_are_none(net: nn.Sequential, shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        net.plan(shape)


def test_other_things_that_are_refused(net: nn.Sequential) -> None:
    with pytest.raises(ValueError, match="shapes: expected the shape of at least one input"):
        net.plan()
    with pytest.raises(ValueError, match="inputs: expected at least one array"):
        net.profile()
    with pytest.raises(TypeError, match=r"inputs: expected arrays of shape .* got list"):
        net.profile([[1.0]])
    with pytest.raises(ValueError, match="repeats: expected an integer of at least 1"):
        net.profile(X, repeats=0)
    detector = FasterRCNNSmall()
    with pytest.raises(nn.TraceError, match=r"region_proposal_network\.py, line"):
        detector.plan((1, 3, 64, 64))
    assert len(detector.extractor.plan((1, 3, 64, 64))) > 0
