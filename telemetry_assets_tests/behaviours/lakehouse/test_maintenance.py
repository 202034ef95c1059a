"""Maintenance keeps tables small, changes no row, and removes nothing that is still needed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.types import StringType

from telemetry_assets.errors import MaintenanceError, TableMismatchError
from telemetry_assets.lakehouse import commits, compaction
from telemetry_assets.lakehouse.commits import append_files, properties_snapshot, replace_files
from telemetry_assets.lakehouse.data_files import partition_date
from telemetry_assets.lakehouse.expiry import Retention, plan_expiry
from telemetry_assets.lakehouse.maintenance import (
    MaintenancePolicy,
    MaintenanceReport,
    condition,
    maintain,
    maintain_briefly,
)
from telemetry_assets.lakehouse.stored_files import stored_files
from telemetry_assets.tables import ALERTS, BRONZE, CURRENT_STATE, SILVER, all_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event
from telemetry_assets_tests.harness.small_batches import compact_all, expire_all_but_current, upload

NOTHING_IS_KEPT = MaintenancePolicy(Retention(timedelta(0), 1, 0), 2, timedelta(0))


def maintain_all(deployed: Deployment, policy: MaintenancePolicy = NOTHING_IS_KEPT) -> dict[str, MaintenanceReport]:
    lakehouse = deployed.pipeline.lakehouse
    return {one.full_name: maintain(lakehouse, one, policy, None) for one in all_tables()}


def table_of(deployed: Deployment, contract: TableContract) -> Table:
    return deployed.pipeline.lakehouse.table(contract)


def data_files(deployed: Deployment, contract: TableContract) -> int:
    return len(list(table_of(deployed, contract).scan().plan_files()))


class TestCompaction:
    def test_small_files_of_a_partition_are_merged_into_one(self, filled: Deployment) -> None:
        assert data_files(filled, BRONZE) == 6
        maintain_all(filled)
        assert {one.full_name: data_files(filled, one) for one in (BRONZE, SILVER, ALERTS, CURRENT_STATE)} == {
            BRONZE.full_name: 2,
            SILVER.full_name: 2,
            ALERTS.full_name: 2,
            CURRENT_STATE.full_name: 1,
        }
        filled.assert_equals_the_contract()

    def test_no_table_is_behind_and_nothing_changes_in_the_next_run(self, filled: Deployment) -> None:
        maintain_all(filled)
        assert filled.pipeline.tables_behind() == []
        assert not any(one.changed or one.rebuild_reason for one in filled.process().refreshes)

    def test_rows_that_are_ingested_afterwards_are_exact(self, filled: Deployment) -> None:
        maintain_all(filled)
        upload(filled, "late.json", "CAR-A", "CAR-NEW")
        assert not any(one.rebuild_reason for one in filled.process().refreshes)
        filled.assert_equals_the_contract()

    def test_rows_that_a_table_had_not_taken_yet_are_taken_after_the_compaction(self, filled: Deployment) -> None:
        for name in ("g.json", "h.json"):
            upload(filled, name, "CAR-A", "CAR-NEW")
            filled.batch_reports += filled.pipeline.ingest("only Bronze")
        maintain_all(filled)
        silver = filled.process().refreshes[0]
        assert (silver.rebuild_reason, silver.changed) == ("", True)
        filled.assert_equals_the_contract()

    def test_rows_are_exact_if_not_all_fit_in_memory(self, filled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("telemetry_assets.lakehouse.compaction._BYTES_IN_MEMORY", 1_000)
        before = data_files(filled, BRONZE)
        maintain_all(filled)
        assert 2 < data_files(filled, BRONZE) < before
        filled.assert_equals_the_contract()

    def test_a_second_maintenance_does_nothing(self, filled: Deployment) -> None:
        maintain_all(filled)
        # The first one has left the snapshots that it replaced.
        maintain_all(filled)
        before = {one: stored(filled, one) for one in all_tables()}
        maintain_all(filled)
        assert {one: stored(filled, one) for one in all_tables()} == before


def stored(deployed: Deployment, contract: TableContract) -> set[str]:
    return {one.uri for one in stored_files(table_of(deployed, contract).location())}


def test_a_maintained_table_has_only_the_files_that_it_needs(filled: Deployment) -> None:
    maintain_all(filled)
    maintain_all(filled)
    for contract in (BRONZE, SILVER, ALERTS):
        table = table_of(filled, contract)
        [snapshot] = table.snapshots()
        manifests = snapshot.manifests(table.io)
        needed = {snapshot.manifest_list, *(one.manifest_path for one in manifests)}
        needed |= {entry.data_file.file_path for one in manifests for entry in one.fetch_manifest_entry(table.io)}
        metadata = {table.metadata_location, *(one.metadata_file for one in table.metadata.metadata_log)}
        assert stored(filled, contract) == needed | metadata


def test_files_of_one_car_are_not_sorted_again_and_again(filled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telemetry_assets.lakehouse.compaction._SMALL_ROWS", 0)
    for number in range(6):
        upload(filled, f"one-{number}.json", f"CAR-{number}", day="2025-11-06")
        # All are of the same car.
        filled.upload(f"same-{number}.json", json.dumps([event("CAR-X", f"2025-11-07T10:00:0{number}Z")]))
        filled.process()
    maintain_all(filled)
    files = [partition_date(task.file).day for task in table_of(filled, SILVER).scan().plan_files()]
    assert files.count(7) == 6
    assert maintain_all(filled)[SILVER.full_name].compacted.removed == 0


def test_a_table_without_rows_is_not_behind_after_maintenance(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        for number in range(3):
            deployed.upload(f"{number}.json", json.dumps([event(f"CAR-{number}")]))
            deployed.process()
        assert table_of(deployed, ALERTS).current_snapshot() is None
        maintain_all(deployed)
        assert deployed.pipeline.tables_behind() == []


class TestWhatIsKept:
    def test_values_of_columns_that_the_contract_does_not_have(self, filled: Deployment) -> None:
        table = table_of(filled, SILVER)
        with table.update_schema() as update:
            update.add_column("note", StringType())
        rows = table.scan().to_arrow()
        noted = rows.set_column(rows.column_names.index("note"), "note", pa.array(["mine"] * rows.num_rows))
        table.overwrite(noted)
        with pytest.raises(TableMismatchError, match="note"):
            maintain(filled.pipeline.lakehouse, SILVER, NOTHING_IS_KEPT, None)
        assert maintain_briefly(filled.pipeline.lakehouse, replace(NOTHING_IS_KEPT, commits=1), 60)
        assert set(table_of(filled, SILVER).scan().to_arrow()["note"].to_pylist()) == {"mine"}

    def test_a_reader_of_the_last_retention(self, filled: Deployment) -> None:
        table = table_of(filled, SILVER)
        before = table.scan().to_arrow().num_rows
        upload(filled, "new.json", "CAR-NEW")
        filled.process()
        maintain_all(filled, replace(NOTHING_IS_KEPT, retention=Retention(timedelta(minutes=5), 1, 0)))
        assert table.scan().to_arrow().num_rows == before
        maintain_all(filled)
        with pytest.raises(FileNotFoundError):
            table.scan().to_arrow()

    def test_the_least_number_of_snapshots(self, filled: Deployment) -> None:
        maintain_all(filled, replace(NOTHING_IS_KEPT, retention=Retention(timedelta(0), 4, 0)))
        assert len(table_of(filled, SILVER).snapshots()) == 4

    def test_tags_and_branches(self, filled: Deployment) -> None:
        table = table_of(filled, SILVER)
        tagged, branched = table.snapshots()[0].snapshot_id, table.snapshots()[2].snapshot_id
        table.manage_snapshots().create_tag(tagged, "audit").create_branch(branched, "what-if").commit()
        rows = {one: table.scan(snapshot_id=one).to_arrow().num_rows for one in (tagged, branched)}
        maintain_all(filled)
        maintain_all(filled)
        table = table_of(filled, SILVER)
        assert {one: table.scan(snapshot_id=one).to_arrow().num_rows for one in (tagged, branched)} == rows

    def test_refs_of_other_people_with_similar_names(self, filled: Deployment) -> None:
        table = table_of(filled, SILVER)
        first = table.snapshots()[0].snapshot_id
        table.manage_snapshots().create_tag(first, "daily-2020").create_branch(first, "telemetry-daily-2020").commit()
        maintain_all(filled)
        assert {"daily-2020", "telemetry-daily-2020"} <= set(table_of(filled, SILVER).metadata.refs)

    def test_a_snapshot_that_was_rolled_back_within_the_retention(self, filled: Deployment) -> None:
        table = table_of(filled, SILVER)
        newest, before = table.snapshots()[-1].snapshot_id, table.snapshots()[-2].snapshot_id
        table.manage_snapshots().rollback_to_snapshot(before).commit()
        now = datetime.now(UTC) + timedelta(minutes=1)
        retention = Retention(timedelta(minutes=1, seconds=10), 1, 0)
        assert newest not in plan_expiry(table_of(filled, SILVER).metadata, retention, (), now).removed
        later = now + timedelta(minutes=1)
        assert newest in plan_expiry(table_of(filled, SILVER).metadata, retention, (), later).removed

    def test_a_file_that_was_removed_and_added_again(self, filled: Deployment) -> None:
        table = table_of(filled, ALERTS)
        before = sorted(row["alert_id"] for row in filled.rows(ALERTS))
        files = [task.file for task in table.scan().plan_files()]
        replace_files(table, [], files, {}, {})
        append_files(table_of(filled, ALERTS), files, {})
        maintain(
            filled.pipeline.lakehouse, ALERTS, replace(NOTHING_IS_KEPT, retention=Retention(timedelta(0), 3, 0)), None
        )
        assert sorted(row["alert_id"] for row in filled.rows(ALERTS)) == before

    def test_the_snapshots_since_a_watermark(self, filled: Deployment) -> None:
        applied = [one.snapshot_id for one in table_of(filled, BRONZE).snapshots()][-1]
        for name in ("g.json", "h.json"):
            upload(filled, name, "CAR-NEW")
            filled.batch_reports += filled.pipeline.ingest("only Bronze")
        maintain_all(filled)
        kept = [one.snapshot_id for one in table_of(filled, BRONZE).snapshots()]
        assert kept[0] == applied
        # The batches, and the compaction.
        assert len(kept) == 4

    def test_files_of_a_write_under_way(self, filled: Deployment) -> None:
        # It is older than all snapshots.
        written = orphan(filled, SILVER, timedelta(minutes=2))
        maintain_all(filled, replace(NOTHING_IS_KEPT, orphan_age=timedelta(minutes=5)))
        assert written.exists()
        maintain_all(filled, replace(NOTHING_IS_KEPT, orphan_age=timedelta(minutes=1)))
        assert not written.exists()

    def test_files_that_are_newer_than_the_snapshots_even_if_the_clock_was_wrong(self, filled: Deployment) -> None:
        table = table_of(filled, SILVER)
        written = Path(table.location().removeprefix("file://")) / "data" / "not-committed.parquet"
        written.write_bytes(b"rows")
        maintain_all(filled)
        assert written.exists()

    def test_files_of_the_batch_in_progress(self, filled: Deployment) -> None:
        written = orphan(filled, BRONZE, timedelta(hours=2))
        began = datetime.now(UTC) - timedelta(hours=3)
        maintain(filled.pipeline.lakehouse, BRONZE, NOTHING_IS_KEPT, began)
        assert written.exists()
        maintain(filled.pipeline.lakehouse, BRONZE, NOTHING_IS_KEPT, None)
        assert not written.exists()

    def test_all_files_if_the_oldest_manifest_list_is_not_below_the_location(
        self, filled: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = orphan(filled, SILVER, timedelta(days=9))
        listed = list(stored_files(table_of(filled, SILVER).location()))
        monkeypatch.setattr(
            "telemetry_assets.lakehouse.orphans.stored_files",
            lambda _: (one for one in listed if "/snap-" not in one.uri),
        )
        maintain(filled.pipeline.lakehouse, SILVER, NOTHING_IS_KEPT, None)
        assert written.exists()

    def test_files_that_iceberg_does_not_write(self, filled: Deployment) -> None:
        written = orphan(filled, BRONZE, timedelta(days=9), "notes.txt")
        maintain_all(filled)
        assert written.exists()


def orphan(deployed: Deployment, contract: TableContract, age: timedelta, name: str = "orphan.parquet") -> Path:
    """A file of no snapshot."""
    path = Path(table_of(deployed, contract).location().removeprefix("file://")) / "data" / name
    path.write_bytes(b"rows")
    moment = (datetime.now(UTC) - age).timestamp()
    os.utime(path, (moment, moment))
    return path


def test_orphans_are_removed_when_they_are_old(filled: Deployment) -> None:
    old, new = orphan(filled, SILVER, timedelta(days=4)), orphan(filled, SILVER, timedelta(days=2), "new.parquet")
    maintain_all(filled, replace(NOTHING_IS_KEPT, orphan_age=timedelta(days=3)))
    assert (old.exists(), new.exists()) == (False, True)


class TestWatermarks:
    """Maintenance moves a watermark only over its own commits."""

    def test_rows_that_were_not_taken_before_another_program_expired_snapshots_are_taken(
        self, filled: Deployment
    ) -> None:
        for name in ("g.json", "h.json"):
            upload(filled, name, "CAR-NEW")
            filled.batch_reports += filled.pipeline.ingest("only Bronze")
        expire_all_but_current(filled, BRONZE)
        maintain_all(filled)
        assert SILVER in filled.pipeline.tables_behind()
        filled.process()
        filled.assert_equals_the_contract()

    def test_a_rollback_of_the_upstream_is_noticed_after_maintenance(self, filled: Deployment) -> None:
        bronze = table_of(filled, BRONZE)
        bronze.manage_snapshots().rollback_to_snapshot(bronze.snapshots()[-2].snapshot_id).commit()
        maintain(filled.pipeline.lakehouse, SILVER, NOTHING_IS_KEPT, None)
        assert SILVER in filled.pipeline.tables_behind()

    def test_the_snapshot_of_the_properties_exists_after_maintenance(self, filled: Deployment) -> None:
        compact_all(table_of(filled, ALERTS), ALERTS)
        expire_all_but_current(filled, ALERTS)
        assert properties_snapshot(table_of(filled, ALERTS)) not in snapshot_ids(filled, ALERTS)
        maintain_all(filled)
        assert properties_snapshot(table_of(filled, ALERTS)) in snapshot_ids(filled, ALERTS)


def snapshot_ids(deployed: Deployment, contract: TableContract) -> set[int]:
    return {one.snapshot_id for one in table_of(deployed, contract).snapshots()}


def manifests(deployed: Deployment, contract: TableContract) -> list[ManifestFile]:
    """The manifests of a table's current snapshot."""
    table = table_of(deployed, contract)
    snapshot = table.current_snapshot()
    return snapshot.manifests(table.io) if snapshot is not None else []


