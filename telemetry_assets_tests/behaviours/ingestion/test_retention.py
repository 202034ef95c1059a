"""Old archived uploads and rejected documents are deleted if the settings say so, after they are on record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from pyiceberg.expressions import EqualTo

from telemetry_assets import pipeline
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.reconciliation import reconcile
from telemetry_assets.lakehouse.commits import delete_rows
from telemetry_assets.tables import REJECTED, UPLOADS
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
def test_archived_uploads_whose_rejected_documents_were_deleted_are_not_ingested_again(
    opened: Open, tmp_path: Path
) -> None:
    with opened(rejected_retention_days=30) as deployed:
        assert deployed.pipeline.clean_up("test").documents == 4
        assert len(archived(deployed)) == 4
        # As after a restored backup of the archive.
        for path in (tmp_path / "lakehouse" / "archive").rglob("*.json"):
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
        accepted_too = EqualTo(term="reason", value="missing_car_chassis")
        delete_rows(deployed.pipeline.lakehouse.table(REJECTED), accepted_too, {})
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
