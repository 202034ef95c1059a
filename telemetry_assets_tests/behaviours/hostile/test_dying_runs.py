"""An upload that kills its run is rejected and does not block other uploads."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion import batch_parser as parsing
from telemetry_assets.ingestion import replays
from telemetry_assets.ingestion.journal import open_journal
from telemetry_assets.ingestion.journal import s3 as s3_manifest
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.parsing import arrow_rows as rows
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import Deployment, deployment, deployment_in_s3
from telemetry_assets_tests.harness.forked import ForkedProgram
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.waiting import until

pytestmark = pytest.mark.long

DEADLY = "deadly.json"


def die_of_the_deadly_upload() -> None:
    """Kill this process when it parses the deadly upload, as the kernel does when it runs out of memory."""
    parse = rows.upload_rows

    def deadly(name: str, *rest: Any) -> Any:
        if "deadly" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        return parse(name, *rest)

    for module in (parsing, replays):
        setattr(module, parse.__name__, deadly)


def process() -> None:
    die_of_the_deadly_upload()
    with open_pipeline(load_settings()) as pipeline:
        pipeline.process("a-run")


def replay() -> None:
    die_of_the_deadly_upload()
    with open_pipeline(load_settings()) as pipeline:
        pipeline.replay_rejected(ReplaySelection(), "a-replay")


def process_slowly(is_parsing: Path, goes_on: Path) -> None:
    """A run that stays in the parsing of an upload until a file exists."""
    parse = rows.upload_rows

    def slow(*arguments: Any) -> Any:
        is_parsing.touch()
        while not goes_on.exists():
            time.sleep(0.05)
        return parse(*arguments)

    setattr(parsing, parse.__name__, slow)
    with open_pipeline(load_settings()) as pipeline:
        pipeline.process("a-slow-run")


def environment(deployed: Deployment) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
        "TELEMETRY_LANDING_URI": deployed.settings.landing_uri,
        "TELEMETRY_LAKEHOUSE_URI": deployed.settings.lakehouse_uri,
        "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
    }


@pytest.fixture
def with_a_deadly_upload(tmp_path: Path) -> Any:
    with deployment(tmp_path) as deployed:
        for number in range(3):
            deployed.upload(f"{number}.json", framed([event(f"CAR-{number}")], "array")[1])
        deployed.upload(DEADLY, framed([event("DEADLY")], "array")[1])
        yield deployed


def run(deployed: Deployment, program: Any = process) -> tuple[int, str]:
    return ForkedProgram(program, environment=environment(deployed)).wait(120)


def test_upload_that_killed_three_runs_is_rejected_and_others_are_ingested(
    with_a_deadly_upload: Deployment,
) -> None:
    deployed = with_a_deadly_upload
    runs = [run(deployed) for _ in range(4)]
    assert [ended for ended, _ in runs] == [-9, -9, -9, 0]
    # The first death leaves no trace; the next run logs the second one.
    named = [f"/{DEADLY}" in output for _, output in runs]
    assert named == [False, False, True, True]
    assert {row["car_chassis"] for row in deployed.rows(BRONZE)} == {"CAR-0", "CAR-1", "CAR-2"}
    [rejected] = deployed.rows(REJECTED)
    assert (rejected["reason"], rejected["source_position"], rejected["payload"]) == ("parser_died", None, None)
    assert rejected["source_uri"].endswith(DEADLY)
    assert list(deployed.settings.lakehouse_folder().glob(f"archive/*/{DEADLY}"))


def test_two_deadly_uploads_in_one_batch_are_both_rejected(with_a_deadly_upload: Deployment) -> None:
    deployed = with_a_deadly_upload
    deployed.upload("also-deadly.json", framed([event("DEADLY")], "array")[1])
    ended = [run(deployed)[0] for _ in range(6)]
    assert ended == [-9, -9, -9, -9, -9, 0]
    assert [row["reason"] for row in deployed.rows(REJECTED)] == ["parser_died"] * 2
    assert len(deployed.rows(BRONZE)) == 3


def test_live_runs_do_not_count_as_deaths(deployed: Deployment, tmp_path: Path) -> None:
    deployed.upload(DEADLY, framed([event("HONEST")], "array")[1])
    assert run(deployed)[0] == -9
    goes_on, alive = tmp_path / "goes_on", []
    for number in range(2):
        is_parsing = tmp_path / f"{number}"
        alive.append(ForkedProgram(process_slowly, is_parsing, goes_on, environment=environment(deployed)))
        until(is_parsing.exists)
    deployed.process()
    goes_on.touch()
    assert [program.wait(120)[0] for program in alive] == [0, 0]
    deployed.process()
    assert [row["car_chassis"] for row in deployed.rows(BRONZE)] == ["HONEST"]
    assert deployed.rows(REJECTED) == []
    assert list(deployed.settings.lakehouse_folder().glob("ingestion/attempts/*")) == []


def test_run_out_of_memory_counts_as_a_death_by_its_upload(
    with_a_deadly_upload: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = rows.gathered

    def starved(outcomes: Any, origin: rows.Origin, *rest: Any) -> Any:
        if rest and DEADLY in origin.source_uri:
            raise MemoryError
        return parse(outcomes, origin, *rest)

    monkeypatch.setattr(rows, parse.__name__, starved)
    for _ in range(3):
        with pytest.raises(MemoryError):
            with_a_deadly_upload.process()
    with_a_deadly_upload.process()
    assert [row["reason"] for row in with_a_deadly_upload.rows(REJECTED)] == ["parser_died"]
    assert len(with_a_deadly_upload.rows(BRONZE)) == 3


def test_run_without_heartbeats_is_dead_in_s3(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> None:
    with deployment_in_s3(aws) as deployed:
        attempts = open_journal(deployed.settings).attempts("a-batch")
    noted, silent = attempts.begin(), attempts.begin()
    noted.note(1)
    noted.end()
    silent.note(2)
    assert attempts.deaths() == []
    monkeypatch.setattr(s3_manifest, "SILENCE", timedelta(0))
    assert attempts.deaths() == [2]
    monkeypatch.undo()
    silent.end(is_death=True)
    assert attempts.deaths() == [2]
    attempts.forget()
    assert attempts.deaths() == []


def test_with_more_memory_it_is_replayed(with_a_deadly_upload: Deployment) -> None:
    deployed = with_a_deadly_upload
    for _ in range(4):
        run(deployed)
    result = deployed.pipeline.replay_rejected(ReplaySelection(reasons=("parser_died",)), "a-replay")
    assert (result.accepted, result.still_rejected) == (1, Counter())
    assert len(deployed.rows(BRONZE)) == 4
    deployed.recall_batches()
    deployed.process()
    deployed.assert_equals_the_contract()


def test_replay_that_kills_its_runs_is_given_up(with_a_deadly_upload: Deployment) -> None:
    deployed = with_a_deadly_upload
    for _ in range(4):
        run(deployed)
    assert run(deployed, replay)[0] == -9
    deployed.upload("later.json", framed([event("LATER")], "array")[1])
    assert [run(deployed)[0] for _ in range(3)] == [-9, -9, 0]
    assert "LATER" in {row["car_chassis"] for row in deployed.rows(BRONZE)}
    assert [row["reason"] for row in deployed.rows(REJECTED)] == ["parser_died"]


def test_failed_run_does_not_count_as_a_death(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise OSError(5, "Input/output error")

    deployed.upload("x.json", framed([event()], "array")[1])
    monkeypatch.setattr(parsing, "upload_rows", refuse)
    for _ in range(5):
        with pytest.raises(Exception, match="I/O error"):
            deployed.process()
    monkeypatch.undo()
    deployed.process()
    assert len(deployed.rows(BRONZE)) == 1
    assert deployed.rows(REJECTED) == []
