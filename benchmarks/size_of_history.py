"""Benchmark of an upload into lakehouses of different sizes: ``python -m benchmarks.size_of_history --large 20000000``.

For each size, it fills a lakehouse, and then measures `process` of one upload, the sizes in turn: five events of today,
and five events of two months ago. It prints the CPU time and the memory of the whole process, and the bytes that a
refresh of each table has read and written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta

from benchmarks.large_lakehouse import LAST_DAY, car_names
from benchmarks.measuring import Measured, TemporaryDeployment, measure, temporary_deployment
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings

PROCESS = ("-m", "telemetry_assets", "process")


@dataclass(frozen=True)
class Size:
    """A lakehouse with a number of events."""

    deployment: TemporaryDeployment
    events: int
    cars: int
    days: int
    today: list[Measured] = field(default_factory=list)
    late: list[Measured] = field(default_factory=list)

    def fill(self) -> None:
        """Fill Bronze, and refresh Silver and Gold."""
        folder = str(self.deployment.folder / "lakehouse")
        # In a process of its own: Linux counts the memory of a process that starts another as that of the other, too.
        size = ("--events", str(self.events), "--cars", str(self.cars), "--days", str(self.days))
        measure(("-m", "benchmarks.large_lakehouse", folder, *size), self.deployment)
        self.deployment.landing.mkdir()
        measure(PROCESS, self.deployment)

    def upload(self, day: date, number: int) -> None:
        """Write an upload of five new events of five cars."""
        cars = random.Random(number).sample(car_names(self.cars), 5)
        documents = [
            {
                "carChassis": car,
                "telemetryTimestamp": f"{day}T23:{number:02d}:{place:02d}Z",
                "metrics": {"currentMileageKm": 9_000.5, "fuelAvailableLiters": 8, "engineTempCelsius": 120},
            }
            for place, car in enumerate(cars)
        ]
        (self.deployment.landing / f"{day}-{number}.json").write_text(json.dumps(documents))
        time.sleep(0.6)


def measure_in_turn(sizes: Sequence[Size], runs: int) -> None:
    """Measure uploads of today and late ones."""
    for number in range(runs + 1):
        for size in sizes:
            for day, measured in ((LAST_DAY, size.today), (LAST_DAY - timedelta(size.days - 5), size.late)):
                size.upload(day, number)
                result = measure(PROCESS, size.deployment)
                # The first run reads files that the system has not cached.
                measured.extend([result] if number else [])


def byte_rows(size: Size, run: int) -> Iterator[str]:
    """The rows of a Markdown table: what the refresh of each table reads and writes for five events of today."""
    size.upload(LAST_DAY, run)
    os.environ.update(size.deployment.environment)
    with open_pipeline(load_settings()) as pipeline:
        results = pipeline.process("a benchmark").refreshes
    for one in results:
        yield f"| {one.contract.full_name}, {size.events:,} | {one.bytes_read:,} | {one.bytes_written:,} |"


def rows(sizes: Sequence[Size]) -> Iterator[str]:
    """The rows of a Markdown table."""
    first = sizes[0]
    for name, runs_of in (("today", lambda size: size.today), ("late", lambda size: size.late)):
        for size in sizes:
            runs, base = runs_of(size), first.today if name == "today" else size.today
            cpu, memory = _cpu(runs), max(run.megabytes for run in runs)
            against = f"{cpu / _cpu(base):.2f} of {'the smallest' if name == 'today' else 'today'}"
            what = f"5 events, {name}, into {size.events:,} of {size.cars:,} cars"
            yield f"| {what} | {cpu:.2f} | {against} | {memory:.0f} |"


def _cpu(runs: Sequence[Measured]) -> float:
    return statistics.median(run.cpu_seconds for run in runs)


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--large", type=int, default=0, help="the number of events of a third lakehouse")
    arguments = parser.parse_args()
    with ExitStack() as opened:
        chosen = [(5_000, 100, 60), (300_000, 2_000, 60), (arguments.large, 5_000, 60)]
        sizes = [Size(opened.enter_context(temporary_deployment()), *one) for one in chosen if one[0]]
        for size in sizes:
            size.fill()
        measure_in_turn(sizes, arguments.runs)
        print("| `process` | median CPU s | ratio | most memory MB |\n|---|---|---|---|")
        print("\n".join(rows(sizes)))
        print("\n| table, events | bytes read | bytes written |\n|---|---|---|")
        for size in sizes:
            print("\n".join(byte_rows(size, arguments.runs + 1)))


if __name__ == "__main__":
    main()
