"""If the landing folder is on another file system than the lakehouse, only an upload's content is copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from telemetry_assets.ingestion.landing.files import move_file
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed

HONEST = framed([event("HONEST")], "array")[1]


@pytest.fixture
def apart(tmp_path: Path, other_disk: Path) -> Iterator[Deployment]:
    (other_disk / "landing").mkdir()
    with deployment(tmp_path, landing_uri=str(other_disk / "landing")) as deployed:
        yield deployed


def test_copy_does_not_keep_mode_and_attributes(tmp_path: Path, other_disk: Path) -> None:
    source, target = other_disk / "x.json", tmp_path / "x.json"
    source.write_bytes(HONEST)
    source.chmod(0o6777)
    with suppress(OSError):
        # Not every tmpfs supports extended attributes.
        os.setxattr(source, "user.chosen", b"by the uploader")
    os.utime(source, ns=(1_700_000_000_123_456_789,) * 2)
    move_file(source, target, tmp_path)
    assert target.stat().st_mode & 0o7137 == 0
    assert "user.chosen" not in os.listxattr(target)
    assert target.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert target.read_bytes() == HONEST
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_link_that_replaces_an_upload_is_not_copied(tmp_path: Path, other_disk: Path) -> None:
    (other_disk / "secret").write_bytes(b"correct-horse")
    (other_disk / "x.json").symlink_to(other_disk / "secret")
    with pytest.raises(FileNotFoundError, match="it is not a regular file"):
        move_file(other_disk / "x.json", tmp_path / "x.json", tmp_path)
    assert not (tmp_path / "x.json").exists()


def test_copy_of_a_sparse_file_is_sparse(tmp_path: Path, other_disk: Path) -> None:
    """A sparse file costs its uploader nothing and could fill the lakehouse's disk."""
    source, target = other_disk / "x.json", tmp_path / "x.json"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 30)
        file.write(b"end")
        file.truncate(1 << 36)
    move_file(source, target, tmp_path)
    assert target.stat().st_size == 1 << 36
    assert target.stat().st_blocks * 512 < 1 << 20
    with target.open("rb") as file:
        assert file.read(6) == b"begin\0"
        file.seek(1 << 30)
        assert file.read(4) == b"end\0"


def test_file_too_large_for_the_lakehouses_disk_waits_and_is_reported(apart: Deployment) -> None:
    with (apart.landing / "large.json").open("wb") as file:
        file.truncate(1 << 43)
    apart.upload("honest.json", HONEST)
    apart.process()
    assert [(one.accepted, one.rejected) for one in apart.batch_reports] == [(1, 0)]
    assert [path.name for path in apart.landing.glob("*.json")] == ["large.json"]
    [(path, problem)] = apart.pipeline.landing.obstacles()
    assert path.endswith("large.json")
    assert "make room there, or remove it" in problem


def test_file_is_not_claimed_if_the_disk_has_filled_up_meanwhile(
    apart: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = apart.pipeline.landing
    apart.upload("x.json", HONEST)
    [upload] = landing.waiting()
    landing.begin("batch")
    total = shutil.disk_usage(apart.settings.lakehouse_folder())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: total._replace(free=0))
    with pytest.raises(OSError, match="make room there, or remove it"):
        landing.claim("batch", upload)
    assert (apart.landing / "x.json").read_bytes() == HONEST
