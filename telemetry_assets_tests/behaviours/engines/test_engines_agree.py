"""All engines produce the same rows and types, also if they take turns in one lakehouse."""

from __future__ import annotations

import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.expressions import EqualTo

from telemetry_assets.engines.spark import engine as spark_engine
from telemetry_assets.engines.spark.configuration import table_name
from telemetry_assets.errors import SparkError
from telemetry_assets.lakehouse.commits import set_table_properties
from telemetry_assets.lakehouse.merging import Written, commit_merge
from telemetry_assets.lakehouse.rebuilds import PendingRebuild
from telemetry_assets.lakehouse.snapshots import summary_of
from telemetry_assets.pipeline import ProcessResult, open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import ALERTS, CURRENT_STATE, SILVER, derived_tables
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import (
    AS_OF,
    IN_S3,
    SAMPLES,
    DeploymentInS3,
    deployment_in_s3,
)
from telemetry_assets_tests.harness.fuzzed_uploads import fuzzed_uploads
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.on_engines import (
    ENGINES,
    SMALL_SPARK,
    assert_types_are_those_of_the_contract,
    deployed_on,
    messy_uploads,
)
from telemetry_assets_tests.harness.small_uploads import small_uploads

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("java")]


def test_real_uploads_on_a_jvm(tmp_path: Path) -> None:
    samples = sorted(SAMPLES.glob("*.json"))
    if not samples:
        pytest.skip(f"there are no real uploads in {SAMPLES}")
    with deployed_on("spark", tmp_path) as deployed:
        for sample in samples:
            deployed.upload(sample.name, sample.read_bytes())
        deployed.process()
        deployed.assert_equals_the_contract()
        assert_types_are_those_of_the_contract(deployed)


@pytest.mark.exhaustive
def test_both_engines_take_turns_with_a_messy_fleet(tmp_path: Path) -> None:
    uploads = messy_uploads()
    turns = itertools.cycle(ENGINES)
    for start in range(0, len(uploads), 10):
        with deployed_on(next(turns), tmp_path) as deployed:
            for number, (name, content) in enumerate(uploads[start : start + 10], start):
                deployed.upload(f"{number}/{name}", content)
            deployed.process()
            deployed.recall_batches()
            deployed.assert_equals_the_contract()
            assert_types_are_those_of_the_contract(deployed)


@pytest.mark.exhaustive
def test_hostile_documents_on_a_jvm(tmp_path: Path) -> None:
    with deployed_on("spark", tmp_path) as deployed:
        for name, content in fuzzed_uploads(7, large=60, small=200):
            deployed.upload(name, content)
        deployed.process()
        deployed.assert_equals_the_contract()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ProcessResult]]:
    """The same uploads, processed by each engine in a separate folder, with the engine's result."""
    made = {}
    for engine in ENGINES:
        folder = tmp_path_factory.mktemp(engine)
        with deployed_on(engine, folder) as deployed:
            for name, content in messy_uploads():
                deployed.upload(name, content)
            made[engine] = folder, deployed.process()
    return made


@pytest.mark.parametrize(("maker", "reader"), [ENGINES, pytest.param(*ENGINES[::-1], marks=pytest.mark.exhaustive)])
def test_one_engine_finds_nothing_to_change_in_the_others_tables(
    made: dict[str, tuple[Path, ProcessResult]], maker: str, reader: str
) -> None:
    with deployed_on(reader, made[maker][0]) as deployed:
        days = frozenset(row["event_date"] for row in deployed.rows(SILVER))
        for contract in derived_tables():
            result = deployed.pipeline.refresh(contract, "a backfill", days, insurance_as_of=AS_OF)
            assert not result.changed, contract.full_name


def test_engines_return_the_same_results(made: dict[str, tuple[Path, ProcessResult]]) -> None:
    results = [
        [
            (one.contract, one.event_dates, one.rows_read, one.rows_written, one.changed, figures(one))
            for one in processed.refreshes
        ]
        for _, processed in made.values()
    ]
    assert results[0] == results[1]


