"""The behaviour of all landing locations. A new kind is added to the fixture only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from telemetry_assets.ingestion.landing.base import is_finished, new_batch_id
from telemetry_assets_tests.harness.places import BATCH, FolderPlace, Place, names
from telemetry_assets_tests.harness.s3_place import S3Place


@pytest.fixture(params=["folder", "versioned bucket", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return FolderPlace(tmp_path)
    return S3Place(request.getfixturevalue("aws"), versioned=request.param == "versioned bucket")


def test_an_empty_location_has_nothing_waiting(place: Place) -> None:
    assert names(place.landing) == []
    assert list(place.landing.claimed()) == []
    assert list(place.landing.obstacles()) == []


@pytest.mark.parametrize("name", ["a b.json", "Ünïcode 車.json", "100%.json", "a+b&c#d?.json", "deep/er/x.json", "x"])
def test_upload_is_archived_unchanged(place: Place, name: str) -> None:
    place.put(name, b"content")
    [upload] = place.landing.waiting()
    assert (upload.name, upload.size) == (name, 7)
    assert place.landing.claim(BATCH, upload)
    assert place.landing.read(BATCH, upload) == b"content"
    place.landing.archive(BATCH, upload)
    place.landing.finish(BATCH)
    assert names(place.landing) == []
    assert place.archived(name) == b"content"


def test_every_step_is_idempotent(place: Place) -> None:
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    assert place.landing.claim(BATCH, upload)
    for _ in range(2):
        place.landing.archive(BATCH, upload)
        place.landing.finish(BATCH)
    assert place.landing.claim(BATCH, upload)
    assert place.archived("x.json") == b"content"


def test_a_replacement_is_a_new_upload(place: Place) -> None:
    place.put("x.json", b"first")
    [first] = place.landing.waiting()
    assert place.landing.claim(BATCH, first)
    place.put("x.json", b"second")
    [second] = place.landing.waiting()
    assert second.version != first.version
    assert place.landing.read(BATCH, first) == b"first"
    place.landing.archive(BATCH, first)
    assert names(place.landing) == ["x.json"]


def test_a_version_that_was_replaced_before_the_claim_is_not_claimed(place: Place) -> None:
    place.put("x.json", b"first")
    [first] = place.landing.waiting()
    place.put("x.json", b"other")
    assert not place.landing.claim(BATCH, first)
    assert names(place.landing) == ["x.json"]


def test_deleted_version_is_not_claimed(place: Place) -> None:
    place.put("x.json", b"first")
    [first] = place.landing.waiting()
    place.remove("x.json")
    assert not place.landing.claim(BATCH, first)


def test_released_upload_waits_unchanged(place: Place) -> None:
    place.put("deep/x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    for _ in range(2):
        place.landing.release(BATCH, upload)
        place.landing.finish(BATCH)
        assert list(place.landing.waiting()) == [upload]


def test_released_upload_waits_beside_its_replacement(place: Place) -> None:
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
        place.landing.archive(batch_id, upload)
        assert place.archived("x.json", batch_id) == content
    assert names(place.landing) == []


@pytest.mark.parametrize(
    "name", [".x.json", "_x.json", "x.json.tmp", "x.part", "x.json.crdownload", "_temporary/0/x.json", ".git/x.json"]
)
def test_names_of_unfinished_writers_are_not_uploads(place: Place, name: str) -> None:
    place.put(name, b"content")
    assert names(place.landing) == []
    assert not is_finished(name)


def test_newest_batches_are_found_among_those_of_older_versions(place: Place) -> None:
    begun = datetime(2026, 11, 28, 7, 15, tzinfo=UTC)
    newest = [new_batch_id(begun + timedelta(minutes=number)) for number in range(3)]
    place.put("x.json", b"content")
    for batch_id in (*newest, *("0123456789abcdef" * 2, "fedcba9876543210" * 2)):
        place.landing.begin(batch_id)
        place.put("x.json", b"content")
        [upload] = place.landing.waiting()
        assert place.landing.claim(batch_id, upload)
        place.landing.archive(batch_id, upload)
    assert place.landing.newest_batches(2, begun) == newest[:0:-1]
    assert place.landing.newest_batches(10, None) == newest[::-1]
    assert len(place.landing.archived_batches()) == 5
