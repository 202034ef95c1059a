"""What only a bucket does as a landing location."""

from __future__ import annotations

import pytest

from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.places import BATCH, names
from telemetry_assets_tests.harness.s3_place import BUCKET, S3Place

STRANGE_KEYS = (
    *("a b.json", "Ünïcode 車.json", "100%.json", "100%25.json", "a+b&c#d?.json", "a//b.json", "a/../b.json"),
    *("b.json", "a/./b.json", "/leading.json", "A.json", "a.json", "semi;colon=.json", "new\nline.json", "x/y.json/"),
    "quote'\".json",
)


@pytest.fixture
def place(aws: AwsServices) -> S3Place:
    return S3Place(aws, versioned=True)


def take(place: S3Place, upload: WaitingUpload) -> bytes:
    """An upload from waiting to the archive."""
    assert place.landing.claim(BATCH, upload)
    content = place.landing.read(BATCH, upload)
    place.landing.archive(BATCH, upload)
    return content


@pytest.mark.parametrize("versioned", [True, False])
def test_every_key_that_s3_allows_is_an_upload_of_its_own(aws: AwsServices, versioned: bool) -> None:
    place = S3Place(aws, versioned=versioned)
    for key in STRANGE_KEYS:
        place.put(key, key.encode())
    waiting = list(place.landing.waiting())
    assert sorted(upload.name for upload in waiting) == sorted(STRANGE_KEYS)
    for upload in waiting:
        assert upload.uri == f"s3://{BUCKET}/{place.location.prefix}{upload.name}"
        assert take(place, upload) == place.archived(upload.name) == upload.name.encode()
    assert names(place.landing) == []


def test_a_listing_has_as_many_pages_as_it_needs(place: S3Place) -> None:
    for number in range(1_003):
        place.put(f"{number:04d}.json", b"{}")
    assert names(place.landing) == [f"{number:04d}.json" for number in range(1_003)]


def test_folders_of_other_tools_are_no_uploads(place: S3Place) -> None:
    for name in ("", "cars/", "cars_$folder$"):
        place.put(name, b"")
    place.put("empty.json", b"")
    assert names(place.landing) == ["empty.json"]


def test_a_whole_bucket_may_be_the_landing_location(aws: AwsServices) -> None:
    place = S3Place(aws, versioned=False, prefix="")
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    assert (upload.uri, take(place, upload)) == ("s3://cars/x.json", b"content")


def test_a_prefix_does_not_take_what_only_begins_like_it(place: S3Place) -> None:
    place.s3.put_object(Bucket=BUCKET, Key="land ing2/x.json", Body=b"{}")
    assert names(place.landing) == []


def test_a_replacement_outlasts_the_deletion_of_the_version_that_was_read(place: S3Place) -> None:
    place.put("x.json", b"first")
    [first] = place.landing.waiting()
    assert place.landing.claim(BATCH, first)
    place.put("x.json", b"second")
    place.landing.archive(BATCH, first)
    assert place.versions("x.json") == [b"second"]


def test_a_replacement_of_the_same_content_outlasts_it_too_where_there_are_versions(
    place: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("x.json", b"same")
    [first] = place.landing.waiting()
    assert place.landing.claim(BATCH, first)
    # Times in a listing are whole seconds.
    while [upload.modified for upload in place.landing.waiting()] == [first.modified]:
        place.put("x.json", b"same")
    place.landing.archive(BATCH, first)
    [second] = place.landing.waiting()
    assert second.modified > first.modified


def test_what_was_replaced_before_it_was_taken_does_not_come_back(place: S3Place) -> None:
    for content in (b"first", b"second"):
        place.put("x.json", content)
    [upload] = place.landing.waiting()
    assert take(place, upload) == b"second"
    assert names(place.landing) == []
    assert place.versions("x.json") == [b"(deleted)", b"first"]


def test_an_upload_that_its_producer_deletes_while_it_is_processed_stays_deleted(place: S3Place) -> None:
    for content in (b"first", b"second"):
        place.put("x.json", content)
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    place.remove("x.json")
    place.landing.archive(BATCH, upload)
    assert place.archived("x.json") == b"second"
    assert names(place.landing) == []


def test_a_bucket_whose_versioning_was_suspended_goes_by_etags(place: S3Place) -> None:
    place.put("x.json", b"old")
    place.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    place.put("x.json", b"new")
    [upload] = place.landing.waiting()
    assert take(place, upload) == b"new"
    assert names(place.landing) == []


def test_a_copy_that_is_gone_from_the_archive_is_made_again_from_what_still_waits(place: S3Place) -> None:
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    place.s3.delete_object(Bucket=place.archive.bucket, Key=f"{place.archive.prefix}{BATCH}/x.json")
    assert place.landing.read(BATCH, upload) == b"content"


def test_a_copy_that_is_gone_together_with_its_upload_is_told_as_a_missing_file(place: S3Place) -> None:
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    place.remove("x.json")
    with pytest.raises(FileNotFoundError, match="gone from the archive"):
        place.landing.read(BATCH, upload)


def test_copies_are_encrypted_with_the_key_of_the_settings(aws: AwsServices) -> None:
    place = S3Place(aws, versioned=True, ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/telemetry")
    place.put("x.json", b"content", ServerSideEncryption="aws:kms", SSEKMSKeyId="alias/producer")
    [upload] = place.landing.waiting()
    assert take(place, upload) == b"content"
    copy = place.archived_object("x.json")
    assert (copy["ServerSideEncryption"], copy["SSEKMSKeyId"]) == ("aws:kms", "alias/telemetry")


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_upload_in_a_storage_class_that_sleeps_is_told(place: S3Place, storage_class: str) -> None:
    place.put("x.json", b"content", StorageClass=storage_class)
    assert names(place.landing) == []
    [(uri, problem)] = place.landing.obstacles()
    assert uri.endswith("/x.json")
    assert "copy it to another one" in problem


def test_a_refusal_of_one_object_is_that_upload_s_problem_alone(aws: AwsServices, place: S3Place) -> None:
    place.put("x.json", b"content", StorageClass="GLACIER")
    [(uri, _)] = place.landing.obstacles()
    entry = place.s3.head_object(Bucket=BUCKET, Key=f"{place.location.prefix}x.json")
    asleep = WaitingUpload(uri, "x.json", entry["ETag"], 7, entry["LastModified"])
    with pytest.raises(PermissionError):
        place.landing.claim(BATCH, asleep)


def test_a_mark_of_a_folder_among_released_uploads_is_overlooked(place: S3Place) -> None:
    place.s3.put_object(Bucket="lakehouse", Key="ingestion/released/", Body=b"")
    assert names(place.landing) == []


def test_a_name_that_leaves_no_room_for_its_place_in_the_archive_is_told(place: S3Place) -> None:
    place.put("x" * 1_000 + ".json", b"content")
    assert names(place.landing) == []
    [(_, problem)] = place.landing.obstacles()
    assert "shorter name" in problem
