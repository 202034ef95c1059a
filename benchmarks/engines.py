"""Benchmark of the engines. Run it with ``python -m benchmarks.engines --events 1000000``.

It fills Bronze once. Then each engine computes Silver and Gold from Bronze, in its own process.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.large_lakehouse import fill_folder
from benchmarks.measuring import TemporaryDeployment, measure_with_descendants, print_row, temporary_deployment
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import derived_tables

ENGINES = ("embedded", "spark")
_PROCESS = ("-m", "telemetry_assets", "process")


def fill_bronze(deployment: TemporaryDeployment, events: int, cars: int) -> None:
    """Write the events of 60 days to Bronze. The other tables remain empty."""
    deployment.landing.mkdir()
    fill_folder(deployment.folder / "lakehouse", events=events, cars=cars, days=60)


def drop_derived_tables() -> None:
    """Drop Silver and Gold, so that the next engine computes them from all of Bronze."""
    lakehouse = open_lakehouse(load_settings())
    for contract in derived_tables():
        lakehouse.catalog.drop_table(contract.identifier)


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--cars", type=int, default=2_000)
    arguments = parser.parse_args()
    with temporary_deployment() as deployment:
        os.environ.update(deployment.environment)
        fill_bronze(deployment, arguments.events, arguments.cars)
        print("| Bronze to Gold | fastest s | median s | slowest s | most memory MB |\n|---|---|---|---|---|")
        for engine in ENGINES:
            os.environ["TELEMETRY_ENGINE"] = engine
            what = f"{arguments.events:,} events of {arguments.cars:,} cars, `{engine}`"
            print_row(what, [measure_with_descendants(_PROCESS, deployment)])
            drop_derived_tables()


if __name__ == "__main__":
    main()
