"""``bronze.uploads`` has one correct row per upload, despite crashes, maintenance and expired snapshots."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.table import Table

from telemetry_assets.ingestion import batches
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.ingestion.reconciliation import reconcile
from telemetry_assets.lakehouse.batch_rows import append_batch
from telemetry_assets.lakehouse.snapshots import MAINTENANCE
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

TABLES_OF_BRONZE = (BRONZE, REJECTED, UPLOADS)


def lines(*documents: dict[str, Any]) -> bytes:
    return framed(list(documents), "lines")[1]


def compact(deployed: Deployment, contract: TableContract, *, marked: bool = True) -> None:
    """Compact a table as another tool's maintenance does."""
    table = deployed.pipeline.lakehouse.table(contract)
    table.overwrite(table.scan().to_arrow(), snapshot_properties={MAINTENANCE: "compaction"} if marked else {})


def expire(deployed: Deployment, contract: TableContract) -> None:
    table: Table = deployed.pipeline.lakehouse.table(contract)
    current = table.current_snapshot()
    old = [one.snapshot_id for one in table.snapshots() if current is None or one.snapshot_id != current.snapshot_id]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()


def cut_off(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool]) -> None:
    """Let a step fail before its first call that meets the condition, as a power failure does."""
    original = getattr(owner, name)

    def failing(*arguments: Any) -> Any:
        if when(*arguments):
            raise OSError("cut off")
        return original(*arguments)

    monkeypatch.setattr(owner, name, failing)


def assert_all_is_right(deployed: Deployment) -> None:
    deployed.recall_batches()
    deployed.assert_equals_the_contract()
    assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)


def test_each_upload_has_a_row_with_its_outcome(deployed: Deployment) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    deployed.upload("a.jsonl", lines(event("CAR-1", odd=1, year="n/a"), event("CAR-2", odd=2), {}))
    deployed.upload("b.json", b"[]")
    deployed.upload("notes.txt", b"hello")
    deployed.process()
    a, b, notes = sorted(deployed.rows(UPLOADS), key=lambda row: row["source_uri"])
    assert (a["documents"], a["accepted"], a["rejected"], a["problem"]) == (3, 2, 1, None)
    assert (b["documents"], b["accepted"], b["rejected"], b["problem"]) == (0, 0, 0, None)
    assert (notes["documents"], notes["accepted"], notes["rejected"]) == (1, 0, 1)
    assert notes["problem"] == "unsupported_ending"
    assert json.loads(a["unknown_fields"]) == {"odd": 2}
    assert json.loads(a["wrong_typed_fields"]) == {"year": 1}
    assert notes["stored_bytes"] == 5
    assert before < a["uploaded_at"] <= a["ingested_at"] <= datetime.now(UTC)
    archived = [row["archive_uri"].removeprefix("file://") for row in (a, b, notes)]
    assert [open(path, "rb").read() for path in archived][1:] == [b"[]", b"hello"]  # noqa: SIM115
    assert_all_is_right(deployed)


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "not marked"])
@pytest.mark.parametrize("expired", [True, False], ids=["and expired", "and kept"])
def test_crash_then_maintenance(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, marked: bool, expired: bool
) -> None:
    """A run dies between Bronze's commit and archiving; then another tool compacts and expires older snapshots."""
    deployed.upload("a.jsonl", lines(event("CAR-1"), event("CAR-2")))
    deployed.upload("bad.jsonl", b"broken\n")
    cut_off(monkeypatch, FolderLanding, "archive", lambda *_: True)
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    monkeypatch.undo()
    for contract in TABLES_OF_BRONZE:
        compact(deployed, contract, marked=marked)
        if expired:
            expire(deployed, contract)
    deployed.process()
    assert (len(deployed.rows(BRONZE)), len(deployed.rows(REJECTED)), len(deployed.rows(UPLOADS))) == (2, 1, 2)
    assert_all_is_right(deployed)


