"""Optional dependencies: imported where used, and named clearly where missing."""

from __future__ import annotations

import importlib
from typing import Any


def require(module: str, extra: str) -> Any:
    """Import ``module``, or say in one line which extra of oxidet provides it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # installed, but broken: its own message says more
        raise ImportError(
            f"this needs the package {module.split('.')[0]!r}: pip install 'oxidet[{extra}]'",
            name=error.name,
        ) from None
