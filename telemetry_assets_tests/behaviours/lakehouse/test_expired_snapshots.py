"""Other programs expire snapshots and compact tables: nothing is lost, and tables are not rebuilt without need."""

from __future__ import annotations

import json
import shutil

import pytest

from telemetry_assets.lakehouse.rewrites import Rewrite, commit_rewrite
from telemetry_assets.tables import BRONZE, REJECTED, SILVER, UPLOADS, all_tables, derived_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event
from telemetry_assets_tests.harness.small_batches import BATCHES, compact_all, expire_all_but_current, upload


def reasons(deployed: Deployment) -> dict[str, str]:
    """The reasons of the rebuilds of the next run, by table."""
    return {one.contract.full_name: one.rebuild_reason for one in deployed.process().refreshes if one.rebuild_reason}


def test_nothing_is_done_after_all_old_snapshots_have_expired(filled: Deployment) -> None:
    for contract in all_tables():
        expire_all_but_current(filled, contract)
    assert filled.pipeline.tables_behind() == []
    assert not any(one.changed for one in filled.process().refreshes)


def test_nothing_is_rebuilt_after_the_watermark_expired_while_silver_was_behind(filled: Deployment) -> None:
    for name in ("c.json", "d.json"):
        upload(filled, name, "CAR-A", "CAR-D", day="2025-11-06")
        filled.batch_reports += filled.pipeline.ingest("only Bronze")
    expire_all_but_current(filled, BRONZE)
    assert reasons(filled) == {}
    filled.assert_equals_the_contract()


def test_everything_is_rebuilt_after_old_rows_were_removed_and_their_snapshots_expired(filled: Deployment) -> None:
    upload(filled, "c.json", "CAR-D")
    filled.batch_reports += filled.pipeline.ingest("only Bronze")
    filled.pipeline.lakehouse.table(BRONZE).delete("car_chassis = 'CAR-0'")
    expire_all_but_current(filled, BRONZE)
    assert "is gone" in reasons(filled)[SILVER.full_name]
    assert {row["car_chassis"] for row in filled.rows(SILVER)} == {
        "CAR-A",
        "CAR-D",
        *(f"CAR-{number}" for number in range(1, BATCHES)),
    }


@pytest.mark.parametrize("has_newer_snapshot", [False, True])
@pytest.mark.parametrize(
    "contract",
    [SILVER, *(pytest.param(one, marks=pytest.mark.long) for one in derived_tables() if one is not SILVER)],
    ids=lambda one: one.name,
)
def test_a_rollback_is_repaired_after_the_snapshots_that_it_removed_have_expired(
    filled: Deployment, contract: TableContract, *, has_newer_snapshot: bool
) -> None:
    # This row is replaced, so that the number of rows remains.
    filled.upload("c.json", json.dumps([event("CAR-A", "2025-11-05T10:00:00Z", engineTempCelsius=130)]))
    filled.process()
    expected = filled.rows(contract)
    table = filled.pipeline.lakehouse.table(contract)
    snapshots = table.snapshots()
    assert len(snapshots) > 2
    table.manage_snapshots().rollback_to_snapshot(snapshots[-2].snapshot_id).commit()
    if has_newer_snapshot:
        table = filled.pipeline.lakehouse.table(contract)
        current = table.current_snapshot()
        assert current is not None
        # It does not change a file.
        commit_rewrite(table, Rewrite(current.manifests(table.io), [], [], []), "test")
    expire_all_but_current(filled, contract)
    assert filled.rows(contract) != expected
    filled.process()
    assert len(filled.rows(contract)) == len(expected)
    filled.assert_equals_the_contract()


@pytest.mark.parametrize("keeps_sequence_numbers", [True, False])
def test_a_table_compacted_by_another_program_stays_exact_after_expiry(
    filled: Deployment, *, keeps_sequence_numbers: bool
) -> None:
    for contract in all_tables():
        table = filled.pipeline.lakehouse.table(contract)
        if keeps_sequence_numbers:
            compact_all(table, contract)
        elif table.current_snapshot() is not None:
            table.overwrite(table.scan().to_arrow())
        expire_all_but_current(filled, contract)
    assert (reasons(filled) == {}) is keeps_sequence_numbers
    upload(filled, "new.json", "CAR-D")
    assert reasons(filled) == {}
    filled.assert_equals_the_contract()


def test_a_table_that_was_created_again_is_not_taken_for_the_old_one(filled: Deployment) -> None:
    lakehouse = filled.pipeline.lakehouse
    for contract in (BRONZE, REJECTED, UPLOADS):
        lakehouse.catalog.purge_table(contract.identifier)
    shutil.rmtree(filled.settings.lakehouse_folder() / "archive")
    filled.batch_reports.clear()
    for number in range(BATCHES):
        upload(filled, f"new-{number}.json", f"CAR-N{number}", f"CAR-M{number}", day=f"2025-11-0{4 + number % 2}")
        filled.batch_reports += filled.pipeline.ingest("only Bronze")
    assert SILVER in filled.pipeline.tables_behind()
    filled.process()
    filled.assert_equals_the_contract()
