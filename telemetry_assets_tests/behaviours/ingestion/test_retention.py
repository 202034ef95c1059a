"""Old archived uploads and rejected documents are deleted if the settings say so, after they are on record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.expressions import AlwaysTrue, EqualTo

from telemetry_assets import pipeline
from telemetry_assets.ingestion import replays
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.reconciliation import reconcile
from telemetry_assets.lakehouse.commits import delete_rows
from telemetry_assets.tables import BRONZE, CURRENT_STATE, REJECTED, UPLOADS
from telemetry_assets_tests.harness.deployment import Deployment, deployment, deployment_in_s3
from telemetry_assets_tests.harness.made_documents import event, framed

FOR_EVER: dict[str, float] = {}
BOTH = {"archive_retention_days": 30, "rejected_retention_days": 30}

Open = Callable[..., AbstractContextManager[Deployment]]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.long)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a deployment with two batches, each of an accepted and a rejected document and a broken upload."""
    if request.param == "s3":
        return partial(_filled, partial(deployment_in_s3, request.getfixturevalue("aws")))
    return partial(_filled, partial(deployment, tmp_path))


@contextmanager
def _filled(opened: Open, **settings: float) -> Iterator[Deployment]:
    with opened(**settings) as deployed:
        for number in range(2):
            deployed.upload(f"{number}.json", framed([event(f"CAR-{number}"), {}], "array")[1])
            deployed.upload(f"broken-{number}.json.gz", b"\x1f\x8bno gzip")
            deployed.process()
        yield deployed


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance after 32 days."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=32)

    monkeypatch.setattr(pipeline, "datetime", Later)


def archived(deployed: Deployment) -> list[str]:
    landing = deployed.pipeline.landing
    return sorted(upload.name for batch in landing.archived_batches() for upload in landing.archived(batch))


def is_conserved(deployed: Deployment) -> bool:
    batches = reconcile(deployed.pipeline.lakehouse).batches
    return len(batches) == 2 and all(batch.conserved for batch in batches)


@pytest.mark.usefixtures("later")
def test_everything_is_kept_for_ever_by_default(opened: Open) -> None:
    with opened(**FOR_EVER) as deployed:
        cleaned = deployed.pipeline.clean_up("test")
        assert (cleaned.uploads, cleaned.documents) == (0, 0)
        assert len(archived(deployed)) == 4
        assert len(deployed.rows(REJECTED)) == 4


def test_nothing_is_deleted_before_the_retention_is_over(opened: Open) -> None:
    with opened(**BOTH) as deployed:
        cleaned = deployed.pipeline.clean_up("test")
        assert (cleaned.uploads, cleaned.documents) == (0, 0)


@pytest.mark.usefixtures("later")
def test_old_uploads_and_rejected_documents_are_deleted_and_every_document_is_still_accounted_for(
    opened: Open,
) -> None:
    with opened(**BOTH) as deployed:
        planned = deployed.pipeline.clean_up("test", dry_run=True)
        assert (planned.uploads, planned.documents) == (4, 4)
        assert len(archived(deployed)) == 4
        cleaned = deployed.pipeline.clean_up("test")
        assert (cleaned.uploads, cleaned.documents) == (4, 4)
        assert (archived(deployed), deployed.rows(REJECTED)) == ([], [])
        assert len(deployed.rows(UPLOADS)) == 4
        assert is_conserved(deployed)
        assert deployed.pipeline.clean_up("test").findings == ()
        # Nothing is taken for lost and ingested again.
        assert not any(batch.documents for batch in deployed.process().batch_reports)
        assert list(deployed.pipeline.ingestion.audit.everything()) == []


@pytest.mark.usefixtures("later")
def test_archived_uploads_whose_rejected_documents_were_deleted_are_not_ingested_again(tmp_path: Path) -> None:
    with _filled(partial(deployment, tmp_path), rejected_retention_days=30) as deployed:
        assert deployed.pipeline.clean_up("test").documents == 4
        assert len(archived(deployed)) == 4
        # As after a restored backup of the archive.
        files = [path for path in (tmp_path / "lakehouse" / "archive").rglob("*") if path.is_file()]
        assert len(files) == 4
        for path in files:
            path.touch()
        deployed.process()
        assert list(deployed.pipeline.ingestion.audit.everything()) == []
        assert is_conserved(deployed)


