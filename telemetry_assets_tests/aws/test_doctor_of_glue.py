"""The table doctor on entries of the Glue Data Catalog that another writer has changed."""

from __future__ import annotations

import pytest

from telemetry_assets.errors import ConcurrentWriteError, TableMismatchError
from telemetry_assets.tables import ALERTS, BRONZE, SILVER
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import Deployment, deployment_in_s3
from telemetry_assets_tests.harness.examined import glue_entry, repair, to_do, write_glue_entry
from telemetry_assets_tests.harness.made_documents import event, framed

pytestmark = pytest.mark.long


def test_entry_with_3_columns_and_metadata_with_all_is_repaired(in_glue: Deployment, aws: AwsServices) -> None:
    entry = glue_entry(aws, SILVER)
    whole = entry["StorageDescriptor"]["Columns"]
    entry["StorageDescriptor"]["Columns"] = whole[:3]
    write_glue_entry(aws, SILVER, entry)
    [finding] = to_do(in_glue)
    assert f"the catalog shows 3 columns where the metadata has {len(SILVER.columns)}" in finding.text
    assert "refuse inserts" in finding.text
    with pytest.raises(TableMismatchError, match="3 columns"):
        in_glue.process()
    repair(in_glue)
    assert glue_entry(aws, SILVER)["StorageDescriptor"]["Columns"] == whole
    in_glue.upload("y.json", framed([event("CAR-2")], "array")[1])
    in_glue.process()
    in_glue.assert_equals_the_contract()


def test_entry_with_another_type_or_location_is_repaired(in_glue: Deployment, aws: AwsServices) -> None:
    entry = glue_entry(aws, ALERTS)
    entry["StorageDescriptor"]["Columns"][0]["Type"] = "bigint"
    entry["StorageDescriptor"]["Location"] = "s3://elsewhere/alerts"
    write_glue_entry(aws, ALERTS, entry)
    columns, location = to_do(in_glue)
    assert "different type: alert_id" in columns.text
    assert "s3://elsewhere/alerts" in location.text
    assert columns.repair is not None
    columns.repair()
    assert to_do(in_glue) == []


@pytest.mark.parametrize("parameters", [{}, {"classification": "json"}, {"table_type": "HIVE"}])
def test_entry_overwritten_by_a_crawler_is_repaired(
    in_glue: Deployment, aws: AwsServices, parameters: dict[str, str]
) -> None:
    entry = glue_entry(aws, SILVER)
    columns = [{"Name": name, "Type": "string"} for name in ("col0", "col1", "col2")]
    storage = {**entry["StorageDescriptor"], "Columns": columns}
    write_glue_entry(aws, SILVER, {**entry, "Parameters": parameters, "StorageDescriptor": storage})
    [finding] = to_do(in_glue)
    assert "with 3 columns" in finding.text
    assert "not that of an Iceberg table" in finding.text
    with pytest.raises(TableMismatchError, match="not that of an Iceberg table"):
        in_glue.process()
    repair(in_glue)
    in_glue.process()
    in_glue.assert_equals_the_contract()


def test_entry_of_another_table_is_not_changed_and_the_reason_is_reported(aws: AwsServices) -> None:
    glue = aws.client("glue")
    glue.create_database(DatabaseInput={"Name": "silver"})
    entry = {"Name": "car_telemetry", "TableType": "EXTERNAL_TABLE", "StorageDescriptor": {"Location": "s3://other/"}}
    glue.create_table(DatabaseName="silver", TableInput=entry)
    with deployment_in_s3(aws) as deployed:
        [finding] = to_do(deployed)
        assert finding.repair is None
        assert "drop the entry" in finding.refusal


def test_repair_does_not_undo_later_commits(in_glue: Deployment, aws: AwsServices) -> None:
    whole = glue_entry(aws, BRONZE)
    write_glue_entry(aws, BRONZE, {**whole, "Parameters": {}})
    [finding] = to_do(in_glue)
    write_glue_entry(aws, BRONZE, whole)
    in_glue.upload("y.json", framed([event("CAR-2")], "array")[1])
    in_glue.process()
    rows = in_glue.rows(BRONZE)
    assert finding.repair is not None
    with pytest.raises(ConcurrentWriteError):
        finding.repair()
    assert in_glue.rows(BRONZE) == rows
