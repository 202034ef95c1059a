"""``gold.performance_alerts``: one row per event and rule whose bound it crosses. docs/contract.md, section 4.3."""

from __future__ import annotations

from datetime import timedelta

from telemetry_assets.tables.columns import UPDATED_AT
from telemetry_assets.tables.contract import Column, DerivedTable, DistinctValues, RowsWhere
from telemetry_assets.tables.silver_car_telemetry import SILVER

ALERTS = DerivedTable(
    layer="gold",
    name="performance_alerts",
    description="One row per event and rule whose bound the event crossed.",
    columns=(
        Column("alert_id", "string", "SHA-256 of `<car_chassis>|<event_id>|<alert_type>`, lower-case hex.", True),
        Column("event_id", "string", "The id of the event.", True),
        Column("car_chassis", "string", "The car's chassis number.", True),
        Column("alert_type", "string", "The alert rule, e.g. `OVERHEAT_ENGINE`.", True),
        Column("alert_severity", "string", "`WARNING` or `CRITICAL`.", True),
        Column("alert_value", "double", "The reading, in the unit of its Silver column.", True),
        Column("alert_threshold", "double", "The bound of the severity.", True),
        Column("alert_message", "string", "A sentence with the reading and the bound.", True),
        Column("telemetry_timestamp", "timestamptz", "The time of the event, UTC.", True),
        Column("alert_date", "date", "The UTC date of the event.", True),
        UPDATED_AT,
    ),
    key=("alert_id", "alert_date"),
    partition="alert_date",
    sort_by=("car_chassis", "telemetry_timestamp"),
    affected_by=("car_chassis", "event_id"),
    upstream=SILVER,
    transform="telemetry_assets.transforms.gold_performance_alerts",
    transform_edition=2,
    uses_alert_rules=True,
    key_check="one_row_per_alert",
    rebuild_description="Materializing replaces the alerts of the chosen event dates.",
    figures=(
        RowsWhere("critical_alerts", "alert_severity", "CRITICAL"),
        RowsWhere("warning_alerts", "alert_severity", "WARNING"),
        DistinctValues("alerted_cars", "car_chassis"),
    ),
    fresh_within=timedelta(days=7),
)
