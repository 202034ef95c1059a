"""A file is ingested when it is complete by this machine's clock; a file that grows later is ingested again."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion import batches
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.lakehouse.batch_rows import append_batch
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed

HOURS = 3600.0


def lines(count: int) -> list[bytes]:
    return [framed([event(f"CAR-{number}")], "lines")[1].strip() + b"\n" for number in range(count)]


@pytest.mark.parametrize("skew", [-48 * HOURS, 30.0, 48 * HOURS], ids=["long ago", "soon", "in two days"])
def test_clock_skew_half_file(tmp_path: Path, skew: float) -> None:
    """A file that is still written is not ingested partly, whatever the writer's clock."""
    first, second = lines(2)
    with deployment(tmp_path, upload_minimum_age_seconds=1) as deployed:
        path = deployed.upload("trip.jsonl", first + second[:30])
        os.utime(path, (time.time() + skew,) * 2)

        def go_on() -> None:
            with path.open("ab") as writer:
                writer.write(second[30:])
            os.utime(path, (time.time() + skew + 1,) * 2)

        writer = threading.Timer(0.5, go_on)
        writer.start()
        assert deployed.process().batch_reports == ()
        writer.join()
        assert path.exists()
        deployed.process()
        assert len(deployed.rows(BRONZE)) == 2
        assert deployed.rows(REJECTED) == []
        deployed.assert_equals_the_contract()


def test_unchanged_file_is_ingested_whatever_its_modification_time(tmp_path: Path) -> None:
    with deployment(tmp_path, upload_minimum_age_seconds=0.3) as deployed:
        for number, skew in enumerate((-1e9, 0.0, 30.0, 1e9)):
            path = deployed.upload(f"{number}.json", lines(1)[0])
            os.utime(path, (time.time() + skew,) * 2)
        deployed.process()
        assert len(deployed.rows(BRONZE)) == 4


def test_file_that_grows_after_its_claim_is_read_again_before_its_commit(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = lines(2)
    read = FolderLanding.read

    def growing(landing: FolderLanding, batch_id: str, upload: Any) -> bytes:
        content = read(landing, batch_id, upload)
        if upload.name != "trip.jsonl":
            return content
        monkeypatch.undo()
        with (landing.lakehouse / "ingestion" / "claimed" / batch_id / upload.name).open("ab") as writer:
            writer.write(second[30:])
        return content

    monkeypatch.setattr(FolderLanding, "read", growing)
    deployed.upload("trip.jsonl", first + second[:30])
    deployed.upload("other.jsonl", lines(3)[2])
    deployed.process()
    assert [row["car_chassis"] for row in deployed.rows(BRONZE)] == ["CAR-2"]
    deployed.process()
    assert sorted(row["car_chassis"] for row in deployed.rows(BRONZE)) == ["CAR-0", "CAR-1", "CAR-2"]
    assert deployed.rows(REJECTED) == []
    deployed.assert_equals_the_contract()


def test_settled_batch_keeps_its_rows_after_a_file_has_grown(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is interrupted between the rejected documents and Bronze, and the file grows before the next run."""
    first, second = lines(2)

    def cut_off(lakehouse: Any, contract: Any, *rest: Any) -> Any:
        if contract is BRONZE:
            raise OSError("cut off")
        return append_batch(lakehouse, contract, *rest)

    monkeypatch.setattr(batches, "append_batch", cut_off)
    deployed.upload("trip.jsonl", first + second[:30])
    with pytest.raises(OSError, match="cut off"):
        deployed.process()
    monkeypatch.undo()
    [claimed] = deployed.settings.lakehouse_folder().glob("ingestion/claimed/*/trip.jsonl")
    with claimed.open("ab") as writer:
        writer.write(second[30:])
    for _ in range(2):
        deployed.process()
    assert sorted(row["car_chassis"] for row in deployed.rows(BRONZE)) == ["CAR-0", "CAR-1"]
    assert deployed.rows(REJECTED) == []
    deployed.recall_batches()
    deployed.assert_equals_the_contract()
