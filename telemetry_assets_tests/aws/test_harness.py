"""The local AWS server behaves like AWS where unpatched moto does not."""

from __future__ import annotations

import socket
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from telemetry_assets_tests.harness.aws.services import AwsServices

STRANGE_KEYS = sorted(
    {
        *("plain", "key", "a b", " a ", "a+b", "a%b", "a%20b", "a%2Fb", "a/b", "%", "%%", "%zz"),
        *("a//b", "/a", "//a", "a/", "a//", "/", "a/../b", "../b", "a/./b", "./b", ".", "..", "..//."),
        *("a?b=c", "a?versionId=x", "a#b", "a;b=c", "a&b", "a=b", "a:b", "a,b", "~", "*", "a|b^`{}[]", "a\\b"),
        *("ü/日本", "\U0001f697", "e\u0301", "\u00e9", "a\tb", "a\nb", "a\rb", "a\u0001b", "a'b\"<>&"),
    }
)
BUCKET = "bucket-of-tests"


@pytest.fixture
def s3(aws: AwsServices) -> Any:
    """A client, and an empty bucket."""
    aws.make_bucket(BUCKET)
    return aws.client("s3", max_pool_connections=20)


@pytest.fixture
def versioned_s3(aws: AwsServices) -> Any:
    """A client, and an empty bucket with versioning."""
    aws.make_bucket(BUCKET, versioned=True)
    return aws.client("s3")


@pytest.fixture
def glue(aws: AwsServices) -> Any:
    """A client, and a new table."""
    client = aws.client("glue")
    client.create_database(DatabaseInput={"Name": "silver"})
    client.create_table(DatabaseName="silver", TableInput=_table("made"))
    return client


def _table(location: str) -> dict[str, Any]:
    return {"Name": "cars", "Parameters": {"metadata_location": location}}


def _entry(glue: Any) -> tuple[str, str]:
    table = glue.get_table(DatabaseName="silver", Name="cars")["Table"]
    return table["VersionId"], table["Parameters"]["metadata_location"]


def _update(glue: Any, location: str, version: str) -> None:
    glue.update_table(DatabaseName="silver", TableInput=_table(location), VersionId=version, SkipArchive=True)


def _refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def _listed(s3: Any, **arguments: Any) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, **arguments)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def test_each_update_of_a_table_changes_its_version(glue: Any) -> None:
    assert _entry(glue) == ("0", "made")
    _update(glue, "first", "0")
    assert _entry(glue) == ("1", "first")


def test_a_request_for_a_bucket_of_another_region_is_redirected(aws: AwsServices) -> None:
    aws.make_bucket("elsewhere", region="us-west-2")
    client, sent = aws.client("s3"), []
    client.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers))
    client.put_object(Bucket="elsewhere", Key="x", Body=b"")
    signed_for = [str(headers["Authorization"]).split("/")[2] for headers in sent]
    assert signed_for == ["eu-central-1", "us-west-2"]


def test_with_the_lock_of_glue_an_update_of_another_version_is_refused(glue: Any) -> None:
    _update(glue, "first", "0")
    with pytest.raises(ClientError) as error:
        _update(glue, "second", "0")
    assert _refusal(error) == (400, "ConcurrentModificationException")
    assert _entry(glue) == ("1", "first")


def test_without_the_lock_of_glue_an_update_is_lost(glue: Any, aws: AwsServices) -> None:
    with aws.without_version_lock():
        _update(glue, "first", "0")
        _update(glue, "second", "0")
    assert _entry(glue) == ("2", "second")


def test_one_of_several_concurrent_updates_of_one_version_succeeds(glue: Any, aws: AwsServices) -> None:
    client = aws.client("glue", max_pool_connections=10)

    def update(number: int) -> bool:
        try:
            _update(client, str(number), "0")
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(update, range(10))) == 1
    assert _entry(glue)[0] == "1"


def test_one_of_20_concurrent_conditional_creations_succeeds(s3: Any) -> None:
    def put(number: int) -> str:
        try:
            s3.put_object(Bucket=BUCKET, Key="lease", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            return error.response["Error"]["Code"]
        return "written"

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(put, range(20)))
    assert Counter(outcomes) == {"written": 1, "PreconditionFailed": 19}
    winner = outcomes.index("written")
    assert s3.get_object(Bucket=BUCKET, Key="lease")["Body"].read() == str(winner).encode()


def test_one_of_20_concurrent_conditional_replacements_succeeds(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="lease", Body=b"free")["ETag"]

    def put(number: int) -> bool:
        try:
            s3.put_object(Bucket=BUCKET, Key="lease", Body=str(number).encode(), IfMatch=etag)
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(put, range(20))) == 1


def test_conditional_replacement_of_a_missing_object_is_refused_with_404(s3: Any) -> None:
    with pytest.raises(ClientError) as error:
        s3.put_object(Bucket=BUCKET, Key="lease", Body=b"", IfMatch='"0"')
    assert _refusal(error) == (404, "NoSuchKey")


def test_conditional_copy_copies_the_expected_version_only(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="upload", Body=b"old")["ETag"]
    arguments = {"Bucket": BUCKET, "Key": "copy", "CopySource": {"Bucket": BUCKET, "Key": "upload"}}
    s3.copy_object(**arguments, CopySourceIfMatch=etag)
    s3.put_object(Bucket=BUCKET, Key="upload", Body=b"new")
    with pytest.raises(ClientError) as error:
        s3.copy_object(**arguments, CopySourceIfMatch=etag)
    assert _refusal(error) == (412, "PreconditionFailed")
    assert s3.get_object(Bucket=BUCKET, Key="copy")["Body"].read() == b"old"


