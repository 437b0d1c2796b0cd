"""Bars of progress: text in a terminal, widgets in a notebook, nothing where nobody looks."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from oxidet import _bars


class Recorded:
    """Stands for a tqdm bar."""

    def __init__(self, **options: Any) -> None:
        self.options = options


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    """``tqdm`` and ``tqdm.notebook`` that only say what they were asked."""
    for name in ("tqdm", "tqdm.notebook"):
        module = types.ModuleType(name)
        module.tqdm = type(name, (Recorded,), {})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    return Recorded


def pretend_notebook(monkeypatch: pytest.MonkeyPatch, *, widgets: bool) -> None:
    monkeypatch.setattr(_bars, "in_notebook", lambda: True)
    monkeypatch.setattr(
        _bars.importlib.util, "find_spec", lambda name: object() if widgets else None
    )


@pytest.mark.parametrize(
    ("widgets", "kind", "options"),
    [
        (True, "tqdm.notebook", {"total": 3}),
        (False, "tqdm", {"total": 3, "bar_format": "{bar}"}),
    ],
)
def test_notebooks(
    bars: Any, monkeypatch: pytest.MonkeyPatch, widgets: bool, kind: str, options: dict[str, Any]
) -> None:
    pretend_notebook(monkeypatch, widgets=widgets)
    bar = _bars.new_bar(text_format="{bar}", total=3)
    assert (type(bar).__name__, bar.options) == (kind, options)
    assert _bars.new_bar(False, total=3) is None


def test_terminals(bars: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _bars.new_bar(total=3) is None  # the tests' standard error is no terminal
    assert type(_bars.new_bar(True, total=3)).__name__ == "tqdm"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = _bars.new_bar(text_format="{bar}", total=3)
    assert (type(bar).__name__, bar.options["bar_format"]) == ("tqdm", "{bar}")


def test_without_standard_error(bars: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert _bars.new_bar(total=3) is None


def test_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert _bars.new_bar(True, total=3) is None


def test_a_kernel_is_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _bars.in_notebook()
    for shell, expected in (
        (None, False),
        (types.SimpleNamespace(), False),  # IPython in a terminal
        (types.SimpleNamespace(kernel=object()), True),
    ):
        package = types.SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", package)
        assert _bars.in_notebook() is expected
