"""The Bronze asset: uploads, ingested."""

from collections.abc import Iterable, Sequence
from datetime import date

from dagster import (
    AssetExecutionContext,
    AssetMaterialization,
    AssetsDefinition,
    BackfillPolicy,
    MaterializeResult,
    asset,
)

from telemetry_assets.assets.checks import as_dagster_failure, check_ingest, check_specs
from telemetry_assets.assets.metadata import Metadata, asset_key, ingest_metadata, pool, preview, table_metadata
from telemetry_assets.assets.partitions import event_date_partitions, event_dates_of
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.ingestion.batch_reports import BatchReport
from telemetry_assets.ingestion.parsing.arrow_rows import OTHERS
from telemetry_assets.lakehouse.quality import partition_sample
from telemetry_assets.pipeline import Pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE

OWNER = "team:vehicle-data"


def bronze_asset(settings: Settings) -> AssetsDefinition:
    """``bronze/car_telemetry``. Materializing it takes in what waits and reports the chosen event dates."""

    @asset(
        key=asset_key(BRONZE),
        description=f"{BRONZE.description} The job `ingest`, which the sensor `uploads` starts, keeps it up to date. "
        "Materializing takes in every upload that waits, whatever its event dates.",
        group_name=BRONZE.layer,
        kinds={"iceberg", "json"},
        owners=[OWNER],
        metadata=table_metadata(BRONZE),
        partitions_def=event_date_partitions(settings),
        backfill_policy=BackfillPolicy.single_run(),
        pool=pool(BRONZE),
        check_specs=check_specs(BRONZE),
    )
    def car_telemetry(context: AssetExecutionContext, telemetry: TelemetryResource) -> MaterializeResult:  # type: ignore[type-arg]  # Dagster reads it, and takes no other
        pipeline = telemetry.pipeline
        with as_dagster_failure(context):
            batch_reports = pipeline.ingest(context.run.run_id)
        chosen = event_dates_of(context.partition_keys)
        for day, metadata in date_metadata(pipeline, batch_reports, chosen | event_dates_taken(batch_reports)).items():
            if day in chosen:
                context.add_asset_metadata(metadata, asset_key=asset_key(BRONZE), partition_key=day.isoformat())
            else:
                context.log_event(AssetMaterialization(asset_key(BRONZE), partition=day.isoformat(), metadata=metadata))
        return MaterializeResult(check_results=list(check_ingest(pipeline.lakehouse, batch_reports)))

    return car_telemetry


def event_dates_taken(batch_reports: Iterable[BatchReport]) -> frozenset[date]:
    """The event dates that some batches brought rows of."""
    return event_dates_of({day for one in batch_reports for day in one.event_dates if day != OTHERS})


def date_metadata(
    pipeline: Pipeline, batch_reports: Sequence[BatchReport], days: frozenset[date]
) -> dict[date, Metadata]:
    """The metadata of each event date after some batches."""
    table = pipeline.lakehouse.table(BRONZE)
    columns = ("event_id", "car_chassis", "event_primary_timestamp", "document_shape", "source_uri")
    current = table.current_snapshot()
    snapshot_id = current.snapshot_id if current else None
    return {
        day: ingest_metadata(batch_reports, day, snapshot_id, rows, {"preview": preview(sample)})
        for day, (rows, sample) in sorted(partition_sample(table, BRONZE, days, columns).items())
    }
