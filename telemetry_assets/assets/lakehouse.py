"""The multi-asset of all tables, derived from the registry.

A run of chosen event dates yields one result per table, as Dagster's backfills require. A run without a partition, such
as a run of the job ``ingest``, reads from the tables which event dates have changed. Dagster does not accept a result
without a partition for a partitioned asset, so this run logs a materialization for each changed date and an evaluation
of each check. All tables are refreshed in one step, because Dagster fails a step without a partition if another
step materializes its partitioned upstream.
"""

from collections.abc import Callable, Iterator
from datetime import date

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    Config,
    DailyPartitionsDefinition,
    Failure,
    FreshnessPolicy,
    MaterializeResult,
    multi_asset,
)

from telemetry_assets.assets.checks import as_dagster_failure, check_specs, check_table, require_passed
from telemetry_assets.assets.metadata import POOL, asset_key, code_version, table_metadata
from telemetry_assets.assets.partitions import event_date_partitions, to_event_dates
from telemetry_assets.assets.reports import (
    TableReport,
    ingest_reports,
    log_maintenance,
    log_report,
    refresh_report,
    to_materialize_result,
)
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.engines.result import RefreshResult
from telemetry_assets.pipeline import BetweenPieces, Pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE, DerivedTable, TableContract, derived_tables
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_lines

OWNER = "team:vehicle-data"
BEHIND_ONLY = "telemetry/behind_only"
"""The tag of runs that refresh what is behind, even if they have a partition."""

_UPDATED_BY = "The job `ingest`, which the sensor `uploads` starts, keeps it up to date."
_BRONZE_MATERIALIZATION = "Materializing ingests all waiting uploads, including those with other event dates."


class LakehouseConfig(Config):
    """The config of the step.

    ``insurance_as_of`` (YYYY-MM-DD) is the date for which the insurance status is computed. If empty, it is
    today in UTC.
    """

    insurance_as_of: str = ""


def lakehouse_assets(settings: Settings) -> AssetsDefinition:
    """The assets of ``bronze/car_telemetry`` and of all derived tables, partitioned by event date."""
    tables = asset_tables()
    partitions = event_date_partitions(settings)
    specs = [_spec(table, settings, partitions) for table in tables]
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
    ) -> Iterator[MaterializeResult | AssetCheckResult]:  # type: ignore[type-arg]  # Dagster requires this annotation
        as_of, chosen = _as_of(config), _chosen_dates(context)
        failures: dict[TableContract, Exception] = {}
        for table in tables:
            if asset_key(table) not in context.selected_asset_keys:
                yield from _selected_checks(context, telemetry, table)
            elif isinstance(table, DerivedTable) and table.upstream in failures:
                failures[table] = failures[table.upstream]
                context.log.error(f"{table.full_name} is not refreshed, because {table.upstream.full_name} failed.")
            else:
                try:
                    yield from _materialize(context, telemetry, table, chosen, as_of)
                except Exception as error:
                    # The other tables do not depend on this one. Dagster shows the error that the step ends with.
                    failures[table] = error
                    context.log.error(f"{table.full_name} failed: {plain_lines(str(error))}")
        if chosen is None:
            _maintain(context, telemetry)
        if failures:
            raise next(iter(failures.values()))

    return lakehouse


def _maintain(context: AssetExecutionContext, telemetry: TelemetryResource) -> None:
    """Do the maintenance that is due."""
    for report in telemetry.pipeline.maintain_after_run():
        context.log.info(str(report))
        if report.contract in asset_tables():
            log_maintenance(context, report)


def _chosen_dates(context: AssetExecutionContext) -> frozenset[date] | None:
    """The event dates to rebuild; None if the run refreshes what is behind."""
    if BEHIND_ONLY in context.run.tags or not (context.has_partition_key or context.has_partition_key_range):
        return None
    return to_event_dates(context.partition_keys)


def _materialize(
    context: AssetExecutionContext,
    telemetry: TelemetryResource,
    table: TableContract,
    chosen: frozenset[date] | None,
    as_of: date | None,
) -> Iterator[MaterializeResult]:  # type: ignore[type-arg]
    for report in _reports(context, telemetry, table, chosen, as_of):
        if chosen is None:
            log_report(context, report)
        else:
            yield to_materialize_result(context, report, chosen)
        require_passed(report.checks)


def asset_tables() -> tuple[TableContract, ...]:
    """The tables that are assets, each after its upstream."""
    return (BRONZE, *derived_tables())


def _spec(table: TableContract, settings: Settings, partitions: DailyPartitionsDefinition) -> AssetSpec:
    derived = table if isinstance(table, DerivedTable) else None
    materialization = derived.rebuild_description if derived else _BRONZE_MATERIALIZATION
    fresh_within = derived.fresh_within if derived else None
    return AssetSpec(
        key=asset_key(table),
        deps=[asset_key(derived.upstream)] if derived else [],
        description=f"{table.description} {_UPDATED_BY} {materialization}",
        group_name=table.layer,
        kinds={"iceberg", "spark" if derived else "json"},
        owners=[OWNER],
        metadata=table_metadata(table, settings.alert_rules),
        code_version=code_version(table, settings.alert_rules),
        partitions_def=partitions,
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
    """Ingest uploads or refresh a derived table, and report the result."""
    pipeline = telemetry.pipeline
    if not isinstance(table, DerivedTable):
        yield from ingest_reports(context, pipeline, chosen)
        return
    with as_dagster_failure(context):
        between = _between_pieces(context, pipeline, as_of)
        result = pipeline.refresh(table, context.run.run_id, chosen, as_of, between_steps=between)
    yield refresh_report(context, pipeline, result, chosen)


def _between_pieces(
    context: AssetExecutionContext, pipeline: Pipeline, as_of: date | None
) -> Callable[[RefreshResult], None]:
    """What the step does between two pieces of a rebuild. It holds the pool, so no other run can ingest uploads."""

    def ingest() -> None:
        for report in ingest_reports(context, pipeline, None):
            log_report(context, report)

    def update(table: DerivedTable) -> None:
        result = pipeline.update(table, context.run.run_id, as_of)
        if result is not None:
            log_report(context, refresh_report(context, pipeline, result, None))

    between = BetweenPieces(pipeline, ingest, update)

    def after_piece(step: RefreshResult) -> None:
        context.log.info(f"{step.contract.full_name}: {counted(len(step.left), 'partition')} left to rebuild")
        try:
            between(step)
        except Exception as error:
            # The rebuild does not depend on it. It is tried again after the next piece, or by the job `ingest`.
            context.log.error(f"uploads could not be processed between two pieces: {plain_lines(str(error))}")

    return after_piece


def _selected_checks(
    context: AssetExecutionContext, telemetry: TelemetryResource, table: TableContract
) -> Iterator[AssetCheckResult]:
    """Evaluate checks that are executed without their asset, except for the checks that concern a run's batches."""
    selected = {key.name for key in context.selected_asset_check_keys if key.asset_key == asset_key(table)}
    lakehouse = telemetry.pipeline.lakehouse
    if selected and lakehouse.existing(table) is not None:
        yield from (one for one in check_table(lakehouse, table) if one.check_name in selected)


def _as_of(config: LakehouseConfig) -> date | None:
    try:
        return date.fromisoformat(config.insurance_as_of) if config.insurance_as_of else None
    except ValueError:
        raise Failure("insurance_as_of is not a date. Use YYYY-MM-DD, or leave it empty for today.") from None
