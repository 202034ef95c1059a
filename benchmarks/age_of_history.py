"""Benchmark of many small batches with the maintenance after each run: ``python -m benchmarks.age_of_history``.

Batches of five documents are processed one after another. Some of them are processed by `process` in a process of its
own, of which the CPU time is measured. At the end, uploads into this lakehouse and into a new one with the first tenth
of the batches are measured in turn. Then `maintain` is executed, and the files and bytes of each table before and after
it are compared. It prints Markdown, with a chart.

The batches come faster than in a real deployment. So the retention of snapshots is chosen such that about as many are
kept as with one upload per minute and the default retention.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from benchmarks.measuring import TemporaryDeployment, measure, temporary_deployment
from telemetry_assets.lakehouse.maintenance import TableSize
from telemetry_assets.pipeline import Pipeline, open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import all_tables

_CARS = 200
_BATCHES_PER_DAY = 200
_FIRST_DAY = date(2025, 11, 1)
_PROCESS = ("-m", "telemetry_assets", "process")
_MEASURED_TOGETHER = 5
_COMPARED = 15
_YOUNG = 10
"""The new lakehouse has the batches of one of this number of parts."""


@dataclass(frozen=True)
class Point:
    """What was measured after a number of batches.

    :param cpu_seconds: the median CPU time of `process` for one upload.
    :param files: the number of files of all tables.
    :param megabytes: their size.
    :param snapshots: the number of snapshots of all tables.
    """

    batches: int
    cpu_seconds: float
    files: int
    megabytes: float
    snapshots: int


def write_upload(landing: Path, number: int) -> None:
    """Write an upload of five events of five cars."""
    chosen = random.Random(number)
    day = _FIRST_DAY + timedelta(number // _BATCHES_PER_DAY)
    documents = [
        {
            "carChassis": f"CAR-{car:05d}",
            "telemetryTimestamp": f"{day}T{number % 24:02d}:{number % 60:02d}:{place:02d}Z",
            "metrics": {
                "currentMileageKm": 1_000.5 + number,
                "fuelAvailableLiters": chosen.randint(5, 60),
                "engineTempCelsius": chosen.randint(70, 125),
            },
        }
        for place, car in enumerate(chosen.sample(range(_CARS), 5))
    ]
    (landing / f"{number}.json").write_text(json.dumps(documents))


def points(deployment: TemporaryDeployment, batches: int, every: int) -> Iterator[Point]:
    """Process batches, and measure after each ``every`` of them."""
    number = 0
    with open_pipeline(load_settings()) as pipeline:
        while number < batches:
            process(deployment, pipeline, range(number, number + every - _MEASURED_TOGETHER))
            number += every - _MEASURED_TOGETHER
            seconds = []
            for _ in range(_MEASURED_TOGETHER):
                write_upload(deployment.landing, number)
                seconds.append(measure(_PROCESS, deployment).cpu_seconds)
                number += 1
            sizes = table_sizes(pipeline).values()
            yield Point(
                number,
                statistics.median(seconds),
                sum(one.files or 0 for one in sizes),
                sum(one.bytes or 0 for one in sizes) / 1e6,
                sum(one.snapshots for one in sizes),
            )


def process(deployment: TemporaryDeployment, pipeline: Pipeline, numbers: Iterable[int]) -> None:
    """Process uploads one after another."""
    for number in numbers:
        write_upload(deployment.landing, number)
        pipeline.process("a benchmark")


def in_turn(old: TemporaryDeployment, batches: int) -> str:
    """Measure uploads into an old lakehouse and a new one in turn, which hides changes of the machine's speed."""
    with temporary_deployment() as young:
        young.landing.mkdir(parents=True, exist_ok=True)
        os.environ.update(young.environment)
        with open_pipeline(load_settings()) as pipeline:
            process(young, pipeline, range(batches // _YOUNG))
        os.environ.update(old.environment)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(batches, batches + _COMPARED):
            for is_old, deployment in ((True, old), (False, young)):
                write_upload(deployment.landing, number)
                seconds[is_old].append(measure(_PROCESS, deployment).cpu_seconds)
    after, before = statistics.median(seconds[True]), statistics.median(seconds[False])
    return (
        f"In turn, medians of {_COMPARED} uploads: {after:.2f} s of CPU after {batches} batches, {before:.2f} s after "
        f"{batches // _YOUNG}: {after / before:.2f} times."
    )


def table_sizes(pipeline: Pipeline) -> dict[str, TableSize]:
    """The size of each table, with its stored files."""
    tables = {one.full_name: pipeline.lakehouse.existing(one) for one in all_tables()}
    return {name: TableSize.of(table, counts_files=True) for name, table in tables.items() if table is not None}


def compared(pipeline: Pipeline) -> Iterator[str]:
    """The rows of a Markdown table: each table before and after `maintain`, when old snapshots have expired."""
    before = table_sizes(pipeline)
    time.sleep(pipeline.settings.snapshot_retention_hours * 3600)
    list(pipeline.maintain(all_tables()))
    for name, after in table_sizes(pipeline).items():
        files, stored = before[name].files or 0, before[name].bytes or 0
        yield (
            f"| {name} | {files} | {after.files} | {files / (after.files or 1):.1f} | {stored / 1e6:.2f} | "
            f"{(after.bytes or 0) / 1e6:.2f} | {stored / (after.bytes or 1):.1f} |"
        )


def chart(measured: list[Point]) -> str:
    """A Mermaid chart of the CPU time."""
    batches = ", ".join(str(one.batches) for one in measured)
    seconds = ", ".join(f"{one.cpu_seconds:.2f}" for one in measured)
    return (
        f'```mermaid\nxychart-beta\n  title "CPU seconds of an upload"\n  x-axis "batches before" [{batches}]\n'
        f'  y-axis "seconds" 0 --> {max(one.cpu_seconds for one in measured) * 1.5:.0f}\n  line [{seconds}]\n```'
    )


def main() -> None:
    """Run the benchmark and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=2_000)
    parser.add_argument("--every", type=int, default=100, help="the number of batches between two measurements")
    parser.add_argument("--retention-seconds", type=float, default=90)
    parser.add_argument("--without-maintenance", action="store_true")
    arguments = parser.parse_args()
    with temporary_deployment() as deployment:
        deployment.landing.mkdir(parents=True, exist_ok=True)
        os.environ.update(deployment.environment)
        os.environ["TELEMETRY_SNAPSHOT_RETENTION_HOURS"] = str(arguments.retention_seconds / 3600)
        os.environ["TELEMETRY_ORPHAN_AGE_HOURS"] = str(arguments.retention_seconds / 3600)
        if arguments.without_maintenance:
            os.environ["TELEMETRY_MAINTENANCE_SECONDS"] = "0"
        measured = []
        print("| batches | median CPU s | files | MB | snapshots |\n|---|---|---|---|---|", flush=True)
        for point in points(deployment, arguments.batches, arguments.every):
            measured.append(point)
            print(
                f"| {point.batches} | {point.cpu_seconds:.2f} | {point.files} | {point.megabytes:.1f} | "
                f"{point.snapshots} |",
                flush=True,
            )
        print(f"\n{chart(measured)}\n\n{in_turn(deployment, arguments.batches)}\n", flush=True)
        print("| table | files | after `maintain` | ratio | MB | after `maintain` | ratio |")
        print("|---|---|---|---|---|---|---|")
        with open_pipeline(load_settings()) as pipeline:
            print("\n".join(compared(pipeline)))


if __name__ == "__main__":
    main()
