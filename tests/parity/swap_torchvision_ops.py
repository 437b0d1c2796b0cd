"""A pytest plugin: oxidet's operators in the place of torchvision's, for the latter's tests."""

from __future__ import annotations

import torchvision.ops

from oxidet import ops

SWAPPED = sorted(set(ops.__all__) & set(torchvision.ops.__all__))

for name in SWAPPED:
    setattr(torchvision.ops, name, getattr(ops, name))


def pytest_report_header() -> str:
    return f"oxidet in place of torchvision: {', '.join(SWAPPED)}"
