"""Bars of progress: tqdm's, as widgets in a notebook and as text in a terminal."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any


def in_notebook() -> bool:
    """Whether this code runs in a kernel; that its package is loaded says nothing."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def new_bar(wanted: bool | None = None, *, text_format: str | None = None, **options: Any) -> Any:
    """A tqdm bar; None where tqdm is missing, or there is nothing to draw on.

    A notebook gets widgets if ipywidgets (extra ``notebook``) is installed, which tqdm draws with,
    and else text, without the warning that ``tqdm.auto`` would print.

    Parameters
    ----------
    wanted
        False for no bar; True for one even where nobody seems to look.
    text_format
        tqdm's ``bar_format``, of a bar of text.
    **options
        Further arguments of tqdm.
    """
    notebook = in_notebook()
    if wanted is None:
        # Programs without a console, such as those of pythonw, have no standard error.
        wanted = notebook or (sys.stderr is not None and sys.stderr.isatty())
    if not wanted:
        return None
    widgets = notebook and importlib.util.find_spec("ipywidgets") is not None
    if text_format is not None and not widgets:
        options["bar_format"] = text_format
    try:
        tqdm: Any = importlib.import_module("tqdm.notebook" if widgets else "tqdm")
    except ImportError:
        return None
    return tqdm.tqdm(**options)
