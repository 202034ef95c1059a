"""The jobs `ingest`, `refresh_insurance` and `replay_rejected`. The job `maintain` is in `maintenance.py`."""

from typing import get_args

from dagster import (
    AssetCheckKey,
    AssetSelection,
    Config,
    Failure,
    JobDefinition,
    OpExecutionContext,
    define_asset_job,
    job,
    op,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from telemetry_assets.assets.checks import WELL_KEPT, as_dagster_failure, parse_time
from telemetry_assets.assets.lakehouse import BEHIND_ONLY, asset_tables
from telemetry_assets.assets.metadata import POOL, asset_key
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets.tables import derived_tables
from telemetry_assets.text.plain import plain_values

# No retries: the upload sensor starts a new run instead, because it reads the remaining work from the tables.
_NO_RETRY = {"dagster/max_retries": "0"}


def ingest_job() -> UnresolvedAssetJobDefinition:
    """The job ``ingest``. It ingests all waiting uploads and refreshes Silver and Gold, in one run without a partition.

    It also refreshes tables that are behind their upstream for another reason, such as a killed run or a manual commit.
    """
    return define_asset_job(
        "ingest",
        # The run evaluates only the checks of tables that changed. A selected check without a result shows as skipped.
        AssetSelection.assets(*map(asset_key, asset_tables())).without_checks(),
        description="Ingests all waiting uploads into Bronze, and refreshes all tables that are behind their upstream.",
        tags=_NO_RETRY,
    )


def refresh_insurance_job() -> UnresolvedAssetJobDefinition:
    """The job ``refresh_insurance``. It refreshes the insurance status of every car, including cars without new events.

    Launch it for today's partition. A run that selects only some of the assets needs a partition.
    """
    keys = [asset_key(table) for table in derived_tables() if table.as_of is not None]
    return define_asset_job(
        "refresh_insurance",
        AssetSelection.assets(*keys) - AssetSelection.checks(*(AssetCheckKey(key, WELL_KEPT) for key in keys)),
        description="Refreshes insurance_status, insurance_days_expired and insurance_as_of of all cars.",
        tags={**_NO_RETRY, BEHIND_ONLY: "true"},
    )


class ReplayConfig(Config):
    """Selects the rejected documents to replay. An empty field selects all.

    ``reasons`` are reasons of rejection. ``uploads`` are URIs, or ends of URIs that follow a slash. ``since`` is the
    earliest time of rejection (ISO 8601, UTC).
    """

    reasons: list[str] = Field(default_factory=list)
    uploads: list[str] = Field(default_factory=list)
    since: str = ""
    dry_run: bool = False

    def selection(self) -> ReplaySelection:
        """The selection of documents.

        :raises Failure: if a reason does not exist, or ``since`` is not a time.
        """
        unknown = [number for number, reason in enumerate(self.reasons) if reason not in get_args(Reason)]
        if unknown:
            raise Failure(
                f"reasons has invalid entries (numbers {unknown}, from 0). Valid reasons are: "
                f"{', '.join(get_args(Reason))}."
            )
        return ReplaySelection(tuple(self.reasons), tuple(self.uploads), parse_time("since", self.since))


def replay_rejected_job() -> JobDefinition:
    """The job ``replay_rejected``. It ingests rejected documents again; the upload sensor then starts ``ingest``."""

    @op(pool=POOL, description="Ingests rejected documents again, and moves the accepted ones to Bronze.")
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
        description="Ingests rejected documents again after a fix. `ingest` then refreshes Silver and Gold.",
        tags=_NO_RETRY,
    )
    def replay_rejected() -> None:
        replay_rejected_documents()

    return replay_rejected
