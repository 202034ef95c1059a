"""The jobs that run without anybody's click: uploads to Gold, and the daily look at insurances."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import get_args

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetMaterialization,
    Config,
    Failure,
    In,
    JobDefinition,
    Nothing,
    OpDefinition,
    OpExecutionContext,
    job,
    op,
)
from pydantic import Field

from telemetry_assets.assets.bronze import date_metadata, event_dates_taken
from telemetry_assets.assets.checks import as_dagster_failure, check_ingest, check_refresh, evaluation, moment
from telemetry_assets.assets.metadata import asset_key, batch_report_metadata, pool, refresh_metadata
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.engines.base import RefreshResult
from telemetry_assets.errors import UnclaimableUploadsError
from telemetry_assets.ingestion.batch_reports import BatchReport
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets.pipeline import Pipeline
from telemetry_assets.tables import ALERTS, BRONZE, CURRENT_STATE, FUEL_EFFICIENCY, SILVER
from telemetry_assets.tables.derived import DerivedTable
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_lines, plain_values

# The sensor is this project's retry: it sees from the tables what is left to do.
_NO_RETRY = {"dagster/max_retries": "0"}


def ingest_job() -> JobDefinition:
    """``ingest``: every upload that waits, all the way to Gold, in one process and one run.

    It also brings up to date whatever is behind its upstream for another reason, so a run after a killed one,
    or after a hand-made change, heals the tables.
    """
    bronze = _ingest_op()
    silver = _refresh_op(SILVER)
    gold = [_refresh_op(contract) for contract in (CURRENT_STATE, FUEL_EFFICIENCY, ALERTS)]

    @job(
        name="ingest",
        description="Takes every upload that waits to Bronze, Silver and Gold, and heals tables that are behind.",
        tags=_NO_RETRY,
    )
    def ingest() -> None:
        in_silver = silver(bronze())
        for refresh in gold:
            refresh(in_silver)

    return ingest


class InsuranceConfig(Config):
    """``as_of`` (YYYY-MM-DD): the date that the insurance's status is told for; today in UTC where it is empty."""

    as_of: str = ""


def refresh_insurance_job() -> JobDefinition:
    """``refresh_insurance``: every car's insurance status, also of cars that did not report."""

    @op(pool=pool(CURRENT_STATE), description="Tells every car's insurance status as of a date.")
    def refresh_insurance_status(
        context: OpExecutionContext, telemetry: TelemetryResource, config: InsuranceConfig
    ) -> None:
        as_of = _as_of(config)
        with as_dagster_failure(context):
            result = telemetry.pipeline.refresh(CURRENT_STATE, context.run.run_id, insurance_as_of=as_of)
        _report_refresh(context, telemetry.pipeline, result)

    @job(
        name="refresh_insurance",
        description="Brings insurance_status, insurance_days_expired and insurance_as_of of all cars up to date.",
        tags=_NO_RETRY,
    )
    def refresh_insurance() -> None:
        refresh_insurance_status()

    return refresh_insurance


class ReplayConfig(Config):
    """Which rejected documents: of any of these reasons and uploads, since a moment (ISO 8601, UTC); empty is all."""

    reasons: list[str] = Field(default_factory=list)
    uploads: list[str] = Field(default_factory=list)
    since: str = ""
    dry_run: bool = False


def replay_rejected_job() -> JobDefinition:
    """``replay_rejected``: rejected documents through ingestion once more. The upload sensor then refreshes Gold."""

    @op(pool=pool(BRONZE), description="Moves rejected documents that are accepted now to Bronze.")
    def replay_rejected_documents(
        context: OpExecutionContext, telemetry: TelemetryResource, config: ReplayConfig
    ) -> None:
        unknown = [number for number, reason in enumerate(config.reasons) if reason not in get_args(Reason)]
        if unknown:
            raise Failure(
                f"reasons has entries that are none (numbers {unknown}, from 0); a document is rejected for "
                f"{', '.join(get_args(Reason))}."
            )
        selection = ReplaySelection(tuple(config.reasons), tuple(config.uploads), moment("since", config.since))
        pipeline = telemetry.pipeline
        with as_dagster_failure(context):
            result = (
                pipeline.try_replay(selection)
                if config.dry_run
                else pipeline.replay_rejected(selection, context.run.run_id)
            )
        context.add_output_metadata(
            {
                "chosen": result.chosen,
                "accepted": result.accepted,
                "still_rejected": dict(result.still_rejected),
                "unavailable": plain_values(dict(result.unavailable)),
            }
        )

    @job(
        name="replay_rejected",
        description="Puts rejected documents through ingestion once more, after a fix; `ingest` then takes them on.",
        tags=_NO_RETRY,
    )
    def replay_rejected() -> None:
        replay_rejected_documents()

    return replay_rejected


