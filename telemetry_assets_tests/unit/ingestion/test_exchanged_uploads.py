"""An attacker replaces entries of the landing folder at the worst moment, or denies the pipeline access to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.ingestion.landing.shared_folders import entries_below, own_folder
from telemetry_assets_tests.harness.another_user import open_folder
from telemetry_assets_tests.harness.places import BATCH, FolderPlace

NOBODY = 65534


@pytest.fixture
def place(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path)


@contextmanager
def user_without_rights() -> Iterator[None]:
    """Drop root's rights for the duration of the test, because root may do everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def waiting_upload(place: FolderPlace) -> WaitingUpload:
    place.put("deep/x.json", b"content")
    [upload] = place.landing.waiting()
    return upload


def claims(place: FolderPlace) -> list[Path]:
    return list((place.lakehouse / "ingestion" / "claimed").iterdir())


def test_folder_that_replaces_an_upload_is_not_moved_to_the_lakehouse(
    place: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner could still write to it there, or deny access so that every run fails."""
    upload, rename = waiting_upload(place), os.rename

    def exchanging(source: str, target: Path, **folders: Any) -> None:
        path = place.folder / upload.name
        if path.is_file():
            path.unlink()
            path.mkdir()
        rename(source, target, **folders)

    monkeypatch.setattr(os, "rename", exchanging)
    assert not place.landing.claim(BATCH, upload)
    assert (place.folder / upload.name).is_dir()
    assert not [path for path in place.lakehouse.rglob("x.json") if path.is_dir()]
    place.landing.release(BATCH, upload)
    place.landing.finish(BATCH)
    assert claims(place) == []


def leave_a_placeholder(place: FolderPlace, upload: WaitingUpload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what a run leaves that is killed between the placeholder and the rename."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            place.landing.claim(BATCH, upload)
    assert (place.lakehouse / "ingestion" / "claimed" / BATCH / upload.name).is_symlink()


def test_upload_of_an_interrupted_claim_is_claimed_again(place: FolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = waiting_upload(place)
    leave_a_placeholder(place, upload, monkeypatch)
    assert list(place.landing.claimed()) == []
    assert list(place.landing.obstacles()) == []
    assert place.landing.claim(BATCH, upload)
    assert place.landing.read(BATCH, upload) == b"content"


def test_upload_removed_after_an_interrupted_claim_leaves_nothing(
    place: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = waiting_upload(place)
    leave_a_placeholder(place, upload, monkeypatch)
    place.remove(upload.name)
    assert not place.landing.claim(BATCH, upload)
    place.landing.release(BATCH, upload)
    place.landing.finish(BATCH)
    assert claims(place) == []


def test_a_file_system_without_links_has_no_placeholders(place: FolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    upload = waiting_upload(place)
    monkeypatch.setattr(os, "symlink", refused)
    assert place.landing.claim(BATCH, upload)
    assert place.landing.read(BATCH, upload) == b"content"


def test_folder_without_read_permission_is_ignored() -> None:
    with open_folder() as folder:
        place = FolderPlace(folder)
        closed = place.lakehouse / "ingestion" / "claimed" / BATCH / "closed"
        closed.mkdir(mode=0)
        with user_without_rights():
            place.landing.finish(BATCH)
        assert closed.is_dir()


def test_file_without_access_is_reported() -> None:
    with open_folder() as folder:
        place = FolderPlace(folder)
        place.put("closed/x.json", b"content")
        (place.folder / "closed").chmod(0o444)
        with user_without_rights():
            [entry] = entries_below(place.folder)
            [(path, problem)] = FolderLanding(place.folder, place.lakehouse, 0).obstacles()
        (place.folder / "closed").chmod(0o755)
    assert (entry.name, entry.is_file) == ("closed/x.json", False)
    assert path.endswith("closed/x.json")
    assert "this user may not read its status (Permission denied)" in problem


def test_link_that_replaces_the_claims_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious, place, mkdir = tmp_path / "precious", tmp_path / "landing" / ".claimed", os.mkdir
    precious.mkdir()
    precious.chmod(0o755)
    place.parent.mkdir()
    place.parent.chmod(0o1777)
    links = iter(range(3))

    def after_a_link(path: Path, mode: int = 0o777) -> None:
        if path == place and next(links, None) is not None:
            place.symlink_to(precious)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", after_a_link)
    assert own_folder(place) == place
    assert not place.is_symlink()
    assert precious.stat().st_mode & 0o777 == 0o755
