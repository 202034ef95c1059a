"""The partitions of all assets, which are event dates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

from dagster import DailyPartitionsDefinition

from telemetry_assets.settings import Settings


def event_date_partitions(settings: Settings) -> DailyPartitionsDefinition:
    """One partition for each event date from the first one in the settings to today. Tables accept other dates too."""
    first = min(settings.first_event_date, datetime.now(UTC).date())
    return DailyPartitionsDefinition(start_date=first.isoformat(), end_offset=1)


def to_event_dates(partition_keys: Iterable[str]) -> frozenset[date]:
    """Convert partition keys to event dates."""
    return frozenset(date.fromisoformat(key) for key in partition_keys)
