"""The asset checks. If a blocking check fails, the tables downstream are not refreshed. All others are warnings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckKey,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    Config,
    Failure,
    OpExecutionContext,
    asset_check,
)

from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.engines.result import RefreshResult
from telemetry_assets.errors import QualityError, TelemetryAssetsError
from telemetry_assets.ingestion.reconciliation import BatchReport, check_conservation, shown_counts
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.quality import keys_by_partition, repeated_among, shared_ids
from telemetry_assets.pipeline import Pipeline
from telemetry_assets.tables import BRONZE, DerivedTable, derived_table_named
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_lines, plain_values

_MAX_BATCHES_LISTED = 20
_MAX_IDS_LISTED = 20
_SCHEMA = "schema_as_contracted"
_CONSERVED = "documents_conserved"
_EVERY_BATCH = "every_batch_conserved"
WELL_KEPT = "well_kept"
"""The name of the check of how well a table is maintained."""
_WARNINGS = {
    "no_rejected_documents": "No document was rejected. `bronze.rejected_documents` contains all rejections.",
    "no_wrong_typed_fields": "No known field has a value of the wrong type. Such values are null in Silver.",
    "no_out_of_range_values": "No number is outside of the valid range of its column. Such values are null in Silver.",
    "no_times_ahead_of_the_clock": "No event's time is more than five minutes after its ingestion.",
    "no_unknown_fields": "No document has an unknown field. Such fields mean that a producer's schema has changed.",
}


def check_specs(contract: TableContract) -> list[AssetCheckSpec]:
    """The specs of the checks of a table's asset."""

    def spec(name: str, description: str, blocking: bool) -> AssetCheckSpec:
        return AssetCheckSpec(name, asset=asset_key(contract), description=description, blocking=blocking)

    specs = [spec(_SCHEMA, "Columns, types and partitioning match the contract.", True)]
    if contract is BRONZE:
        specs.append(
            spec(_CONSERVED, "For each batch of the run: documents received = Bronze rows + rejected rows.", True)
        )
        specs += [spec(name, description, False) for name, description in _WARNINGS.items()]
    if isinstance(contract, DerivedTable):
        specs.append(spec(contract.key_check, f"No two rows share {', '.join(contract.key)}.", True))
        if (shared := contract.shared_id_check) is not None:
            specs.append(spec(shared.name, shared.description, False))
    return specs


def check_keys(contract: TableContract) -> list[AssetCheckKey]:
    """The keys of all checks of a table's asset."""
    names = [spec.name for spec in check_specs(contract)] + [WELL_KEPT]
    return [AssetCheckKey(asset_key(contract), name) for name in (*names, *([_EVERY_BATCH] * (contract is BRONZE)))]


class TimeRange(Config):
    """A range of ingestion times: ``since`` and ``until`` (ISO 8601, UTC). An empty field sets no bound."""

    since: str = ""
    until: str = ""


def every_batch_conserved() -> AssetChecksDefinition:
    """The check ``every_batch_conserved`` of Bronze. It is only executed manually, for all batches or a time range."""

    @asset_check(
        asset=asset_key(BRONZE),
        name=_EVERY_BATCH,
        description="For every batch of a time range: documents received = accepted + rejected, counted in the tables.",
    )
    def check(context: AssetCheckExecutionContext, telemetry: TelemetryResource, config: TimeRange) -> AssetCheckResult:
        bounds = [parse_time(name, text) for name, text in (("since", config.since), ("until", config.until))]
        batches = telemetry.pipeline.reconcile(*bounds).batches
        differing = [one.batch_id for one in batches if not one.conserved]
        figures: dict[str, Any] = {
            "batches": len(batches),
            "received": sum(one.documents or 0 for one in batches),
            "accepted": sum(one.accepted for one in batches),
            "rejected": sum(one.rejected for one in batches),
            "batches_not_conserved": differing[:_MAX_BATCHES_LISTED],
        }
        return AssetCheckResult(passed=not differing, metadata=figures)

    return check


def well_kept_checks(contracts: Iterable[TableContract]) -> list[AssetChecksDefinition]:
    """The checks ``well_kept``, one for each table. The job ``maintain`` evaluates them too."""
    return [_well_kept(contract) for contract in contracts]


def _well_kept(contract: TableContract) -> AssetChecksDefinition:
    @asset_check(
        asset=asset_key(contract),
        name=WELL_KEPT,
        description="The table has few small files and few old snapshots. If not, launch the job `maintain`.",
    )
    def check(telemetry: TelemetryResource) -> AssetCheckResult:
        return check_condition(telemetry.pipeline, contract)

    return check


def check_condition(pipeline: Pipeline, contract: TableContract) -> AssetCheckResult:
    """Evaluate the check ``well_kept`` of a table. A table that does not exist yet passes."""
    if pipeline.lakehouse.existing(contract) is None:
        return _result(contract, WELL_KEPT, True, {}, AssetCheckSeverity.WARN)
    found, policy = pipeline.condition(contract), pipeline.maintenance_policy
    problems = found.problems(policy)
    figures = {**asdict(found), "problems": problems}
    return _result(contract, WELL_KEPT, not problems, figures, AssetCheckSeverity.WARN)


