"""Deployments with damaged tables, and the table doctor's findings."""

from __future__ import annotations

import re
import uuid
from typing import Any

from telemetry_assets.lakehouse.doctor import Finding, examine
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed


def filled(deployed: Deployment) -> Deployment:
    deployed.upload("x.json", framed([event(engineTempCelsius=120), {}], "array")[1])
    deployed.process()
    return deployed


def to_do(deployed: Deployment) -> list[Finding]:
    return [finding for finding in examine(deployed.pipeline.lakehouse) if finding.needs_action]


def repair(deployed: Deployment) -> None:
    """Repair the only finding, and assert that none is left."""
    [finding] = to_do(deployed)
    assert finding.repair is not None, finding
    finding.repair()
    assert to_do(deployed) == []


def glue_entry(aws: AwsServices, contract: TableContract) -> dict[str, Any]:
    layer, name = contract.identifier
    entry = aws.client("glue").get_table(DatabaseName=layer, Name=name)["Table"]
    return {key: entry[key] for key in ("Name", "TableType", "Parameters", "StorageDescriptor")}


def write_glue_entry(aws: AwsServices, contract: TableContract, entry: dict[str, Any]) -> None:
    aws.client("glue").update_table(DatabaseName=contract.layer, TableInput=entry)


def write_metadata_again(deployed: Deployment, contract: TableContract, number: int) -> str:
    """Write a copy of a table's metadata as another metadata file with this number."""
    table = deployed.pipeline.lakehouse.table(contract)
    location = f"{table.location()}/metadata/{number:05d}-{uuid.uuid4()}.metadata.json"
    with table.io.new_input(table.metadata_location).open() as source, table.io.new_output(location).create() as target:
        target.write(source.read())
    return location


def number_of(metadata_location: str) -> int:
    found = re.search(r"/(\d+)-[^/]*$", metadata_location)
    assert found is not None
    return int(found[1])