def _as_of(config: InsuranceConfig) -> date | None:
    try:
        return date.fromisoformat(config.as_of) if config.as_of else None
    except ValueError:
        raise Failure("as_of is no date; write it as YYYY-MM-DD, or leave it empty for today.") from None


def _ingest_op() -> OpDefinition:
    @op(name="ingest_uploads", pool=pool(BRONZE), description="Takes every upload that waits into Bronze.")
    def ingest_uploads(context: OpExecutionContext, telemetry: TelemetryResource) -> None:
        finished: list[BatchReport] = []

        def tell(one: BatchReport) -> None:
            finished.append(one)
            context.log.info(
                f"batch {one.batch_id}: {counted(one.uploads, 'upload')}, {counted(one.documents, 'document')} = "
                f"{one.accepted} accepted + {one.rejected} rejected"
            )

        try:
            with as_dagster_failure(context):
                _ingest(context, telemetry.pipeline, tell)
        finally:
            # Batches that ended before another one failed are in Bronze, and no later run tells of them.
            _report_batches(context, telemetry.pipeline, finished)

    return ingest_uploads


def _ingest(context: OpExecutionContext, pipeline: Pipeline, tell: Callable[[BatchReport], None]) -> None:
    try:
        pipeline.ingest(context.run.run_id, tell)
    except UnclaimableUploadsError as error:
        if not pipeline.tables_behind():
            raise
        # Tables that are behind do not wait for it; the next run fails with it.
        context.log.error(plain_lines(str(error)))


def _report_batches(context: OpExecutionContext, pipeline: Pipeline, batch_reports: Sequence[BatchReport]) -> None:
    context.add_output_metadata(batch_report_metadata(batch_reports))
    if not batch_reports:
        return
    for day, metadata in date_metadata(pipeline, batch_reports, event_dates_taken(batch_reports)).items():
        context.log_event(AssetMaterialization(asset_key(BRONZE), partition=day.isoformat(), metadata=metadata))
    _log_checks(context, check_ingest(pipeline.lakehouse, batch_reports))


def _refresh_op(contract: DerivedTable) -> OpDefinition:
    layer, table = contract.identifier

    @op(
        name=f"refresh_{layer}_{table}",
        ins={"upstream": In(Nothing)},
        pool=pool(contract),
        description=f"Brings {contract.full_name} up to date with its upstream.",
    )
    def refresh(context: OpExecutionContext, telemetry: TelemetryResource) -> None:
        with as_dagster_failure(context):
            result = telemetry.pipeline.refresh(contract, context.run.run_id)
        _report_refresh(context, telemetry.pipeline, result)

    return refresh


def _report_refresh(context: OpExecutionContext, pipeline: Pipeline, result: RefreshResult) -> None:
    rows = f"{counted(result.rows_written, 'row')} written" if result.changed else "all rows as they were"
    context.log.info(
        f"{result.contract.full_name}: {counted(len(result.event_dates), 'event date')}, {rows}, {result.seconds:.2f} s"
    )
    key = asset_key(result.contract)
    # A refresh for no event date is the daily one, of the insurances: today's.
    for day in result.event_dates or ((datetime.now(UTC).date(),) if result.contract is CURRENT_STATE else ()):
        context.log_event(AssetMaterialization(key, partition=day.isoformat(), metadata=refresh_metadata(result, day)))
    if result.event_dates or result.changed:
        _log_checks(context, check_refresh(pipeline.lakehouse, result))


def _log_checks(context: OpExecutionContext, results: Iterable[AssetCheckResult]) -> None:
    judged = list(results)
    for result in judged:
        context.log_event(evaluation(result))  # type: ignore[arg-type]
    failed = [result for result in judged if not result.passed and result.severity == AssetCheckSeverity.ERROR]
    if failed:
        told = "; ".join(f"{result.check_name}: {dict(result.metadata)}" for result in failed)
        raise Failure(f"Tables after this one are not refreshed from misleading rows: {told}")
