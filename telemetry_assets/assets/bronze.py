"""The Bronze asset: uploads, ingested."""

from collections.abc import Iterable
from datetime import date

from dagster import AssetExecutionContext, AssetsDefinition, BackfillPolicy, MaterializeResult, asset

from telemetry_assets.assets.checks import check_ingest, check_specs
from telemetry_assets.assets.metadata import Metadata, asset_key, ingest_metadata, preview, table_metadata
from telemetry_assets.assets.partitions import event_date_partitions, event_dates_of
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.ingestion.certificates import Certificate
from telemetry_assets.lakehouse.contracts import BRONZE
from telemetry_assets.lakehouse.quality import partition_sample
from telemetry_assets.pipeline import Pipeline
from telemetry_assets.settings import Settings

OWNER = "team:vehicle-data"


def bronze_asset(settings: Settings) -> AssetsDefinition:
    """``bronze/car_telemetry``. Materializing it takes in what waits and reports the chosen event dates."""

    @asset(
        key=asset_key(BRONZE),
        description=f"{BRONZE.description} Materializing takes in every upload that waits, whatever its event dates.",
        group_name=BRONZE.layer,
        kinds={"iceberg", "json"},
        owners=[OWNER],
        metadata=table_metadata(BRONZE),
        partitions_def=event_date_partitions(settings),
        backfill_policy=BackfillPolicy.single_run(),
        pool=BRONZE.full_name.replace(".", "_"),
        check_specs=check_specs(BRONZE),
    )
    def car_telemetry(context: AssetExecutionContext, telemetry: TelemetryResource) -> MaterializeResult:  # type: ignore[type-arg]  # Dagster reads it, and takes no other
        pipeline = telemetry.pipeline
        certificates = pipeline.ingest(context.run.run_id)
        days = event_dates_of(list(context.partition_keys))
        for day, metadata in date_metadata(pipeline, certificates, days).items():
            context.add_asset_metadata(metadata, asset_key=asset_key(BRONZE), partition_key=day.isoformat())
        return MaterializeResult(check_results=list(check_ingest(pipeline.lakehouse, certificates)))

    return car_telemetry


def date_metadata(pipeline: Pipeline, certificates: list[Certificate], days: Iterable[date]) -> dict[date, Metadata]:
    """The metadata of each event date after some batches."""
    table = pipeline.lakehouse.table(BRONZE)
    columns = ("event_id", "car_chassis", "event_primary_timestamp", "document_shape", "source_uri")
    samples = partition_sample(table, BRONZE, frozenset(days), columns)
    return {
        day: ingest_metadata(certificates, day, rows, {"preview": preview(sample)})
        for day, (rows, sample) in sorted(samples.items())
    }
