"""``show``: prints rows of a table."""

from __future__ import annotations

from functools import partial

import click

from telemetry_assets.cli.terminal import print_errors, say
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_start, plain_text

_LONG_COLUMNS = {"payload", "alert_id"}
_SHOWN_OF_LONG_COLUMNS = 40
_SHOWN_CHARACTERS = 200


@click.command()
@click.argument("table")
@click.option("--car", help="Only rows with this chassis.")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1), help="Maximum number of rows.")
@click.option("--all-columns", is_flag=True, help="Also print internal columns, and cells in full length.")
@print_errors
def show(table: str, car: str | None, limit: int, all_columns: bool) -> None:
    """Print rows of TABLE, e.g. gold.car_current_state."""
    from telemetry_assets.lakehouse.previews import first_rows
    from telemetry_assets.tables import table_named

    try:
        contract = table_named(table)
    except KeyError as error:
        raise click.BadParameter(str(error.args[0]), param_hint="TABLE") from error
    if car is not None and "car_chassis" not in contract.column_names:
        raise click.BadParameter(f"{contract.full_name} has no column for the car", param_hint="--car")
    with open_pipeline(load_settings()) as pipeline:
        rows, total = first_rows(pipeline.lakehouse, contract, car, limit, internal=all_columns)
    say(f"{contract.full_name}: {counted(total, 'row')}{f' of {car}' if car else ''}")
    if rows.num_rows:
        frame = rows.to_pandas(integer_object_nulls=True).astype(object)
        frame = frame.where(frame.notna(), "")
        for column in frame.columns:
            longest = _SHOWN_OF_LONG_COLUMNS if column in _LONG_COLUMNS else _SHOWN_CHARACTERS
            frame[column] = frame[column].map(partial(_cell, longest=None if all_columns else longest))
        say(frame.to_string(index=False, max_colwidth=None))


def _cell(value: object, *, longest: int | None) -> object:
    if not isinstance(value, str):
        return value
    return plain_text(value) if longest is None else plain_start(value, longest)
