"""What the Silver and Gold assets have in common: materializing makes the chosen event dates anew."""

from datetime import timedelta

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    BackfillPolicy,
    FreshnessPolicy,
    MaterializeResult,
    asset,
)

from telemetry_assets.assets.bronze import OWNER
from telemetry_assets.assets.checks import as_dagster_failure, check_refresh, check_specs
from telemetry_assets.assets.metadata import asset_key, pool, refresh_metadata, table_metadata
from telemetry_assets.assets.partitions import event_date_partitions, event_dates_of
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.settings import Settings
from telemetry_assets.tables.derived import DerivedTable


def derived_asset(
    contract: DerivedTable, settings: Settings, description: str, fresh_within: timedelta | None = None
) -> AssetsDefinition:
    """The asset of a table that a step makes from its upstream.

    :param description: what a materialization of some event dates does to the table.
    :param fresh_within: how old the newest materialization may be before Dagster shows the table as stale.
    """

    @asset(
        key=asset_key(contract),
        deps=[asset_key(contract.upstream)],
        description=f"{contract.description} The job `ingest`, which the sensor `uploads` starts, keeps it up to date. "
        f"{description}",
        group_name=contract.layer,
        kinds={"iceberg", "spark"},
        owners=[OWNER],
        metadata=table_metadata(contract),
        partitions_def=event_date_partitions(settings),
        backfill_policy=BackfillPolicy.single_run(),
        freshness_policy=FreshnessPolicy.time_window(fail_window=fresh_within) if fresh_within else None,
        pool=pool(contract),
        check_specs=check_specs(contract),
    )
    def table(context: AssetExecutionContext, telemetry: TelemetryResource) -> MaterializeResult:  # type: ignore[type-arg]  # Dagster reads it, and takes no other
        pipeline = telemetry.pipeline
        days = event_dates_of(context.partition_keys)
        with as_dagster_failure(context):
            result = pipeline.refresh(contract, context.run.run_id, days)
        for day in days:
            context.add_asset_metadata(
                refresh_metadata(result, day), asset_key=asset_key(contract), partition_key=day.isoformat()
            )
        return MaterializeResult(check_results=list(check_refresh(pipeline.lakehouse, result)))

    return table
