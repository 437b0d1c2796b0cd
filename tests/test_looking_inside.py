"""The examples of docs/looking-inside.md run, and their comments are true."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from conftest import ROOT


def test_examples_of_the_page() -> None:
    page = (ROOT / "docs" / "looking-inside.md").read_text("utf-8")
    names: dict[str, Any] = {"images": np.zeros((2, 3, 64, 96), np.float32)}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "looking-inside.md", "exec"), names)
    assert (names["table"].parameters, names["table"].macs) == (11_689_512, 1_814_073_344)
    assert names["table"]["layer1.0.conv1"].parameters == 36_864
    assert names["field"] == ((99, 99), (8, 8), (0.5, 0.5))
    shapes = {name: value.shape for name, value in names["maps"].items()}
    assert shapes == {"c3": (2, 512, 8, 12), "c4": (2, 1024, 4, 6)}
