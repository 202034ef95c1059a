"""The assets: one multi-asset of all tables, from the registry.

A run of chosen event dates yields one result per table, as Dagster's backfills expect. A run without a partition (the
job ``ingest``) finds out itself which dates change. It logs a materialization for each of them and an evaluation for
each check, because Dagster has no result without a partition for a partitioned asset. All tables are in one step: a run
without a partition fails in a step whose upstream was materialized by another step.
"""

from collections.abc import Iterator
from datetime import date

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    Config,
    Failure,
    FreshnessPolicy,
    MaterializeResult,
    multi_asset,
)

from telemetry_assets.assets.checks import as_dagster_failure, check_specs, require_passed
from telemetry_assets.assets.metadata import POOL, asset_key, table_metadata
from telemetry_assets.assets.partitions import event_date_partitions, event_dates_of
from telemetry_assets.assets.reports import TableReport, ingest_reports, log_report, refresh_report, result_of
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE, DerivedTable, TableContract, derived_tables

OWNER = "team:vehicle-data"
_KEPT_UP_TO_DATE = "The job `ingest`, which the sensor `uploads` starts, keeps it up to date."
_BRONZE_BY_HAND = "Materializing takes in every upload that waits, whatever its event dates."


class LakehouseConfig(Config):
    """``insurance_as_of`` (YYYY-MM-DD): the date for which the insurance status is computed; if empty, today in UTC."""

    insurance_as_of: str = ""


def lakehouse_assets(settings: Settings) -> AssetsDefinition:
    """``bronze/car_telemetry`` and every derived table, partitioned by event date."""
    tables = asset_tables()
    specs = [_spec(table, settings) for table in tables]
    checks = [check for table in tables for check in check_specs(table)]

    @multi_asset(
        name="lakehouse",
        specs=specs,
        check_specs=checks,
        can_subset=True,
        backfill_policy=BackfillPolicy.single_run(),
        pool=POOL,
    )
    def lakehouse(
        context: AssetExecutionContext, telemetry: TelemetryResource, config: LakehouseConfig
    ) -> Iterator[MaterializeResult]:  # type: ignore[type-arg]  # Dagster reads it, and takes no other
        chosen = event_dates_of(context.partition_keys) if context.has_partition_key_range else None
        for table in tables:
            if asset_key(table) not in context.selected_asset_keys:
                continue
            for report in _reports(context, telemetry, table, chosen, _as_of(config)):
                if chosen is None:
                    log_report(context, report)
                else:
                    yield result_of(context, report, chosen)
                require_passed(report.checks)

    return lakehouse


def asset_tables() -> tuple[TableContract, ...]:
    """The tables that are assets, each after its upstream."""
    return (BRONZE, *derived_tables())


def _spec(table: TableContract, settings: Settings) -> AssetSpec:
    derived = table if isinstance(table, DerivedTable) else None
    by_hand = derived.rebuild_description if derived else _BRONZE_BY_HAND
    fresh_within = derived.fresh_within if derived else None
    return AssetSpec(
        key=asset_key(table),
        deps=[asset_key(derived.upstream)] if derived else [],
        description=f"{table.description} {_KEPT_UP_TO_DATE} {by_hand}",
        group_name=table.layer,
        kinds={"iceberg", "spark" if derived else "json"},
        owners=[OWNER],
        metadata=table_metadata(table),
        partitions_def=event_date_partitions(settings),
        freshness_policy=FreshnessPolicy.time_window(fail_window=fresh_within) if fresh_within else None,
        skippable=True,
    )


def _reports(
    context: AssetExecutionContext,
    telemetry: TelemetryResource,
    table: TableContract,
    chosen: frozenset[date] | None,
    as_of: date | None,
) -> Iterator[TableReport]:
    """Bring a table up to date, or rebuild the chosen dates, and report it."""
    pipeline = telemetry.pipeline
    if not isinstance(table, DerivedTable):
        yield from ingest_reports(context, pipeline, chosen)
        return
    with as_dagster_failure(context):
        result = pipeline.refresh(table, context.run.run_id, chosen, as_of)
    yield refresh_report(context, pipeline, result, chosen)


def _as_of(config: LakehouseConfig) -> date | None:
    try:
        return date.fromisoformat(config.insurance_as_of) if config.insurance_as_of else None
    except ValueError:
        raise Failure("insurance_as_of is not a date; write it as YYYY-MM-DD, or leave it empty for today.") from None
