"""Replays of rejected documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion import replays
from telemetry_assets.ingestion.journal.base import JournalEntry, ReplaySelection
from telemetry_assets.ingestion.parsing import documents
from telemetry_assets.ingestion.reconciliation import reconcile
from telemetry_assets.tables import BRONZE, REJECTED, SILVER
from telemetry_assets_tests.harness.deployment import Deployment, deployment, deployment_in_s3
from telemetry_assets_tests.harness.made_documents import event, framed

EVERYTHING = ReplaySelection()


class Killed(BaseException):
    """A kill, which no exception handler catches."""


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.long)])
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment that accepts at most three documents per upload."""
    if request.param == "folder":
        with deployment(tmp_path, upload_max_documents=3) as one:
            yield one
    else:
        with deployment_in_s3(request.getfixturevalue("aws"), upload_max_documents=3) as one:
            yield one


@pytest.fixture
def repair_parser() -> Iterator[Callable[[], None]]:
    """A parser that rejects `Fiat` cars until the returned function repairs it."""
    accept_value = documents.accept_value

    def refusing(document: object, payload: str, position: int, ingested_at: datetime) -> Any:
        if "Fiat" in payload:
            return documents.Rejection(position, "not_json", "a defect of the parser", payload)
        return accept_value(document, payload, position, ingested_at)

    # A separate MonkeyPatch, because undoing the test's would also remove its environment variables.
    with pytest.MonkeyPatch.context() as defect:
        for module in ("framing", "documents"):
            defect.setattr(f"telemetry_assets.ingestion.parsing.{module}.accept_value", refusing)
        yield defect.undo


def with_larger_uploads(deployed: Deployment) -> Deployment:
    settings = deployed.settings.model_copy(update={"upload_max_documents": 1_000})
    deployed.pipeline.ingestion = replace(deployed.pipeline.ingestion, settings=settings)
    return deployed


def fiat(event_id: str = "evt-1", **fields: Any) -> dict[str, Any]:
    return event(event_id=event_id, manufacturer="Fiat", **fields)


def replay(deployed: Deployment, selection: ReplaySelection = EVERYTHING) -> replays.ReplayResult:
    result = deployed.pipeline.replay_rejected(selection, "replay")
    deployed.process()
    assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
    return result


def test_a_document_that_is_accepted_now_leaves_the_quarantine_for_gold(
    deployed: Deployment, repair_parser: Callable[[], None]
) -> None:
    deployed.upload("x.json", framed([event("CAR-1"), fiat(), {}], "array")[1])
    deployed.process()
    assert len(deployed.rows(REJECTED)) == 2
    repair_parser()
    result = replay(deployed)
    assert (result.chosen, result.accepted, dict(result.still_rejected)) == (2, 1, {"missing_car_chassis": 1})
    assert [row["reason"] for row in deployed.rows(REJECTED)] == ["missing_car_chassis"]
    deployed.assert_equals_the_contract()


def test_replayed_document_keeps_its_batch_and_time_so_later_corrections_win(
    deployed: Deployment, repair_parser: Callable[[], None]
) -> None:
    deployed.upload("first.json", framed([fiat(engineTempCelsius=90)], "array")[1])
    deployed.process()
    deployed.upload("second.json", framed([event(event_id="evt-1", engineTempCelsius=91)], "array")[1])
    deployed.process()
    repair_parser()
    replay(deployed)
    assert [row["engine_temp_celsius"] for row in deployed.rows(SILVER)] == [91]
    deployed.assert_equals_the_contract()


def test_upload_that_was_too_large_is_ingested_after_the_limit_is_raised(deployed: Deployment) -> None:
    many = [*(event(f"CAR-{number}") for number in range(5)), {}]
    deployed.upload("many.jsonl.gz", framed(many, "gzip")[1])
    deployed.process()
    [rejected] = deployed.rows(REJECTED)
    assert (rejected["reason"], rejected["source_position"]) == ("too_many_documents", None)
    result = replay(with_larger_uploads(deployed))
    assert (result.accepted, dict(result.still_rejected)) == (5, {"missing_car_chassis": 1})
    [rejected] = deployed.rows(REJECTED)
    assert (rejected["reason"], rejected["source_position"]) == ("missing_car_chassis", 5)
    deployed.assert_equals_the_contract()


