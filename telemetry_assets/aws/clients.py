"""AWS: clients by the standard credential chain, conditional requests, and refusals in words.

The only module that makes a client. No setting holds a key: credentials, region, profile and endpoints come from
where every AWS tool looks for them (environment, shared configuration, container, instance).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import aiohttp
import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from telemetry_assets.errors import AwsError
from telemetry_assets.settings import MOST_THREADS

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_emr_serverless.client import EMRServerlessClient
    from mypy_boto3_glue.client import GlueClient
    from mypy_boto3_logs.client import CloudWatchLogsClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sts.client import STSClient

RETRIES: dict[str, Any] = {"mode": "standard", "total_max_attempts": 5}
"""The SDK's standard mode: exponential waits with jitter, and a quota that ends retries when a service is down."""

CONNECT_SECONDS = 10
READ_SECONDS = 60

GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
PRECONDITION_FAILED = frozenset({"PreconditionFailed", "412"})
_CREDENTIAL_ERRORS = (
    ConfigNotFound,
    CredentialRetrievalError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
_CONFLICT = "ConditionalRequestConflict"
_CONFLICT_ATTEMPTS = 6
_READ_ATTEMPTS = 6

_ADVICE = {
    "AccessDenied": "Grant it to the role or user that this process runs as (docs/aws-one-machine.md has the policy).",
    "AccessDeniedException": "Grant it to the role or user that this process runs as (docs/aws-one-machine.md has the "
    "policy).",
    "NoSuchBucket": "Make the bucket, or correct TELEMETRY_LANDING_URI, _LAKEHOUSE_URI or _SCRIPTS_URI.",
    "ExpiredToken": "The credentials have expired: log in anew, or give this process a role.",
    "ExpiredTokenException": "The credentials have expired: log in anew, or give this process a role.",
    "InvalidAccessKeyId": "The access key does not exist: correct the credentials.",
    "UnrecognizedClientException": "The credentials are not valid: correct them.",
    "SignatureDoesNotMatch": "The secret key is wrong: correct the credentials.",
    "SlowDown": "S3 asks for fewer requests; all retries were used up. The next run goes on where this one stopped.",
    "ThrottlingException": "All retries were used up. The next run goes on where this one stopped.",
}


def s3_client() -> S3Client:
    """The client of S3. It finds a bucket's region by itself."""
    client: S3Client = _client("s3", environment())
    return client


def glue_client(*, retries: bool = True) -> GlueClient:
    """The client of Glue: its Data Catalog and its jobs.

    :param retries: False for requests that must not be made twice unseen: of a lost answer the caller hears.
    :raises AwsError: where no region is set.
    """
    with translate_aws_errors():
        client: GlueClient = _client("glue", environment(), retries)
        return client


def emr_serverless_client() -> EMRServerlessClient:
    """The client of EMR Serverless.

    :raises AwsError: where no region is set.
    """
    with translate_aws_errors():
        client: EMRServerlessClient = _client("emr-serverless", environment())
        return client


def logs_client() -> CloudWatchLogsClient:
    """The client of CloudWatch Logs.

    :raises AwsError: where no region is set.
    """
    with translate_aws_errors():
        client: CloudWatchLogsClient = _client("logs", environment())
        return client


def cloudwatch_client() -> CloudWatchClient:
    """The client of CloudWatch's metrics.

    :raises AwsError: where no region is set.
    """
    with translate_aws_errors():
        client: CloudWatchClient = _client("cloudwatch", environment())
        return client


def sts_client() -> STSClient:
    """The client of the service that knows who one is.

    :raises AwsError: where no region is set.
    """
    with translate_aws_errors():
        client: STSClient = _client("sts", environment())
        return client


@cache
def _client(service: str, _environment: frozenset[tuple[str, str]], retries: bool = True) -> Any:
    # A client costs a tenth of a second, as much as a look of the sensor; threads may share it.
    config = Config(
        retries=RETRIES if retries else {**RETRIES, "total_max_attempts": 1},  # type: ignore[arg-type]  # a TypedDict
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=MOST_THREADS,
    )
    return boto3.Session(region_name=region()).client(service, config=config)  # type: ignore[call-overload]  # of a name that is no literal


def region() -> str | None:
    """The region of ``AWS_REGION``, which boto3 alone among AWS's tools does not read; None for all other ways."""
    return os.environ.get("AWS_REGION") or None


def environment() -> frozenset[tuple[str, str]]:
    """What decides which AWS a client speaks to, and as whom."""
    return frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))


