"""Requests to S3 that the SDK's retries do not cover: reads of whole objects, and conditional writes and deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from tenacity import retry, retry_if_exception, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from telemetry_assets.aws.errors import error_code

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_CONFLICT = "ConditionalRequestConflict"
_ATTEMPTS = stop_after_attempt(6)
_WAIT = wait_random_exponential(multiplier=0.1)


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, ClientError) and error_code(error) == _CONFLICT


class _BrokenBodyError(Exception):
    """The body of a response could not be read to its end."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


# The SDK retries requests until a response begins, so only what comes after that is retried here.
_retry_broken_body = retry(retry=retry_if_exception_type(_BrokenBodyError), stop=_ATTEMPTS, wait=_WAIT, reraise=True)
# S3 returns this code when two conditional requests for one key arrive at the same time.
_retry_conflict = retry(retry=retry_if_exception(_is_conflict), stop=_ATTEMPTS, wait=_WAIT, reraise=True)


def encryption(kms_key_id: str) -> dict[str, str]:
    """The arguments of a write to S3 that encrypt the object with a KMS key.

    :param kms_key_id: if empty, there are no arguments, and the bucket's default encryption applies.
    """
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}


def get_object(client: S3Client, bucket: str, key: str) -> tuple[bytes, str]:
    """An object's bytes and its ETag.

    :raises ClientError: with a code of :data:`telemetry_assets.aws.errors.GONE` if the object does not exist.
    """
    try:
        return _read_object(client, bucket, key)
    except _BrokenBodyError as error:
        raise error.cause from error


@_retry_broken_body
def _read_object(client: S3Client, bucket: str, key: str) -> tuple[bytes, str]:
    answer = client.get_object(Bucket=bucket, Key=key)
    try:
        return answer["Body"].read(), answer["ETag"]
    except (IncompleteReadError, HTTPClientError) as error:
        raise _BrokenBodyError(error) from error


@_retry_conflict
def put_object_if(client: S3Client, bucket: str, key: str, body: bytes, **arguments: Any) -> str:
    """Write an object under a condition (``IfMatch``, ``IfNoneMatch``), and return its ETag.

    :raises ClientError: with a code of :data:`telemetry_assets.aws.errors.PRECONDITION_FAILED` if the condition is
        false. This also happens after a write that succeeded and whose response was lost: the SDK's retry then finds
        the object that the first attempt wrote.
    """
    return str(client.put_object(Bucket=bucket, Key=key, Body=body, **arguments)["ETag"])


@_retry_conflict
def delete_object_if(client: S3Client, bucket: str, key: str, etag: str) -> None:
    """Delete an object if it still has this ETag.

    :raises ClientError: with a code of :data:`telemetry_assets.aws.errors.PRECONDITION_FAILED` if its ETag differs.
    """
    client.delete_object(Bucket=bucket, Key=key, IfMatch=etag)
