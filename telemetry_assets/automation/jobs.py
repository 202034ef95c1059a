"""The jobs: uploads to Gold, the daily refresh of insurance statuses, and the replay of rejected documents."""

from typing import get_args

from dagster import AssetSelection, Config, Failure, JobDefinition, OpExecutionContext, define_asset_job, job, op
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from telemetry_assets.assets.checks import as_dagster_failure, moment
from telemetry_assets.assets.lakehouse import asset_tables
from telemetry_assets.assets.metadata import POOL, asset_key
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets.tables import derived_tables
from telemetry_assets.text.plain import plain_values

# The sensor retries: it reads from the tables what is left to do.
_NO_RETRY = {"dagster/max_retries": "0"}


def ingest_job() -> UnresolvedAssetJobDefinition:
    """``ingest``: every upload that waits, all the way to Gold, in one run without a partition.

    It also refreshes tables that are behind their upstream for another reason, such as a killed run or a change by
    hand.
    """
    return define_asset_job(
        "ingest",
        # The run evaluates the checks of the tables that changed. A selected check without a result shows as skipped.
        AssetSelection.assets(*map(asset_key, asset_tables())).without_checks(),
        description="Takes every upload that waits to Bronze, Silver and Gold, and refreshes tables that are behind.",
        tags=_NO_RETRY,
    )


def refresh_insurance_job() -> UnresolvedAssetJobDefinition:
    """``refresh_insurance``: the insurance status of every car, including cars that did not report.

    It is run for today's partition: a run of a part of the assets needs one.
    """
    return define_asset_job(
        "refresh_insurance",
        AssetSelection.assets(*(asset_key(table) for table in derived_tables() if table.as_of is not None)),
        description="Brings insurance_status, insurance_days_expired and insurance_as_of of all cars up to date.",
        tags=_NO_RETRY,
    )


class ReplayConfig(Config):
    """Which rejected documents: of any of these reasons and uploads, since a moment (ISO 8601, UTC); empty is all."""

    reasons: list[str] = Field(default_factory=list)
    uploads: list[str] = Field(default_factory=list)
    since: str = ""
    dry_run: bool = False

    def selection(self) -> ReplaySelection:
        """The documents to replay.

        :raises Failure: if a reason does not exist, or ``since`` is not a moment.
        """
        unknown = [number for number, reason in enumerate(self.reasons) if reason not in get_args(Reason)]
        if unknown:
            raise Failure(
                f"reasons has entries that are none (numbers {unknown}, from 0); a document is rejected for "
                f"{', '.join(get_args(Reason))}."
            )
        return ReplaySelection(tuple(self.reasons), tuple(self.uploads), moment("since", self.since))


def replay_rejected_job() -> JobDefinition:
    """``replay_rejected``: ingests rejected documents again. The upload sensor then refreshes Silver and Gold."""

    @op(pool=POOL, description="Moves rejected documents that are accepted now to Bronze.")
    def replay_rejected_documents(
        context: OpExecutionContext, telemetry: TelemetryResource, config: ReplayConfig
    ) -> None:
        selection = config.selection()
        with as_dagster_failure(context):
            result = (
                telemetry.pipeline.try_replay(selection)
                if config.dry_run
                else telemetry.pipeline.replay_rejected(selection, context.run.run_id)
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
        description="Ingests rejected documents again after a fix; `ingest` then takes them to Silver and Gold.",
        tags=_NO_RETRY,
    )
    def replay_rejected() -> None:
        replay_rejected_documents()

    return replay_rejected
