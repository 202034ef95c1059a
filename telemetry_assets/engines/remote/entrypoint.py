"""The program of a job run: it executes one step, and reports the result with Dagster Pipes.

``make package`` uploads this file as the entry point, and the modules that it imports as a zip file.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Any

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesContext,
    PipesDefaultContextLoader,
    PipesMappingParamsLoader,
    encode_param,
    open_dagster_pipes,
)
from pyspark.sql import SparkSession

from telemetry_assets.aws.locations import S3Location
from telemetry_assets.engines.remote.parsed_batch import save_parsed
from telemetry_assets.engines.remote.pipes import MessageWriter
from telemetry_assets.engines.remote.step import MESSAGES, RemoteStep, error_to_json, load_step
from telemetry_assets.engines.spark.engine import SparkEngine
from telemetry_assets.errors import TelemetryAssetsError
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.text.plain import plain_logger

_UPLOAD_SECONDS = 2

# The name of the entry point's module is `__main__`.
logger = plain_logger("telemetry_assets.engines.remote.entrypoint")


def main() -> int:
    """Execute the step of ``--step``. Returns the exit status: 1 if the step failed; the error is reported."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", required=True, help="The URI of step.json.")
    parser.add_argument("--region", required=True)
    # Glue adds other arguments.
    arguments, _ = parser.parse_known_args()
    os.environ.setdefault("AWS_REGION", arguments.region)
    folder, step = load_step(arguments.step)
    with _open_pipes(folder, step) as pipes:
        logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
        logging.getLogger("telemetry_assets").setLevel(logging.INFO)  # noqa: TID251  # sets a level, logs nothing
        try:
            report = _run(folder, step)
        except TelemetryAssetsError as error:
            pipes.report_custom_message({"error": error_to_json(error)})
            return 1
        pipes.report_custom_message(report)
    return 0


def _run(folder: S3Location, step: RemoteStep) -> dict[str, Any]:
    """Execute the step in the session that the service has configured. Returns the report."""
    settings, spark = step.program_settings, SparkSession.builder.getOrCreate()
    logger.info("%s on Spark %s with %d cores", step.table, spark.version, spark.sparkContext.defaultParallelism)
    lakehouse = open_lakehouse(settings)
    engine = SparkEngine(lakehouse, settings, spark)
    if step.journal_entry is None:
        refreshed = engine.refresh(step.request)
        return {"result": refreshed.to_json()}
    entry = JournalEntry.from_json(step.journal_entry.encode(), "", folder.uri())
    parsed = engine.parse(entry, step.run_id)
    save_parsed(lakehouse, folder.uri(), parsed)
    return {"parsed": {"accepted": parsed.accepted, "rejected": parsed.rejected}}


def _open_pipes(folder: S3Location, step: RemoteStep) -> PipesContext:
    messages = {
        "bucket": folder.bucket,
        "key_prefix": folder.below(MESSAGES).prefix.rstrip("/"),
        "include_stdio_in_messages": True,
    }
    context: dict[str, Any] = {
        "run_id": step.run_id,
        "job_name": None,
        "retry_number": 0,
        "asset_keys": None,
        "extras": {},
    }
    return open_dagster_pipes(
        params_loader=PipesMappingParamsLoader(
            {
                DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"data": context}),
                DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param(messages),
            }
        ),
        context_loader=PipesDefaultContextLoader(),
        message_writer=MessageWriter(step.program_settings, interval=_UPLOAD_SECONDS),
    )


if __name__ == "__main__":
    status = main()
    # In Glue, every call of `sys.exit` is a failure.
    if status:
        sys.exit(status)
