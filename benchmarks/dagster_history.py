"""Benchmark of Dagster's history: ``python -m benchmarks.dagster_history``.

The job `ingest` runs once for each of many small uploads, as the sensor starts it. Then old runs are removed as the job
`maintain` does it. It prints the size of Dagster's storage as Markdown: while runs are added, and after the removal.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from dagster import DagsterInstance, Definitions

from benchmarks.age_of_history import write_upload
from benchmarks.measuring import TemporaryDeployment, temporary_deployment
from telemetry_assets.assets.checks import check_keys
from telemetry_assets.assets.lakehouse import asset_tables
from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.automation.history import remove_old_runs
from telemetry_assets.settings import load_settings


def stored(instance: DagsterInstance) -> tuple[int, float]:
    """The number of files of Dagster's storage, and their size in MB."""
    sizes = [path.stat().st_size for path in Path(instance.root_directory).rglob("*") if path.is_file()]
    return len(sizes), sum(sizes) / 1e6


def ingest(defs: Definitions, instance: DagsterInstance, deployment: TemporaryDeployment, runs: int) -> Iterator[int]:
    """Run the job `ingest` for one upload after another. Yields the number of runs."""
    job = defs.resolve_job_def("ingest")
    for number in range(runs):
        write_upload(deployment.landing, number)
        job.execute_in_process(instance=instance)
        yield number + 1


def remove_all_but(instance: DagsterInstance, kept_since: datetime) -> int:
    """Remove older runs. Returns their number."""
    tables = asset_tables()
    return remove_old_runs(
        instance,
        kept_since,
        [asset_key(table) for table in tables],
        [key for table in tables for key in check_keys(table)],
        is_own=lambda _: True,
    )


def main() -> None:
    """Run the benchmark and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--kept", type=int, default=200, help="the number of newest runs that are kept")
    arguments = parser.parse_args()
    with temporary_deployment() as deployment:
        deployment.landing.mkdir(parents=True, exist_ok=True)
        home = deployment.folder / "dagster"
        home.mkdir()
        os.environ.update(deployment.environment)
        os.environ["TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS"] = "0"
        # Imported here, because loading the definitions reads the settings.
        from telemetry_assets.definitions import definitions

        kept_since = datetime.now(UTC)
        with DagsterInstance.local_temp(str(home)) as instance:
            print("| runs | files | MB |\n|---|---|---|", flush=True)
            for number in ingest(definitions(load_settings()), instance, deployment, arguments.runs):
                if number == arguments.runs - arguments.kept:
                    kept_since = datetime.now(UTC)
                if number % (arguments.runs // 4) == 0:
                    print("| {} | {} | {:.1f} |".format(number, *stored(instance)), flush=True)
            removed = remove_all_but(instance, kept_since)
            print("| after {} runs were removed | {} | {:.1f} |".format(removed, *stored(instance)))


if __name__ == "__main__":
    main()
