"""How long uploads in S3 take to Gold, and a look of the sensor: ``python -m benchmarks.uploads_in_s3``.

S3 and Glue are moto's, in a process of its own on this machine, which answers one request at a time.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.measuring import LAST_DAY, Measured, measure, tell
from telemetry_assets.automation.sensors import what_is_to_do
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.simulator.fleet import Fleet, simulate
from telemetry_assets_tests.harness.aws.services import AwsServices

PROCESS = ("-m", "telemetry_assets", "process")


@dataclass(frozen=True)
class Account:
    """A bucket with uploads and a lakehouse in an account that is gone after the measurement."""

    services: AwsServices

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that works here."""
        return {
            **os.environ,
            **self.services.environment(),
            "TELEMETRY_LANDING_URI": "s3://cars/landing",
            "TELEMETRY_LAKEHOUSE_URI": "s3://cars/lakehouse",
            "TELEMETRY_CATALOG": "glue",
        }

    def fill(self, *, documents: int, uploads: int, cars: int, days: int) -> None:
        """Put a fleet's uploads into the landing location."""
        client = self.services.client("s3")
        for upload in simulate(Fleet(LAST_DAY, cars=cars, days=days, uploads=uploads, documents=documents)):
            client.put_object(Bucket="cars", Key=f"landing/{upload.name}", Body=upload.content)


@contextmanager
def account(*, versioned: bool) -> Iterator[Account]:
    """A new account."""
    with AwsServices() as services:
        services.make_bucket("cars", versioned=versioned)
        yield Account(services)


def fresh(documents: int, uploads: int, *, versioned: bool) -> Measured:
    """`process` of a fleet's uploads into a new lakehouse."""
    with account(versioned=versioned) as at:
        at.fill(documents=documents, uploads=uploads, cars=500, days=30)
        return measure(PROCESS, at)


def look(waiting: int) -> list[Measured]:
    """What the sensor asks at each look, in this process, at a landing location where so many uploads wait."""
    measured = []
    with account(versioned=False) as at:
        measure(PROCESS, at)
        at.services.fill_bucket("cars", "landing", waiting)
        os.environ.update(at.environment)
        for _ in range(5):
            started = time.monotonic()
            with open_pipeline(load_settings()) as pipeline:
                what_is_to_do(pipeline)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            measured.append(Measured(time.monotonic() - started, memory))
    return measured


def main() -> None:
    """Measure and print a Markdown table."""
    print("| S3 and Glue of moto | fastest s | median s | slowest s | most memory MB |\n|---|---|---|---|---|")
    tell("a look of the sensor at 10,000 waiting uploads", look(10_000))
    tell("`process`: 100 uploads, 1,000 documents", [fresh(1_000, 100, versioned=True) for _ in range(3)])
    for versioned in (True, False):
        kind = "with versions" if versioned else "without versions"
        what = f"`process`: 1,000 uploads, 100,000 documents, bucket {kind}"
        tell(what, [fresh(100_000, 1_000, versioned=versioned) for _ in range(2)])


if __name__ == "__main__":
    main()
