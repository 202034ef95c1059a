"""Errors of AWS requests: their codes, whether a request may have taken effect, and what a user can do about them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from telemetry_assets.errors import AwsError

GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
"""Codes of S3 for an object, or a version of one, that does not exist."""
PRECONDITION_FAILED = frozenset({"PreconditionFailed", "412"})
"""Codes of S3 for a conditional request whose condition is false."""

_CREDENTIAL_ERRORS = (
    ConfigNotFound,
    CredentialRetrievalError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
_GRANT = "Grant it to the role or user that this process runs as (docs/aws-one-machine.md has the policy)."
_EXPIRED = "The credentials have expired: log in again, or give this process a role."
_ADVICE = {
    "AccessDenied": _GRANT,
    "AccessDeniedException": _GRANT,
    "NoSuchBucket": (
        "Create the bucket, or correct TELEMETRY_LANDING_URI, TELEMETRY_LAKEHOUSE_URI or TELEMETRY_SCRIPTS_URI."
    ),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidAccessKeyId": "The access key does not exist: correct the credentials.",
    "UnrecognizedClientException": "The credentials are not valid: correct them.",
    "SignatureDoesNotMatch": "The secret key is wrong: correct the credentials.",
    "SlowDown": "S3 throttles this process, and all retries failed. The next run continues where this one stopped.",
    "ThrottlingException": "All retries failed. The next run continues where this one stopped.",
}


def error_code(error: ClientError) -> str:
    """The error code of an AWS service's response, e.g. ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_unknown_outcome(error: Exception) -> bool:
    """Whether a request that failed with this error may have taken effect."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
    return isinstance(error, BotoCoreError)


@contextmanager
def translate_aws_errors() -> Iterator[None]:
    """Convert errors of AWS requests, and of the connection to AWS, to an :class:`AwsError` that says what to do."""
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
        raise AwsError(f"{error}. Correct the profile or the credentials, or log in again.") from error
    except ParamValidationError as error:
        raise AwsError(f"AWS does not accept this value: {error} Correct the setting that it comes from.") from error
    except (BotoCoreError, aiohttp.ClientError) as error:
        endpoints = sorted(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL"))
        named = f" with the current value of {', '.join(endpoints)}" if endpoints else ""
        raise AwsError(f"{error}. Check that AWS can be reached from here{named}, then run this again.") from error
