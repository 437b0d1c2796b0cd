"""What a detector can be built from again, as plain values.

A detector says of itself what its builder has to be told (:meth:`Detector.settings`). Where all of
that can be written to a file, it is the detector's recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

REMEDY = "write its weights alone with oxidet.weights.save"


def written_recipe(settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Settings as they come back from a file, ``model`` among them, the name of the builder.

    ``kind`` is what the detector is called in messages. ValueError if there is no such name, or for
    a setting, such as the class of a Module that the builder was given, that is no plain value.
    """
    if "model" not in settings:
        raise ValueError(
            "detector: expected one made by a function of oxidet.models.detection, got a "
            f"{kind} put together otherwise; {REMEDY}"
        )
    recipe: dict[str, Any] = {}
    for name, value in settings.items():
        try:
            recipe[name] = json.loads(json.dumps(value, default=_plain))
        except TypeError:
            got = getattr(value, "__name__", type(value).__name__)
            raise ValueError(
                f"detector: expected one built from plain values, got one with {got} as {name}; "
                f"{REMEDY}"
            ) from None
    return recipe


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError("no plain value")
