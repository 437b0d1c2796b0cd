"""``oxidet info``: what a bug report needs, which models there are, what a weight file holds."""

from __future__ import annotations

from typing import Annotated

import typer


def info(
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE|digits",
            help="Describe a weight file, or shipped weights by name, instead.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Describe this installation or a weight file.

    \b
    Examples:
      oxidet info
      oxidet info --weights digits
      oxidet info --weights checkpoint.pth --json
    """
    from oxidet.cli import _output
    from oxidet.cli._description import (
        describe_machine,
        describe_weights,
        print_machine,
        print_weights,
    )

    content = describe_machine() if weights is None else describe_weights(weights)
    if as_json:
        _output.write_json("-", content)
    elif weights is None:
        print_machine(content)
    else:
        print_weights(content)
