"""What commands print. Nothing else of this project writes to a terminal, but its loggers."""

from __future__ import annotations

import click

from telemetry_assets.text.plain import plain_lines


def say(text: str, *, err: bool = False) -> None:
    """Print a text of one or more lines, without any character that commands a terminal.

    What it quotes of a document or of an upload's name must be :func:`telemetry_assets.text.plain.plain_text` before,
    or a line feed there begins a line of its own.

    :param err: whether it is progress, which goes to standard error, rather than a result.
    """
    click.echo(plain_lines(text), err=err)  # noqa: TID251  # the one place
