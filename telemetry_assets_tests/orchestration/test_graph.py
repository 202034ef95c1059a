"""The asset graph as a data engineer uses it in Dagster."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetSelection,
    DagsterInstance,
    Definitions,
    build_schedule_context,
    define_asset_job,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from pyiceberg.expressions import AlwaysTrue

from telemetry_assets.assets.checks import check_refreshed
from telemetry_assets.assets.metadata import POOL, asset_key
from telemetry_assets.errors import QualityError
from telemetry_assets.tables import (
    ALERTS,
    BRONZE,
    CURRENT_STATE,
    FUEL_EFFICIENCY,
    SILVER,
    derived_tables,
)
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.dagster_runs import materialize, run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

TABLES = (BRONZE, *derived_tables())


def latest(instance: DagsterInstance, table: Any) -> dict[str, Any]:
    entry = instance.get_latest_materialization_event(asset_key(table))
    assert entry is not None
    assert entry.asset_materialization is not None
    return {name: value.value for name, value in entry.asset_materialization.metadata.items()}


def test_five_assets_in_three_groups_partitioned_by_event_date(defs: Definitions) -> None:
    graph = defs.resolve_asset_graph()
    assert {tuple(key.path) for key in graph.get_all_asset_keys()} == {table.identifier for table in TABLES}
    for table in TABLES:
        node = graph.get(asset_key(table))
        assert (node.group_name, node.is_partitioned, bool(node.description)) == (table.layer, True, True)
        assert node.owners
        assert {"iceberg"} <= node.kinds
        columns = node.metadata["dagster/column_schema"].value.columns
        assert [column.name for column in columns] == list(table.column_names)
        assert all(column.description for column in columns)


def test_a_backfill_is_one_run(defs: Definitions) -> None:
    definitions = defs.resolve_asset_graph().assets_defs
    policies = {definition.backfill_policy for definition in definitions if definition.keys}
    assert {policy.max_partitions_per_run for policy in policies if policy} == {None}
    assert None not in policies


@pytest.mark.parametrize("job", ["ingest", "refresh_insurance", "replay_rejected"])
def test_every_job_writes_tables_in_the_one_pool(defs: Definitions, job: str) -> None:
    [node] = defs.resolve_job_def(job).nodes
    assert node.definition.pools == {POOL}


def test_ingest_job_processes_an_upload_up_to_gold(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    deployed.upload("x.json", framed([event(engineTempCelsius=120), event(car="")], "array")[1])
    assert run(defs, instance, "ingest").success
    for table in TABLES:
        entry = instance.get_latest_materialization_event(asset_key(table))
        assert entry is not None
        assert entry.asset_materialization is not None
        assert entry.asset_materialization.partition == "2025-11-04"
        metadata = latest(instance, table)
        assert metadata["dagster/table_name"] == table.full_name
        assert metadata["dagster/partition_row_count"] == 1
        assert metadata["rows_written"] == 1
        assert metadata["snapshot_id"].isdigit()
        assert metadata["preview"].records[0].data["car_chassis"] == "CAR-1"
    assert latest(instance, BRONZE)["rejected_by_reason"] == {"missing_car_chassis": 1}
    assert latest(instance, ALERTS)["critical_alerts"] == 1


def test_the_ingest_job_evaluates_every_check(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    deployed.upload("x.json", framed([event(altitude=3)], "array")[1])
    result = run(defs, instance, "ingest")
    evaluations = {(one.asset_key, one.check_name): one.passed for one in result.get_asset_check_evaluations()}
    all_checks = {(key.asset_key, key.name) for key in defs.resolve_asset_graph().asset_check_keys}
    # The job `maintain` evaluates `well_kept`.
    of_ingest = {(key, name) for key, name in all_checks if name != "well_kept"}
    assert of_ingest - set(evaluations) == {(asset_key(BRONZE), "every_batch_conserved")}
    assert {name for (_, name), passed in evaluations.items() if not passed} == {"no_unknown_fields"}


def test_documents_of_every_batch_can_be_counted(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    deployed.upload("x.json", framed([event(), {}], "array")[1])
    deployed.process()
    key = AssetCheckKey(asset_key(BRONZE), "every_batch_conserved")

    def executed() -> tuple[bool, dict[str, object]]:
        job = define_asset_job("count", selection=AssetSelection.checks(key))
        counting = Definitions.merge(defs, Definitions(jobs=[job])).resolve_job_def("count")
        [found] = counting.execute_in_process(instance=instance).get_asset_check_evaluations()
        return found.passed, {name: value.value for name, value in found.metadata.items()}

    counted = {"batches": 1, "received": 2, "accepted": 1, "rejected": 1, "batches_not_conserved": []}
    assert executed() == (True, counted)
    deployed.pipeline.lakehouse.table(BRONZE).delete(AlwaysTrue())
    [batch_report] = deployed.batch_reports
    lost = {**counted, "accepted": 0, "batches_not_conserved": [batch_report.batch_id]}
    assert executed() == (False, lost)


def test_the_checks_of_a_table_can_be_executed_without_its_asset(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    deployed.upload("x.json", framed([event()], "array")[1])
    assert run(defs, instance, "ingest").success
    keys = [AssetCheckKey(asset_key(SILVER), name) for name in ("schema_as_contracted", "one_row_per_event")]

    def executed() -> dict[str, bool]:
        job = define_asset_job("check", selection=AssetSelection.checks(*keys))
        checking = Definitions.merge(defs, Definitions(jobs=[job])).resolve_job_def("check")
        evaluations = checking.execute_in_process(instance=instance, raise_on_error=False).get_asset_check_evaluations()
        return {one.check_name: one.passed for one in evaluations}

    assert executed() == {"schema_as_contracted": True, "one_row_per_event": True}
    silver = deployed.pipeline.lakehouse.table(SILVER)
    silver.append(silver.scan().to_arrow().cast(SILVER.arrow_schema))
    assert executed() == {"schema_as_contracted": True, "one_row_per_event": False}


def test_materializing_a_range_rebuilds_it_in_one_run(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    for day in range(1, 6):
        deployed.upload(f"{day}.json", framed([event(time=f"2025-11-0{day}T08:00:00Z")], "array")[1])
    deployed.pipeline.process("test-run")
    before = {table: deployed.rows(table) for table in derived_tables()}
    deployed.pipeline.lakehouse.table(SILVER).delete(AlwaysTrue())
    result = materialize(defs, instance, date(2025, 11, 1), date(2025, 11, 5))
    assert result.success
    assert {table: deployed.rows(table) for table in derived_tables()} == before
    partitions = instance.get_materialized_partitions(asset_key(SILVER))
    assert partitions == {f"2025-11-0{day}" for day in range(1, 6)}


def test_materializing_one_date_rebuilds_it(defs: Definitions, instance: DagsterInstance, deployed: Deployment) -> None:
    deployed.upload("x.json", framed([event()], "array")[1])
    assert run(defs, instance, "ingest").success
    silver = deployed.pipeline.lakehouse.table(SILVER)
    silver.append(silver.scan().to_arrow().cast(SILVER.arrow_schema))
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, partition_key="2025-11-04", asset_selection=[asset_key(BRONZE), asset_key(SILVER)]
    )
    assert len(deployed.rows(SILVER)) == 1
    materialized = {event.asset_key for event in result.get_asset_materialization_events()}
    assert materialized == {asset_key(BRONZE), asset_key(SILVER)}


@pytest.mark.parametrize("started_by", ["ingest", "a materialization"])
def test_a_table_that_fails_keeps_no_table_beside_it_from_being_refreshed(
    defs: Definitions,
    instance: DagsterInstance,
    deployed: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    started_by: str,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("telemetry_assets.transforms.gold_car_current_state.rebuild", fail)
    deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
    if started_by == "ingest":
        result = run(defs, instance, "ingest")
    else:
        result = materialize(defs, instance, date(2025, 11, 4), date(2025, 11, 4))
    assert not result.success
    assert len(deployed.rows(ALERTS)) == 1
    assert instance.get_materialized_partitions(asset_key(ALERTS)) == {"2025-11-04"}
    assert instance.get_materialized_partitions(asset_key(CURRENT_STATE)) == set()


def test_failed_blocking_check_keeps_misleading_rows_out_of_gold(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_with_a_repeated_key(lakehouse: Any, result: Any) -> Any:
        return check_refreshed(lakehouse, replace(result, repeated_keys=1) if result.contract is SILVER else result)

    monkeypatch.setattr("telemetry_assets.assets.reports.check_refreshed", check_with_a_repeated_key)
    deployed.upload("x.json", framed([event()], "array")[1])
    assert not run(defs, instance, "ingest").success
    assert deployed.rows(CURRENT_STATE) == []
    assert not materialize(defs, instance, date(2025, 11, 4), date(2025, 11, 4)).success
    assert deployed.rows(CURRENT_STATE) == []


def test_manually_duplicated_silver_rows_block_gold_until_silver_is_rebuilt(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
    deployed.process()
    before = deployed.rows(CURRENT_STATE)
    silver = deployed.pipeline.lakehouse.table(SILVER)
    silver.append(silver.scan().to_arrow().cast(SILVER.arrow_schema))
    for _ in range(2):
        with pytest.raises(QualityError, match="materialize the event dates 2025-11-04"):
            deployed.process()
        assert not run(defs, instance, "ingest").success
        check = AssetCheckKey(asset_key(SILVER), "one_row_per_event")
        [shown] = instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).values()
        assert shown.status == AssetCheckExecutionRecordStatus.FAILED
    assert deployed.rows(CURRENT_STATE) == before
    assert materialize(defs, instance, date(2025, 11, 4), date(2025, 11, 4)).success
    deployed.process()
    deployed.assert_equals_the_contract()


@pytest.mark.parametrize("table", [CURRENT_STATE, ALERTS, FUEL_EFFICIENCY], ids=lambda one: one.full_name)
def test_rebuild_removes_manually_duplicated_gold_rows(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, table: TableContract
) -> None:
    deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
    deployed.process()
    gold = deployed.pipeline.lakehouse.table(table)
    gold.append(gold.scan().to_arrow().cast(table.arrow_schema))
    assert materialize(defs, instance, date(2025, 11, 4), date(2025, 11, 4)).success
    deployed.process()
    deployed.assert_equals_the_contract()


def test_daily_job_updates_insurance_of_cars_without_new_events(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    from telemetry_assets_tests.harness.made_documents import vehicle

    deployed.upload("x.json", framed([vehicle(insurance={"validUntil": "2025-12-31"})], "array")[1])
    deployed.process()
    config = {"ops": {"lakehouse": {"config": {"insurance_as_of": "2025-12-31"}}}}
    assert run(defs, instance, "refresh_insurance", config).success
    [row] = deployed.rows(CURRENT_STATE)
    assert (row["insurance_status"], row["insurance_as_of"]) == ("EXPIRING_IN_90_DAYS", date(2025, 12, 31))
    assert run(defs, instance, "refresh_insurance").success
    [row] = deployed.rows(CURRENT_STATE)
    assert row["insurance_status"] == "EXPIRED"
    assert instance.get_materialized_partitions(asset_key(CURRENT_STATE)) == {datetime.now(UTC).date().isoformat()}


def test_daily_schedule_requests_the_new_date(defs: Definitions, instance: DagsterInstance) -> None:
    schedule = defs.resolve_schedule_def("daily_insurance")
    context = build_schedule_context(
        instance, datetime(2025, 12, 31, 0, 5, tzinfo=UTC), repository_def=defs.get_repository_def()
    )
    [request] = schedule.evaluate_tick(context).run_requests or ()
    assert request.partition_key == "2025-12-31"


def test_next_run_updates_gold_after_a_manual_change_of_silver(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
    deployed.process()
    assert deployed.pipeline.tables_behind() == []
    deployed.pipeline.lakehouse.table(SILVER).delete(AlwaysTrue())
    assert deployed.pipeline.tables_behind() == [table for table in derived_tables() if table.upstream is SILVER]
    assert run(defs, instance, "ingest").success
    assert deployed.rows(ALERTS) == deployed.rows(CURRENT_STATE) == []
    assert deployed.pipeline.tables_behind() == []


def test_group_selects_one_layer(defs: Definitions) -> None:
    graph = defs.resolve_asset_graph()
    gold = AssetSelection.groups("gold").resolve(graph)
    assert gold == {AssetKey(list(table.identifier)) for table in TABLES if table.layer == "gold"}
