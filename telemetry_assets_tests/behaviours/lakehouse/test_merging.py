"""Rows of a table are replaced by key: which rows are written, and which data files are rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telemetry_assets.lakehouse.cars import CarRange, CarSet
from telemetry_assets.lakehouse.changes import ChangedRows, Changes, changed_rows, changes_since_watermark
from telemetry_assets.lakehouse.data_files import find_rows
from telemetry_assets.lakehouse.merging import commit_merge, plan_merge
from telemetry_assets.lakehouse.watermarks import watermark_properties
from telemetry_assets.tables import ALERTS, SILVER
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.frames import NOON, Row, silver_row

SUMMARY = {"telemetry.run-id": "a run"}
DAY = NOON.date()


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    with deployment(tmp_path) as one:
        one.pipeline.lakehouse.prepare()
        yield one


def silver(*rows: Row) -> pa.Table:
    schema = SILVER.arrow_schema
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | dict(row) for row in rows], schema)


def merge(deployed: Deployment, *rows: Row, partitions: frozenset[date] | None = None) -> bool:
    """Merge rows into Silver, by key. Returns whether any row changed."""
    table, new = deployed.pipeline.lakehouse.table(SILVER), silver(*rows)
    found = find_rows(table, SILVER, partitions, keys=new.select(list(SILVER.key)))
    planned = plan_merge(found, new, SILVER.newest_by)
    commit_merge(table, planned, SUMMARY, {})
    return planned.changes_rows


def models(deployed: Deployment) -> list[tuple[str, str]]:
    return sorted((row["event_id"], row["model"]) for row in deployed.rows(SILVER))


def data_files(deployed: Deployment) -> set[str]:
    return {task.file.file_path for task in deployed.pipeline.lakehouse.table(SILVER).scan().plan_files()}


class TestRows:
    def test_new_ingestion_replaces_the_older_one_of_the_same_event(self, deployed: Deployment) -> None:
        merge(deployed, silver_row("e1", model="Uno"), silver_row("e2", model="Uno"))
        later = silver_row("e1", model="Palio", ingested_at=NOON + timedelta(seconds=1))
        merge(deployed, later, silver_row("e3", model="Palio"))
        assert models(deployed) == [("e1", "Palio"), ("e2", "Uno"), ("e3", "Palio")]

    def test_arriving_ingestion_wins_over_a_stored_one_of_the_same_time(self, deployed: Deployment) -> None:
        merge(deployed, silver_row(model="Uno"))
        merge(deployed, silver_row(model="Palio"))
        assert models(deployed) == [("e1", "Palio")]

    def test_an_older_ingestion_that_arrives_late_changes_nothing(self, deployed: Deployment) -> None:
        merge(deployed, silver_row(model="Uno"))
        assert not merge(deployed, silver_row(model="Palio", ingested_at=NOON - timedelta(seconds=1)))
        assert models(deployed) == [("e1", "Uno")]

    def test_equal_rows_write_nothing(self, deployed: Deployment) -> None:
        merge(deployed, silver_row(model="Uno"))
        before = deployed.pipeline.lakehouse.table(SILVER).metadata_location
        assert not merge(deployed, silver_row(model="Uno"))
        assert deployed.pipeline.lakehouse.table(SILVER).metadata_location == before

    def test_manually_repeated_row_of_a_merged_key_is_removed(self, deployed: Deployment) -> None:
        merge(deployed, silver_row(model="Uno"))
        table = deployed.pipeline.lakehouse.table(SILVER)
        table.append(table.scan().to_arrow().cast(SILVER.arrow_schema))
        assert merge(deployed, silver_row(model="Uno"))
        assert models(deployed) == [("e1", "Uno")]


class TestFiles:
    def test_new_keys_are_appended_and_no_file_is_rewritten(self, deployed: Deployment) -> None:
        merge(deployed, silver_row("e1", model="Uno"))
        before = data_files(deployed)
        merge(deployed, silver_row("e2", model="Uno"))
        assert before < data_files(deployed)

    def test_only_files_with_a_replaced_key_are_rewritten(self, deployed: Deployment) -> None:
        merge(deployed, silver_row("e1", car="A", model="Uno"), silver_row("e2", car="B", model="Uno"))
        first = data_files(deployed)
        merge(deployed, silver_row("e3", car="C", model="Uno"))
        second = data_files(deployed) - first
        merge(deployed, silver_row("e3", car="C", model="Palio"))
        assert first < data_files(deployed)
        assert not second & data_files(deployed)
        assert models(deployed) == [("e1", "Uno"), ("e2", "Uno"), ("e3", "Palio")]

    def test_many_files_are_read_and_written_a_few_at_a_time(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("telemetry_assets.lakehouse.data_files._ROWS_IN_MEMORY", 3)
        moments = [NOON + timedelta(days=day) for day in range(5)]
        merge(deployed, *(silver_row(f"{m}-{car}", m, car=car, model="Uno") for m in moments for car in "ABCD"))
        merge(deployed, *(silver_row(f"{m}-{car}", m, car=car, model="Palio") for m in moments for car in "BE"))
        expected = [(f"{m}-{car}", "Palio" if car in "BE" else "Uno") for m in moments for car in "ABCDE"]
        assert models(deployed) == sorted(expected)
        assert len(data_files(deployed)) == len(moments)

    def test_files_are_sorted_by_car_and_time_and_have_small_row_groups(self, deployed: Deployment) -> None:
        rows = [silver_row(f"e{n}", NOON + timedelta(seconds=-n), car=f"CAR-{n % 7}") for n in range(10_000)]
        merge(deployed, *rows)
        [path] = data_files(deployed)
        file = pq.ParquetFile(path.removeprefix("file://"))
        written = file.read(["car_chassis", "telemetry_timestamp"]).to_pylist()
        assert written == sorted(written, key=lambda row: (row["car_chassis"], row["telemetry_timestamp"]))
        assert file.num_row_groups == 3

    def test_a_car_whose_name_is_too_long_for_the_statistics_is_found(self, deployed: Deployment) -> None:
        # More cars than a row group has rows. The row group of the long name has no bounds.
        others = [silver_row(f"e{number}", car=f"A{number:05d}") for number in range(4_100)]
        long_name = "Z" * 5_000
        merge(deployed, *others, silver_row("long", car=long_name, model="Uno"))
        later = silver_row("long", car=long_name, model="Palio", ingested_at=NOON + timedelta(seconds=1))
        merge(deployed, later)
        assert [row["model"] for row in deployed.rows(SILVER) if row["car_chassis"] == long_name] == ["Palio"]

    def test_rows_of_a_car_are_found_in_its_row_groups_only(self, deployed: Deployment) -> None:
        rows = [silver_row(f"e{n}", car=f"CAR-{n // 100:03d}") for n in range(20_000)]
        merge(deployed, *rows)
        table = deployed.pipeline.lakehouse.table(SILVER)
        [everything, one, none] = [
            find_rows(table, SILVER, None, cars) for cars in (None, CarSet.of(["CAR-150"]), CarSet.of(["D"]))
        ]
        assert (one.rows.num_rows, none.rows.num_rows) == (100, 0)
        assert one.bytes_read < everything.bytes_read / 2
        assert none.bytes_read < one.bytes_read

    def test_rows_of_a_range_of_cars_are_those_after_its_first_name(self, deployed: Deployment) -> None:
        merge(deployed, *(silver_row("e", car=car) for car in "ABCD"))
        found = find_rows(deployed.pipeline.lakehouse.table(SILVER), SILVER, None, CarRange("A", "C"))
        assert sorted(found.rows["car_chassis"].to_pylist()) == ["B", "C"]


class TestChangedRows:
    @pytest.fixture
    def filled(self, deployed: Deployment) -> Deployment:
        """Three Silver rows, all of which Gold has taken."""
        merge(deployed, *(silver_row(f"e{n}", model="Uno", ingested_at=NOON) for n in range(3)))
        table = deployed.pipeline.lakehouse.table(ALERTS)
        silver = deployed.pipeline.lakehouse.table(SILVER)
        edition = deployed.pipeline.lakehouse.transform_edition(ALERTS)
        table.transaction().set_properties(watermark_properties(SILVER, silver, edition)).commit_transaction()
        return deployed

    def test_rows_that_only_moved_to_another_file_have_not_changed(self, filled: Deployment) -> None:
        merge(filled, silver_row("e1", model="Palio", ingested_at=NOON))
        changed = self.changed(filled)
        assert [row["model"] for row in changed.added.to_pylist()] == ["Palio"]
        assert [(row["event_id"], row["model"]) for row in changed.removed.to_pylist()] == [("e1", "Uno")]

    def test_a_row_that_changed_and_changed_back_has_not_changed(self, filled: Deployment) -> None:
        merge(filled, silver_row("e1", model="Palio", ingested_at=NOON))
        merge(filled, silver_row("e1", model="Uno", ingested_at=NOON))
        assert not self.changed(filled)

    def test_a_row_that_was_added_and_removed_has_not_changed(self, filled: Deployment) -> None:
        merge(filled, silver_row("e9", model="Palio"))
        filled.pipeline.lakehouse.table(SILVER).delete("event_id = 'e9'")
        assert not self.changed(filled)

    def test_a_change_of_more_rows_than_the_limit_is_given_as_dates(self, filled: Deployment) -> None:
        merge(filled, *(silver_row(f"new-{n}", NOON + timedelta(days=1)) for n in range(3)))
        changes = self.changes(filled, most_rows=2)
        assert (changes.added, changes.dates_to_rebuild) == ((), frozenset({DAY + timedelta(days=1)}))

    def test_rows_that_moved_do_not_count_as_changed(self, filled: Deployment) -> None:
        merge(filled, silver_row("e1", model="Palio", ingested_at=NOON))
        changes = self.changes(filled, most_rows=2)
        assert sum(file.record_count for file in (*changes.added, *changes.removed)) == 6
        assert changes.dates_to_rebuild == frozenset()

    def changes(self, deployed: Deployment, most_rows: int = 100) -> Changes:
        lakehouse = deployed.pipeline.lakehouse
        edition = lakehouse.transform_edition(ALERTS)
        return changes_since_watermark(lakehouse.table(ALERTS), ALERTS, lakehouse.table(SILVER), edition, most_rows)

    def changed(self, deployed: Deployment) -> ChangedRows:
        return changed_rows(deployed.pipeline.lakehouse.table(SILVER), SILVER, self.changes(deployed))
