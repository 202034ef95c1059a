"""A lakehouse that version 0.1.0 has written becomes one of this version at the first run, even if it is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from telemetry_assets.lakehouse.doctor import examine
from telemetry_assets.lakehouse.evolution import additive_changes
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import (
    ALERTS,
    BRONZE,
    CURRENT_STATE,
    FUEL_EFFICIENCY,
    REJECTED,
    SILVER,
    UPLOADS,
    all_tables,
)
from telemetry_assets_tests.harness import first_edition
from telemetry_assets_tests.harness.contract_reading import Batch, read_batches
from telemetry_assets_tests.harness.deployment import READINGS, Deployment, assert_same_rows
from telemetry_assets_tests.harness.killed_process import INSURANCE_AS_OF, Run, Stage
from telemetry_assets_tests.harness.made_documents import event, framed

NEW_UPLOAD = framed([event("CAR-A", "2026-03-01T23:00:00Z", event_id="1", engineTempCelsius=130)], "joined")[1]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path, tmp_path / "landing")
    stage.landing.mkdir()
    first_edition.build(stage.lakehouse, stage.landing)
    return stage


def deployed_in(stage: Stage) -> Deployment:
    settings = Settings(landing_uri=str(stage.landing), lakehouse_uri=str(stage.lakehouse))
    with open_pipeline(settings) as pipeline:
        return Deployment(settings, pipeline)


def assert_is_of_this_version(deployed: Deployment) -> None:
    """Silver and Gold equal the independent reading of the archived uploads, and nothing is left to do."""
    deployed.recall_batches()
    reports = sorted(deployed.batch_reports, key=lambda one: one.ingested_at)
    batches = [Batch(one.batch_id, one.ingested_at, tuple(deployed.archived(one.batch_id))) for one in reports]
    reading = read_batches(batches, INSURANCE_AS_OF)
    for derived, rows in {
        SILVER: reading.silver,
        CURRENT_STATE: reading.car_current_state,
        FUEL_EFFICIENCY: reading.fuel_efficiency_monthly,
        ALERTS: reading.performance_alerts,
    }.items():
        assert_same_rows(derived, deployed.rows(derived), rows)
    for contract in all_tables():
        assert list(additive_changes(deployed.pipeline.lakehouse.table(contract), contract)) == []
    assert deployed.pipeline.tables_behind() == []
    assert not any(finding.needs_action for finding in examine(deployed.pipeline.lakehouse))


def test_first_run_makes_it_a_lakehouse_of_this_version(stage: Stage) -> None:
    Run().happen(stage)
    deployed = deployed_in(stage)
    assert_is_of_this_version(deployed)
    assert {(row["car_chassis"], row["event_id"]) for row in deployed.rows(SILVER)} >= {("CAR-A", "1"), ("CAR-B", "1")}
    assert {row["car_chassis"] for row in deployed.rows(CURRENT_STATE)} == {"CAR-A", "CAR-B", "9BWZZZ377VT004251"}
    assert [(row["source_uri"], row["accepted"], row["rejected"]) for row in deployed.rows(UPLOADS)] == [
        (f"file://{stage.landing}/one.jsonl", 7, 1)
    ]


def test_new_uploads_are_merged_with_the_rows_of_the_older_version(stage: Stage) -> None:
    (stage.landing / "new.JSON").write_bytes(NEW_UPLOAD)
    Run().happen(stage)
    deployed = deployed_in(stage)
    assert_is_of_this_version(deployed)
    [alert] = [row for row in deployed.rows(ALERTS) if row["alert_value"] == 130]
    assert (alert["car_chassis"], alert["alert_severity"]) == ("CAR-A", "CRITICAL")


def test_the_doctor_says_what_the_first_run_will_do(stage: Stage) -> None:
    found = [one.text for one in examine(deployed_in(stage).pipeline.lakehouse)]
    assert sum("the next run changes it to its contract" in text for text in found) == len(all_tables()) - 1
    assert sum("edition 1 of its transform has computed it" in text for text in found) == 3


@pytest.mark.parametrize(
    "point",
    [
        "after the commit to bronze.car_telemetry",
        "after the commit to silver.car_telemetry",
        "after writing metadata of gold.performance_alerts",
        "before replacing rows of silver.car_telemetry",
        "after replacing rows of silver.car_telemetry",
        "after replacing rows of gold.car_current_state",
        "before replacing rows of gold.fuel_efficiency_monthly",
        "after replacing rows of gold.performance_alerts",
    ],
)
def test_the_next_run_completes_a_first_run_that_was_killed(stage: Stage, point: str) -> None:
    (stage.landing / "new.JSON").write_bytes(NEW_UPLOAD)
    Run(killed=point).happen(stage)
    Run().happen(stage)
    assert_is_of_this_version(deployed_in(stage))


def test_batch_that_version_010_began_to_write_is_written_again(tmp_path: Path) -> None:
    """Version 0.1.0 rejects two objects on one line as one document; this version accepts both."""
    stage = Stage(tmp_path, tmp_path / "landing")
    stage.landing.mkdir()
    one, *joined = (json.dumps(event(f"CAR-{number}")) for number in range(3))
    (stage.landing / "x.jsonl").write_text(f"{one}\n{''.join(joined)}\n{{}}\n")
    Run(killed="after the commit to bronze.rejected_documents").happen(stage)
    as_of_version_010(stage, "".join(joined))
    Run().happen(stage)
    deployed = deployed_in(stage)
    deployed.recall_batches()
    reading = deployed.expected()
    for contract in (BRONZE, REJECTED, SILVER):
        assert_same_rows(contract, deployed.rows(contract), READINGS[contract](reading))
    assert [(row["documents"], row["accepted"], row["rejected"]) for row in deployed.rows(UPLOADS)] == [(4, 3, 1)]
    assert all(batch.conserved for batch in deployed.pipeline.reconcile().batches)


def test_empty_snapshot_of_version_010_does_not_hide_the_rows_of_its_batch(tmp_path: Path) -> None:
    """Version 0.1.0 commits a snapshot of Bronze also if it has rejected all documents of a batch."""
    stage = Stage(tmp_path, tmp_path / "landing")
    stage.landing.mkdir()
    joined = "".join(json.dumps(event(f"CAR-{number}")) for number in range(2))
    (stage.landing / "x.jsonl").write_text(f"{joined}\n{{}}\n")
    Run(killed="after the commit to bronze.rejected_documents").happen(stage)
    as_of_version_010(stage, joined)
    entry = json.loads((stage.lakehouse / "ingestion" / "in_progress.json").read_text())
    bronze = SqlCatalog("telemetry", uri=f"sqlite:///{stage.lakehouse}/catalog.sqlite").load_table(BRONZE.identifier)
    bronze.append(BRONZE.arrow_schema.empty_table(), {"telemetry.batch-id": entry["batch_id"]})
    Run().happen(stage)
    deployed = deployed_in(stage)
    assert [row["car_chassis"] for row in deployed.rows(BRONZE)] == ["CAR-0", "CAR-1"]
    assert all(batch.conserved for batch in deployed.pipeline.reconcile().batches)


def as_of_version_010(stage: Stage, rejected_line: str) -> None:
    """Change the journal and the rejected documents to what version 0.1.0 writes."""
    journal = stage.lakehouse / "ingestion" / "in_progress.json"
    entry = json.loads(journal.read_text())
    assert entry.pop("parser_edition") == 2
    journal.write_text(json.dumps(entry))
    catalog = SqlCatalog("telemetry", uri=f"sqlite:///{stage.lakehouse}/catalog.sqlite")
    table = catalog.load_table(REJECTED.identifier)
    [row] = table.scan().to_arrow().to_pylist()
    position = int(row["source_position"]) - 1
    rows = [
        {**row, "source_position": position - 1, "payload": rejected_line},
        {**row, "source_position": position},
    ]
    table.overwrite(pa.Table.from_pylist(rows, schema=REJECTED.arrow_schema))
