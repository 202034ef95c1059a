"""Tables follow their contracts, commits are based on the snapshot that was read, and changes come from manifests."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, EqualTo
from pyiceberg.types import LongType, StringType

from telemetry_assets.errors import ConcurrentWriteError, SettingsError, TableMismatchError
from telemetry_assets.lakehouse.batch_rows import append_batch
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.lakehouse.changes import changes_since_watermark
from telemetry_assets.lakehouse.commits import replace_rows, set_table_properties, until_committed
from telemetry_assets.lakehouse.doctor import examine
from telemetry_assets.lakehouse.snapshots import MAINTENANCE
from telemetry_assets.lakehouse.watermarks import is_behind, watermark_properties
from telemetry_assets.settings import Settings
from telemetry_assets.tables import (
    ALERTS,
    BRONZE,
    CURRENT_STATE,
    FUEL_EFFICIENCY,
    SILVER,
    all_tables,
    table_named,
)
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

EDITION = str(SILVER.transform_edition)


@pytest.fixture
def prepared(deployed: Deployment) -> Deployment:
    deployed.pipeline.lakehouse.prepare()
    return deployed


def bronze_rows(*days: int) -> pa.Table:
    moment = datetime(2025, 11, 1, tzinfo=UTC)
    return pa.Table.from_pylist(
        [
            {
                "event_id": f"evt-{day}",
                "car_chassis": "CAR-1",
                "event_primary_timestamp": "",
                "telemetry_timestamp": moment,
                "event_date": date(2025, 11, day),
                "document_shape": "event",
                "payload": "{}",
                "source_uri": "",
                "source_position": 0,
                "ingested_at": moment,
                "batch_id": "",
            }
            for day in days
        ],
        schema=BRONZE.arrow_schema,
    )


class TestContracts:
    def test_every_database_has_a_name_that_stands_in_any_path(self) -> None:
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", part) for contract in all_tables() for part in contract.identifier)

    def test_every_column_says_what_it_means(self) -> None:
        assert all(column.description.endswith(".") for contract in all_tables() for column in contract.columns)

    def test_a_table_is_found_by_its_full_name_and_by_a_name_that_only_it_has(self) -> None:
        assert table_named("gold.performance_alerts") is table_named("performance_alerts") is ALERTS
        with pytest.raises(KeyError, match=r"bronze.car_telemetry, .*silver.car_telemetry"):
            table_named("car_telemetry")


class TestPreparing:
    def test_creates_every_table_as_contracted_and_does_not_change_it(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        made = {contract: lakehouse.table(contract).metadata_location for contract in all_tables()}
        lakehouse.prepare()
        assert {contract: lakehouse.table(contract).metadata_location for contract in all_tables()} == made
        for contract in all_tables():
            assert lakehouse.differences(lakehouse.table(contract), contract) == []

    def test_a_table_that_differs_stops_a_run_before_it_writes_and_says_each_difference(
        self, prepared: Deployment
    ) -> None:
        lakehouse = prepared.pipeline.lakehouse
        with lakehouse.table(SILVER).update_schema() as update:
            update.add_column("surprise", LongType())
            update.delete_column("model")
            update.update_column("year", doc="another description is no difference")
        prepared.upload("x.json", framed([event()], "array")[1])
        with pytest.raises(TableMismatchError) as raised:
            prepared.process()
        assert raised.value.differences == (
            "column `model` (string) was dropped",
            "column `surprise` (long) is not in the contract",
        )
        assert lakehouse.table(BRONZE).current_snapshot() is None
        assert [path.name for path in prepared.landing.iterdir()] == ["x.json"]

    def test_entry_with_three_columns_of_fifteen_is_refused(self, deployed: Deployment) -> None:
        lakehouse = deployed.pipeline.lakehouse
        lakehouse.catalog.create_namespace("silver")
        lakehouse.catalog.create_table(
            SILVER.identifier, pa.schema([(name, pa.string()) for name in ("event_id", "car_chassis", "event_date")])
        )
        with pytest.raises(TableMismatchError, match="the contract says date") as raised:
            lakehouse.prepare()
        assert any("is partitioned by nothing" in one for one in raised.value.differences)
        assert len(raised.value.differences) >= 10

    def test_the_doctor_says_the_same_and_changes_nothing(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        assert not any(finding.needs_action for finding in examine(lakehouse))
        with lakehouse.table(SILVER).update_schema() as update:
            update.add_column("surprise", StringType())
        before = lakehouse.table(SILVER).metadata_location
        [finding] = [finding for finding in examine(lakehouse) if finding.needs_action]
        assert "`surprise`" in finding.text
        assert lakehouse.table(SILVER).metadata_location == before


class TestCommits:
    def test_a_batch_is_appended_once_however_often_it_is_tried(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        first = append_batch(lakehouse, BRONZE, "batch-1", bronze_rows(1, 2), {})
        again = append_batch(lakehouse, BRONZE, "batch-1", bronze_rows(1, 2), {})
        assert first is not None
        assert first == again
        assert len(prepared.rows(BRONZE)) == 2

    def test_replacement_is_based_on_the_snapshot_that_was_read(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        stale = lakehouse.table(BRONZE)
        append_batch(lakehouse, BRONZE, "batch-1", bronze_rows(1), {})
        with pytest.raises(CommitFailedException):
            replace_rows(stale, AlwaysTrue(), bronze_rows(2), {}, {})
        assert [row["event_id"] for row in prepared.rows(BRONZE)] == ["evt-1"]

    def test_a_property_about_rows_is_not_set_on_other_rows(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        stale = lakehouse.table(BRONZE)
        append_batch(lakehouse, BRONZE, "batch-1", bronze_rows(1), {})
        with pytest.raises(CommitFailedException):
            set_table_properties(stale, {"x": "y"})
        assert "x" not in lakehouse.table(BRONZE).properties

    def test_conflicting_commit_is_retried_from_its_read_a_bounded_number_of_times(self) -> None:
        tries: list[int] = []

        def attempt() -> str:
            tries.append(len(tries))
            if len(tries) < 3:
                raise CommitFailedException("somebody was faster")
            return "done"

        assert until_committed(BRONZE, attempt) == "done"
        with pytest.raises(ConcurrentWriteError, match="by another process during each of 8 attempts"):
            until_committed(BRONZE, lambda: (_ for _ in ()).throw(CommitFailedException("always")))

    def test_commit_that_succeeded_despite_an_error_is_not_repeated(
        self, prepared: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        catalog = prepared.pipeline.lakehouse.catalog
        commit = catalog.commit_table

        def commit_and_fail(*arguments: object) -> None:
            commit(*arguments)  # type: ignore[arg-type]
            raise TimeoutError("no answer")

        monkeypatch.setattr(catalog, "commit_table", commit_and_fail)
        append_batch(prepared.pipeline.lakehouse, BRONZE, "batch-1", bronze_rows(1), {})
        assert len(prepared.rows(BRONZE)) == 1


class TestChanges:
    def test_a_new_table_is_behind_on_everything_once_its_upstream_has_rows(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        assert not changes_since_watermark(lakehouse.table(SILVER), SILVER, lakehouse.table(BRONZE), EDITION)
        append_batch(lakehouse, BRONZE, "batch-1", bronze_rows(1, 2), {})
        changes = changes_since_watermark(lakehouse.table(SILVER), SILVER, lakehouse.table(BRONZE), EDITION)
        assert (changes.everything, changes.dates) == (True, frozenset({date(2025, 11, 1), date(2025, 11, 2)}))

    def test_dates_of_added_and_removed_rows(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        append_batch(lakehouse, BRONZE, "batch-1", bronze_rows(1, 2, 3), {})
        mark = watermark_properties(BRONZE, lakehouse.table(BRONZE), EDITION)
        set_table_properties(lakehouse.table(SILVER), mark)
        assert not is_behind(lakehouse.table(SILVER), SILVER, lakehouse.table(BRONZE), EDITION)
        append_batch(lakehouse, BRONZE, "batch-2", bronze_rows(5), {})
        lakehouse.table(BRONZE).delete(EqualTo(term="event_date", value=date(2025, 11, 2)))
        assert is_behind(lakehouse.table(SILVER), SILVER, lakehouse.table(BRONZE), EDITION)
        changes = changes_since_watermark(lakehouse.table(SILVER), SILVER, lakehouse.table(BRONZE), EDITION)
        assert (changes.everything, changes.dates) == (False, frozenset({date(2025, 11, 2), date(2025, 11, 5)}))

    def test_maintenance_changes_no_date(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        append_batch(lakehouse, BRONZE, "batch-1", bronze_rows(1), {})
        mark = watermark_properties(BRONZE, lakehouse.table(BRONZE), EDITION)
        set_table_properties(lakehouse.table(SILVER), mark)
        lakehouse.table(BRONZE).overwrite(bronze_rows(1), snapshot_properties={MAINTENANCE: "true"})
        assert not changes_since_watermark(lakehouse.table(SILVER), SILVER, lakehouse.table(BRONZE), EDITION)

    @pytest.mark.parametrize("table", [SILVER, FUEL_EFFICIENCY, ALERTS, CURRENT_STATE], ids=lambda one: one.full_name)
    def test_next_run_repairs_a_table_that_was_rolled_back(self, deployed: Deployment, table: TableContract) -> None:
        deployed.upload("1.json", framed([event("CAR-1", currentMileageKm=200_000)], "array")[1])
        deployed.process()
        before = deployed.pipeline.lakehouse.table(table).current_snapshot()
        assert before is not None
        deployed.upload("2.json", framed([event("CAR-2", currentMileageKm=200_000)], "array")[1])
        deployed.process()
        deployed.pipeline.lakehouse.table(table).manage_snapshots().rollback_to_snapshot(before.snapshot_id).commit()
        assert table in deployed.pipeline.tables_behind()
        deployed.process()
        deployed.assert_equals_the_contract()
        assert deployed.pipeline.tables_behind() == []

    def test_expired_snapshot_means_that_everything_changed(self, prepared: Deployment) -> None:
        lakehouse = prepared.pipeline.lakehouse
        append_batch(lakehouse, BRONZE, "batch-1", bronze_rows(1), {})
        set_table_properties(lakehouse.table(SILVER), {"telemetry.applied.bronze.car_telemetry": "12345"})
        changes = changes_since_watermark(lakehouse.table(SILVER), SILVER, lakehouse.table(BRONZE), EDITION)
        assert changes.everything


def test_a_lakehouse_folder_may_have_spaces_in_its_path(tmp_path: Path) -> None:
    from telemetry_assets_tests.harness.deployment import deployment

    with deployment(tmp_path / "a folder") as deployed:
        deployed.upload("x.json", framed([event()], "array")[1])
        deployed.process()
        deployed.assert_equals_the_contract()


@pytest.mark.parametrize("character", "#?%*[]{}")
def test_a_lakehouse_folder_that_engines_would_misread_is_refused(tmp_path: Path, character: str) -> None:
    folder = tmp_path / f"lake{character}house"
    with pytest.raises(SettingsError, match="table locations must not contain"):
        open_lakehouse(Settings(lakehouse_uri=str(folder)))
    assert not folder.exists()
