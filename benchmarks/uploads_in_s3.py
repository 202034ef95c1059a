"""Benchmark of uploads in S3. Run it with ``python -m benchmarks.uploads_in_s3``.

moto provides S3 and Glue, in a separate process on this machine. It handles one request at a time.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.measuring import LAST_DAY, Measured, measure, print_row
from telemetry_assets.automation.sensors import reason_to_run
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.simulator.fleet import Fleet, simulate
from telemetry_assets_tests.harness.aws.services import AwsServices

PROCESS = ("-m", "telemetry_assets", "process")


@dataclass(frozen=True)
class Account:
    """A temporary AWS account with one bucket, which contains uploads and a lakehouse."""

    services: AwsServices

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a process to measure."""
        return {
            **os.environ,
            **self.services.environment(),
            "TELEMETRY_LANDING_URI": "s3://cars/landing",
            "TELEMETRY_LAKEHOUSE_URI": "s3://cars/lakehouse",
            "TELEMETRY_CATALOG": "glue",
        }

    def fill(self, *, documents: int, uploads: int, cars: int, days: int) -> None:
        """Write a fleet's uploads to the landing location."""
        client = self.services.client("s3")
        for upload in simulate(Fleet(LAST_DAY, cars=cars, days=days, uploads=uploads, documents=documents)):
            client.put_object(Bucket="cars", Key=f"landing/{upload.name}", Body=upload.content)


@contextmanager
def account(*, versioned: bool) -> Iterator[Account]:
    """Create an account, and remove it afterwards."""
    with AwsServices() as services:
        services.make_bucket("cars", versioned=versioned)
        yield Account(services)


def process_into_new_lakehouse(documents: int, uploads: int, *, versioned: bool) -> Measured:
    """Measure `process` of a fleet's uploads into a new lakehouse."""
    with account(versioned=versioned) as measured_account:
        measured_account.fill(documents=documents, uploads=uploads, cars=500, days=30)
        return measure(PROCESS, measured_account)


def evaluate_sensor(waiting: int) -> list[Measured]:
    """Measure what an evaluation of the upload sensor reads, in this process, while uploads wait."""
    measured = []
    with account(versioned=False) as measured_account:
        measure(PROCESS, measured_account)
        measured_account.services.fill_bucket("cars", "landing", waiting)
        os.environ.update(measured_account.environment)
        for _ in range(5):
            started = time.monotonic()
            with open_pipeline(load_settings()) as pipeline:
                reason_to_run(pipeline)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            measured.append(Measured(time.monotonic() - started, memory))
    return measured


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    print("| S3 and Glue of moto | fastest s | median s | slowest s | most memory MB |\n|---|---|---|---|---|")
    print_row("an evaluation of the sensor, 10,000 waiting uploads", evaluate_sensor(10_000))
    print_row(
        "`process`: 100 uploads, 1,000 documents",
        [process_into_new_lakehouse(1_000, 100, versioned=True) for _ in range(3)],
    )
    for versioned in (True, False):
        kind = "with versions" if versioned else "without versions"
        label = f"`process`: 1,000 uploads, 100,000 documents, bucket {kind}"
        print_row(label, [process_into_new_lakehouse(100_000, 1_000, versioned=versioned) for _ in range(2)])


if __name__ == "__main__":
    main()
