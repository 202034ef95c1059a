"""What every kind of landing location does. A new kind joins the fixture and nothing else."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from telemetry_assets.errors import LandingUnavailableError
from telemetry_assets.ingestion.folder_landing import FolderLanding
from telemetry_assets.ingestion.landing import Landing, is_finished

BATCH = "batch-1"


class FolderPlace:
    """A folder landing, and how a test puts uploads there and looks at what came of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "landing"
        self.archive = folder / "archive"
        self.landing: Landing = FolderLanding(self.folder, self.archive, 0)
        self.folder.mkdir()

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_name(".writing")
        written.write_bytes(content)
        written.rename(path)

    def archived(self, name: str) -> bytes:
        return (self.archive / BATCH / name).read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> FolderPlace:
    made = FolderPlace(tmp_path)
    made.landing.begin(BATCH)
    return made


def names(landing: Landing) -> list[str]:
    return sorted(upload.name for upload in landing.waiting())


def test_an_empty_location_has_nothing_waiting(place: FolderPlace) -> None:
    assert names(place.landing) == []
    assert list(place.landing.claimed()) == []
    assert list(place.landing.obstacles()) == []


@pytest.mark.parametrize("name", ["a b.json", "Ünïcode 車.json", "100%.json", "a+b&c#d?.json", "deep/er/x.json", "x"])
def test_an_upload_goes_from_waiting_to_the_archive_as_it_was(place: FolderPlace, name: str) -> None:
    place.put(name, b"content")
    [upload] = place.landing.waiting()
    assert (upload.name, upload.size) == (name, 7)
    assert place.landing.claim(BATCH, upload)
    assert place.landing.read(BATCH, upload) == b"content"
    place.landing.archive(BATCH, upload)
    place.landing.finish(BATCH)
    assert names(place.landing) == []
    assert place.archived(name) == b"content"


def test_every_step_may_be_done_again(place: FolderPlace) -> None:
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    assert place.landing.claim(BATCH, upload)
    for _ in range(2):
        place.landing.archive(BATCH, upload)
        place.landing.finish(BATCH)
    assert place.landing.claim(BATCH, upload)
    assert place.archived("x.json") == b"content"


def test_a_replacement_is_a_new_upload(place: FolderPlace) -> None:
    place.put("x.json", b"first")
    [first] = place.landing.waiting()
    assert place.landing.claim(BATCH, first)
    place.put("x.json", b"second")
    [second] = place.landing.waiting()
    assert second.version != first.version
    assert place.landing.read(BATCH, first) == b"first"
    place.landing.archive(BATCH, first)
    assert names(place.landing) == ["x.json"]


def test_a_version_that_was_replaced_before_the_claim_is_not_claimed(place: FolderPlace) -> None:
    place.put("x.json", b"first")
    [first] = place.landing.waiting()
    place.put("x.json", b"other")
    assert not place.landing.claim(BATCH, first)
    assert names(place.landing) == ["x.json"]


def test_a_version_that_is_gone_is_not_claimed(place: FolderPlace) -> None:
    place.put("x.json", b"first")
    [first] = place.landing.waiting()
    (place.folder / "x.json").unlink()
    assert not place.landing.claim(BATCH, first)


