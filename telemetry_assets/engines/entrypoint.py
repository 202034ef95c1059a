"""The program that runs inside remote Spark: it does one step, and tells over Dagster Pipes what it did.

``make package`` puts it into the scripts location by itself; the project's modules come beside it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

_TELLING_SECONDS = 2

logger = logging.getLogger(__name__)


def main() -> int:
    """Do the step that ``--step`` names; 1 where it could not be done, and why is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", required=True, help="The step's description in S3.")
    parser.add_argument("--region", required=True)
    # Glue adds arguments of its own.
    arguments, _ = parser.parse_known_args()
    os.environ.setdefault("AWS_REGION", arguments.region)

    from dagster_pipes import (
        DAGSTER_PIPES_CONTEXT_ENV_VAR,
        DAGSTER_PIPES_MESSAGES_ENV_VAR,
        PipesDefaultContextLoader,
        PipesMappingParamsLoader,
        encode_param,
        open_dagster_pipes,
    )
    from pyspark.sql import SparkSession

    from telemetry_assets.engines.parsed_batch import keep_parsed
    from telemetry_assets.engines.remote_messages import MessageWriter
    from telemetry_assets.engines.remote_step import MESSAGES, error_told, opened_step, result_told
    from telemetry_assets.engines.spark import SparkEngine
    from telemetry_assets.errors import TelemetryAssetsError
    from telemetry_assets.ingestion.manifests import read_manifest
    from telemetry_assets.lakehouse.catalog import open_lakehouse

    folder, step = opened_step(arguments.step)
    messages = {
        "bucket": folder.bucket,
        "key_prefix": folder.below(MESSAGES).prefix.rstrip("/"),
        "include_stdio_in_messages": True,
    }
    context: dict[str, object] = {
        "run_id": step.run_id,
        "job_name": None,
        "retry_number": 0,
        "asset_keys": None,
        "extras": {},
    }
    with open_dagster_pipes(
        params_loader=PipesMappingParamsLoader(
            {
                DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"data": context}),
                DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param(messages),
            }
        ),
        context_loader=PipesDefaultContextLoader(),
        message_writer=MessageWriter(step.program_settings, interval=_TELLING_SECONDS),
    ) as pipes:
        logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(message)s")
        # It names every file.
        logging.getLogger("pyiceberg").setLevel(logging.WARNING)
        try:
            settings = step.program_settings
            # The service has configured it, by what the run was started with.
            spark = SparkSession.builder.getOrCreate()
            logger.info(
                "%s on Spark %s with %d cores", step.table, spark.version, spark.sparkContext.defaultParallelism
            )
            lakehouse = open_lakehouse(settings)
            engine = SparkEngine(lakehouse, settings, spark)
            if step.manifest is not None:
                manifest = read_manifest(step.manifest.encode(), "", arguments.step)
                rows = engine.parser.parse(manifest, step.run_id)
                keep_parsed(lakehouse, folder.uri(), manifest, rows)
                return 0
            result = engine.refresh(step.contract, step.dates, step.parameters, step.run_id)
        except TelemetryAssetsError as error:
            pipes.report_custom_message({"error": error_told(error)})
            return 1
        pipes.report_custom_message({"result": result_told(result)})
    return 0


if __name__ == "__main__":
    status = main()
    # Glue takes an exit for a failure, whatever its code.
    if status:
        sys.exit(status)
