"""Behaviour of a landing location that is specific to folders."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.errors import LandingUnavailableError
from telemetry_assets.ingestion.landing import files
from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets_tests.harness.places import BATCH, FolderPlace, names


@pytest.fixture
def place(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path)


def test_young_file_waits_for_the_minimum_age(place: FolderPlace) -> None:
    patient = FolderLanding(place.folder, place.lakehouse, 30)
    place.put("x.json", b"content")
    assert names(patient) == []
    os.utime(place.folder / "x.json", (time.time() - 31,) * 2)
    assert names(patient) == ["x.json"]


def test_a_file_from_the_future_does_not_wait_for_ever(place: FolderPlace) -> None:
    place.put("x.json", b"content")
    os.utime(place.folder / "x.json", (time.time() + 86_400,) * 2)
    assert names(FolderLanding(place.folder, place.lakehouse, 30)) == ["x.json"]


def test_a_folder_named_like_an_upload_is_a_folder(place: FolderPlace) -> None:
    place.put("x.json/inner.json", b"content")
    assert names(place.landing) == ["x.json/inner.json"]


def test_only_regular_files_are_uploads(place: FolderPlace) -> None:
    os.mkfifo(place.folder / "pipe.json")
    (place.folder / "nowhere.json").symlink_to(place.folder / "missing")
    assert names(place.landing) == []


def test_link_is_not_ingested_because_a_move_would_change_its_target(place: FolderPlace) -> None:
    (place.folder.parent / "elsewhere.json").write_bytes(b"content")
    (place.folder / "x.json").symlink_to("../elsewhere.json")
    assert names(place.landing) == []
    [(path, problem)] = place.landing.obstacles()
    assert path.endswith("x.json")
    assert "it is a link" in problem


def test_file_that_cannot_be_moved_is_not_ingested(place: FolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("locked/x.json", b"content")
    # Tests may run as root, who can write everywhere.
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("locked"))
    assert names(place.landing) == []
    [(path, problem)] = place.landing.obstacles()
    assert path.endswith("locked/x.json")
    assert "this user may not move it" in problem


def test_a_missing_folder_has_nothing_waiting_and_says_so(place: FolderPlace) -> None:
    shutil.rmtree(place.folder)
    assert names(place.landing) == []
    assert list(place.landing.obstacles()) == [
        (str(place.folder), "the folder does not exist; create it, or correct TELEMETRY_LANDING_URI")
    ]
    assert list(place.landing.claimed()) == []


def test_a_folder_that_vanishes_while_it_is_listed_holds_nothing(place: FolderPlace) -> None:
    for folder in ("one", "other"):
        place.put(f"{folder}/x.json", b"content")
    waiting = place.landing.waiting()
    first = next(waiting)
    shutil.rmtree(place.folder / ("other" if first.name.startswith("one") else "one"))
    assert list(waiting) == []


def test_unreadable_upload_that_cannot_be_copied_stays_and_is_reported(
    place: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    place.put("secret.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    # Tests may run as root, who can read everything.
    monkeypatch.setattr("telemetry_assets.ingestion.landing.folder.move_file", forbidden)
    monkeypatch.setattr(os, "access", lambda *_: False)
    place.landing.archive(BATCH, upload)
    place.landing.finish(BATCH)
    monkeypatch.undo()
    assert list(place.landing.claimed()) == []
    assert list(place.landing.waiting()) == []
    [(path, problem)] = place.landing.obstacles()
    assert path.endswith(f"ingestion/unarchived/{BATCH}/secret.json")
    assert "unreadable" in problem


@pytest.fixture
def lakehouse_on_another_file_system(place: FolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let renames from the landing folder to the lakehouse fail."""
    rename = os.rename

    def elsewhere(source: str, target: Path, **folders: Any) -> None:
        if place.lakehouse in target.parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target, **folders)

    monkeypatch.setattr(os, "rename", elsewhere)


@pytest.mark.usefixtures("lakehouse_on_another_file_system")
def test_missing_folder_does_not_mean_that_its_uploads_are_gone(place: FolderPlace) -> None:
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    place.folder.rename(place.folder.with_name("not-mounted"))
    place.folder.mkdir()
    for step in (place.landing.claim, place.landing.read, place.landing.archive):
        with pytest.raises(LandingUnavailableError, match="Mount the landing location"):
            step(BATCH, upload)


