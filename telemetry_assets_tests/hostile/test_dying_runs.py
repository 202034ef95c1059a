"""An upload that kills its run is set aside, and keeps no other upload from being taken."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion import parsing, replays, rows
from telemetry_assets.ingestion.manifests import ReplaySelection
from telemetry_assets.lakehouse.contracts import BRONZE, REJECTED
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets_tests.deployment import Deployment, deployment
from telemetry_assets_tests.forked import ForkedProgram
from telemetry_assets_tests.made_documents import event, framed

DEADLY = "deadly.json"


def die_of_the_deadly_upload() -> None:
    """As the kernel does where an upload takes more memory than there is."""
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


def test_an_upload_that_three_runs_died_of_is_a_rejection_and_the_others_are_taken(
    with_a_deadly_upload: Deployment,
) -> None:
    deployed = with_a_deadly_upload
    runs = [run(deployed) for _ in range(4)]
    assert [ended for ended, _ in runs] == [-9, -9, -9, 0]
    # The first death leaves no trace; the second one's is told by the next run.
    named = [f"/{DEADLY}" in said for _, said in runs]
    assert named == [False, False, True, True]
    assert {row["car_chassis"] for row in deployed.rows(BRONZE)} == {"CAR-0", "CAR-1", "CAR-2"}
    [rejected] = deployed.rows(REJECTED)
    assert (rejected["reason"], rejected["source_position"], rejected["payload"]) == ("parser_died", None, None)
    assert rejected["source_uri"].endswith(DEADLY)
    assert list(deployed.settings.lakehouse_folder().glob(f"archive/*/{DEADLY}"))


def test_two_deadly_uploads_of_one_batch_are_both_set_aside(with_a_deadly_upload: Deployment) -> None:
    deployed = with_a_deadly_upload
    deployed.upload("also-deadly.json", framed([event("DEADLY")], "array")[1])
    ended = [run(deployed)[0] for _ in range(6)]
    assert ended == [-9, -9, -9, -9, -9, 0]
    assert [row["reason"] for row in deployed.rows(REJECTED)] == ["parser_died"] * 2
    assert len(deployed.rows(BRONZE)) == 3


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


def test_a_replay_that_runs_die_of_is_given_up(with_a_deadly_upload: Deployment) -> None:
    deployed = with_a_deadly_upload
    for _ in range(4):
        run(deployed)
    assert run(deployed, replay)[0] == -9
    deployed.upload("later.json", framed([event("LATER")], "array")[1])
    assert [run(deployed)[0] for _ in range(3)] == [-9, -9, 0]
    assert "LATER" in {row["car_chassis"] for row in deployed.rows(BRONZE)}
    assert [row["reason"] for row in deployed.rows(REJECTED)] == ["parser_died"]


def test_a_run_that_ends_with_an_error_is_no_death(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
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