@pytest.mark.usefixtures("later")
def test_an_upload_that_the_ledger_does_not_have_is_kept(opened: Open) -> None:
    with opened(**BOTH) as deployed:
        delete_rows(deployed.pipeline.lakehouse.table(UPLOADS), EqualTo(term="stored_bytes", value=9), {})
        cleaned = deployed.pipeline.clean_up("test")
        assert (cleaned.uploads, cleaned.documents) == (2, 0)
        assert archived(deployed) == ["broken-0.json.gz", "broken-1.json.gz"]
        assert len(deployed.rows(REJECTED)) == 4


@pytest.mark.usefixtures("later")
def test_an_upload_whose_rows_are_missing_is_kept(opened: Open) -> None:
    with opened(**BOTH) as deployed:
        of_missing_cars = EqualTo(term="reason", value="missing_car_chassis")
        delete_rows(deployed.pipeline.lakehouse.table(REJECTED), of_missing_cars, {})
        before = archived(deployed)
        deployed.pipeline.clean_up("test")
        assert archived(deployed) == [name for name in before if not name.startswith("broken")]


@pytest.mark.usefixtures("later")
def test_a_rejected_document_of_a_deleted_upload_stays_rejected_in_a_replay(opened: Open) -> None:
    with opened(archive_retention_days=30) as deployed:
        assert deployed.pipeline.clean_up("test").uploads == 4
        result = deployed.pipeline.replay_rejected(ReplaySelection(), "replay")
        assert len(result.unavailable) == 2
        assert len(deployed.rows(REJECTED)) == 4
        assert is_conserved(deployed)


class TestReplays:
    """Retention beside a replay of an upload that was rejected as a whole, and whose events were corrected since."""

    @pytest.fixture
    def deployed(self, tmp_path: Path) -> Iterator[Deployment]:
        """A deployment in which the upload would now be accepted."""
        with deployment(tmp_path, upload_max_bytes=300) as one:
            one.upload("large.json", json.dumps([self.event(number, 100) for number in range(6)]))
            one.process()
        with deployment(tmp_path, rejected_retention_days=30) as one:
            one.upload("newer.json", json.dumps([self.event(number, 500) for number in range(6)]))
            one.process()
            yield one

    @staticmethod
    def event(number: int, mileage: int) -> dict[str, Any]:
        return event("CAR-1", f"2025-11-04T10:00:0{number}Z", currentMileageKm=mileage + number)

    @staticmethod
    def assert_corrections_are_kept(deployed: Deployment) -> None:
        deployed.process()
        assert list(deployed.pipeline.ingestion.audit.everything()) == []
        assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
        assert len(deployed.rows(BRONZE)) == 12
        assert [row["current_mileage_km"] for row in deployed.rows(CURRENT_STATE)] == [505.0]

    @pytest.mark.usefixtures("later")
    def test_rejected_documents_are_kept_while_a_replay_is_unfinished(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class KilledError(Exception):
            """Stands for the end of the process."""

        def killed(*_: object) -> None:
            raise KilledError

        with monkeypatch.context() as patched:
            patched.setattr(replays.Replay, "_delete_accepted", killed)
            with pytest.raises(KilledError):
                deployed.pipeline.replay_rejected(ReplaySelection(), "replay")
        assert deployed.pipeline.clean_up("test").documents == 0
        assert len(deployed.rows(REJECTED)) == 1
        self.assert_corrections_are_kept(deployed)

    def test_the_ledger_has_the_accepted_documents_if_the_rejected_ones_are_deleted_meanwhile(
        self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        delete = replays.Replay._delete_accepted

        def too_late(*arguments: Any) -> None:
            delete_rows(deployed.pipeline.lakehouse.table(REJECTED), AlwaysTrue(), {})
            delete(*arguments)

        monkeypatch.setattr(replays.Replay, "_delete_accepted", too_late)
        deployed.pipeline.replay_rejected(ReplaySelection(), "replay")
        self.assert_corrections_are_kept(deployed)