def test_a_claimed_upload_is_listed_until_it_is_archived(place: FolderPlace) -> None:
    place.put("deep/x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    assert list(place.landing.claimed()) == [(BATCH, upload)]
    place.landing.archive(BATCH, upload)
    assert list(place.landing.claimed()) == []


def test_a_released_upload_leaves_no_folder_behind_once_it_is_archived(place: FolderPlace) -> None:
    place.put("deep/x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    place.landing.release(BATCH, upload)
    assert place.landing.claim("batch-2", upload)
    place.landing.archive("batch-2", upload)
    for batch_id in (BATCH, "batch-2"):
        place.landing.finish(batch_id)
    assert [path.name for path in place.folder.rglob("*")] == ["deep"]
    assert list(place.lakehouse.glob("ingestion/*/*")) == []


@pytest.mark.parametrize("folders", [10, 400])
def test_a_file_deep_down_is_an_upload(place: FolderPlace, folders: int) -> None:
    name = "/".join(["d"] * folders) + "/x.json"
    place.put(name, b"content")
    assert names(place.landing) == [name]


def test_file_with_a_time_beyond_datetimes_range_is_an_upload(place: FolderPlace) -> None:
    place.put("x.json", b"content")
    os.utime(place.folder / "x.json", (2**38,) * 2)
    assert names(place.landing) == ["x.json"]


def test_name_that_is_not_utf8_has_a_uri_that_is(place: FolderPlace) -> None:
    place.put(os.fsdecode(b"caf\xe9.json"), b"content")
    [upload] = place.landing.waiting()
    assert upload.uri.endswith("/caf\\xe9.json")
    assert place.landing.claim(BATCH, upload)


def test_archive_does_not_replace_a_file_whose_name_differs_in_case(place: FolderPlace) -> None:
    class IgnoringCase(FolderLanding):
        """A landing folder whose archive ignores case in names."""

        def _archived(self, batch_id: str, upload: WaitingUpload) -> Path:
            return self.archive_folder / batch_id / upload.name.lower()

    landing = IgnoringCase(place.folder, place.lakehouse, 0)
    contents = {"Readings.json": b"one", "readings.json": b"other"}
    for name, content in contents.items():
        place.put(name, content)
    uploads = sorted(landing.waiting(), key=lambda upload: upload.name)
    for upload in uploads:
        assert landing.claim(BATCH, upload)
    for upload in (*uploads, *uploads):
        landing.archive(BATCH, upload)
    assert list(landing.claimed()) == []
    assert sorted(path.read_bytes() for path in place.archive.rglob("*") if path.is_file()) == [b"one", b"other"]
    assert landing.read_archived(BATCH, uploads[1].uri) == b"other"


@pytest.fixture
def another_file_system(place: FolderPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let renames from the landing folder to the archive fail."""
    rename = Path.rename

    def elsewhere(source: Path, target: Path) -> Path:
        if place.archive in target.parents and place.archive not in source.parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", elsewhere)


def claimed(place: FolderPlace) -> WaitingUpload:
    """A claimed upload."""
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    return upload


def write_while_copied(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let a writer append to a file during its next ``times`` copies."""
    copy, copies = files.copy_file, iter(range(times))

    def beside_a_writer(source: Path, draft: Path) -> os.stat_result:
        found = copy(source, draft)
        if next(copies, None) is not None:
            with source.open("ab") as writer:
                writer.write(b"+")
        return found

    monkeypatch.setattr(files, "copy_file", beside_a_writer)


@pytest.mark.usefixtures("another_file_system")
def test_data_appended_during_a_copy_to_another_file_system_is_archived(
    place: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = claimed(place)
    write_while_copied(monkeypatch, 1)
    place.landing.archive(BATCH, upload)
    assert place.archived("x.json") == b"content+"
    assert list(place.landing.claimed()) == []
    assert not place.landing.is_as_claimed(BATCH, upload)


@pytest.mark.usefixtures("another_file_system")
def test_permanently_growing_file_is_archived_as_read_and_waits_again(
    place: FolderPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = claimed(place)
    write_while_copied(monkeypatch, 10)
    place.landing.archive(BATCH, upload)
    place.landing.finish(BATCH)
    assert place.archived("x.json") == b"content"
    assert place.landing.is_as_claimed(BATCH, upload)
    [again] = place.landing.waiting()
    assert (again.name, again.size) == ("x.json", len(b"content++++++++++"))
