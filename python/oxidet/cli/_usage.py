"""The error of a command line that makes no sense."""

from __future__ import annotations


class UsageError(ValueError):
    """What is wrong with an option or an argument, or with two of them together."""

    exit_code = 2
