"""Manual changes of tables, and the backfills that they require because the tables do not show the change."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from random import Random

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, EqualTo

from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.tables import ALERTS, BRONZE, SILVER, table_named
from telemetry_assets_tests.chaos.steps import Backfill, HandMade

BY_HAND = "by-hand"


def change_by_hand(lakehouse: Lakehouse, step: HandMade) -> tuple[str, Backfill | None]:
    """Change a table; return a description and the backfill that must follow later."""
    table, _, what = step.what.partition(" ")
    random = Random(step.seed)
    if table == "a":
        return _append_to_bronze(lakehouse, random), None
    if "rolled back" in what:
        return _roll_back(lakehouse, table), None
    if "dropped" in what:
        if lakehouse.existing(table_named(table)) is None:
            return "there is no such table", None
        lakehouse.catalog.drop_table(table)
        return "dropped", None
    return _BROKEN[step.what](lakehouse, random)


def _append_to_bronze(lakehouse: Lakehouse, random: Random) -> str:
    table = lakehouse.existing(BRONZE)
    rows = table.scan().to_arrow().to_pylist() if table is not None else []
    if table is None or not rows:
        return "Bronze holds no row"
    row = random.choice(sorted(rows, key=lambda one: [str(one[name]) for name in BRONZE.key]))
    document = json.loads(row["payload"])
    # The time fields of both shapes, so that the document's shape does not matter.
    document["metrics"] = {"engineTempCelsius": random.randrange(90, 120)}
    moment = random.choice((row["ingested_at"], datetime.now(UTC)))
    number = f"{BY_HAND}-{len(rows)}"
    new = {**row, "payload": json.dumps(document), "source_uri": number, "ingested_at": moment, "batch_id": number}
    table.append(pa.Table.from_pylist([new], schema=BRONZE.arrow_schema))
    return f"a row for {row['event_id']} of {row['event_date']} ingested at {moment}"


def _roll_back(lakehouse: Lakehouse, name: str) -> str:
    table = lakehouse.existing(table_named(name))
    snapshot = table.current_snapshot() if table is not None else None
    if table is None or snapshot is None or snapshot.parent_snapshot_id is None:
        return "there is nothing to roll back to"
    table.manage_snapshots().rollback_to_snapshot(snapshot.parent_snapshot_id).commit()
    return f"to {snapshot.parent_snapshot_id}"


def _lose_a_date(lakehouse: Lakehouse, random: Random) -> tuple[str, Backfill | None]:
    table = lakehouse.existing(SILVER)
    days = _days(lakehouse)
    if table is None or not days:
        return "Silver holds no row", None
    day = random.choice(days)
    table.delete(EqualTo(term="event_date", value=day))
    return f"Silver loses {day}", Backfill(SILVER.full_name, (day,))


def _change_a_row(lakehouse: Lakehouse, random: Random) -> tuple[str, Backfill | None]:
    table = lakehouse.existing(SILVER)
    days = _days(lakehouse)
    if table is None or not days:
        return "Silver holds no row", None
    day = random.choice(days)
    of_day = EqualTo(term="event_date", value=day)
    rows = SILVER.conform(table.scan(of_day).to_arrow()).to_pylist()
    changed = [{**row, "current_mileage_km": 123_456.0, "model": "changed by hand"} for row in rows]
    table.overwrite(pa.Table.from_pylist(changed, schema=SILVER.arrow_schema), of_day)
    return f"Silver's rows of {day} get another model", Backfill(SILVER.full_name, (day,))


def _lose_alerts(lakehouse: Lakehouse, _random: Random) -> tuple[str, Backfill | None]:
    table = lakehouse.existing(ALERTS)
    if table is None:
        return "there is no such table", None
    days = sorted(set(table.scan(selected_fields=("alert_date",)).to_arrow()["alert_date"].to_pylist()))
    if not days:
        return "there are no alerts", None
    table.delete(AlwaysTrue())
    return "all alerts are deleted", Backfill(ALERTS.full_name, tuple(days))


def _days(lakehouse: Lakehouse) -> list[date]:
    table = lakehouse.existing(SILVER)
    if table is None:
        return []
    return sorted(set(table.scan(selected_fields=("event_date",)).to_arrow()["event_date"].to_pylist()))


_BROKEN: dict[str, Callable[[Lakehouse, Random], tuple[str, Backfill | None]]] = {
    "silver.car_telemetry loses a date, and is rebuilt at the end": _lose_a_date,
    "silver.car_telemetry is changed, and is rebuilt at the end": _change_a_row,
    "gold.performance_alerts loses its rows, and is rebuilt at the end": _lose_alerts,
}
