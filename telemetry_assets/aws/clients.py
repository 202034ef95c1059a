"""Clients of AWS services, created with the standard credential chain. No other module creates a client.

No setting contains a key: credentials, region, profile and endpoints come from the places that every AWS tool reads
(environment, shared configuration, container, instance).
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from telemetry_assets.aws.errors import translate_aws_errors
from telemetry_assets.aws.limits import CONNECT_SECONDS, MOST_THREADS, READ_SECONDS, RETRIES

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_emr_serverless.client import EMRServerlessClient
    from mypy_boto3_glue.client import GlueClient
    from mypy_boto3_logs.client import CloudWatchLogsClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sts.client import STSClient


def s3_client() -> S3Client:
    """A client of S3. It finds the region of each bucket."""
    client: S3Client = _client("s3", environment())
    return client


def glue_client(*, retries: bool = True) -> GlueClient:
    """A client of Glue: the Data Catalog and jobs.

    :param retries: False for requests that the SDK must not repeat: if a response is lost, the caller gets the error.
    :raises AwsError: if no region is set.
    """
    with translate_aws_errors():
        client: GlueClient = _client("glue", environment(), retries)
        return client


def emr_serverless_client() -> EMRServerlessClient:
    """A client of EMR Serverless.

    :raises AwsError: if no region is set.
    """
    with translate_aws_errors():
        client: EMRServerlessClient = _client("emr-serverless", environment())
        return client


def logs_client() -> CloudWatchLogsClient:
    """A client of CloudWatch Logs.

    :raises AwsError: if no region is set.
    """
    with translate_aws_errors():
        client: CloudWatchLogsClient = _client("logs", environment())
        return client


def cloudwatch_client() -> CloudWatchClient:
    """A client of CloudWatch metrics.

    :raises AwsError: if no region is set.
    """
    with translate_aws_errors():
        client: CloudWatchClient = _client("cloudwatch", environment())
        return client


def sts_client() -> STSClient:
    """A client of STS, which returns the identity of this process.

    :raises AwsError: if no region is set.
    """
    with translate_aws_errors():
        client: STSClient = _client("sts", environment())
        return client


@cache
def _client(service: str, _environment: frozenset[tuple[str, str]], retries: bool = True) -> Any:
    # Creating a client takes 0.1 s, as long as an evaluation of the upload sensor. Threads may share a client.
    config = Config(
        retries=RETRIES if retries else {**RETRIES, "total_max_attempts": 1},  # type: ignore[arg-type]  # a TypedDict
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=MOST_THREADS,
    )
    return boto3.Session(region_name=region()).client(service, config=config)  # type: ignore[call-overload]  # of a name that is no literal


def region() -> str | None:
    """The value of ``AWS_REGION``, which boto3 does not read by itself; None if it is not set.

    boto3 reads the region of ``AWS_DEFAULT_REGION`` and of profiles.
    """
    return os.environ.get("AWS_REGION") or None


def environment() -> frozenset[tuple[str, str]]:
    """The ``AWS_*`` variables: they decide which endpoints a client uses, and with which identity."""
    return frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