@pytest.mark.parametrize("contract", TABLES_OF_BRONZE, ids=lambda contract: contract.name)
def test_batch_interrupted_before_any_commit_is_completed_once_despite_maintenance(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, contract: TableContract
) -> None:
    deployed.upload("first.jsonl", lines(event("CAR-0"), {}))
    deployed.process()
    deployed.upload("second.jsonl", lines(event("CAR-1"), event("CAR-2"), {}))
    cut_off(monkeypatch, batches, "append_batch", lambda _, table, *__: table is contract)
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    monkeypatch.undo()
    for other in TABLES_OF_BRONZE:
        compact(deployed, other)
        expire(deployed, other)
    deployed.process()
    assert len(deployed.rows(BRONZE)) == 3
    assert len(deployed.rows(REJECTED)) == 2
    assert_all_is_right(deployed)


def test_expired_snapshot(deployed: Deployment) -> None:
    """Reconciliation finds every batch after all snapshots except the current one have expired."""
    for number in range(4):
        deployed.upload(f"{number}.jsonl", lines(event("CAR-1", time=f"2026-03-0{number + 1}T08:00:00Z")))
        deployed.process()
    for contract in TABLES_OF_BRONZE:
        expire(deployed, contract)
    found = reconcile(deployed.pipeline.lakehouse).batches
    assert [(one.documents, one.accepted, one.rejected, one.conserved) for one in found] == [(1, 1, 0, True)] * 4
    deployed.upload("late.jsonl", lines(event("CAR-1", time="2026-03-01T09:00:00Z")))
    deployed.process()
    assert_all_is_right(deployed)


def test_batches_stay_in_order_after_their_snapshots_expired(deployed: Deployment) -> None:
    for number in range(3):
        deployed.upload(f"{number}.jsonl", lines(event("CAR-1")))
        deployed.process()
        for contract in TABLES_OF_BRONZE:
            compact(deployed, contract)
            expire(deployed, contract)
    moments = [row["ingested_at"] for row in sorted(deployed.rows(UPLOADS), key=lambda row: row["source_uri"])]
    assert moments == sorted(set(moments))


def test_a_replay_is_recorded(deployed: Deployment) -> None:
    from dataclasses import replace

    deployed.pipeline.ingestion = replace(
        deployed.pipeline.ingestion, settings=deployed.settings.model_copy(update={"upload_max_documents": 1})
    )
    deployed.upload("two.jsonl", lines(event("CAR-1", odd=1), {}))
    deployed.process()
    assert [row["problem"] for row in deployed.rows(UPLOADS)] == ["too_many_documents"]
    deployed.pipeline.ingestion = replace(deployed.pipeline.ingestion, settings=deployed.settings)
    deployed.pipeline.replay_rejected(ReplaySelection(), "replay")
    [row] = deployed.rows(UPLOADS)
    assert (row["documents"], row["accepted"], row["rejected"], row["problem"]) == (2, 1, 1, None)
    assert json.loads(row["unknown_fields"]) == {"odd": 1}
    assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)


def test_reconciliation_finds_what_is_missing_by_batch_and_by_upload(deployed: Deployment) -> None:
    deployed.upload("kept.jsonl", lines(event("CAR-1")))
    deployed.upload("robbed.jsonl", lines(event("CAR-2"), event("CAR-3")))
    deployed.process()
    deployed.pipeline.lakehouse.table(BRONZE).delete("car_chassis = 'CAR-3'")
    reconciled = reconcile(deployed.pipeline.lakehouse)
    [batch] = reconciled.batches
    assert (batch.documents, batch.accepted, batch.conserved) == (3, 2, False)
    assert [uri.rpartition("/")[2] for uri in batch.differing] == ["robbed.jsonl"]
    conserved = {row["source_uri"].rpartition("/")[2]: row["conserved"] for row in reconciled.uploads.to_pylist()}
    assert conserved == {"kept.jsonl": True, "robbed.jsonl": False}


def test_reconciliation_fails_for_rows_of_uploads_missing_in_the_ledger(deployed: Deployment) -> None:
    deployed.upload("a.jsonl", lines(event("CAR-1")))
    deployed.process()
    deployed.pipeline.lakehouse.table(UPLOADS).delete(AlwaysTrue())
    [batch] = reconcile(deployed.pipeline.lakehouse).batches
    assert (batch.documents, batch.accepted, batch.conserved) == (None, 1, False)


