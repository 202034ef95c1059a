"""Output of commands: text without control characters, and errors without tracebacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import click

from telemetry_assets.errors import TelemetryAssetsError
from telemetry_assets.text.plain import plain_lines, plain_text

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")

LISTED = 20
"""How many lines of a list are printed."""


def say(text: str, *, err: bool = False) -> None:
    """Print one or more lines, without characters that control a terminal. Commands print with this function only.

    Quote documents and names of uploads with :func:`telemetry_assets.text.plain.plain_text`: otherwise a line feed in
    them starts a new line of output.

    :param err: whether to print to standard error, for progress, instead of standard output, for results.
    """
    click.echo(plain_lines(text), err=err)  # noqa: TID251  # the one place


def say_first(lines: Sequence[str]) -> None:
    """Print the first 20 lines of a list, and the number of the others."""
    for line in lines[:LISTED]:
        say(line)
    if len(lines) > LISTED:
        say(f"  and {len(lines) - LISTED} more")


def print_errors(command: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """Decorate a command so that expected errors print what to do, with exit code 1, instead of a traceback."""

    @wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Answer:
        try:
            return command(*arguments, **options)
        except TelemetryAssetsError as error:
            raise click.ClickException(plain_lines(str(error))) from error
        except KeyboardInterrupt as error:
            raise click.ClickException("Stopped. The next run continues from here.") from error
        except BrokenPipeError:
            # The reader of the output has closed it, as `head` does. Click ends the process without a message.
            raise
        except OSError as error:
            text = f"{plain_text(error)}. `telemetry-assets doctor` checks the settings, locations and tables."
            raise click.ClickException(text) from error

    return run