def test_copy_returns_its_source_version(versioned_s3: Any) -> None:
    version = versioned_s3.put_object(Bucket=BUCKET, Key="upload", Body=b"")["VersionId"]
    source = {"Bucket": BUCKET, "Key": "upload"}
    assert versioned_s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=source)["CopySourceVersionId"] == version


def test_conditional_part_copy_copies_the_expected_version_only(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="upload", Body=b"new")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="copy")["UploadId"]
    with pytest.raises(ClientError) as error:
        s3.upload_part_copy(
            Bucket=BUCKET,
            Key="copy",
            UploadId=upload,
            PartNumber=1,
            CopySource={"Bucket": BUCKET, "Key": "upload"},
            CopySourceIfMatch='"old"',
        )
    assert _refusal(error) == (412, "PreconditionFailed")


def test_conditional_delete_deletes_the_expected_version_only(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="upload", Body=b"new")["ETag"]
    with pytest.raises(ClientError) as error:
        s3.delete_object(Bucket=BUCKET, Key="upload", IfMatch='"old"')
    assert _refusal(error) == (412, "PreconditionFailed")
    s3.delete_object(Bucket=BUCKET, Key="upload", IfMatch=etag)
    assert _listed(s3) == []


def test_with_versioning_a_conditional_delete_compares_with_the_current_version_and_marks(versioned_s3: Any) -> None:
    old = versioned_s3.put_object(Bucket=BUCKET, Key="upload", Body=b"old")["ETag"]
    new = versioned_s3.put_object(Bucket=BUCKET, Key="upload", Body=b"new")["ETag"]
    with pytest.raises(ClientError) as error:
        versioned_s3.delete_object(Bucket=BUCKET, Key="upload", IfMatch=old)
    assert _refusal(error) == (412, "PreconditionFailed")
    assert versioned_s3.delete_object(Bucket=BUCKET, Key="upload", IfMatch=new)["DeleteMarker"]
    found = versioned_s3.list_object_versions(Bucket=BUCKET)
    assert [version["ETag"] for version in found["Versions"]] == [new, old]
    assert [marker["IsLatest"] for marker in found["DeleteMarkers"]] == [True]


def test_suspended_versioning_keeps_versions_below_the_null_version(versioned_s3: Any) -> None:
    versioned_s3.put_object(Bucket=BUCKET, Key="upload", Body=b"kept")
    versioned_s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    for body in (b"replaced", b"newest"):
        versioned_s3.put_object(Bucket=BUCKET, Key="upload", Body=body)
    kept, null = versioned_s3.list_object_versions(Bucket=BUCKET)["Versions"][::-1]
    assert (null["VersionId"], null["IsLatest"]) == ("null", True)
    versioned_s3.delete_object(Bucket=BUCKET, Key="upload")
    found = versioned_s3.list_object_versions(Bucket=BUCKET)
    assert [marker["VersionId"] for marker in found["DeleteMarkers"]] == ["null"]
    assert found["Versions"] == [{**kept, "IsLatest": False}]
    read = versioned_s3.get_object(Bucket=BUCKET, Key="upload", VersionId=kept["VersionId"])
    assert read["Body"].read() == b"kept"


@pytest.mark.parametrize("versioned", [False, True], ids=["unversioned", "versioned"])
def test_unusual_keys_are_stored_unchanged(aws: AwsServices, versioned: bool) -> None:
    aws.make_bucket(BUCKET, versioned=versioned)
    s3 = aws.client("s3")
    for key in STRANGE_KEYS:
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    assert _listed(s3) == STRANGE_KEYS
    assert [version["Key"] for version in s3.list_object_versions(Bucket=BUCKET)["Versions"]] == STRANGE_KEYS
    for key in STRANGE_KEYS:
        assert _listed(s3, Prefix=key) == [other for other in STRANGE_KEYS if other.startswith(key)]
        copy = f"copies/{key}"
        s3.copy_object(Bucket=BUCKET, Key=copy, CopySource={"Bucket": BUCKET, "Key": key})
        assert s3.get_object(Bucket=BUCKET, Key=copy)["Body"].read() == key.encode()
        s3.delete_object(Bucket=BUCKET, Key=copy)
        s3.delete_object(Bucket=BUCKET, Key=key)
    assert _listed(s3) == []


def test_pages_hold_every_object_once(s3: Any) -> None:
    keys = [f"{folder}/{number}" for folder in "ab" for number in range(10)]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
    for size in (1, 3, 7):
        assert _listed(s3, PaginationConfig={"PageSize": size}) == sorted(keys)
    page = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/", MaxKeys=1)
    assert page["CommonPrefixes"] == [{"Prefix": "a/"}]
    again = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/", ContinuationToken=page["NextContinuationToken"])
    assert again["CommonPrefixes"] == [{"Prefix": "b/"}]


def test_pages_of_versions_hold_every_version_once(versioned_s3: Any) -> None:
    made = [
        (key, versioned_s3.put_object(Bucket=BUCKET, Key=key, Body=b"")["VersionId"]) for key in "abc" for _ in range(3)
    ]
    pages = versioned_s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 2})
    found = [(version["Key"], version["VersionId"]) for page in pages for version in page["Versions"]]
    assert sorted(found) == sorted(made)
    assert len(found) == len(made)


def test_truncated_body_is_not_written(s3: Any, aws: AwsServices) -> None:
    address = urlsplit(aws.endpoint)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"PUT /{BUCKET}/upload HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 10\r\n\r\n"
        connection.sendall(head.encode() + b"half")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert _listed(s3) == []


def test_the_server_ends_with_the_program_that_started_it() -> None:
    with AwsServices() as services:
        services.reset()
        process = services.process
    assert isinstance(process, subprocess.Popen)
    assert process.returncode == 0