def test_batch_in_progress_is_not_reconciled(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed.upload("a.jsonl", lines(event("CAR-1")))
    cut_off(monkeypatch, batches, "append_batch", lambda _, table, *__: table is UPLOADS)
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    assert deployed.pipeline.reconcile().batches == []


def test_a_batch_without_an_accepted_document_leaves_no_snapshot_in_bronze(deployed: Deployment) -> None:
    deployed.upload("bad.json", b"broken")
    deployed.process()
    assert deployed.pipeline.lakehouse.table(BRONZE).current_snapshot() is None
    assert_all_is_right(deployed)


Event = st.sampled_from(["upload", "broken", "cut off", "compact", "expire", "run"])


@pytest.mark.long
@given(events=st.lists(st.tuples(Event, st.integers(0, 2)), min_size=3, max_size=9))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_crashes_and_maintenance_keeps_each_document_once(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    from telemetry_assets_tests.harness.deployment import deployment

    with deployment(tmp_path_factory.mktemp("property")) as deployed, pytest.MonkeyPatch.context() as patch:
        for number, (what, which) in enumerate(events):
            contract = TABLES_OF_BRONZE[which]
            if what == "upload":
                deployed.upload(f"{number}.jsonl", lines(event(f"CAR-{number}"), event(f"CAR-{which}")))
            elif what == "broken":
                deployed.upload(f"{number}.jsonl", b"broken\n")
            elif what == "cut off":
                cut_off(patch, batches, "append_batch", lambda _, table, *__, at=contract: table is at)
                try:
                    deployed.process()
                except OSError as error:
                    assert str(error) == "cut off"  # noqa: PT017
                patch.undo()
            elif what == "run":
                deployed.process()
            elif deployed.pipeline.lakehouse.existing(contract) is not None:
                (compact if what == "compact" else expire)(deployed, contract)
        deployed.process()
        assert_all_is_right(deployed)


def test_a_batch_is_found_by_its_rows_alone(deployed: Deployment) -> None:
    deployed.upload("a.jsonl", lines(event("CAR-1")))
    deployed.process()
    lakehouse = deployed.pipeline.lakehouse
    [batch_id] = deployed.batch_ids()
    rows = lakehouse.table(BRONZE).scan().to_arrow()
    compact(deployed, BRONZE)
    expire(deployed, BRONZE)
    assert append_batch(lakehouse, BRONZE, batch_id, rows, {}) is None
    assert len(deployed.rows(BRONZE)) == 1


@pytest.mark.parametrize("second", [b"", b"\nbroken\n"], ids=["all accepted", "some rejected"])
def test_batch_partly_archived_by_the_first_version_is_completed(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, second: bytes
) -> None:
    deployed.upload("a.json", lines(event("CAR-1")))
    deployed.upload("b.jsonl", lines(event("CAR-2")) + second)
    cut_off(monkeypatch, FolderLanding, "archive", lambda _landing, _batch, upload: upload.name == "b.jsonl")
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    monkeypatch.undo()
    deployed.pipeline.lakehouse.catalog.drop_table(UPLOADS.identifier)
    shutil.rmtree(deployed.settings.lakehouse_folder() / "bronze" / "uploads")
    journal = deployed.settings.lakehouse_folder() / "ingestion" / "in_progress.json"
    batch = json.loads(journal.read_text())
    del batch["positions"]
    journal.write_text(json.dumps(batch))
    deployed.process()
    assert_all_is_right(deployed)
    assert sorted(row["car_chassis"] for row in deployed.rows(BRONZE)) == ["CAR-1", "CAR-2"]
    assert not deployed.pipeline.ingestion.has_work()


def test_batch_begun_before_the_catalog_was_restored_is_ingested_once(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("a.json", lines(event("CAR-1")))
    cut_off(monkeypatch, batches, "append_batch", lambda *_: True)
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    monkeypatch.undo()
    journal = deployed.settings.lakehouse_folder() / "ingestion" / "in_progress.json"
    batch = json.loads(journal.read_text())
    for position in batch["positions"].values():
        position["sequence_number"] += 3
    journal.write_text(json.dumps(batch))
    deployed.process()
    assert len(deployed.rows(BRONZE)) == 1
    assert_all_is_right(deployed)
