"""Archived uploads whose rows are in no table are ingested again automatically, without duplicates."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.expressions import AlwaysTrue, EqualTo

from telemetry_assets.ingestion.archive_audit import AuditFinding
from telemetry_assets.ingestion.landing import files
from telemetry_assets.ingestion.landing import folder as folder_landing
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.ingestion.reconciliation import reconcile
from telemetry_assets.tables import BRONZE, REJECTED, SILVER, UPLOADS
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed

pytestmark = pytest.mark.long


def one(car: str, **fields: Any) -> bytes:
    return framed([event(car, **fields)], "lines")[1].strip()


def cars(deployed: Deployment) -> list[str]:
    return sorted(row["car_chassis"] for row in deployed.rows(BRONZE))


def forget_ledger(deployed: Deployment) -> None:
    """Remove the ledger, which the first version did not have."""
    deployed.pipeline.lakehouse.catalog.drop_table(UPLOADS.identifier)
    shutil.rmtree(deployed.settings.lakehouse_folder() / "bronze" / "uploads")


def lose_newest_commit(deployed: Deployment) -> None:
    """Lose a commit, as the first version did if another process blocked it."""
    table = deployed.pipeline.lakehouse.table(BRONZE)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.parent_snapshot_id is not None
    table.manage_snapshots().rollback_to_snapshot(snapshot.parent_snapshot_id).commit()


def assert_all_is_right(deployed: Deployment) -> None:
    deployed.recall_batches()
    deployed.assert_equals_the_contract()
    assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
    assert list(deployed.pipeline.ingestion.audit.everything()) == []


def test_first_run_repairs_a_lakehouse_that_the_first_version_damaged(
    deployed: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployed.upload("first.json", one("CAR-1", odd=1))
    deployed.upload("broken.json", b"broken")
    deployed.process()
    deployed.upload("second.jsonl", one("CAR-2") + b"\nbroken\n")
    deployed.process()
    lose_newest_commit(deployed)
    forget_ledger(deployed)
    assert cars(deployed) == ["CAR-1"]
    caplog.clear()
    deployed.process()
    assert cars(deployed) == ["CAR-1", "CAR-2"]
    assert len(deployed.rows(REJECTED)) == 2
    assert_all_is_right(deployed)
    assert [record.message for record in caplog.records if record.message.startswith("bronze.uploads is new")] == [
        "bronze.uploads is new: 2 uploads recorded from the tables and the archive, 1 upload moved back because their "
        "rows are in no table"
    ]


def test_ledger_of_an_older_lakehouse_is_reconstructed(deployed: Deployment) -> None:
    deployed.upload("a.json", one("CAR-1", odd=1, year="n/a"))
    deployed.upload("b.jsonl", b"broken\n" + one("CAR-2"))
    deployed.upload("c.json", b"[]")
    deployed.upload("d.txt", b"x")
    deployed.process()
    before = sorted(deployed.rows(UPLOADS), key=lambda row: row["source_uri"])
    forget_ledger(deployed)
    deployed.process()
    assert sorted(deployed.rows(UPLOADS), key=lambda row: row["source_uri"]) == before


def test_the_ledger_is_filled_once(deployed: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    deployed.upload("a.json", one("CAR-1"))
    deployed.process()
    forget_ledger(deployed)
    deployed.process()
    caplog.clear()
    deployed.process()
    assert len(deployed.rows(UPLOADS)) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_uploads_are_ingested_again_after_a_rollback_of_bronze(deployed: Deployment) -> None:
    deployed.upload("first.json", one("CAR-1"))
    deployed.process()
    deployed.upload("second.json", one("CAR-2"))
    deployed.process()
    lose_newest_commit(deployed)
    deployed.process()
    assert cars(deployed) == ["CAR-1", "CAR-2"]
    assert_all_is_right(deployed)


def test_uploads_without_rows_are_ingested_again_without_duplicate_rejections(deployed: Deployment) -> None:
    deployed.upload("mixed.jsonl", one("CAR-1") + b"\nbroken\n")
    deployed.upload("other.json", one("CAR-2"))
    deployed.process()
    deployed.pipeline.lakehouse.table(BRONZE).delete(EqualTo(term="car_chassis", value="CAR-1"))
    deployed.process()
    assert cars(deployed) == ["CAR-1", "CAR-2"]
    assert len(deployed.rows(REJECTED)) == 1
    assert_all_is_right(deployed)


def test_upload_that_lacks_some_rows_is_reported_and_not_ingested_again(
    deployed: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployed.upload("two.jsonl", one("CAR-1") + b"\n" + one("CAR-2"))
    deployed.process()
    deployed.pipeline.lakehouse.table(BRONZE).delete(EqualTo(term="car_chassis", value="CAR-1"))
    deployed.process()
    assert cars(deployed) == ["CAR-2"]
    [finding] = deployed.pipeline.ingestion.audit.everything()
    assert finding.kind == "incomplete"
    assert [record.message for record in caplog.records if "is incomplete" in record.message]
    assert [batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches] == [False]


def test_an_upload_that_is_missing_in_the_ledger_is_recorded(deployed: Deployment) -> None:
    deployed.upload("a.json", one("CAR-1"))
    deployed.process()
    before = deployed.rows(UPLOADS)
    deployed.pipeline.lakehouse.table(UPLOADS).delete(AlwaysTrue())
    deployed.process()
    assert deployed.rows(UPLOADS) == before
    assert cars(deployed) == ["CAR-1"]


def test_next_audit_completes_an_interrupted_one(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed.upload("mixed.jsonl", one("CAR-1") + b"\nbroken\n")
    deployed.process()
    deployed.pipeline.lakehouse.table(BRONZE).delete(AlwaysTrue())

    def failing(*_: object) -> bool:
        raise OSError("cut off")

    monkeypatch.setattr(FolderLanding, "move_back", failing)
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    monkeypatch.undo()
    deployed.process()
    assert cars(deployed) == ["CAR-1"]
    assert len(deployed.rows(REJECTED)) == 1
    assert_all_is_right(deployed)


def test_next_audit_completes_an_interrupted_one_of_a_batch_with_other_uploads(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("a.json", one("CAR-1"))
    deployed.upload("b.jsonl", one("CAR-2"))
    deployed.process()
    [archived] = deployed.settings.lakehouse_folder().glob("archive/*/b.jsonl")
    with archived.open("ab") as writer:
        writer.write(b"\n" + one("CAR-3"))

    def failing(*_: object) -> bool:
        raise OSError("cut off")

    monkeypatch.setattr(FolderLanding, "move_back", failing)
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    monkeypatch.undo()
    deployed.process()
    assert cars(deployed) == ["CAR-1", "CAR-2", "CAR-3"]
    assert_all_is_right(deployed)


def test_an_upload_that_cannot_be_read_is_not_recorded_as_empty(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("a.json", one("CAR-1"))
    deployed.process()
    for contract in (BRONZE, UPLOADS):
        deployed.pipeline.lakehouse.table(contract).delete(AlwaysTrue())

    def failing(*_: object) -> bytes:
        raise OSError("stale file handle")

    monkeypatch.setattr(FolderLanding, "archived_content", failing)
    deployed.process()
    assert [finding.kind for finding in deployed.pipeline.ingestion.audit.everything()] == ["unreadable"]
    monkeypatch.undo()
    deployed.process()
    assert cars(deployed) == ["CAR-1"]
    assert_all_is_right(deployed)


def test_all_uploads_of_a_batch_are_recorded_in_one_commit(deployed: Deployment) -> None:
    for number in range(5):
        deployed.upload(f"{number}.json", one(f"CAR-{number}"))
    deployed.process()
    before = sorted(deployed.rows(UPLOADS), key=lambda row: row["source_uri"])
    deployed.pipeline.lakehouse.table(UPLOADS).delete(AlwaysTrue())
    snapshots = len(deployed.pipeline.lakehouse.table(UPLOADS).snapshots())
    deployed.process()
    assert sorted(deployed.rows(UPLOADS), key=lambda row: row["source_uri"]) == before
    assert len(deployed.pipeline.lakehouse.table(UPLOADS).snapshots()) == snapshots + 1


def test_upload_is_moved_back_even_if_another_run_removes_its_target_folder(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("a.json", one("CAR-1"))
    deployed.process()
    deployed.pipeline.lakehouse.table(BRONZE).delete(AlwaysTrue())
    move = files.move_file
    ended: list[bool] = []

    def after_another_batch_ended(source: Path, target: Path, last: Path) -> None:
        if not ended:
            ended.append(True)
            deployed.pipeline.ingestion.landing.finish("another batch")
        move(source, target, last)

    monkeypatch.setattr(folder_landing, "move_file", after_another_batch_ended)
    deployed.process()
    assert cars(deployed) == ["CAR-1"]
    assert_all_is_right(deployed)


def test_recording_an_upload_does_not_hide_a_lost_one_of_the_same_batch(deployed: Deployment) -> None:
    deployed.upload("rejected.json", b"broken")
    deployed.upload("mixed.jsonl", one("CAR-1") + b"\nbroken\n")
    deployed.process()
    for contract in (BRONZE, UPLOADS):
        deployed.pipeline.lakehouse.table(contract).delete(AlwaysTrue())
    audit = deployed.pipeline.ingestion.audit
    findings = sorted(audit.everything(), key=lambda finding: finding.kind, reverse=True)
    assert [finding.kind for finding in findings] == ["unrecorded", "lost"]
    for finding in findings:
        audit.repair([finding], "audit")
    deployed.process()
    assert cars(deployed) == ["CAR-1"]
    assert len(deployed.rows(REJECTED)) == 2
    assert_all_is_right(deployed)


@pytest.mark.parametrize("name", [b"a.json", b"\xff.json"], ids=["UTF-8", "other bytes"])
def test_file_rewritten_with_the_same_size_is_ingested_again(deployed: Deployment, name: bytes) -> None:
    # Some programs allocate a file's full size before they copy its content.
    content = one("CAR-1")
    deployed.upload(os.fsdecode(name), bytes(len(content)))
    deployed.process()
    assert cars(deployed) == []
    [archived] = deployed.settings.lakehouse_folder().glob("archive/*/*.json")
    archived.write_bytes(content)
    deployed.process()
    assert cars(deployed) == ["CAR-1"]
    assert deployed.rows(REJECTED) == []
    assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
    assert list(deployed.pipeline.ingestion.audit.everything()) == []


def test_lakehouse_copied_without_modification_times_is_not_changed(deployed: Deployment) -> None:
    deployed.upload("a.jsonl", one("CAR-1") + b"\nbroken\n")
    deployed.upload("b.txt", b"x")
    deployed.process()
    batches = deployed.batch_ids()
    for archived in deployed.settings.lakehouse_folder().glob("archive/*/*"):
        os.utime(archived, (1_700_000_000, 1_700_000_000))
    deployed.process()
    assert deployed.batch_ids() == batches
    assert list(deployed.pipeline.ingestion.audit.everything()) == []


def test_manually_deleted_rows_do_not_return_with_new_modification_times(deployed: Deployment) -> None:
    deployed.upload("two.jsonl", one("CAR-1") + b"\n" + one("CAR-2"))
    deployed.process()
    deployed.pipeline.lakehouse.table(BRONZE).delete(EqualTo(term="car_chassis", value="CAR-1"))
    [archived] = deployed.settings.lakehouse_folder().glob("archive/*/*")
    os.utime(archived, (1_700_000_000, 1_700_000_000))
    deployed.process()
    assert cars(deployed) == ["CAR-2"]
    assert [finding.kind for finding in deployed.pipeline.ingestion.audit.everything()] == ["incomplete"]


def test_audit_does_not_read_an_upload_above_the_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with deployment(tmp_path, upload_max_bytes=1_000) as deployed:
        deployed.upload("large.json", b" " * 4_000)
        deployed.process()
        forget_ledger(deployed)

        def unread(*_: object) -> bytes:
            raise MemoryError

        monkeypatch.setattr(FolderLanding, "archived_content", unread)
        deployed.process()
        assert [row["rejected"] for row in deployed.rows(UPLOADS)] == [1]


def test_file_that_grows_after_archiving_is_ingested_again(deployed: Deployment) -> None:
    deployed.upload("trip.jsonl", one("CAR-1") + b"\n" + one("CAR-2")[:20])
    deployed.process()
    [archived] = deployed.settings.lakehouse_folder().glob("archive/*/trip.jsonl")
    with archived.open("ab") as writer:
        writer.write(one("CAR-2")[20:] + b"\n")
    deployed.process()
    assert cars(deployed) == ["CAR-1", "CAR-2"]
    assert deployed.rows(REJECTED) == []
    assert sorted(row["car_chassis"] for row in deployed.rows(SILVER)) == ["CAR-1", "CAR-2"]
    assert_all_is_right(deployed)


def test_file_that_grows_between_reading_and_archiving_is_moved_back_by_the_same_run(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = FolderLanding.archive
    grown: list[Path] = []

    def growing(landing: FolderLanding, batch_id: str, upload: Any) -> None:
        if not grown:
            claimed = landing.lakehouse / "ingestion" / "claimed" / batch_id / upload.name
            with claimed.open("ab") as writer:
                writer.write(b"\n" + one("CAR-2"))
            grown.append(claimed)
        archive(landing, batch_id, upload)

    monkeypatch.setattr(FolderLanding, "archive", growing)
    deployed.upload("trip.jsonl", one("CAR-1"))
    deployed.process()
    assert deployed.pipeline.ingestion.has_work()
    deployed.process()
    assert cars(deployed) == ["CAR-1", "CAR-2"]
    assert_all_is_right(deployed)


def test_stray_file_of_a_batch_in_progress_is_not_changed(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError("cut off")

    deployed.upload("a.json", one("CAR-1"))
    monkeypatch.setattr(FolderLanding, "finish", failing)
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    monkeypatch.undo()
    assert list(deployed.pipeline.ingestion.audit.everything()) == []


def test_a_finding_that_no_longer_holds_changes_nothing(deployed: Deployment) -> None:
    deployed.upload("a.json", one("CAR-1"))
    deployed.process()
    rows = deployed.rows(BRONZE)
    audit = deployed.pipeline.ingestion.audit
    [batch_id] = deployed.batch_ids()
    [upload] = audit.context.landing.archived(batch_id)
    assert not audit.repair([AuditFinding(batch_id, upload, "lost", "its rows were missing a moment ago")], "audit")
    assert deployed.rows(BRONZE) == rows
    assert_all_is_right(deployed)