def parse_time(name: str, text: str) -> datetime | None:
    """Parse a time of a run's config. A time without an offset is UTC; an empty text gives None.

    :param name: name of the config field, for the error message.
    :raises Failure: if the text is not in ISO 8601.
    """
    try:
        parsed = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise Failure(f"{name} is not a date or time in ISO 8601. Correct it, or leave it empty.") from None
    return parsed.replace(tzinfo=UTC) if parsed and parsed.tzinfo is None else parsed


def check_table(lakehouse: Lakehouse, contract: TableContract) -> Iterator[AssetCheckResult]:
    """Evaluate the checks that read only the table: the schema check and, for a derived table, the checks of its keys.

    The whole table is read, one partition at a time.
    """
    yield _schema_check(lakehouse, contract)
    if isinstance(contract, DerivedTable):
        table, shared = lakehouse.table(contract), contract.shared_id_check
        repeated, ids = 0, set[str]()
        for keys in keys_by_partition(table, contract):
            repeated += repeated_among(keys, contract)
            ids |= set(shared_ids(keys, contract, shared) if shared is not None else ())
        yield from _key_checks(contract, repeated, sorted(ids))


def check_refreshed(lakehouse: Lakehouse, result: RefreshResult) -> Iterator[AssetCheckResult]:
    """Evaluate the checks of a table after a refresh. Only the keys that it touched are checked."""
    yield _schema_check(lakehouse, result.contract)
    yield from _key_checks(result.contract, result.repeated_keys, result.shared_ids)


def _key_checks(contract: DerivedTable, repeated: int, ids: Sequence[str]) -> Iterator[AssetCheckResult]:
    yield _result(contract, contract.key_check, repeated == 0, {"repeated_keys": repeated})
    if (check := contract.shared_id_check) is not None:
        figures = {"count": len(ids), "ids": plain_values(ids[:_MAX_IDS_LISTED])}
        yield _result(contract, check.name, not ids, figures, AssetCheckSeverity.WARN)


@contextmanager
def as_dagster_failure(context: OpExecutionContext | AssetExecutionContext) -> Iterator[None]:
    """Convert this project's exceptions to Dagster failures, so that the run's page shows the message first.

    A :class:`QualityError` also fails the key check of the table that it names.

    :raises Failure: with the message of the exception.
    """
    try:
        yield
    except QualityError as error:
        contract = derived_table_named(error.table)
        figures = {"repeated_keys": error.rows, "what_to_do": plain_lines(str(error))}
        context.log_event(evaluation(_result(contract, contract.key_check, False, figures)))  # type: ignore[arg-type]
        raise Failure(plain_lines(str(error))) from error
    except TelemetryAssetsError as error:
        raise Failure(plain_lines(str(error))) from error


def evaluation(result: AssetCheckResult) -> AssetCheckEvaluation:
    """Convert a check's result to an event that an op can log."""
    return AssetCheckEvaluation(
        asset_key=result.asset_key,  # type: ignore[arg-type]
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
    )


def require_passed(results: Iterable[AssetCheckResult]) -> None:
    """Require that all blocking checks of a table passed, before downstream tables are refreshed.

    :raises Failure: if a blocking check failed.
    """
    failed = [one for one in results if not one.passed and one.severity == AssetCheckSeverity.ERROR]
    if failed:
        shown = "; ".join(f"{one.check_name}: {dict(one.metadata)}" for one in failed)
        raise Failure(f"A blocking check failed, so the tables downstream were not refreshed: {shown}")


def check_ingest(lakehouse: Lakehouse, batch_reports: Sequence[BatchReport]) -> Iterator[AssetCheckResult]:
    """Evaluate the checks of Bronze after some batches were ingested."""
    yield _schema_check(lakehouse, BRONZE)
    found = check_conservation(lakehouse, batch_reports)
    figures = {"documents": found.documents, "bronze_rows": found.accepted, "rejected_rows": found.rejected}
    yield _result(BRONZE, _CONSERVED, found.conserved, figures)
    warnings = {
        "no_rejected_documents": shown_counts(one.rejected_by_reason for one in batch_reports),
        "no_wrong_typed_fields": shown_counts(one.wrong_typed_fields for one in batch_reports),
        "no_out_of_range_values": shown_counts(one.out_of_range_fields for one in batch_reports),
        "no_times_ahead_of_the_clock": shown_counts(one.ahead_of_clock for one in batch_reports),
        "no_unknown_fields": shown_counts(one.unknown_fields for one in batch_reports),
    }
    for name, counts in warnings.items():
        yield _result(
            BRONZE,
            name,
            not counts,
            {"count": sum(counts.values()), "by_name": counts},
            AssetCheckSeverity.WARN,
        )


def _schema_check(lakehouse: Lakehouse, contract: TableContract) -> AssetCheckResult:
    differences = lakehouse.differences(lakehouse.table(contract), contract)
    return _result(contract, _SCHEMA, not differences, {"differences": plain_values(differences)})


def _result(
    contract: TableContract,
    name: str,
    passed: bool,
    metadata: Mapping[str, Any],
    severity: AssetCheckSeverity = AssetCheckSeverity.ERROR,
) -> AssetCheckResult:
    return AssetCheckResult(
        asset_key=asset_key(contract), check_name=name, passed=passed, severity=severity, metadata=metadata
    )
