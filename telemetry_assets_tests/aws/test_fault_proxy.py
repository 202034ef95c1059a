"""The fault proxy changes nothing except the planned faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from io import BytesIO
from time import monotonic
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, IncompleteReadError, ResponseStreamingError

from telemetry_assets_tests.aws.test_harness import BUCKET, STRANGE_KEYS
from telemetry_assets_tests.harness.aws.api_requests import Request
from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.faults import Fault, FaultHit, FaultKind
from telemetry_assets_tests.harness.aws.services import AwsServices

pytestmark = pytest.mark.long

RETRIES = {"mode": "standard", "total_max_attempts": 6}
Truncated = (IncompleteReadError, ResponseStreamingError)


@pytest.fixture
def proxy(aws: AwsServices) -> Iterator[FaultProxy]:
    """A proxy without faults, and an empty bucket."""
    aws.make_bucket(BUCKET)
    with FaultProxy(aws.endpoint) as one:
        yield one


@pytest.fixture
def direct(aws: AwsServices) -> Any:
    """A client that bypasses the proxy."""
    return aws.client("s3")


@pytest.fixture
def s3(aws: AwsServices, proxy: FaultProxy) -> Any:
    """A client without retries."""
    return aws.client("s3", proxy.endpoint)


@pytest.fixture
def persistent_s3(aws: AwsServices, proxy: FaultProxy) -> Any:
    """A client with retries."""
    return aws.client("s3", proxy.endpoint, retries=RETRIES)


@pytest.fixture
def glue(aws: AwsServices, proxy: FaultProxy) -> Any:
    """A client without retries, and a table."""
    client = aws.client("glue", proxy.endpoint)
    client.create_database(DatabaseInput={"Name": "silver"})
    client.create_table(DatabaseName="silver", TableInput={"Name": "cars", "Parameters": {"made": "first"}})
    return client


def _put(s3: Any, body: bytes = b"body") -> None:
    s3.put_object(Bucket=BUCKET, Key="upload", Body=body)


def _get(s3: Any) -> bytes:
    return bytes(s3.get_object(Bucket=BUCKET, Key="upload")["Body"].read())


def _is_there(direct: Any) -> bool:
    return bool(direct.list_objects_v2(Bucket=BUCKET)["KeyCount"])


def _update(glue: Any) -> None:
    glue.update_table(DatabaseName="silver", TableInput={"Name": "cars"}, VersionId="0")


def test_unusual_keys_are_forwarded_unchanged(s3: Any, direct: Any, proxy: FaultProxy) -> None:
    for key in STRANGE_KEYS:
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
        assert direct.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()
        s3.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": key}, MetadataDirective="REPLACE")
        assert s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == len(key.encode())
        assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()
        s3.delete_object(Bucket=BUCKET, Key=key)
    assert not _is_there(direct)
    of_one_key = ["PutObject", "CopyObject", "HeadObject", "GetObject", "DeleteObject"]
    assert [(one.operation, one.key) for one in proxy.requests] == [
        (operation, key) for key in STRANGE_KEYS for operation in of_one_key
    ]


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_bodies_are_forwarded_unchanged(s3: Any, size: int) -> None:
    body = random.Random(size).randbytes(size)
    _put(s3, body)
    assert _get(s3) == body
    s3.upload_fileobj(BytesIO(body), BUCKET, "upload")
    assert _get(s3) == body


def test_chunked_bodies_are_forwarded_unchanged(s3: Any, proxy: FaultProxy) -> None:
    connection = HTTPConnection(proxy.endpoint.removeprefix("http://"))
    # The SDK sends a body with a trailing checksum like this.
    headers = {"Content-Encoding": "aws-chunked", "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
    pieces = [b"3\r\nabc\r\n2\r\nde", b"\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"]
    connection.request("PUT", f"/{BUCKET}/upload", iter(pieces), headers, encode_chunked=True)
    connection.getresponse().read()
    connection.close()
    assert _get(s3) == b"abcde"


def test_requests_are_named_as_the_api_names_them(s3: Any, glue: Any, proxy: FaultProxy) -> None:
    proxy.requests.clear()
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="upload")["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="upload", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=BUCKET, Key="upload", UploadId=upload, MultipartUpload=parts)
    s3.list_objects_v2(Bucket=BUCKET, Prefix="up")
    s3.list_object_versions(Bucket=BUCKET)
    s3.get_bucket_versioning(Bucket=BUCKET)
    s3.head_bucket(Bucket=BUCKET)
    s3.list_buckets()
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "upload"}]})
    glue.get_table(DatabaseName="silver", Name="cars")
    _update(glue)
    assert [(one.service, one.operation, one.bucket, one.key) for one in proxy.requests] == [
        ("s3", "CreateMultipartUpload", BUCKET, "upload"),
        ("s3", "UploadPart", BUCKET, "upload"),
        ("s3", "CompleteMultipartUpload", BUCKET, "upload"),
        ("s3", "ListObjectsV2", BUCKET, "up"),
        ("s3", "ListObjectVersions", BUCKET, ""),
        ("s3", "GetBucketVersioning", BUCKET, ""),
        ("s3", "HeadBucket", BUCKET, ""),
        ("s3", "ListBuckets", "", ""),
        ("s3", "DeleteObjects", BUCKET, ""),
        ("glue", "GetTable", "silver", "cars"),
        ("glue", "UpdateTable", "silver", "cars"),
    ]
    assert [one.number for one in proxy.requests] == list(range(1, 12))


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (FaultKind.INTERNAL_ERROR, 500, "InternalError"),
        (FaultKind.SLOW_DOWN, 503, "SlowDown"),
        (FaultKind.ACCESS_DENIED, 403, "AccessDenied"),
    ],
)
def test_what_s3_refuses_is_not_forwarded(
    s3: Any, direct: Any, proxy: FaultProxy, kind: FaultKind, status: int, code: str
) -> None:
    proxy.inject(Fault(kind, "PutObject"))
    with pytest.raises(ClientError) as error:
        _put(s3)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert error.value.response["Error"]["Code"] == code
    assert not _is_there(direct)
    assert proxy.faults_hit == [FaultHit(kind, "PutObject", "upload")]


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (FaultKind.INTERNAL_ERROR, 500, "InternalServiceException"),
        (FaultKind.SLOW_DOWN, 400, "ThrottlingException"),
        (FaultKind.ACCESS_DENIED, 400, "AccessDeniedException"),
        (FaultKind.LOST_LOCK, 400, "ConcurrentModificationException"),
    ],
)
def test_what_glue_refuses_is_not_forwarded(
    glue: Any, proxy: FaultProxy, kind: FaultKind, status: int, code: str
) -> None:
    proxy.inject(Fault(kind, "UpdateTable", key_contains="cars"))
    with pytest.raises(ClientError) as error:
        _update(glue)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert error.value.response["Error"]["Code"] == code
    assert glue.get_table(DatabaseName="silver", Name="cars")["Table"]["VersionId"] == "0"


def test_a_conflict_is_for_conditional_writes_only(s3: Any, direct: Any, proxy: FaultProxy) -> None:
    proxy.inject(Fault(FaultKind.CONFLICT))
    _put(s3)
    with pytest.raises(ClientError, match="ConditionalRequestConflict"):
        s3.delete_object(Bucket=BUCKET, Key="upload", IfMatch="*")
    assert _is_there(direct)


@pytest.mark.parametrize(("kind", "takes_effect"), [(FaultKind.RESET_BEFORE, False), (FaultKind.RESET_AFTER, True)])
def test_a_reset_comes_before_or_after_the_effect(
    s3: Any, direct: Any, proxy: FaultProxy, kind: FaultKind, takes_effect: bool
) -> None:
    proxy.inject(Fault(kind, "PutObject"))
    with pytest.raises(ConnectionClosedError) as error:
        _put(s3)
    assert "reset by peer" in str(error.value.kwargs["error"])
    assert _is_there(direct) is takes_effect


def test_an_error_after_the_effect_leaves_the_effect(s3: Any, direct: Any, proxy: FaultProxy) -> None:
    proxy.inject(Fault(FaultKind.ERROR_AFTER, "PutObject"))
    with pytest.raises(ClientError, match="InternalError"):
        _put(s3)
    assert _is_there(direct)


def test_slow_answer_takes_the_planned_time(s3: Any, proxy: FaultProxy) -> None:
    proxy.inject(Fault(FaultKind.SLOW_ANSWER, seconds=0.3))
    began = monotonic()
    _put(s3)
    assert monotonic() - began >= 0.3


def test_a_truncated_body_ends_before_its_length(s3: Any, proxy: FaultProxy) -> None:
    _put(s3)
    proxy.inject(Fault(FaultKind.TRUNCATED_BODY))
    with pytest.raises(Truncated):
        _get(s3)
    assert _get(s3) == b"body"


def test_a_paused_request_takes_effect_when_it_is_released(s3: Any, direct: Any, proxy: FaultProxy) -> None:
    fault = proxy.inject(Fault(FaultKind.PAUSED))
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(_put, s3)
        assert fault.wait_until_reached()
        assert not _is_there(direct)
        fault.release()
        putting.result()
    assert _is_there(direct)


def test_fault_affects_matching_requests_only(s3: Any, proxy: FaultProxy) -> None:
    proxy.inject(Fault(FaultKind.INTERNAL_ERROR, "PutObject", key_contains="bad", after=1, times=2))

    def outcome(key: str) -> bool:
        try:
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
        except ClientError:
            return False
        return True

    assert [outcome(key) for key in ("bad", "good", "bad", "good", "bad", "bad")] == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("kind", "ask"),
    [
        (FaultKind.INTERNAL_ERROR, _get),
        (FaultKind.SLOW_DOWN, _put),
        (FaultKind.RESET_BEFORE, _get),
        (FaultKind.RESET_AFTER, _put),
        (FaultKind.ERROR_AFTER, _put),
    ],
)
def test_retries_overcome_a_fault(
    persistent_s3: Any, direct: Any, proxy: FaultProxy, kind: FaultKind, ask: Callable[[Any], object]
) -> None:
    _put(direct)
    proxy.inject(Fault(kind))
    ask(persistent_s3)
    assert len(proxy.requests) == 2


def test_retry_of_a_conditional_write_conflicts_with_its_own_write(persistent_s3: Any, proxy: FaultProxy) -> None:
    proxy.inject(Fault(FaultKind.RESET_AFTER, "PutObject"))
    with pytest.raises(ClientError, match="PreconditionFailed"):
        persistent_s3.put_object(Bucket=BUCKET, Key="lease", Body=b"mine", IfNoneMatch="*")


def test_random_faults_are_few_enough_in_a_row_for_retries(persistent_s3: Any, proxy: FaultProxy) -> None:
    kinds = [FaultKind.INTERNAL_ERROR, FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER]
    proxy.inject_randomly(random.Random(1), 0.9, kinds, in_a_row=1)
    for number in range(3):
        persistent_s3.put_object(Bucket=BUCKET, Key=str(number), Body=b"")
    hit = len(proxy.faults_hit)
    assert hit
    proxy.stop_injecting()
    _put(persistent_s3)
    assert len(proxy.faults_hit) == hit


def test_a_callback_comes_before_the_effect(s3: Any, direct: Any, proxy: FaultProxy) -> None:
    found = []

    def look(request: Request) -> None:
        found.append((request.number, request.operation, _is_there(direct)))

    proxy.on_request(look)
    _put(s3)
    assert found == [(1, "PutObject", False)]
