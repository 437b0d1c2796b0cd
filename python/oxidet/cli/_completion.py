"""``--install-completion`` and ``--show-completion``, for the shell in use or for one by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from oxidet.cli._usage import UsageError

SHELLS = ("bash", "zsh", "fish")
INSTALL, SHOW = "--install-completion", "--show-completion"
COMPLETION = "_OXIDET_COMPLETE"  # the variable by which a shell asks for what may come next


def complete(args: Sequence[str]) -> int | None:
    """Do what the arguments ask for if they begin with one of the two options, else nothing."""
    if COMPLETION in os.environ:
        from typer.completion import completion_init  # pyright: ignore[reportPrivateImportUsage]

        completion_init()  # typer answers the shell, once it knows all of them
        return None
    if not args or args[0] not in (INSTALL, SHOW):
        return None
    option, *rest = args
    if len(rest) > 1:
        raise UsageError(f"{option}: expected one shell, got {' '.join(rest)}")
    shell = rest[0] if rest else current_shell()
    if shell not in SHELLS:
        known = f"{', '.join(SHELLS[:-1])} or {SHELLS[-1]}"
        where = "" if rest else f" (oxidet {option} bash)"
        raise UsageError(f"{option}: expected {known}, got {shell or 'an unknown shell'}{where}")
    from typer.completion import (
        get_completion_script,  # pyright: ignore[reportPrivateImportUsage]
        install,  # pyright: ignore[reportPrivateImportUsage]
    )

    if option == SHOW:
        print(get_completion_script(prog_name="oxidet", complete_var=COMPLETION, shell=shell))
    else:
        _, path = install(shell=shell, prog_name="oxidet", complete_var=COMPLETION)
        print(f"{shell}: completion is in {path}, and works in every shell that is opened from now")
    return 0


def current_shell() -> str:
    """The name of the shell that runs this, or of the user's own."""
    try:
        shellingham = importlib.import_module("shellingham")  # typer's, but for its slim edition
        return str(shellingham.detect_shell()[0])
    except (ImportError, OSError):  # the latter where no process above this one is a shell
        return os.path.basename(os.environ.get("SHELL", ""))
