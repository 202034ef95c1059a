"""A backlog that Spark parses gives the same rows, rejections and batch report as one parsed in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from telemetry_assets.errors import SettingsError
from telemetry_assets.tables import SILVER
from telemetry_assets_tests.harness.fuzzed_uploads import fuzzed_uploads
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.on_engines import (
    ENGINES,
    assert_types_are_those_of_the_contract,
    deployed_on,
    messy_uploads,
)

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("java")]


@pytest.fixture(scope="module")
def backlog() -> list[tuple[str, bytes]]:
    """A messy fleet, hostile documents, an upload that is too large, and one that cannot be decoded."""
    hostile: list[tuple[str, bytes]] = list(fuzzed_uploads(9, large=10, small=40))
    return [*messy_uploads(), *hostile, ("large.json", b"[" + b" " * 3_000_000 + b"]"), ("x.bin", b"?")]


LARGE_BACKLOGS = {"spark_ingestion_min_bytes": 0, "upload_max_bytes": 2_000_000}


def test_backlog_parsed_by_spark_gives_the_same_rows_and_batch_report(
    tmp_path: Path, backlog: list[tuple[str, bytes]]
) -> None:
    reports = []
    for engine in ENGINES:
        (tmp_path / engine).mkdir()
        with deployed_on(engine, tmp_path / engine, **LARGE_BACKLOGS) as deployed:
            for name, content in backlog:
                deployed.upload(name, content)
            [batch_report] = deployed.process().batch_reports
            deployed.assert_equals_the_contract()
            assert_types_are_those_of_the_contract(deployed)
            assert not deployed.pipeline.ingestion.has_work()
            reports.append(batch_report.model_dump(exclude={"batch_id", "ingested_at", "snapshot_id"}))
    assert reports[0] == reports[1]
    assert reports[0]["rejected"] > 0


def test_run_killed_after_spark_parsed_its_batch_loses_and_duplicates_nothing(
    tmp_path: Path, backlog: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        """Raised instead of a kill; nothing handles it."""

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with deployed_on("spark", tmp_path, **LARGE_BACKLOGS) as deployed:
        for name, content in backlog:
            deployed.upload(name, content)
        # Before the uploads' outcomes are stored, and after those and the rejected documents are.
        for where, step in (("batches.BatchWriter", "_append"), ("batches.BatchWriter", "_clear")):
            with monkeypatch.context() as patched:
                patched.setattr(f"telemetry_assets.ingestion.{where}.{step}", killed)
                with pytest.raises(KilledError):
                    deployed.process()
            if step == "_append":
                with deployed_on("embedded", tmp_path) as other, pytest.raises(SettingsError, match="begun in Spark"):
                    other.process()
        deployed.process()
        deployed.recall_batches()
        deployed.assert_equals_the_contract()


@pytest.mark.exhaustive
def test_uploads_that_arrive_during_parsing_are_the_next_batch(tmp_path: Path) -> None:
    with deployed_on("spark", tmp_path, **LARGE_BACKLOGS) as deployed:
        for number in range(2):
            deployed.upload("x.json", framed([event(f"CAR-{number}")], "array")[1])
            deployed.process()
        deployed.assert_equals_the_contract()
        assert {row["car_chassis"] for row in deployed.rows(SILVER)} == {"CAR-0", "CAR-1"}
