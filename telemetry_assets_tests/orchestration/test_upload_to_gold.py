"""The real sensor, daemon and run processes: uploads reach Gold without user actions, despite failures."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterRunStatus
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import EqualTo

from telemetry_assets.tables import ALERTS, BRONZE, CURRENT_STATE, SILVER, derived_tables
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.made_runs import status
from telemetry_assets_tests.harness.running_code_server import instance_in
from telemetry_assets_tests.harness.running_dagster import ENDED, RunningDagster, running_dagster
from telemetry_assets_tests.harness.waiting import until

pytestmark = pytest.mark.alone

TABLES = (BRONZE, *derived_tables())


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDagster]:
    with running_dagster(tmp_path_factory.mktemp("dagster")) as running:
        yield running


def rows(lakehouse: Path, table: str) -> list[dict[str, Any]]:
    catalog = SqlCatalog("telemetry", uri=f"sqlite:///{lakehouse / 'catalog.sqlite'}")
    if not catalog.table_exists(table):
        return []
    found: list[dict[str, Any]] = catalog.load_table(table).scan().to_arrow().to_pylist()
    return found


def alerted_cars(dagster: RunningDagster) -> set[str]:
    return {row["car_chassis"] for row in rows(dagster.lakehouse, ALERTS.full_name)}


def hot(car: str) -> bytes:
    return framed([event(car, "2025-11-04T10:00:00Z", engineTempCelsius=120)], "lines")[1]


def all_ended(dagster: RunningDagster) -> bool:
    return all(run["status"] in ENDED for run in dagster.runs())


def test_upload_reaches_gold_automatically_and_the_ui_shows_every_table(dagster: RunningDagster) -> None:
    dagster.upload("first.jsonl", hot("FIRST") + b'\n{"carChassis": ""}')
    dagster.until("the alert is in Gold", lambda: "FIRST" in alerted_cars(dagster))
    dagster.until("the run has ended", lambda: all_ended(dagster))
    assert [run["status"] for run in dagster.runs("ingest")] == ["SUCCESS"]
    for table in TABLES:
        [materialization] = dagster.materializations(*table.identifier)
        metadata = materialization["metadata"]
        assert materialization["partition"] == "2025-11-04"
        assert metadata["dagster/partition_row_count"]["intValue"] == 1
        assert metadata["snapshot_id"]["text"].isdigit()
        assert "FIRST" in str(metadata["preview"]["table"]["records"])
    assert dagster.materializations(*BRONZE.identifier)[0]["metadata"]["rejected"]["intValue"] == 1


def test_five_uploads_five_seconds_apart_are_all_processed(dagster: RunningDagster) -> None:
    cars = {f"BURST-{number}" for number in range(5)}
    for car in sorted(cars):
        dagster.upload(f"{car}.json", hot(car))
        time.sleep(5)
    dagster.until("all five are in Gold", lambda: cars <= alerted_cars(dagster))
    dagster.until("all runs have ended", lambda: all_ended(dagster))
    assert cars <= {row["car_chassis"] for row in rows(dagster.lakehouse, CURRENT_STATE.full_name)}
    assert len(rows(dagster.lakehouse, BRONZE.full_name)) == len(rows(dagster.lakehouse, SILVER.full_name)) == 6
    runs = sorted(dagster.runs("ingest"), key=lambda run: float(run["startTime"]))
    assert {run["status"] for run in runs} == {"SUCCESS"}
    for earlier, later in pairwise(runs):
        assert earlier["endTime"] <= later["startTime"]


def test_backfill_of_a_range_repairs_damaged_dates_in_one_run(dagster: RunningDagster) -> None:
    before = rows(dagster.lakehouse, SILVER.full_name)
    catalog = SqlCatalog("telemetry", uri=f"sqlite:///{dagster.lakehouse / 'catalog.sqlite'}")
    catalog.load_table(SILVER.full_name).delete(EqualTo(term="event_date", value=date(2025, 11, 4)))
    dagster.backfill([list(table.identifier) for table in derived_tables()], ["2025-11-03", "2025-11-04", "2025-11-05"])

    def backfill_runs() -> list[dict[str, Any]]:
        tagged = [run for run in dagster.runs() if any(tag["key"] == "dagster/backfill" for tag in run["tags"])]
        return [run for run in tagged if run["status"] in ENDED]

    [run] = dagster.until("the backfill has run", backfill_runs)
    assert run["status"] == "SUCCESS"
    dagster.until("Gold has followed", lambda: all_ended(dagster) and alerted_cars(dagster))
    assert sorted(rows(dagster.lakehouse, SILVER.full_name), key=str) == sorted(before, key=str)
    assert len(alerted_cars(dagster)) == 6
    assert {one["partition"] for one in dagster.materializations(*SILVER.identifier)} == {
        "2025-11-03",
        "2025-11-04",
        "2025-11-05",
    }


def test_manual_change_of_silver_reaches_gold_automatically(dagster: RunningDagster) -> None:
    catalog = SqlCatalog("telemetry", uri=f"sqlite:///{dagster.lakehouse / 'catalog.sqlite'}")
    catalog.load_table(SILVER.full_name).delete(EqualTo(term="car_chassis", value="FIRST"))
    dagster.until("Gold has followed", lambda: "FIRST" not in alerted_cars(dagster))
    dagster.until("all runs have ended", lambda: all_ended(dagster))
    assert "FIRST" not in {row["car_chassis"] for row in rows(dagster.lakehouse, CURRENT_STATE.full_name)}


def test_run_killed_with_its_code_server_is_failed_and_its_work_is_completed(tmp_path: Path) -> None:
    large = framed([event(f"CAR-{number % 50}", engineTempCelsius=120) for number in range(40_000)], "lines")[1]
    with running_dagster(tmp_path) as dagster:
        dagster.upload("large.jsonl", large)
        in_progress = dagster.lakehouse / "ingestion" / "in_progress.json"
        dagster.until("a batch is in progress", in_progress.exists)
        dagster.kill()
        _end_everything_below(tmp_path)
    with running_dagster(tmp_path) as dagster:
        dagster.until("the batch has come to Gold", lambda: len(alerted_cars(dagster)) == 50)
        dagster.until("all runs have ended", lambda: all_ended(dagster))
        assert sorted(run["status"] for run in dagster.runs("ingest")) == ["FAILURE", "SUCCESS"]
        assert len(rows(dagster.lakehouse, BRONZE.full_name)) == 40_000


def test_dagster_dev_that_gets_sigterm_ends_its_runs(tmp_path: Path) -> None:
    large = framed([event(f"CAR-{number % 50}", engineTempCelsius=120) for number in range(200_000)], "lines")[1]
    with running_dagster(tmp_path) as dagster, instance_in(tmp_path) as instance:
        dagster.upload("large.jsonl", large)
        in_progress = dagster.lakehouse / "ingestion" / "in_progress.json"
        dagster.until("a batch is in progress", in_progress.exists)
        [run] = dagster.runs("ingest")
        dagster.process.send_signal(signal.SIGTERM)
        dagster.process.wait(60)
        until(lambda: status(instance, run["runId"]).name in ENDED, seconds=30)
        assert status(instance, run["runId"]) == DagsterRunStatus.FAILURE


def _end_everything_below(folder: Path) -> None:
    """Kill all processes that work in a folder; runs have their own sessions."""
    found = subprocess.run(["pgrep", "-f", "dagster"], capture_output=True, text=True, check=False)
    for pid in found.stdout.split():
        try:
            if Path(os.readlink(f"/proc/{pid}/cwd")) == folder:
                os.kill(int(pid), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
