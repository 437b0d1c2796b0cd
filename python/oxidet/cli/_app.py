"""The commands put together, and what becomes of the exceptions they raise."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, TextIO

import typer

import oxidet
from oxidet.cli import INTERRUPTED, _completion, _debug
from oxidet.cli._help import COMMANDS, SETTINGS, Commands
from oxidet.cli._usage import UsageError

# typer re-exports neither of its bases, and has moved them between packages: ClickException is
# what every refusal of an argument derives from.
_ClickException: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="oxidet",
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)


def _stand_in() -> None:
    """What ``Commands`` replaces by the command itself."""


for _name, _entry in COMMANDS.items():
    app.command(_name, help=_entry.summary)(_stand_in)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"oxidet {oxidet.__version__}")
        raise typer.Exit()


@app.callback()
def _oxidet(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error; also after the command."),
    ] = False,
    # These two are here for the help, and for completion: ``_completion`` takes them.
    install_completion: Annotated[
        bool,
        typer.Option(
            _completion.INSTALL,
            help="Complete commands, options and networks in this shell from now on, or in the "
            f"named one: {', '.join(_completion.SHELLS)}.",
        ),
    ] = False,
    show_completion: Annotated[
        bool,
        typer.Option(_completion.SHOW, help="Print the script that does so."),
    ] = False,
) -> None:
    """Find objects in pictures with Faster R-CNN on the CPU; train and evaluate detectors."""


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    args, debug = _take_debug(args)
    _debug.wanted = debug
    _never_fail()
    nothing = not args and _completion.COMPLETION not in os.environ
    with warnings.catch_warnings():
        if not debug:
            warnings.showwarning = _show_warning
        try:
            code = _completion.complete(args)
            if code is None:
                code = app(
                    args=args if not nothing else ["--help"],
                    prog_name="oxidet",
                    standalone_mode=False,
                )
            sys.stdout.flush()
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except BrokenPipeError:
            return _left_alone()
        except Exception as error:
            if debug:
                raise
            _error(_describe(error, args))
            return int(getattr(error, "exit_code", 1))
    if code == INTERRUPTED:
        _error("interrupted")
    return UsageError.exit_code if nothing else int(code or 0)


def _never_fail() -> None:
    """Have the standard streams write what their encoding lacks as an escape, not raise; have ones.

    There are none where the shell has closed them (``>&-``).
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _take_debug(args: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, which may stand anywhere before a ``--``."""
    args = list(args)
    end = args.index("--") if "--" in args else len(args)
    options = [arg for arg in args[:end] if arg != "--debug"]
    return options + args[end:], len(options) < end


def _left_alone() -> int:
    """Whoever read the output has left; Python must not try to write the rest at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    return 1


def _error(message: str) -> None:
    from oxidet.cli import _output  # which needs rich

    _output.error(message)


def _describe(error: Exception, args: Sequence[str]) -> str:
    """What went wrong, for a person."""
    from oxidet.cli import _output

    if not isinstance(error, (_ClickException, UsageError)):
        return _output.describe(error)
    command = next((arg for arg in args if arg in COMMANDS), None)
    where = "oxidet" if command is None else f"oxidet {command}"
    words: Any = error  # of click's kind or ours
    text = str(error) if isinstance(error, UsageError) else _expected(words, args)
    text = text or words.format_message()
    return f"{text.rstrip('.')} (see {where} --help)"


def _expected(error: Any, args: Sequence[str]) -> str | None:
    """What a value should have been, in our words, if the refusal tells enough of it."""
    param: Any = getattr(error, "param", None)
    cause: Any = error.__cause__
    kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    if not isinstance(kind, type) or not hasattr(cause, "errors"):
        return None
    if issubclass(kind, Enum):
        what = f"one of {', '.join(each.value for each in kind)}"
    elif kind in (int, float):
        what = "a whole number" if kind is int else "a number"
        low, high = getattr(param, "min", None), getattr(param, "max", None)
        if low is not None:
            what += f" from {low:g}" + (" on" if high is None else f" to {high:g}")
    else:
        return None
    given = [arg.partition("=")[0] for arg in args]
    option = next((name for name in param.opts if name in given), param.opts[0])
    return f"{option}: expected {what}, got {cause.errors()[0].get('input')!r}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    from oxidet.cli import _output

    _output.warning(str(message))
