"""Behaviour of a landing location that is specific to S3."""

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
    """Claim, read and archive an upload."""
    assert place.landing.claim(BATCH, upload)
    content = place.landing.read(BATCH, upload)
    place.landing.archive(BATCH, upload)
    return content


@pytest.mark.parametrize("versioned", [True, False])
def test_every_key_that_s3_allows_is_a_separate_upload(aws: AwsServices, versioned: bool) -> None:
    place = S3Place(aws, versioned=versioned)
    for key in STRANGE_KEYS:
        place.put(key, key.encode())
    waiting = list(place.landing.waiting())
    assert sorted(upload.name for upload in waiting) == sorted(STRANGE_KEYS)
    for upload in waiting:
        assert upload.uri == f"s3://{BUCKET}/{place.location.prefix}{upload.name}"
        assert take(place, upload) == place.archived(upload.name) == upload.name.encode()
    assert names(place.landing) == []


@pytest.mark.long
def test_a_listing_has_as_many_pages_as_it_needs(place: S3Place) -> None:
    for number in range(1_003):
        place.put(f"{number:04d}.json", b"{}")
    assert names(place.landing) == [f"{number:04d}.json" for number in range(1_003)]


def test_folder_markers_of_other_tools_are_no_uploads(place: S3Place) -> None:
    for name in ("", "cars/", "cars_$folder$"):
        place.put(name, b"")
    place.put("empty.json", b"")
    assert names(place.landing) == ["empty.json"]


def test_a_whole_bucket_may_be_the_landing_location(aws: AwsServices) -> None:
    place = S3Place(aws, versioned=False, prefix="")
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    assert (upload.uri, take(place, upload)) == ("s3://cars/x.json", b"content")


def test_prefix_does_not_match_longer_names(place: S3Place) -> None:
    place.s3.put_object(Bucket=BUCKET, Key="land ing2/x.json", Body=b"{}")
    assert names(place.landing) == []


def test_replacement_is_kept_when_the_version_that_was_read_is_deleted(place: S3Place) -> None:
    place.put("x.json", b"first")
    [first] = place.landing.waiting()
    assert place.landing.claim(BATCH, first)
    place.put("x.json", b"second")
    place.landing.archive(BATCH, first)
    assert place.versions("x.json") == [b"second"]


def test_replacement_with_the_same_content_is_kept_in_a_versioned_bucket(
    place: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("x.json", b"same")
    [first] = place.landing.waiting()
    assert place.landing.claim(BATCH, first)
    # Times in a listing have a resolution of seconds.
    while [upload.modified for upload in place.landing.waiting()] == [first.modified]:
        place.put("x.json", b"same")
    place.landing.archive(BATCH, first)
    [second] = place.landing.waiting()
    assert second.modified > first.modified


def test_version_replaced_before_its_claim_does_not_return(place: S3Place) -> None:
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


def test_bucket_with_suspended_versioning_uses_etags(place: S3Place) -> None:
    place.put("x.json", b"old")
    place.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    place.put("x.json", b"new")
    [upload] = place.landing.waiting()
    assert take(place, upload) == b"new"
    assert names(place.landing) == []


def test_copy_deleted_from_the_archive_is_made_again_from_the_waiting_upload(place: S3Place) -> None:
    place.put("x.json", b"content")
    [upload] = place.landing.waiting()
    assert place.landing.claim(BATCH, upload)
    place.s3.delete_object(Bucket=place.archive.bucket, Key=f"{place.archive.prefix}{BATCH}/x.json")
    assert place.landing.read(BATCH, upload) == b"content"


def test_missing_copy_and_upload_raise_a_missing_file_error(place: S3Place) -> None:
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
def test_upload_in_an_archival_storage_class_is_reported(place: S3Place, storage_class: str) -> None:
    place.put("x.json", b"content", StorageClass=storage_class)
    assert names(place.landing) == []
    [(uri, problem)] = place.landing.obstacles()
    assert uri.endswith("/x.json")
    assert "copy it to another one" in problem


def test_refusal_of_one_object_is_a_problem_of_that_upload_only(aws: AwsServices, place: S3Place) -> None:
    place.put("x.json", b"content", StorageClass="GLACIER")
    [(uri, _)] = place.landing.obstacles()
    entry = place.s3.head_object(Bucket=BUCKET, Key=f"{place.location.prefix}x.json")
    asleep = WaitingUpload(uri, "x.json", entry["ETag"], 7, entry["LastModified"])
    with pytest.raises(PermissionError):
        place.landing.claim(BATCH, asleep)


def test_folder_marker_among_released_uploads_is_ignored(place: S3Place) -> None:
    place.s3.put_object(Bucket="lakehouse", Key="ingestion/released/", Body=b"")
    assert names(place.landing) == []


def test_name_too_long_for_the_archive_is_reported(place: S3Place) -> None:
    place.put("x" * 1_000 + ".json", b"content")
    assert names(place.landing) == []
    [(_, problem)] = place.landing.obstacles()
    assert "shorter name" in problem
