"""How long each engine takes from Bronze to all Gold tables: ``python -m benchmarks.engines --documents 1000000``.

Bronze is filled once. Each engine then makes Silver and Gold from it in a process of its own.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.measuring import Place, measure_with_descendants, place, tell
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import derived_tables

ENGINES = ("embedded", "spark")
_TO_GOLD = """
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
with open_pipeline(load_settings()) as pipeline:
    pipeline.lakehouse.prepare()
    pipeline.refresh_all("a benchmark", None, lambda done: print(done.contract.full_name, done.seconds))
"""


def fill_bronze(at: Place, documents: int) -> None:
    """Take a fleet's uploads into Bronze."""
    at.fill(documents=documents, uploads=max(documents // 1000, 1), cars=2000, days=30)
    with open_pipeline(load_settings()) as pipeline:
        pipeline.ingest("a benchmark")


def forget_silver_and_gold() -> None:
    """Let the next engine make these tables anew, from all of Bronze."""
    with open_pipeline(load_settings()) as pipeline:
        for contract in derived_tables():
            pipeline.lakehouse.catalog.drop_table(contract.identifier)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    documents = parser.parse_args().documents
    print("| Bronze to Gold | fastest s | median s | slowest s | most memory MB |\n|---|---|---|---|---|")
    with place() as at:
        os.environ.update(at.environment)
        fill_bronze(at, documents)
        for engine in ENGINES:
            os.environ["TELEMETRY_ENGINE"] = engine
            tell(f"{documents:,} documents, `{engine}`", [measure_with_descendants(("-c", _TO_GOLD), at)])
            forget_silver_and_gold()


if __name__ == "__main__":
    main()