def test_snapshot_summaries_of_engines_are_the_same(made: dict[str, tuple[Path, ProcessResult]]) -> None:
    results = []
    for engine, (folder, _) in made.items():
        with deployed_on(engine, folder) as deployed:
            snapshot = deployed.pipeline.lakehouse.table(ALERTS).current_snapshot()
            assert snapshot is not None
            summary = summary_of(snapshot)
            results.append({name: summary.get(f"telemetry.{name}") for name in ("run-id", "step", "event-dates")})
    assert results[0] == results[1]
    assert results[0]["step"] == "gold.performance_alerts"


def figures(result: Any) -> dict[date | None, tuple[int, int, dict[str, float]]]:
    """Figures of a result, rounded, because sums of doubles depend on their order."""
    return {
        day: (one.rows, len(one.preview), {name: round(number, 6) for name, number in one.figures.items()})
        for day, one in result.partitions.items()
    }


@pytest.mark.parametrize("reordered", [False, True])
def test_embedded_engine_respects_sparks_delete_files(tmp_path: Path, reordered: bool) -> None:
    with deployed_on("embedded", tmp_path) as deployed:
        deployed.upload("x.jsonl", framed([event(f"CAR-{n}", engineTempCelsius=120) for n in range(6)], "lines")[1])
        deployed.process()
    with deployed_on("spark", tmp_path) as deployed:
        spark = deployed.pipeline.engine._spark  # type: ignore[attr-defined]  # specific to this engine
        spark.sql(f"ALTER TABLE {table_name(SILVER)} SET TBLPROPERTIES ('write.delete.mode'='merge-on-read')")
        if reordered:
            spark.sql(f"ALTER TABLE {table_name(SILVER)} ALTER COLUMN car_chassis FIRST")
        spark.sql(f"DELETE FROM {table_name(SILVER)} WHERE car_chassis = 'CAR-3'")
        deletes = [task.delete_files for task in deployed.pipeline.lakehouse.table(SILVER).scan().plan_files()]
        assert any(deletes)
    with deployed_on("embedded", tmp_path) as deployed:
        deployed.process()
        assert {row["car_chassis"] for row in deployed.rows(CURRENT_STATE)} == {f"CAR-{n}" for n in (0, 1, 2, 4, 5)}
        assert len(deployed.rows(ALERTS)) == 5


def test_manual_commit_between_a_steps_read_and_write_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deployed_on("embedded", tmp_path) as deployed:
        deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
        deployed.process()
        deployed.upload("y.json", framed([event("CAR-2")], "array")[1])
        deployed.pipeline.ingest("a run")
    with deployed_on("spark", tmp_path) as deployed:

        def after_another(*arguments: Any) -> Written:
            monkeypatch.undo()
            silver = deployed.pipeline.lakehouse.table(SILVER)
            rows = silver.scan().to_arrow()
            silver.append(rows.set_column(0, rows.schema.field(0), [["by-hand"]]).cast(SILVER.arrow_schema))
            return commit_merge(*arguments)

        monkeypatch.setattr("telemetry_assets.engines.base.commit_merge", after_another)
        result = deployed.pipeline.refresh(SILVER, "a run")
        assert (result.changed, result.rows_written) == (True, 1)
        assert "by-hand" in {row["event_id"] for row in deployed.rows(SILVER)}
        assert {row["car_chassis"] for row in deployed.rows(SILVER)} == {"CAR-1", "CAR-2"}


