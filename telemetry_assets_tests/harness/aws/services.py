"""AWS for the tests: a server in a separate process, and the environment that a program needs to use it."""

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
"""The path prefix of commands that tests send to the server."""
REQUESTS_KEPT = 100_000
PRODUCT = "AKIAIOSFODNN7EXAMPLE"
"""The access key of programs that get the services from their environment."""
_SECRET = "not-a-secret"
_NO_RETRIES: dict[str, Any] = {"mode": "standard", "total_max_attempts": 1}


class AwsServices:
    """S3, Glue and moto's other services, initially empty; a context manager."""

    def __init__(self) -> None:
        # The session caches the service definitions, whose loading takes most of a client's creation.
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
        # This closes its standard input, which ends the server.
        self.process.communicate(timeout=20)

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The environment variables that a program needs to use these services, or a proxy in front of them."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": PRODUCT,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            # The developer may have their own AWS profiles.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, service: str, endpoint: str | None = None, region: str = REGION, **config: Any) -> Any:
        """A client without retries, of the server itself or of a proxy in front of it.

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
        """Create an empty bucket."""
        s3 = self.client("s3", region=region)
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": region})
        if versioned:
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})

    def fill_bucket(self, name: str, prefix: str, count: int) -> None:
        """Put ``count`` small objects below a prefix with one request."""
        self._post(f"{HARNESS_PATH}fill/{name}/{prefix}/{count}")

    def order(self, order: str, count: int = 1) -> None:
        """Plan a failure of the next remote runs; see ``remote_orders.Orders``."""
        self._post(f"{HARNESS_PATH}remote/{count}/{order}")

    def end_programs(self) -> None:
        """End all remote runs and remove all planned failures."""
        self._post(f"{HARNESS_PATH}end-programs")

    def release_programs(self) -> None:
        """Release the remote runs that stay in a state."""
        self._post(f"{HARNESS_PATH}release-programs")

    def take_requests(self) -> list[tuple[str, ApiRequest]]:
        """The requests since the last call, each with its access key."""
        with urlopen(f"{self.endpoint}{HARNESS_PATH}requests", timeout=60) as answer:
            requests = [(key, ApiRequest(**request)) for key, request in json.load(answer)]
        assert len(requests) < REQUESTS_KEPT, "the oldest requests may have been dropped"
        return requests

    def reset(self) -> None:
        """Delete everything."""
        self.end_programs()
        self._post("/moto-api/reset")
        self._post(f"{HARNESS_PATH}version-lock/on")

    @contextmanager
    def without_version_lock(self) -> Iterator[None]:
        """Let Glue's ``UpdateTable`` ignore ``VersionId``, as unpatched moto does."""
        self._post(f"{HARNESS_PATH}version-lock/off")
        try:
            yield
        finally:
            self._post(f"{HARNESS_PATH}version-lock/on")

    def _post(self, path: str) -> None:
        with urlopen(Request(f"{self.endpoint}{path}", method="POST"), timeout=20):
            pass
