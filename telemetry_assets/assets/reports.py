"""What a run records about a table: metadata of each event date, check results, and log lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from dagster import (
    AssetCheckKey,
    AssetCheckResult,
    AssetExecutionContext,
    AssetMaterialization,
    AssetObservation,
    DagsterEventType,
    DailyPartitionsDefinition,
    DataVersion,
    MaterializeResult,
    OpExecutionContext,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from telemetry_assets.assets.checks import as_dagster_failure, check_ingest, check_refreshed, evaluation
from telemetry_assets.assets.metadata import (
    Metadata,
    asset_key,
    batch_report_metadata,
    ingest_metadata,
    maintenance_metadata,
    preview,
    refresh_metadata,
)
from telemetry_assets.assets.partitions import to_event_dates
from telemetry_assets.engines.result import RefreshResult
from telemetry_assets.errors import UnclaimableUploadsError
from telemetry_assets.ingestion.parsing.arrow_rows import OTHERS
from telemetry_assets.ingestion.reconciliation import BatchReport
from telemetry_assets.lakehouse.maintenance import MaintenanceReport
from telemetry_assets.lakehouse.previews import partition_sample
from telemetry_assets.pipeline import Pipeline
from telemetry_assets.tables import BRONZE, DerivedTable, TableContract
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_lines

_BRONZE_PREVIEW = ("event_id", "car_chassis", "event_primary_timestamp", "document_shape", "source_uri")


@dataclass(frozen=True)
class TableReport:
    """The result of one table in a run.

    :param metadata: metadata of each event date that was chosen or has changed.
    :param checks: results of the table's checks; empty if the table was already up to date.
    """

    table: TableContract
    metadata: Mapping[date, Metadata]
    checks: Sequence[AssetCheckResult]


def log_report(context: AssetExecutionContext, report: TableReport) -> None:
    """Log the result of a table in a run without a partition: materializations and check evaluations."""
    _log_materializations(context, report.table, report.metadata)
    for result in report.checks:
        context.log_event(evaluation(result))


def to_materialize_result(
    context: AssetExecutionContext, report: TableReport, chosen: frozenset[date]
) -> MaterializeResult:  # type: ignore[type-arg]
    """Convert the result of a table in a run of chosen event dates. Other event dates that changed are logged."""
    key = asset_key(report.table)
    for day in report.metadata.keys() & chosen:
        context.add_asset_metadata(report.metadata[day], asset_key=key, partition_key=day.isoformat())
    _log_materializations(
        context, report.table, {day: one for day, one in report.metadata.items() if day not in chosen}
    )
    selected = [one for one in report.checks if _is_selected(context, report.table, one)]
    code_version = context.assets_def.code_versions_by_key[key] or ""
    return MaterializeResult(asset_key=key, check_results=selected, data_version=DataVersion(code_version))


def _is_selected(context: AssetExecutionContext, table: TableContract, result: AssetCheckResult) -> bool:
    return AssetCheckKey(asset_key(table), str(result.check_name)) in context.selected_asset_check_keys


def ingest_reports(
    context: AssetExecutionContext, pipeline: Pipeline, chosen: frozenset[date] | None
) -> Iterator[TableReport]:
    """Ingest all waiting uploads, and report the batches.

    If ingestion fails, the batches that were committed before are logged, and the exception is raised.
    """
    committed: list[BatchReport] = []

    def add(one: BatchReport) -> None:
        committed.append(one)
        context.log.info(
            f"batch {one.batch_id}: {counted(one.uploads, 'upload')}, {counted(one.documents, 'document')} = "
            f"{one.accepted} accepted + {one.rejected} rejected"
        )

    try:
        with as_dagster_failure(context):
            _ingest(context, pipeline, add, chosen)
    except BaseException:
        # No later run reports these batches. This also applies if the run is cancelled.
        log_report(context, _ingest_report(context, pipeline, committed, None))
        raise
    yield _ingest_report(context, pipeline, committed, chosen)


def refresh_report(
    context: AssetExecutionContext, pipeline: Pipeline, result: RefreshResult, chosen: frozenset[date] | None
) -> TableReport:
    """Report the result of a refresh of a derived table."""
    table = result.contract
    rows = f"{counted(result.rows_written, 'row')} written" if result.changed else "no row changed"
    context.log.info(
        f"{table.full_name}: {counted(len(result.event_dates), 'event date')}, {rows}, {result.seconds:.2f} s"
    )
    if result.rebuild_reason:
        context.log.info(f"{table.full_name} was rebuilt, because {result.rebuild_reason}.")
    days = frozenset(result.event_dates) if chosen is None else chosen
    if result.rebuild_reason:
        days |= frozenset(result.event_dates)
    if not days and table.as_of is not None:
        # The daily refresh changes rows without new events, so the materialization is recorded for today.
        days = frozenset({datetime.now(UTC).date()})
    has_changed = bool(result.event_dates) or result.changed or chosen is not None
    checks = tuple(check_refreshed(pipeline.lakehouse, result)) if has_changed else ()
    return TableReport(table, {day: refresh_metadata(result, day) for day in sorted(days)}, checks)


def log_maintenance(context: OpExecutionContext | AssetExecutionContext, report: MaintenanceReport) -> None:
    """Log an observation of a table after its maintenance."""
    context.log_event(AssetObservation(asset_key(report.contract), metadata=maintenance_metadata(report)))


def _ingest(
    context: AssetExecutionContext,
    pipeline: Pipeline,
    add: Callable[[BatchReport], None],
    chosen: frozenset[date] | None,
) -> None:
    try:
        pipeline.ingest(context.run.run_id, add)
    except UnclaimableUploadsError as error:
        behind = {asset_key(table) for table in pipeline.tables_behind()}
        if chosen is not None or not behind or not behind <= context.selected_asset_keys:
            raise
        # This run refreshes the tables that are behind. The next run has nothing to refresh and raises this error.
        context.log.error(plain_lines(str(error)))


def _ingest_report(
    context: AssetExecutionContext,
    pipeline: Pipeline,
    batch_reports: Sequence[BatchReport],
    chosen: frozenset[date] | None,
) -> TableReport:
    if batch_reports:
        # Field names and batch ids are stored once per run, not once per event date.
        context.log_event(AssetObservation(asset_key(BRONZE), metadata=batch_report_metadata(batch_reports)))
    elif chosen is None:
        return TableReport(BRONZE, {}, ())
    days = _event_dates_of(batch_reports) | (chosen or frozenset())
    checks = tuple(check_ingest(pipeline.lakehouse, batch_reports))
    return TableReport(BRONZE, _metadata_of_dates(pipeline, batch_reports, days), checks)


def _event_dates_of(batch_reports: Iterable[BatchReport]) -> frozenset[date]:
    return to_event_dates({day for one in batch_reports for day in one.event_dates if day != OTHERS})


def _metadata_of_dates(
    pipeline: Pipeline, batch_reports: Sequence[BatchReport], days: frozenset[date]
) -> dict[date, Metadata]:
    table = pipeline.lakehouse.table(BRONZE)
    current = table.current_snapshot()
    snapshot_id = current.snapshot_id if current else None
    return {
        day: ingest_metadata(batch_reports, day, snapshot_id, rows, {"preview": preview(sample)})
        for day, (rows, sample) in sorted(partition_sample(table, BRONZE, days, _BRONZE_PREVIEW).items())
    }


def _log_materializations(
    context: AssetExecutionContext, table: TableContract, metadata: Mapping[date, Metadata]
) -> None:
    tags = _version_tags(context, table, metadata)
    if not isinstance(table, DerivedTable):
        _warn_of_dates_without_partition(context, metadata)
    for day, of_day in metadata.items():
        context.log_event(
            AssetMaterialization(asset_key(table), partition=day.isoformat(), metadata=of_day, tags=tags[day])
        )


def _warn_of_dates_without_partition(context: AssetExecutionContext, days: Iterable[date]) -> None:
    partitions = context.assets_def.partitions_def
    first = partitions.start.date() if isinstance(partitions, DailyPartitionsDefinition) else date.min
    earlier = sorted(day for day in days if day < first)
    if earlier:
        context.log.warning(
            f"{counted(len(earlier), 'event date')} from {earlier[0]} on are in the tables, but Dagster does not show "
            f"them, because its first partition is {first}. Reload the code location. If that does not help, set "
            f"TELEMETRY_FIRST_EVENT_DATE to {earlier[0]} or earlier before."
        )


def _version_tags(
    context: AssetExecutionContext, table: TableContract, metadata: Mapping[date, Metadata]
) -> dict[date, dict[str, str]]:
    """The tags with which Dagster decides whether a partition is outdated. It adds them only to events of its own.

    They name the code version and the materialization of the upstream that was read. The code version is also the
    version of the rows, because which rows have changed is read from the tables: the next run refreshes what is behind.
    """
    version = context.assets_def.code_versions_by_key.get(asset_key(table)) or ""
    versions = {CODE_VERSION_TAG: version, DATA_VERSION_TAG: version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
    tags = {day: dict(versions) for day in metadata}
    if isinstance(table, DerivedTable) and tags:
        upstream = asset_key(table.upstream)
        read = context.instance.event_log_storage.get_latest_storage_id_by_partition(
            upstream, DagsterEventType.ASSET_MATERIALIZATION, {day.isoformat() for day in tags}
        )
        for day, of_day in tags.items():
            pointer = read.get(day.isoformat())
            of_day[get_input_event_pointer_tag(upstream)] = NULL_EVENT_POINTER if pointer is None else str(pointer)
            of_day[get_input_data_version_tag(upstream)] = NULL_EVENT_POINTER if pointer is None else str(pointer)
    return tags
