"""The commands put together, and what becomes of the exceptions they raise."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

import oxidet
from oxidet.cli import INTERRUPTED, _output
from oxidet.cli.check_data import check
from oxidet.cli.convert import convert
from oxidet.cli.demo import demo
from oxidet.cli.detect import detect
from oxidet.cli.evaluate import evaluate
from oxidet.cli.info import info
from oxidet.cli.train import train

# typer re-exports neither of its bases, and has moved them between packages: ClickException is
# what every refusal of an argument derives from.
_ClickException: Any = typer.BadParameter.__mro__[2]

COMPLETION = "_OXIDET_COMPLETE"  # by which a shell asks for what may come next
USAGE = 2  # exit code of a command line that is not understood

app = typer.Typer(
    name="oxidet",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("detect")(detect)
app.command("train")(train)
app.command("eval")(evaluate)
app.command("check-data")(check)
app.command("demo")(demo)
app.command("convert")(convert)
app.command("info")(info)


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
) -> None:
    """Find objects in pictures with Faster R-CNN on the CPU, and train and evaluate detectors."""


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    args, debug = _take_debug(args)
    _output.never_fail()
    if not args and COMPLETION not in os.environ:
        run(["--help"])
        return USAGE
    with warnings.catch_warnings():
        if not debug:
            warnings.showwarning = _show_warning
        try:
            code = app(args=args, prog_name="oxidet", standalone_mode=False)
            sys.stdout.flush()
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except BrokenPipeError:
            # Whoever read the output has left; Python must not try to write the rest at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if debug:
                raise
            _output.error(_describe(error))
            return int(getattr(error, "exit_code", 1))
    if code == INTERRUPTED:
        _output.error("interrupted")
    return int(code or 0)


def _take_debug(args: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, which may stand anywhere before a ``--``."""
    args = list(args)
    end = args.index("--") if "--" in args else len(args)
    options = [arg for arg in args[:end] if arg != "--debug"]
    return options + args[end:], len(options) < end


def _describe(error: Exception) -> str:
    """What went wrong, for a person."""
    if isinstance(error, _ClickException):
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        return f"{error.format_message().rstrip('.')}{hint}"
    return _output.describe(error)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _output.warning(str(message))
