"""Benchmark of the engines. Run it with ``python -m benchmarks.engines --documents 1000000``.

It fills Bronze once. Then each engine computes Silver and Gold from Bronze, in its own process.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.measuring import TemporaryDeployment, measure_with_descendants, print_row, temporary_deployment
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import derived_tables

ENGINES = ("embedded", "spark")
_REFRESH_ALL = """
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
with open_pipeline(load_settings()) as pipeline:
    pipeline.lakehouse.prepare()
    pipeline.refresh_all("a benchmark", None, lambda done: print(done.contract.full_name, done.seconds))
"""


def fill_bronze(deployment: TemporaryDeployment, documents: int) -> None:
    """Ingest a fleet's uploads into Bronze."""
    deployment.fill(documents=documents, uploads=max(documents // 1000, 1), cars=2000, days=30)
    with open_pipeline(load_settings()) as pipeline:
        pipeline.ingest("a benchmark")


def drop_derived_tables() -> None:
    """Drop Silver and Gold, so that the next engine computes them from all of Bronze."""
    with open_pipeline(load_settings()) as pipeline:
        for contract in derived_tables():
            pipeline.lakehouse.catalog.drop_table(contract.identifier)


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    documents = parser.parse_args().documents
    print("| Bronze to Gold | fastest s | median s | slowest s | most memory MB |\n|---|---|---|---|---|")
    with temporary_deployment() as deployment:
        os.environ.update(deployment.environment)
        fill_bronze(deployment, documents)
        for engine in ENGINES:
            os.environ["TELEMETRY_ENGINE"] = engine
            print_row(
                f"{documents:,} documents, `{engine}`", [measure_with_descendants(("-c", _REFRESH_ALL), deployment)]
            )
            drop_derived_tables()


if __name__ == "__main__":
    main()
