"""Types of options that several commands have: dates and times."""

from __future__ import annotations

from datetime import UTC, datetime

import click

DATE = click.DateTime(["%Y-%m-%d"])
MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


def as_utc(moment: datetime | None) -> datetime | None:
    """The time of an option with the time zone UTC; None if the option was not given."""
    return moment.replace(tzinfo=UTC) if moment else None
