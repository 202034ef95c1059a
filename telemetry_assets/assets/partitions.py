"""The partitions of all assets: event dates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from dagster import DailyPartitionsDefinition

from telemetry_assets.settings import Settings


def event_date_partitions(settings: Settings) -> DailyPartitionsDefinition:
    """Every event date from the setting's first to today; tables take dates outside of it all the same."""
    return DailyPartitionsDefinition(start_date=settings.first_event_date.isoformat(), end_offset=1)


def event_dates_of(partition_keys: Iterable[str]) -> frozenset[date]:
    """The event dates of partition keys."""
    return frozenset(date.fromisoformat(key) for key in partition_keys)
