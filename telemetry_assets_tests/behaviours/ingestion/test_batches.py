"""Batches are bounded, written exactly once, and reported completely."""

from __future__ import annotations

import errno
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.errors import UnclaimableUploadsError
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.ingestion.parsing import arrow_rows as rows
from telemetry_assets.lakehouse.snapshots import summary_of
from telemetry_assets.tables import BRONZE, REJECTED, SILVER
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed


def one(car: str = "CAR-1", **fields: Any) -> bytes:
    return framed([event(car, **fields)], "array")[1]


def deny(monkeypatch: pytest.MonkeyPatch, step: str, name: str) -> None:
    """Let one step of the landing fail for one upload; permissions do not work, because tests may run as root."""
    allowed = getattr(FolderLanding, step)

    def denied(landing: FolderLanding, batch_id: str, upload: WaitingUpload) -> Any:
        if upload.name == name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return allowed(landing, batch_id, upload)

    monkeypatch.setattr(FolderLanding, step, denied)


def test_a_batch_is_bounded_by_the_number_of_uploads_oldest_first(tmp_path: Path) -> None:
    with deployment(tmp_path, batch_max_uploads=2) as deployed:
        for age, name in enumerate("cab"):
            path = deployed.upload(f"{name}.json", one(name))
            os.utime(path, (1_700_000_000 + age,) * 2)
        deployed.process()
        taken = sorted(deployed.rows(BRONZE), key=lambda row: row["ingested_at"])
        assert {row["car_chassis"] for row in taken[:2]} == {"c", "a"}
        assert taken[2]["car_chassis"] == "b"
        assert len({row["batch_id"] for row in taken}) == 2


def test_a_batch_is_bounded_by_bytes_and_one_upload_always_fits(tmp_path: Path) -> None:
    with deployment(tmp_path, batch_max_bytes=1) as deployed:
        for number in range(3):
            deployed.upload(f"{number}.json", one(str(number)))
        deployed.process()
        assert [batch_report.uploads for batch_report in deployed.batch_reports] == [1, 1, 1]


def test_batch_is_bounded_by_the_size_of_its_rows(tmp_path: Path) -> None:
    with deployment(tmp_path, batch_max_bytes=20_000) as deployed:
        for number in range(5):
            documents = [event(str(number), padding="x" * 1_000, event_id=str(one)) for one in range(10)]
            path = deployed.upload(f"{number}.json.gz", framed(documents, "gzip")[1])
            os.utime(path, (1_700_000_000 + number,) * 2)
        deployed.process()
        assert [batch_report.uploads for batch_report in deployed.batch_reports] == [1, 1, 1, 1, 1]
        taken = sorted(deployed.rows(BRONZE), key=lambda row: row["ingested_at"])
        assert [row["car_chassis"] for row in taken[::10]] == list("01234")
        deployed.assert_equals_the_contract()
        assert not list(deployed.pipeline.ingestion.landing.claimed())


@pytest.mark.parametrize(
    "names", [("Readings.json", "readings.JSON"), ("caf\u00e9.json", "cafe\u0301.json"), ("STRASSE/x", "stra\u00dfe/x")]
)
def test_names_that_differ_in_case_or_normalization_are_in_two_batches(deployed: Deployment, names: list[str]) -> None:
    for name in (*names, "another.json"):
        deployed.upload(name, one(name))
    deployed.process()
    assert sorted(batch_report.uploads for batch_report in deployed.batch_reports) == [1, 2]
    assert len(list(deployed.settings.lakehouse_folder().glob("archive/*/*"))) == 3


def test_deferred_upload_is_ingested_before_its_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def documents(temperature: float) -> bytes:
        padded = [event(str(number), padding="x" * 1_000, engineTempCelsius=temperature) for number in range(10)]
        return framed(padded, "gzip")[1]

    release = FolderLanding.release
    with deployment(tmp_path, batch_max_bytes=20_000) as deployed:

        def replaced_and_released(landing: FolderLanding, batch_id: str, upload: WaitingUpload) -> None:
            monkeypatch.undo()
            deployed.upload("1.json.gz", documents(99))
            release(landing, batch_id, upload)

        monkeypatch.setattr(FolderLanding, "release", replaced_and_released)
        for number in range(2):
            path = deployed.upload(f"{number}.json.gz", documents(90 + number))
            os.utime(path, (1_700_000_000 + number,) * 2)
        deployed.process()
        deployed.process()
        assert [batch_report.uploads for batch_report in deployed.batch_reports] == [1, 1, 1]
        assert {row["engine_temp_celsius"] for row in deployed.rows(SILVER)} == {99}
        deployed.assert_equals_the_contract()


