"""What maintenance does besides the tables: files of remote steps, and the audit of the archive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from telemetry_assets import pipeline
from telemetry_assets.aws.clients import s3_client
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import BUCKET, Deployment, deployment, deployment_in_s3
from telemetry_assets_tests.harness.made_documents import event, framed


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    with deployment(tmp_path) as one:
        yield one


def test_a_changed_file_of_the_archive_is_found_and_nothing_is_moved(deployed: Deployment) -> None:
    for number in range(12):
        deployed.upload(f"{number}.json", framed([event(f"CAR-{number}")], "array")[1])
        deployed.process()
    assert deployed.pipeline.clean_up("test").findings == ()
    # A run audits only the ten newest batches.
    [archived] = (deployed.settings.lakehouse_folder() / "archive").rglob("0.json")
    archived.write_bytes(b"[]")
    [finding] = deployed.pipeline.clean_up("test").findings
    assert (finding.kind, finding.upload.uri) == ("changed", f"file://{deployed.landing / '0.json'}")
    assert archived.exists()


def test_nothing_is_audited_before_the_first_run(deployed: Deployment) -> None:
    assert deployed.pipeline.clean_up("test").findings == ()


@pytest.mark.long
def test_only_old_files_of_remote_steps_are_deleted(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> None:
    class InAWeek(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=7)

    def steps() -> int:
        return int(s3_client().list_objects_v2(Bucket=BUCKET, Prefix="lakehouse/remote/")["KeyCount"])

    with deployment_in_s3(aws) as deployed:
        s3_client().put_object(Bucket=BUCKET, Key="lakehouse/remote/run/silver-1/step.json", Body=b"{}")
        assert (deployed.pipeline.clean_up("test").step_files, steps()) == (0, 1)
        monkeypatch.setattr(pipeline, "datetime", InAWeek)
        assert (deployed.pipeline.clean_up("test", dry_run=True).step_files, steps()) == (1, 1)
        assert (deployed.pipeline.clean_up("test").step_files, steps()) == (1, 0)
