"""When anything was last changed that a plan may depend on: one number for the whole process.

Every write to a parameter or buffer, and every assignment to a module, ends by putting a number
here that was never used before. A plan that was checked when the number was the same is still
right, so the usual check of a plan is one comparison. Only if the number differs are the versions
of everything the plan was made of compared.

The order is what makes this safe between threads: a writer changes the data, then its version, then
the number; a reader takes the number first and the versions after it.
"""

from __future__ import annotations

import itertools

_numbers = itertools.count(1)

#: The number of the latest change. Read it as an attribute of this module.
latest = 0


def next_number() -> int:
    """A number that no change and no version had before."""
    return next(_numbers)


def announce() -> None:
    """Tell all plans that something was changed."""
    global latest
    # Not `latest + 1`: two threads could then use a number twice.
    latest = next(_numbers)
