"""AWS as the tests have it: a process of its own, and what a program needs to speak to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config

from telemetry_assets_tests.harness.aws.api_requests import Request as ApiRequest

REGION = "eu-central-1"
HARNESS_PATH = "/moto-api/harness/"
"""Below it the server takes orders of tests."""
REQUESTS_KEPT = 100_000
PRODUCT = "AKIAIOSFODNN7EXAMPLE"
"""The access key of what finds the services by its environment."""
_SECRET = "not-a-secret"
_NO_RETRIES: dict[str, Any] = {"mode": "standard", "total_max_attempts": 1}


class AwsServices:
    """S3, Glue and the rest of what moto has, empty at first; a context manager."""

    def __init__(self) -> None:
        # It keeps what it has read of the services, which takes most of the time that a client takes.
        self._session = boto3.Session(region_name=REGION)

    def __enter__(self) -> AwsServices:
        command = [sys.executable, "-m", "telemetry_assets_tests.harness.aws.moto_server"]
        environment = {**os.environ, "AWS_REGION": REGION}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        port = self.process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"moto's server did not start; it ended with {self.process.wait()}")
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # That closes its standard input, which ends it.
        self.process.communicate(timeout=20)

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What a program must find in its environment to speak to these services, or to a proxy before them."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": PRODUCT,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Whoever runs the tests may have profiles of their own.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, service: str, endpoint: str | None = None, region: str = REGION, **config: Any) -> Any:
        """A client that asks once, straight at the server or at a proxy before it.

        :param config: arguments of botocore's ``Config``, such as ``retries``.
        """
        return self._session.client(
            service,  # type: ignore[call-overload]  # any service
            endpoint_url=endpoint or self.endpoint,
            region_name=region,
            aws_access_key_id="tests",
            aws_secret_access_key=_SECRET,
            config=Config(**{"retries": _NO_RETRIES, **config}),
        )

    def make_bucket(self, name: str, *, versioned: bool = False, region: str = REGION) -> None:
        """Make a bucket, empty."""
        s3 = self.client("s3", region=region)
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
        if versioned:
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})

    def fill_bucket(self, name: str, prefix: str, count: int) -> None:
        """Put so many small objects below a prefix, without as many requests."""
        self._post(f"{HARNESS_PATH}fill/{name}/{prefix}/{count}")

    def order(self, order: str, count: int = 1) -> None:
        """Let something go wrong with the next remote runs; see ``remote_orders.Orders``."""
        self._post(f"{HARNESS_PATH}remote/{count}/{order}")

    def end_programs(self) -> None:
        """End every remote run, and forget what is to go wrong with the next ones."""
        self._post(f"{HARNESS_PATH}end-programs")

    def release_programs(self) -> None:
        """Let the remote runs that stay in a state go on."""
        self._post(f"{HARNESS_PATH}release-programs")

    def asked(self) -> list[tuple[str, ApiRequest]]:
        """What was asked for since the last call of this, each with the access key that asked."""
        with urlopen(f"{self.endpoint}{HARNESS_PATH}requests", timeout=60) as answer:
            asked = [(key, ApiRequest(**request)) for key, request in json.load(answer)]
        assert len(asked) < REQUESTS_KEPT, "the first ones may be forgotten"
        return asked

    def reset(self) -> None:
        """Forget everything."""
        self.end_programs()
        self._post("/moto-api/reset")
        self._post(f"{HARNESS_PATH}version-lock/on")

    @contextmanager
    def without_version_lock(self) -> Iterator[None]:
        """Let Glue's ``UpdateTable`` overlook ``VersionId``, as moto does by itself."""
        self._post(f"{HARNESS_PATH}version-lock/off")
        try:
            yield
        finally:
            self._post(f"{HARNESS_PATH}version-lock/on")

    def _post(self, path: str) -> None:
        with urlopen(Request(f"{self.endpoint}{path}", method="POST"), timeout=20):
            pass
