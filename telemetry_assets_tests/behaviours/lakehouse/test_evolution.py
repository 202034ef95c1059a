"""A contract that changes: additive changes are applied to existing tables in place, all others are refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import DoubleType, FloatType, IntegerType, LongType

from telemetry_assets import tables
from telemetry_assets.errors import TableMismatchError
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.lakehouse.doctor import examine
from telemetry_assets.lakehouse.entries import catalog_entries, entry_differences
from telemetry_assets.tables import ALERTS, BRONZE, FUEL_EFFICIENCY, SILVER
from telemetry_assets.tables.contract import Column, DerivedTable, TableContract
from telemetry_assets_tests.harness.deployment import AS_OF, Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

COOLANT = Column("coolant_level_percent", "double", "The level of the coolant, percent.")


@pytest.fixture
def deployed(in_each_catalog: Deployment) -> Deployment:
    return in_each_catalog


def with_column(contract: TableContract, column: Column, after: str) -> Any:
    """The contract with one more column."""
    place = contract.column_names.index(after) + 1
    return replace(contract, columns=(*contract.columns[:place], column, *contract.columns[place:]))


def with_changed(contract: TableContract, column: str, **changes: Any) -> Any:
    """The contract with another definition of a column."""
    return replace(
        contract, columns=tuple(replace(one, **changes) if one.name == column else one for one in contract.columns)
    )


def prepare(deployed: Deployment, contract: TableContract) -> None:
    deployed.pipeline.lakehouse.prepare((contract,))
    table = deployed.pipeline.lakehouse.table(contract)
    assert deployed.pipeline.lakehouse.differences(table, contract) == []
    assert entry_differences(catalog_entries(deployed.pipeline.lakehouse.catalog), table) == []


class TestInPlace:
    @pytest.mark.parametrize("contract", [BRONZE, SILVER, FUEL_EFFICIENCY], ids=lambda one: one.full_name)
    def test_new_nullable_column_is_added_where_the_contract_has_it(
        self, deployed: Deployment, contract: TableContract
    ) -> None:
        before = deployed.rows(contract)
        changed = with_column(contract, COOLANT, after=contract.column_names[1])
        prepare(deployed, changed)
        table = deployed.pipeline.lakehouse.table(contract)
        assert [field.name for field in table.schema().fields] == list(changed.column_names)
        assert table.schema().find_field(COOLANT.name).doc == COOLANT.description
        assert deployed.rows(contract) == [{**row, COOLANT.name: None} for row in before]

    def test_wider_types_keep_the_values(self, deployed: Deployment) -> None:
        with deployed.pipeline.lakehouse.table(ALERTS).update_schema() as update:
            update.add_column("gear", IntegerType())
            update.add_column("torque_nm", FloatType())
        before = deployed.rows(ALERTS)
        with_gear = with_column(ALERTS, Column("gear", "long", "The gear."), after="updated_at")
        prepare(deployed, with_column(with_gear, Column("torque_nm", "double", "The torque."), after="gear"))
        schema = deployed.pipeline.lakehouse.table(ALERTS).schema()
        assert [schema.find_field(name).field_type for name in ("gear", "torque_nm")] == [LongType(), DoubleType()]
        assert deployed.rows(ALERTS) == before

    def test_wider_type_of_a_column_with_values_is_read_by_the_tables_below(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changed = with_changed(SILVER, "event_year", type="long")
        prepare(deployed, changed)
        assert [row["event_year"] for row in deployed.rows(SILVER)] == [2025]
        use(monkeypatch, changed)
        use(monkeypatch, replace(FUEL_EFFICIENCY, upstream=changed, transform_edition=7))
        deployed.process()
        deployed.assert_equals_the_contract()

    def test_descriptions_sort_order_and_properties_are_changed(self, deployed: Deployment) -> None:
        changed = replace(
            with_changed(ALERTS, "alert_value", description="Another description."),
            description="Another description of the table.",
            sort_by=("alert_type", "telemetry_timestamp"),
        )
        prepare(deployed, changed)
        table = deployed.pipeline.lakehouse.table(ALERTS)
        assert table.schema().find_field("alert_value").doc == "Another description."
        assert table.properties["comment"] == "Another description of the table."
        assert [str(field) for field in table.sort_order().fields] == ["4 ASC NULLS FIRST", "9 ASC NULLS FIRST"]
        prepare(deployed, ALERTS)
        assert deployed.pipeline.lakehouse.table(ALERTS).sort_order().fields == ALERTS.sort_order.fields

    def test_properties_that_the_contract_does_not_decide_stay(self, deployed: Deployment) -> None:
        table = deployed.pipeline.lakehouse.table(SILVER)
        table.transaction().set_properties({"owner": "analysts", "comment": "mine"}).commit_transaction()
        prepare(deployed, SILVER)
        properties = deployed.pipeline.lakehouse.table(SILVER).properties
        assert (properties["owner"], properties["comment"]) == ("analysts", SILVER.description)

    def test_nothing_is_committed_if_nothing_has_changed(self, deployed: Deployment) -> None:
        changed = with_column(SILVER, COOLANT, after="year")
        prepare(deployed, changed)
        before = deployed.pipeline.lakehouse.table(SILVER).metadata_location
        prepare(deployed, changed)
        assert deployed.pipeline.lakehouse.table(SILVER).metadata_location == before

    def test_two_processes_at_once_add_it_once(self, deployed: Deployment) -> None:
        changed = with_column(SILVER, COOLANT, after="year")
        lakehouses = [open_lakehouse(deployed.settings) for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda one: one.prepare((changed,)), lakehouses))
        assert len(deployed.pipeline.lakehouse.table(SILVER).schemas()) == 2

    def test_change_whose_response_is_lost_counts_as_made(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        catalog = deployed.pipeline.lakehouse.catalog
        monkeypatch.setattr(catalog, "commit_table", commit_and_fail(catalog))
        prepare(deployed, with_column(SILVER, COOLANT, after="year"))

    def test_the_doctor_says_what_the_next_run_changes(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, with_column(SILVER, COOLANT, after="year"))
        found = [one for one in examine(deployed.pipeline.lakehouse) if "next run changes it" in one.text]
        assert [(one.table, one.needs_action) for one in found] == [("silver.car_telemetry", False)]
        assert "column `coolant_level_percent` (double) is added" in found[0].text


def commit_and_fail(catalog: Catalog) -> Callable[..., None]:
    commit = catalog.commit_table

    def committing(*arguments: Any) -> None:
        commit(*arguments)
        raise TimeoutError("no answer")

    return committing


def use(monkeypatch: pytest.MonkeyPatch, changed: TableContract) -> None:
    """Replace a contract in the registry."""
    replaced = tuple(changed if one.identifier == changed.identifier else one for one in tables.TABLES)
    monkeypatch.setattr(tables, "TABLES", replaced)


class TestRefused:
    @pytest.mark.parametrize(
        ("changed", "difference"),
        [
            (with_column(SILVER, replace(COOLANT, required=True), "year"), "a new column must be nullable"),
            (with_changed(SILVER, "event_year", type="string"), "`event_year` is int; the contract says string"),
            (with_changed(FUEL_EFFICIENCY, "trip_count", type="int"), "`trip_count` is long; the contract says int"),
            (with_changed(SILVER, "year", required=True), "`year` may be null"),
            (with_changed(SILVER, "model", name="car_model"), "`model` (string) is not in the contract"),
            (replace(SILVER, partition="insurance_valid_until"), "partitioned by identity(event_date)"),
        ],
    )
    def test_other_changes_of_a_contract_stop_the_run_before_it_writes(
        self, deployed: Deployment, changed: TableContract, difference: str
    ) -> None:
        before = deployed.pipeline.lakehouse.table(changed).metadata_location
        with pytest.raises(TableMismatchError) as raised:
            deployed.pipeline.lakehouse.prepare((changed,))
        assert difference in str(raised.value)
        assert deployed.pipeline.lakehouse.table(changed).metadata_location == before

    def test_column_that_another_program_has_dropped_is_not_added_again(self, deployed: Deployment) -> None:
        with deployed.pipeline.lakehouse.table(SILVER).update_schema() as update:
            update.delete_column("model")
        with pytest.raises(TableMismatchError, match="column `model` \\(string\\) was dropped"):
            deployed.process()
        # Also if the table is one of version 0.1.0, which has no edition.
        table = deployed.pipeline.lakehouse.table(SILVER)
        table.transaction().remove_properties("telemetry.contract-edition").commit_transaction()
        with pytest.raises(TableMismatchError, match="column `model` \\(string\\) was dropped"):
            deployed.process()

    def test_refused_change_of_one_table_leaves_all_tables_as_they_are(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(monkeypatch, with_column(SILVER, COOLANT, after="year"))
        use(monkeypatch, with_changed(ALERTS, "alert_value", type="string"))
        before = deployed.pipeline.lakehouse.table(SILVER).metadata_location
        with pytest.raises(TableMismatchError, match="alert_value"):
            deployed.process()
        assert deployed.pipeline.lakehouse.table(SILVER).metadata_location == before

    def test_run_that_began_before_the_table_was_changed_does_not_overwrite_new_values(
        self, deployed: Deployment
    ) -> None:
        deployed.upload("2.json", framed([event("CAR-2")], "array")[1])
        deployed.pipeline.ingest("a run of older code")
        prepare(deployed, with_column(SILVER, COOLANT, after="year"))
        with pytest.raises(TableMismatchError, match="coolant_level_percent"):
            deployed.pipeline.refresh_all("a run of older code", AS_OF, lambda _: None)

    def test_table_of_a_newer_contract_is_refused_by_older_code(self, deployed: Deployment) -> None:
        prepare(deployed, with_column(SILVER, COOLANT, after="year"))
        with pytest.raises(TableMismatchError, match="`coolant_level_percent` \\(double\\) is not in the contract"):
            deployed.process()


class TestEditionsOfTransforms:
    @pytest.mark.parametrize("contract", [SILVER, FUEL_EFFICIENCY, ALERTS], ids=lambda one: one.full_name)
    def test_new_edition_makes_the_table_behind_and_the_next_run_rebuilds_it(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch, contract: DerivedTable
    ) -> None:
        assert deployed.pipeline.tables_behind() == []
        changed = replace(contract, transform_edition=contract.transform_edition + 1)
        use(monkeypatch, changed)
        assert deployed.pipeline.tables_behind() == [changed]
        [finding] = [one for one in examine(deployed.pipeline.lakehouse) if "behind" in one.text]
        assert f"edition {contract.transform_edition}" in finding.text
        results = {one.contract: one for one in deployed.process().refreshes}
        assert f"edition {contract.transform_edition}" in results[changed].rebuild_reason
        assert results[changed].event_dates
        assert [one.rebuild_reason for one in results.values()].count("") == len(results) - 1
        assert deployed.pipeline.tables_behind() == []
        deployed.assert_equals_the_contract()

    def test_backfill_of_one_date_rebuilds_a_table_of_an_older_edition_completely(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deployed.upload("2.json", framed([event(time="2025-12-24T10:00:00Z")], "array")[1])
        deployed.process()
        changed = replace(SILVER, transform_edition=SILVER.transform_edition + 1)
        use(monkeypatch, changed)
        [first, *_] = sorted(row["event_date"] for row in deployed.rows(SILVER))
        result = deployed.pipeline.refresh(changed, "backfill", frozenset({first}), AS_OF)
        assert len(result.event_dates) == 2
        assert changed not in deployed.pipeline.tables_behind()

    def test_rows_of_version_010_after_those_of_this_version_are_of_the_first_edition(
        self, deployed: Deployment
    ) -> None:
        # Version 0.1.0 moves the watermark and keeps properties that it does not know.
        table = deployed.pipeline.lakehouse.table(SILVER)
        name = "telemetry.applied.bronze.car_telemetry"
        deployed.upload("2.json", framed([event("CAR-2")], "array")[1])
        deployed.pipeline.ingest("a run of version 0.1.0")
        current = deployed.pipeline.lakehouse.table(BRONZE).current_snapshot()
        assert current is not None
        table.transaction().set_properties({name: str(current.snapshot_id)}).commit_transaction()
        assert deployed.pipeline.tables_behind() == [SILVER]
        deployed.process()
        deployed.recall_batches()
        deployed.assert_equals_the_contract()

    def test_table_without_a_recorded_edition_is_of_the_first(self, deployed: Deployment) -> None:
        table = deployed.pipeline.lakehouse.table(FUEL_EFFICIENCY)
        table.transaction().remove_properties("telemetry.transform-edition").commit_transaction()
        assert deployed.pipeline.tables_behind() == [FUEL_EFFICIENCY]
        [result] = [one for one in deployed.process().refreshes if one.rebuild_reason]
        assert result.rebuild_reason == "edition 1 of its transform has computed it, and edition 3 is in force"