def test_dry_run_reports_and_changes_nothing(deployed: Deployment) -> None:
    deployed.upload("many.json", framed([event(f"CAR-{number}") for number in range(5)], "array")[1])
    deployed.process()
    before = deployed.rows(REJECTED)
    result = with_larger_uploads(deployed).pipeline.ingestion.try_replay(EVERYTHING)
    assert (result.chosen, result.accepted) == (1, 5)
    assert deployed.rows(REJECTED) == before
    assert deployed.rows(BRONZE) == []


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (ReplaySelection(reasons=("missing_car_chassis",)), {"a.json"}),
        (ReplaySelection(reasons=("missing_car_chassis", "not_utf8")), {"a.json", "b.json"}),
        (ReplaySelection(uploads=("b.json",)), {"b.json"}),
        (ReplaySelection(uploads=(".json",)), set()),
        (ReplaySelection(since=datetime.now(UTC) + timedelta(days=1)), set()),
        (ReplaySelection(reasons=("not_utf8",), uploads=("a.json",)), set()),
    ],
)
def test_selection_replays_matching_documents_only(
    deployed: Deployment, selection: ReplaySelection, names: set[str]
) -> None:
    deployed.upload("a.json", "[{}]")
    deployed.upload("b.json", b"\xff")
    deployed.process()
    chosen = {row["source_uri"].rsplit("/", 1)[-1] for row in deployed.rows(REJECTED) if selection.matches(row)}
    assert chosen == names
    assert deployed.pipeline.ingestion.try_replay(selection).chosen == len(names)


def test_upload_without_archived_copy_stays_rejected_and_is_reported(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("many.json", framed([event(f"CAR-{number}") for number in range(5)], "array")[1])
    deployed.process()
    landing = deployed.pipeline.ingestion.landing

    def gone(*_: object) -> bytes:
        raise FileNotFoundError(2, "the archive has no copy of it")

    monkeypatch.setattr(type(landing), "read_archived", gone)
    result = replay(with_larger_uploads(deployed))
    [(uri, problem)] = result.unavailable
    assert uri.endswith("/many.json")
    assert "no copy" in problem
    assert len(deployed.rows(REJECTED)) == 1


@pytest.mark.long
@pytest.mark.parametrize("step", ["append_rows", "replace_rows"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_next_run_completes_a_killed_replay(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    many = [*(event(f"CAR-{number}") for number in range(5)), {}]
    deployed.upload("many.jsonl", framed(many, "lines")[1])
    deployed.process()
    with_larger_uploads(deployed)
    original = getattr(replays, step)

    def killed(*arguments: Any) -> None:
        if moment == "after":
            original(*arguments)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(replays, step, killed)
        with pytest.raises(Killed):
            deployed.pipeline.replay_rejected(EVERYTHING, "killed")
    deployed.process()
    assert (len(deployed.rows(BRONZE)), len(deployed.rows(REJECTED))) == (5, 1)
    assert deployed.pipeline.ingestion.journal.load() is None
    assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
    deployed.assert_equals_the_contract()


def test_killed_replay_is_completed_with_its_original_limits(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("many.jsonl", framed([event(f"CAR-{number}") for number in range(5)], "lines")[1])
    deployed.process()
    own = deployed.pipeline.ingestion

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(replays, "replace_rows", killed)
        with pytest.raises(Killed):
            with_larger_uploads(deployed).pipeline.replay_rejected(EVERYTHING, "killed")
    deployed.pipeline.ingestion = own
    deployed.process()
    assert (len(deployed.rows(BRONZE)), len(deployed.rows(REJECTED))) == (5, 0)


def test_replay_completes_the_batch_in_progress_first(deployed: Deployment) -> None:
    deployed.upload("x.json", "[{}]")
    [upload] = deployed.pipeline.ingestion.landing.waiting()
    journal = deployed.pipeline.ingestion.journal
    in_progress = JournalEntry("f" * 32, datetime.now(UTC))
    assert journal.create(in_progress) is not None
    replay(deployed)
    assert journal.load() is None
    assert upload.name == "x.json"


def test_replay_does_not_duplicate_what_an_audit_has_moved_back_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = replays.Replay._append
    runs: list[str] = []
    with deployment(tmp_path, upload_max_documents=1) as deployed:
        deployed.upload("a.jsonl", framed([event("CAR-1"), event("CAR-2")], "lines")[1])
        deployed.process()
        [archived] = deployed.settings.lakehouse_folder().glob("archive/*/a.jsonl")
        with archived.open("ab") as writer:
            writer.write(b"\n" + framed([event("CAR-3")], "lines")[1])
        with_larger_uploads(deployed)

        def beside_a_run(*arguments: Any) -> None:
            if not runs:
                runs.append("at work")
                deployed.process()
            append(*arguments)

        monkeypatch.setattr(replays.Replay, "_append", beside_a_run)
        replay(deployed)
        assert sorted(row["car_chassis"] for row in deployed.rows(BRONZE)) == ["CAR-1", "CAR-2", "CAR-3"]
        assert deployed.rows(REJECTED) == []
