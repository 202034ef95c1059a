"""The partitions of all assets, which are event dates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from dagster import DailyPartitionsDefinition

from telemetry_assets.lakehouse.catalog import has_lakehouse, open_lakehouse
from telemetry_assets.lakehouse.data_files import earliest_partition
from telemetry_assets.pipeline import translate_errors
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_DAYS_OF_A_NEW_LAKEHOUSE = 30
_MOST_DAYS = 3 * 366


def event_date_partitions(settings: Settings) -> DailyPartitionsDefinition:
    """One partition for each event date from the first one to today. Tables accept other dates too.

    The first one is that of the settings. If it is not set, it is the earliest event date in Bronze, but at most three
    years ago, because devices with a wrong clock send events of 2000. If Bronze is empty, it is 30 days ago.
    """
    today = datetime.now(UTC).date()
    first = settings.first_event_date or _earliest_in_bronze(settings, today)
    return DailyPartitionsDefinition(start_date=min(first, today).isoformat(), end_offset=1)


def _earliest_in_bronze(settings: Settings, today: date) -> date:
    least = today - timedelta(_MOST_DAYS)
    try:
        with translate_errors(settings):
            bronze = open_lakehouse(settings).existing(BRONZE) if has_lakehouse(settings) else None
            earliest = earliest_partition(bronze) if bronze else None
    except Exception as error:
        # Dagster's definitions must load, so that the UI can show why runs fail. Runs of all dates must be possible.
        logger.warning("the first event date cannot be read from the tables: %s", error)
        return least
    return max(earliest, least) if earliest else today - timedelta(_DAYS_OF_A_NEW_LAKEHOUSE)


def to_event_dates(partition_keys: Iterable[str]) -> frozenset[date]:
    """Convert partition keys to event dates."""
    return frozenset(date.fromisoformat(key) for key in partition_keys)
