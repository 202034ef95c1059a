"""Dagster shows documents and uploads' names as plain text: in metadata, checks, logs, errors and tags."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from dagster import (
    AssetMaterialization,
    DagsterInstance,
    DagsterInvalidConfigError,
    Definitions,
    ExecuteInProcessResult,
    RunsFilter,
)
from dagster._serdes import serialize_value

from telemetry_assets.assets.metadata import asset_key, refresh_metadata
from telemetry_assets.engines.result import PartitionResult, RefreshResult
from telemetry_assets.tables import ALERTS, BRONZE, FUEL_EFFICIENCY
from telemetry_assets_tests.harness.dagster_runs import metadata_by_date, run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.texts import FORGING_NAME, TERMINAL, markdown

ADDRESS = "127.0.0.1:8009"


def texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value, including names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for one in pair for text in texts(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in texts(one))


def stored_texts(instance: DagsterInstance) -> list[str]:
    """All strings that Dagster has stored about all runs."""
    runs = instance.get_runs(RunsFilter())
    entries = [entry for one in runs for entry in instance.all_logs(one.run_id)]
    stored = [*map(serialize_value, runs), *map(serialize_value, entries)]
    return [text for one in stored for text in texts(json.loads(one))]


def is_interpreted(text: str) -> bool:
    """Whether a browser or a terminal would interpret the text instead of only showing it."""
    linked = any(f"{scheme}{ADDRESS}" in text for scheme in ("http://", "https://"))
    commanding = any(not one.isprintable() and one != "\n" for one in text)
    return linked or commanding


def test_no_text_of_a_document_or_a_name_is_interpreted(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    deployed.upload("x.jsonl", markdown(ADDRESS))
    deployed.upload("terminal.json", TERMINAL)
    deployed.upload(FORGING_NAME, TERMINAL)
    deployed.landing.joinpath("link\x1b[2J\n.json").symlink_to("x.jsonl")
    assert run(defs, instance, "ingest").success
    assert run(defs, instance, "replay_rejected").success
    found = stored_texts(instance)
    assert any("chassis.png" in text for text in found)
    assert any("field.png" in text for text in found)
    assert [text for text in found if is_interpreted(text)] == []


def test_field_names_are_stored_once_per_run_and_shortened(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    days = [f"2025-11-{day:02}T08:00:00Z" for day in range(1, 21)]
    for upload in range(3):
        # Each character takes ten when escaped.
        fields = {f"{upload}{number:02}" + "\U000e0041" * 200: 1 for number in range(100)}
        documents = [event("A", days[0]) | fields, *(event("A", day) for day in days[1:])]
        deployed.upload(f"{upload}.json", framed(documents, "array")[1])
    job = defs.resolve_job_def("ingest")
    assert job.execute_in_process(instance=instance, asset_selection=[asset_key(BRONZE)]).success
    named = [text for text in stored_texts(instance) if "e0041" in text]
    # The most frequent names, in the run's observation and in the check.
    assert len(named) == 200
    assert {len(text) for text in named} == {100}
    shown = metadata_by_date(instance, BRONZE)
    assert len(shown) == 20
    assert {metadata["unknown_fields"] for metadata in shown.values()} == {300}


def test_numbers_that_json_cannot_represent_are_stored_as_text() -> None:
    day = date(2025, 11, 1)
    partition = PartitionResult(1, {"driven_km": math.inf}, [{"total_km_driven": math.inf, "measured_km": math.nan}])
    result = RefreshResult(FUEL_EFFICIENCY, (day,), {}, {day: partition}, changed=True, snapshot_id=1, seconds=1.0)
    metadata = refresh_metadata(result, day)
    json.loads(serialize_value(AssetMaterialization("x", metadata=metadata)), parse_constant=pytest.fail)
    assert metadata["driven_km"] == "inf"
    assert metadata["preview"].records[0].data == {"total_km_driven": "inf", "measured_km": "nan"}


def test_no_metadata_is_markdown(defs: Definitions, instance: DagsterInstance, deployed: Deployment) -> None:
    deployed.upload("x.jsonl", markdown(ADDRESS))
    assert run(defs, instance, "ingest").success
    for entry in instance.all_logs(instance.get_runs()[0].run_id):
        assert "Markdown" not in serialize_value(entry)


def test_a_preview_is_a_table_of_values(defs: Definitions, instance: DagsterInstance, deployed: Deployment) -> None:
    deployed.upload("x.jsonl", markdown(ADDRESS))
    assert run(defs, instance, "ingest").success
    for table in (BRONZE, ALERTS):
        [metadata] = metadata_by_date(instance, table).values()
        records = [one.data for one in metadata["preview"].records]
        assert f"![](//{ADDRESS}/chassis.png)" in {one["car_chassis"] for one in records}, asset_key(table)


@pytest.mark.parametrize(
    ("job", "config"),
    [
        ("refresh_insurance", {"lakehouse": {"config": {"insurance_as_of": {"env": "A_SECRET"}}}}),
        ("replay_rejected", {"replay_rejected_documents": {"config": {"since": {"env": "A_SECRET"}}}}),
        ("replay_rejected", {"replay_rejected_documents": {"config": {"reasons": [{"env": "A_SECRET"}]}}}),
    ],
)
def test_error_contains_no_value_of_the_run_configuration(
    defs: Definitions, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, job: str, config: dict[str, Any]
) -> None:
    monkeypatch.setenv("A_SECRET", "correct-horse")
    result: ExecuteInProcessResult | None = None
    messages = ""
    try:
        result = run(defs, instance, job, {"ops": config})
    except DagsterInvalidConfigError as error:
        messages = f"{error} {error.__cause__} {error.__context__}"
    assert result is None or not result.success
    assert "correct-horse" not in messages
    assert not [text for text in stored_texts(instance) if "correct-horse" in text]