class TestInterlock:
    @pytest.mark.parametrize("contract", [BRONZE, SILVER, ALERTS], ids=lambda one: one.name)
    def test_maintenance_gives_up_if_another_writer_is_faster(
        self, filled: Deployment, monkeypatch: pytest.MonkeyPatch, contract: TableContract
    ) -> None:
        commit = commits.commit
        committed: list[set[str]] = []

        def too_late(table: Table, *arguments: object) -> None:
            if ".".join(table.name()) == contract.full_name:
                append_files(table_of(filled, contract), (), {})
                committed.append(stored(filled, contract))
            commit(table, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr("telemetry_assets.lakehouse.rewrites.commit", too_late)
        keeps_all = replace(NOTHING_IS_KEPT, retention=Retention(timedelta(days=1), 1, 0))
        report = maintain(filled.pipeline.lakehouse, contract, keeps_all, None)
        assert (report.lost_race, report.compacted.removed) == (True, 0)
        [at_the_conflict] = committed
        added = stored(filled, contract) - at_the_conflict
        assert not any(one.endswith(".parquet") for one in added)
        filled.assert_equals_the_contract()

    def test_a_table_that_is_rolled_back_meanwhile_can_be_read(
        self, filled: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        change = commits.change_snapshots

        def rolled_back_first(table: Table, *arguments: object) -> None:
            other = table_of(filled, SILVER)
            other.manage_snapshots().rollback_to_snapshot(other.snapshots()[0].snapshot_id).commit()
            append_files(table_of(filled, SILVER), (), {})
            change(table, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr("telemetry_assets.lakehouse.expiry.change_snapshots", rolled_back_first)
        report = maintain(filled.pipeline.lakehouse, SILVER, NOTHING_IS_KEPT, None)
        assert (report.lost_race, report.expired) == (True, 0)
        assert len(filled.rows(SILVER)) == 2

    def test_a_tag_that_is_created_meanwhile_is_kept(self, filled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        expire = commits.change_snapshots

        def tagged_first(table: Table, *arguments: object) -> None:
            other = table_of(filled, SILVER)
            other.manage_snapshots().create_tag(other.snapshots()[0].snapshot_id, "meanwhile").commit()
            expire(table, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr("telemetry_assets.lakehouse.expiry.change_snapshots", tagged_first)
        report = maintain(filled.pipeline.lakehouse, SILVER, NOTHING_IS_KEPT, None)
        assert (report.lost_race, report.expired) == (True, 0)
        assert table_of(filled, SILVER).scan().use_ref("meanwhile").to_arrow().num_rows


class TestAfterRuns:
    """Maintenance after a run does a bounded part of the work, the oldest first."""

    def test_the_oldest_snapshots_expire_first(self, filled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("telemetry_assets.lakehouse.maintenance._MOST_EXPIRED_BRIEFLY", 2)
        policy = replace(NOTHING_IS_KEPT, commits=3)
        for _ in range(4):
            before = [one.snapshot_id for one in table_of(filled, ALERTS).snapshots()]
            maintain_briefly(filled.pipeline.lakehouse, policy, 60)
            after = [one.snapshot_id for one in table_of(filled, ALERTS).snapshots()]
            assert not {*before[2:]} - {*after}
        assert len(after) < 6
        filled.assert_equals_the_contract()

    def test_only_small_manifests_are_read(self, filled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        large = {one.manifest_path for one in manifests(filled, BRONZE)[:2]}
        monkeypatch.setattr(
            "telemetry_assets.lakehouse.compaction._is_small_manifest", lambda one: one.manifest_path not in large
        )
        read: list[str] = []
        fetch = ManifestFile.fetch_manifest_entry

        def recorded(manifest: ManifestFile, *arguments: object, **named: object) -> object:
            read.append(manifest.manifest_path)
            return fetch(manifest, *arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", recorded)
        maintain_briefly(
            filled.pipeline.lakehouse, replace(NOTHING_IS_KEPT, retention=Retention(timedelta(days=1), 99, 0)), 60
        )
        assert read
        assert not large & {*read}
        assert len(manifests(filled, BRONZE)) == 3
        filled.assert_equals_the_contract()


class TestCondition:
    def test_a_table_that_was_never_maintained_is_ill_kept(self, filled: Deployment) -> None:
        [problem] = problems(filled, ALERTS, replace(NOTHING_IS_KEPT, commits=0, orphan_age=timedelta(0)))[:1]
        assert problem == "it has 6 small manifests, more than 0"
        maintain_all(filled)
        assert problems(filled, ALERTS, replace(NOTHING_IS_KEPT, commits=1)) == []

    def test_snapshots_that_a_derived_table_needs_for_a_long_time_are_a_problem(self, filled: Deployment) -> None:
        upload(filled, "new.json", "CAR-NEW")
        filled.pipeline.ingest("only Bronze")
        maintain_all(filled)
        found = problems(filled, BRONZE, replace(NOTHING_IS_KEPT, commits=0))
        assert "it has 2 old snapshots that a derived table has to be refreshed from, more than 0" in found

    def test_a_snapshot_in_the_future_is_a_problem(self, filled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("telemetry_assets.lakehouse.maintenance._CLOCK_ERROR", timedelta(days=-1))
        assert any("in the future" in one for one in problems(filled, BRONZE, NOTHING_IS_KEPT))


def problems(deployed: Deployment, contract: TableContract, policy: MaintenancePolicy) -> list[str]:
    return condition(deployed.pipeline.lakehouse, contract, policy).problems(policy)


def test_the_other_tables_are_maintained_if_one_cannot_be(filled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(table: Table, *arguments: object) -> object:
        if ".".join(table.name()) == BRONZE.full_name:
            raise OSError("the disk is full")
        return compaction.compact(table, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("telemetry_assets.lakehouse.maintenance.compact", broken)
    reports = filled.pipeline.maintain(all_tables())
    done: list[str] = []
    with pytest.raises(MaintenanceError, match=rf"{BRONZE.full_name}: .*the disk is full"):
        done.extend(report.contract.full_name for report in reports)
    assert len(done) == len(all_tables()) - 1
    assert data_files(filled, SILVER) == 2


def test_yesterdays_gold_can_be_read_by_its_tag(filled: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    yesterday = filled.rows(ALERTS)
    upload(filled, "new.json", "CAR-NEW")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    policy = replace(NOTHING_IS_KEPT, retention=Retention(timedelta(0), 1, 7))

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return tomorrow

    monkeypatch.setattr("telemetry_assets.lakehouse.maintenance.datetime", Tomorrow)
    maintain(filled.pipeline.lakehouse, ALERTS, policy, None)
    filled.process()
    maintain(filled.pipeline.lakehouse, ALERTS, policy, None)
    tag = f"telemetry-daily-{datetime.now(UTC).date()}"
    read = table_of(filled, ALERTS).scan().use_ref(tag).to_arrow().to_pylist()
    assert sorted(row["alert_id"] for row in read) == sorted(row["alert_id"] for row in yesterday)
    assert len(filled.rows(ALERTS)) == len(yesterday) + 1


def test_after_a_run_only_the_tables_that_need_it_are_maintained(filled: Deployment) -> None:
    policy = MaintenancePolicy(Retention(timedelta(0), 1, 0), 6, timedelta(days=3))
    reports = maintain_briefly(filled.pipeline.lakehouse, policy, 60)
    assert BRONZE in [one.contract for one in reports]
    assert maintain_briefly(filled.pipeline.lakehouse, policy, 60) == []
    filled.assert_equals_the_contract()


def test_no_time_is_no_maintenance(filled: Deployment) -> None:
    before = {one: table_of(filled, one).metadata_location for one in all_tables()}
    assert maintain_briefly(filled.pipeline.lakehouse, NOTHING_IS_KEPT, 0) == []
    assert {one: table_of(filled, one).metadata_location for one in all_tables()} == before


def test_a_table_that_cannot_be_maintained_does_not_stop_the_others(filled: Deployment) -> None:
    [task, *_] = table_of(filled, BRONZE).scan().plan_files()
    Path(task.file.file_path.removeprefix("file://")).unlink()
    reports = maintain_briefly(filled.pipeline.lakehouse, NOTHING_IS_KEPT, 60)
    assert SILVER in [one.contract for one in reports]