def test_an_upload_of_too_many_documents_is_one_rejection(tmp_path: Path) -> None:
    with deployment(tmp_path, upload_max_documents=10) as deployed:
        deployed.upload("many.jsonl", "1\n" * 11)
        deployed.process()
        assert [(row["reason"], row["source_position"]) for row in deployed.rows(REJECTED)] == [
            ("too_many_documents", None)
        ]


def test_upload_that_fails_the_parser_is_one_rejection(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(name: str, *_: Any) -> Any:
        raise ZeroDivisionError(name)

    monkeypatch.setattr(rows, "parse_upload", failing)
    content = one()
    deployed.upload("x.json", content)
    deployed.process()
    [row] = deployed.rows(REJECTED)
    assert (row["reason"], row["payload"]) == ("parser_failed", content.decode())
    assert "ZeroDivisionError" in row["message"]


def test_uploads_of_a_batch_without_a_journal_are_ingested(deployed: Deployment) -> None:
    deployed.upload("x.json", one())
    landing = deployed.pipeline.ingestion.landing
    [upload] = landing.waiting()
    landing.begin("lost")
    assert landing.claim("lost", upload)
    assert deployed.pipeline.ingestion.has_work()
    deployed.process()
    assert len(deployed.rows(BRONZE)) == 1
    deployed.assert_equals_the_contract()
    assert not deployed.pipeline.ingestion.has_work()


def test_uploads_ingested_by_a_batch_without_a_journal_are_not_ingested_again(deployed: Deployment) -> None:
    deployed.upload("x.json", one())
    [batch_report] = deployed.process().batch_reports
    [archived] = deployed.settings.lakehouse_folder().glob("archive/*/x.json")
    claims = deployed.landing / ".claimed" / batch_report.batch_id
    claims.mkdir(parents=True)
    archived.rename(claims / "x.json")
    assert deployed.process().batch_reports == ()
    assert archived.exists()
    assert len(deployed.rows(BRONZE)) == 1


def test_upload_that_cannot_be_claimed_is_reported_and_does_not_block_others(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deny(monkeypatch, "claim", "held.json")
    deployed.upload("held.json", one())
    deployed.upload("x.json", one())
    assert [batch_report.uploads for batch_report in deployed.process().batch_reports] == [1]
    with pytest.raises(UnclaimableUploadsError, match=r"held\.json: Permission denied"):
        deployed.process()
    assert (deployed.landing / "held.json").exists()
    monkeypatch.undo()
    assert [batch_report.uploads for batch_report in deployed.process().batch_reports] == [1]


def test_upload_that_cannot_be_claimed_does_not_delay_tables(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("x.json", one())
    deployed.pipeline.ingest("a run that ends after Bronze")
    deny(monkeypatch, "claim", "held.json")
    deployed.upload("held.json", one())
    with pytest.raises(UnclaimableUploadsError):
        deployed.process()
    assert deployed.pipeline.tables_behind() == []
    assert len(deployed.rows(SILVER)) == 1


def test_missing_uploads_make_no_batch(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderLanding, "claim", lambda *_: False)
    deployed.upload("x.json", one())
    assert deployed.process().batch_reports == ()
    assert deployed.pipeline.ingestion.journal.load() is None


def test_later_batches_are_newer_despite_clock_changes(tmp_path: Path) -> None:
    with deployment(tmp_path, batch_max_uploads=1) as deployed:
        for number in range(5):
            deployed.upload(f"{number}.json", one())
        deployed.process()
        moments = [batch_report.ingested_at for batch_report in deployed.batch_reports]
        assert moments == sorted(set(moments))


def test_batch_report_counts_every_document(deployed: Deployment) -> None:
    deployed.upload("good.jsonl", framed([event(), event(car=""), event(year="n/a", altitude=3)], "lines")[1])
    deployed.upload("bad.csv", "a,b")
    [batch_report] = deployed.process().batch_reports
    assert (batch_report.uploads, batch_report.documents, batch_report.accepted, batch_report.rejected) == (2, 4, 2, 2)
    assert batch_report.rejected_by_reason == {"missing_car_chassis": 1, "unsupported_ending": 1}
    assert batch_report.wrong_typed_fields == {"year": 1}
    assert batch_report.unknown_fields == {"altitude": 1}
    assert batch_report.event_dates == {"2025-11-04": 2}


def test_batch_report_is_in_the_snapshots_summary(deployed: Deployment) -> None:
    deployed.upload("x.json", one())
    [batch_report] = deployed.process().batch_reports
    summary = summary_of(deployed.pipeline.lakehouse.table(BRONZE).snapshots()[-1])
    assert summary["telemetry.batch-id"] == batch_report.batch_id
    assert batch_report.model_copy(update={"snapshot_id": None}) == type(batch_report).model_validate_json(
        summary["telemetry.certificate"]
    )


def test_field_names_in_a_batch_report_are_bounded(deployed: Deployment) -> None:
    document = {**event(), **{f"field_{number}": 1 for number in range(500)}}
    deployed.upload("x.json", framed([document], "array")[1])
    [batch_report] = deployed.process().batch_reports
    assert len(batch_report.unknown_fields) == 101
    assert sum(batch_report.unknown_fields.values()) == 500


def test_field_names_that_cannot_be_stored_are_counted(deployed: Deployment) -> None:
    deployed.upload("x.json", '{"carChassis": "C", "telemetryTimestamp": "2025-11-04", "\\ud800": 1}')
    [batch_report] = deployed.process().batch_reports
    assert batch_report.unknown_fields == {"\\ud800": 1}


def test_an_upload_that_cannot_be_read_is_one_rejection(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    deny(monkeypatch, "read", "secret.json")
    deployed.upload("secret.json", one())
    deployed.upload("open.json", one())
    deployed.process()
    assert [(row["reason"], row["source_position"]) for row in deployed.rows(REJECTED)] == [("unreadable_upload", None)]
    assert len(deployed.rows(BRONZE)) == 1
    assert sorted(path.name for path in deployed.settings.lakehouse_folder().glob("archive/*/*")) == [
        "open.json",
        "secret.json",
    ]


def test_an_upload_that_vanishes_from_its_claim_does_not_stop_the_others(deployed: Deployment) -> None:
    claim = deployed.pipeline.ingestion.landing.claim

    def claim_and_lose(batch_id: str, upload: Any) -> bool:
        claimed = claim(batch_id, upload)
        if upload.name == "lost.json":
            (deployed.settings.lakehouse_folder() / "ingestion" / "claimed" / batch_id / "lost.json").unlink()
        return claimed

    object.__setattr__(deployed.pipeline.ingestion.landing, "claim", claim_and_lose)
    deployed.upload("lost.json", one())
    deployed.upload("x.json", one())
    deployed.process()
    assert Counter(row["reason"] for row in deployed.rows(REJECTED)) == {"unreadable_upload": 1}
    assert len(deployed.rows(BRONZE)) == 1


def test_no_batch_without_waiting_uploads(deployed: Deployment) -> None:
    assert deployed.process().batch_reports == ()
    assert deployed.pipeline.lakehouse.table(BRONZE).current_snapshot() is None


def test_upload_above_the_size_limit_is_archived_completely(tmp_path: Path) -> None:
    with deployment(tmp_path, upload_max_bytes=1_000) as deployed:
        deployed.upload("large.json", b" " * 10_000)
        deployed.process()
        [row] = deployed.rows(REJECTED)
        assert (row["reason"], row["payload"]) == ("too_large", None)
        [archived] = deployed.settings.lakehouse_folder().glob("archive/*/large.json")
        assert archived.stat().st_size == 10_000


def test_upload_with_a_name_that_is_not_utf8_is_ingested(deployed: Deployment) -> None:
    deployed.upload(os.fsdecode(b"caf\xe9.json"), one())
    deployed.process()
    [row] = deployed.rows(BRONZE)
    assert row["source_uri"].endswith("/caf\\xe9.json")
    assert deployed.pipeline.ingestion.journal.load() is None


def test_resumed_run_neither_ends_nor_overwrites_another_runs_batch(deployed: Deployment) -> None:
    manifests = deployed.pipeline.ingestion.journal
    begun, other = (JournalEntry(name, datetime.now(UTC)) for name in ("sleeper", "other"))
    sleeper = manifests.create(begun)
    assert sleeper is not None
    assert manifests.create(other) is None
    manifests.remove(sleeper)
    assert manifests.create(other) is not None
    assert manifests.replace(sleeper) is None
    manifests.remove(sleeper)
    assert manifests.load() == other