@pytest.mark.parametrize("changed", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_table_rolled_back_during_its_refresh_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    with deployed_on("embedded", tmp_path) as deployed:
        for number in (1, 2):
            deployed.upload(f"{number}.json", framed([event(f"CAR-{number}", engineTempCelsius=120)], "array")[1])
            deployed.process()
        # The third upload causes an alert, or none.
        temperature = 120 if changed else 90
        documents = [event(f"CAR-{number}", engineTempCelsius=temperature) for number in (3, 4)]
        deployed.upload("3.json", framed(documents, "array")[1])
        deployed.pipeline.ingest("a run")
        for contract in list(derived_tables())[:-1]:
            deployed.pipeline.refresh(contract, "a run", insurance_as_of=AS_OF)
    # More rows change than an update may have, so the event date is rebuilt.
    with deployed_on("spark", tmp_path, update_max_rows=1) as deployed:
        step = "_replace" if changed else "_rows_by_partition"
        original = getattr(spark_engine, step)

        def before_the_watermark(*arguments: Any) -> Any:
            result = original(*arguments)
            monkeypatch.undo()
            alerts = deployed.pipeline.lakehouse.table(ALERTS)
            alerts.manage_snapshots().rollback_to_snapshot(alerts.snapshots()[0].snapshot_id).commit()
            return result

        monkeypatch.setattr(spark_engine, step, before_the_watermark)
        assert list(derived_tables())[-1] is ALERTS
        deployed.pipeline.refresh(ALERTS, "a run", insurance_as_of=AS_OF)
        # An unchanged table is checked again at once; a written one by the next run.
        assert (ALERTS in deployed.pipeline.tables_behind()) == changed
    with deployed_on("embedded", tmp_path) as deployed:
        deployed.process()
        deployed.recall_batches()
        deployed.assert_equals_the_contract()


def test_a_request_that_is_registered_between_sparks_two_commits_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [date(2025, 11, 4), date(2025, 11, 5)]
    with deployed_on("embedded", tmp_path) as deployed:
        documents = [event(time=f"{day}T10:00:00Z", engineTempCelsius=120) for day in days]
        deployed.upload("x.json", framed(documents, "array")[1])
        deployed.process()
    with deployed_on("spark", tmp_path) as deployed:
        original = spark_engine._replace

        def before_a_request(*arguments: Any) -> str:
            commit_id = original(*arguments)
            monkeypatch.undo()
            alerts = deployed.pipeline.lakehouse.table(ALERTS)
            registered = PendingRebuild.of(alerts).with_requested(frozenset(days[:1]), "a request")
            set_table_properties(alerts, registered.to_property())
            return commit_id

        alerts = deployed.pipeline.lakehouse.table(ALERTS)
        # Otherwise the rebuilt date has not changed, and nothing is replaced.
        alerts.delete(EqualTo(term="alert_date", value=days[1].isoformat()))
        monkeypatch.setattr(spark_engine, "_replace", before_a_request)
        deployed.pipeline.refresh(ALERTS, "a run", frozenset(days[1:]))
        assert deployed.pipeline.tables_behind() == [ALERTS]
        assert deployed.pipeline.refresh(ALERTS, "the next run").event_dates == (days[0],)


def test_small_changes_on_a_jvm(tmp_path: Path) -> None:
    with deployed_on("spark", tmp_path) as deployed:
        for number, documents in enumerate(small_uploads(300, uploads=5)):
            deployed.upload(f"{number}.json", json.dumps(documents))
            deployed.process()
            deployed.assert_equals_the_contract()


def test_java_errors_are_shown_without_their_stack(tmp_path: Path) -> None:
    with deployed_on("embedded", tmp_path) as deployed:
        deployed.upload("x.json", framed([event()], "array")[1])
        deployed.process()
        [task] = deployed.pipeline.lakehouse.table(SILVER).scan().plan_files()
        Path(task.file.file_path.removeprefix("file:")).unlink()
    with deployed_on("spark", tmp_path) as deployed:
        with pytest.raises(SparkError, match="could not bring gold") as raised:
            deployed.pipeline.refresh(ALERTS, "a run", frozenset([date(2025, 11, 4)]))
        assert len(str(raised.value)) < 1000


def test_both_engines_take_turns_with_tables_in_s3_and_glue(aws: AwsServices) -> None:
    with deployment_in_s3(aws, engine="spark", spark_configuration=SMALL_SPARK) as deployed:
        deployed.upload("x.jsonl", framed([event(engineTempCelsius=120), event(), {}], "lines")[1])
        deployed.process()
        deployed.assert_equals_the_contract()
    with open_pipeline(Settings(**IN_S3)) as pipeline:
        deployed = DeploymentInS3(pipeline.settings, pipeline, client=aws.client("s3"))
        deployed.upload("y.json", framed([event("CAR-2")], "array")[1])
        deployed.process()
        deployed.recall_batches()
        deployed.assert_equals_the_contract()