def test_a_released_upload_waits_again_as_it_was(place: FolderPlace) -> None:
    place.put("deep/x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    for _ in range(2):
        place.landing.release(BATCH, upload)
        place.landing.finish(BATCH)
        assert list(place.landing.waiting()) == [upload]


def test_a_released_upload_waits_beside_a_newer_one_of_its_name(place: FolderPlace) -> None:
    place.put("x.json", b"older")
    [older] = place.landing.waiting()
    assert place.landing.claim(BATCH, older)
    place.put("x.json", b"newer!")
    place.landing.release(BATCH, older)
    [newer] = [upload for upload in place.landing.waiting() if upload != older]
    for batch_id, upload, content in (("batch-2", older, b"older"), ("batch-3", newer, b"newer!")):
        assert place.landing.claim(batch_id, upload)
        assert place.landing.read(batch_id, upload) == content
        assert upload.name == "x.json"
    assert names(place.landing) == []


@pytest.mark.parametrize(
    "name", [".x.json", "_x.json", "x.json.tmp", "x.part", "x.json.crdownload", "_temporary/0/x.json", ".git/x.json"]
)
def test_names_of_unfinished_writers_are_not_uploads(place: FolderPlace, name: str) -> None:
    place.put(name, b"content")
    assert names(place.landing) == []
    assert not is_finished(name)


class TestAFolder:
    """What only a folder has."""

    def test_a_file_that_is_still_young_is_left_alone_for_a_moment(self, place: FolderPlace) -> None:
        patient = FolderLanding(place.folder, place.archive, 30)
        place.put("x.json", b"content")
        assert names(patient) == []
        os.utime(place.folder / "x.json", (time.time() - 31,) * 2)
        assert names(patient) == ["x.json"]

    def test_a_file_from_the_future_does_not_wait_for_ever(self, place: FolderPlace) -> None:
        place.put("x.json", b"content")
        os.utime(place.folder / "x.json", (time.time() + 86_400,) * 2)
        assert names(FolderLanding(place.folder, place.archive, 30)) == ["x.json"]

    def test_a_folder_named_like_an_upload_is_a_folder(self, place: FolderPlace) -> None:
        place.put("x.json/inner.json", b"content")
        assert names(place.landing) == ["x.json/inner.json"]

    def test_what_is_no_file_is_no_upload(self, place: FolderPlace) -> None:
        os.mkfifo(place.folder / "pipe.json")
        (place.folder / "nowhere.json").symlink_to(place.folder / "missing")
        assert names(place.landing) == []

    def test_a_link_is_left_alone_because_it_would_lead_elsewhere_once_it_is_moved(self, place: FolderPlace) -> None:
        (place.archive.parent / "elsewhere.json").write_bytes(b"content")
        (place.folder / "x.json").symlink_to("../elsewhere.json")
        assert names(place.landing) == []
        [(path, problem)] = place.landing.obstacles()
        assert path.endswith("x.json")
        assert "it is a link" in problem

    def test_a_file_that_may_not_be_moved_is_left_alone(
        self, place: FolderPlace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place.put("locked/x.json", b"content")
        # Tests may run as root, who may write everywhere.
        monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("locked"))
        assert names(place.landing) == []
        [(path, problem)] = place.landing.obstacles()
        assert path.endswith("locked/x.json")
        assert "this user may not move it" in problem

    def test_a_missing_folder_has_nothing_waiting_and_says_so(self, place: FolderPlace) -> None:
        shutil.rmtree(place.folder)
        assert names(place.landing) == []
        assert list(place.landing.obstacles()) == [
            (str(place.folder), "the folder does not exist; make it, or correct TELEMETRY_LANDING_URI")
        ]
        assert list(place.landing.claimed()) == []

    def test_a_folder_that_vanishes_while_it_is_listed_holds_nothing(self, place: FolderPlace) -> None:
        for folder in ("one", "other"):
            place.put(f"{folder}/x.json", b"content")
        waiting = place.landing.waiting()
        first = next(waiting)
        shutil.rmtree(place.folder / ("other" if first.name.startswith("one") else "one"))
        assert list(waiting) == []

    def test_an_unreadable_upload_stays_where_it_cannot_be_copied_to_the_archive_and_is_told(
        self, place: FolderPlace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        place.put("secret.json", b"content")
        [upload] = place.landing.waiting()
        assert place.landing.claim(BATCH, upload)
        # Tests may run as root, whom nothing is kept from.
        monkeypatch.setattr("telemetry_assets.ingestion.folder_landing._move", forbidden)
        monkeypatch.setattr(os, "access", lambda *_: False)
        place.landing.archive(BATCH, upload)
        place.landing.finish(BATCH)
        monkeypatch.undo()
        assert list(place.landing.claimed()) == []
        assert list(place.landing.waiting()) == []
        [(path, problem)] = place.landing.obstacles()
        assert path.endswith(f".unarchived/{BATCH}/secret.json")
        assert "unreadable" in problem

    def test_without_its_folder_nobody_says_that_an_upload_is_gone(self, place: FolderPlace) -> None:
        place.put("x.json", b"content")
        [upload] = place.landing.waiting()
        assert place.landing.claim(BATCH, upload)
        place.folder.rename(place.folder.with_name("not-mounted"))
        place.folder.mkdir()
        for step in (place.landing.claim, place.landing.read, place.landing.archive):
            with pytest.raises(LandingUnavailableError, match="Mount the location"):
                step(BATCH, upload)

    def test_a_claimed_upload_is_listed_until_it_is_archived(self, place: FolderPlace) -> None:
        place.put("deep/x.json", b"content")
        [upload] = place.landing.waiting()
        assert place.landing.claim(BATCH, upload)
        assert list(place.landing.claimed()) == [(BATCH, upload)]
        place.landing.archive(BATCH, upload)
        assert list(place.landing.claimed()) == []

    def test_a_released_upload_leaves_no_folder_behind_once_it_is_archived(self, place: FolderPlace) -> None:
        place.put("deep/x.json", b"content")
        [upload] = place.landing.waiting()
        assert place.landing.claim(BATCH, upload)
        place.landing.release(BATCH, upload)
        assert place.landing.claim("batch-2", upload)
        place.landing.archive("batch-2", upload)
        for batch_id in (BATCH, "batch-2"):
            place.landing.finish(batch_id)
        assert [path.name for path in place.folder.rglob("*") if path.name not in (".claimed", ".released")] == ["deep"]

    @pytest.mark.parametrize("folders", [10, 400])
    def test_a_file_deep_down_is_an_upload(self, place: FolderPlace, folders: int) -> None:
        name = "/".join(["d"] * folders) + "/x.json"
        place.put(name, b"content")
        assert names(place.landing) == [name]

    def test_a_file_from_beyond_the_calendar_is_an_upload(self, place: FolderPlace) -> None:
        place.put("x.json", b"content")
        os.utime(place.folder / "x.json", (2**38,) * 2)
        assert names(place.landing) == ["x.json"]

    def test_a_name_that_is_not_utf8_has_an_address_that_is(self, place: FolderPlace) -> None:
        place.put(os.fsdecode(b"caf\xe9.json"), b"content")
        [upload] = place.landing.waiting()
        assert upload.uri.endswith("/caf\\xe9.json")
        assert place.landing.claim(BATCH, upload)