def encryption(kms_key_id: str) -> dict[str, str]:
    """The arguments that encrypt what is written to S3 with a KMS key; none where the bucket decides."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}


def error_code(error: ClientError) -> str:
    """The code of an AWS service's refusal, e.g. ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def get_object(client: S3Client, bucket: str, key: str) -> tuple[bytes, str]:
    """An object's bytes and its ETag.

    :raises ClientError: with a code of :data:`GONE` where there is no such object.
    """
    for attempt in range(_READ_ATTEMPTS):
        answer = client.get_object(Bucket=bucket, Key=key)
        try:
            return answer["Body"].read(), answer["ETag"]
        except (IncompleteReadError, HTTPClientError):
            # The SDK's retries end where an answer begins.
            if attempt == _READ_ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, 0.1) * 2**attempt)
    raise AssertionError("every attempt returns or raises")


def put_object_if(client: S3Client, bucket: str, key: str, body: bytes, **arguments: Any) -> str:
    """Write an object under a condition (``IfMatch``, ``IfNoneMatch``), and return its ETag.

    :raises ClientError: with a code of :data:`PRECONDITION_FAILED` where the condition does not hold; also where an
        answer was lost, and the SDK's retry met what it had written itself.
    """
    return str(_without_conflict(lambda: client.put_object(Bucket=bucket, Key=key, Body=body, **arguments))["ETag"])


def delete_object_if(client: S3Client, bucket: str, key: str, etag: str) -> None:
    """Delete an object where it still has this ETag.

    :raises ClientError: with a code of :data:`PRECONDITION_FAILED` where it has another.
    """
    _without_conflict(lambda: client.delete_object(Bucket=bucket, Key=key, IfMatch=etag))


def _without_conflict(request: Callable[[], Any]) -> Any:
    """Answer a conditional request, asked again for as long as S3 has met another one at the same moment."""
    for attempt in range(_CONFLICT_ATTEMPTS):
        try:
            return request()
        except ClientError as error:
            if error_code(error) != _CONFLICT or attempt == _CONFLICT_ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, 0.1) * 2**attempt)
    raise AssertionError("every attempt returns or raises")


def is_unknown_outcome(error: Exception) -> bool:
    """Whether a request that ended with this error may have taken effect all the same."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
    return isinstance(error, BotoCoreError)


@contextmanager
def translate_aws_errors() -> Iterator[None]:
    """Turn what AWS or the way to it refuses into an :class:`AwsError` that says what to do."""
    try:
        yield
    except ClientError as error:
        bucket = error.response.get("Error", {}).get("BucketName")
        named = f" ({bucket})" if bucket else ""
        advice = _ADVICE.get(error_code(error), "")
        raise AwsError(f"{error}{named}. {advice}".strip()) from error
    except NoRegionError as error:
        raise AwsError("No AWS region is set. Set AWS_REGION to the region of the Glue Data Catalog.") from error
    except NoCredentialsError as error:
        raise AwsError(
            "No AWS credentials were found. Run as a role (instance, container), or set AWS_PROFILE, or log in."
        ) from error
    except _CREDENTIAL_ERRORS as error:
        raise AwsError(f"{error}. Correct the profile or the credentials, or log in anew.") from error
    except ParamValidationError as error:
        raise AwsError(f"AWS takes no such value: {error} Correct the setting that it comes from.") from error
    except (BotoCoreError, aiohttp.ClientError) as error:
        endpoints = sorted(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL"))
        named = f" with {', '.join(endpoints)} as it is set" if endpoints else ""
        raise AwsError(f"{error}. See that AWS can be reached from here{named}, then run this again.") from error
