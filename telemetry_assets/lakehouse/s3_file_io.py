"""The FileIO of a lakehouse in S3: s3fs with the credentials and retries of all other AWS clients."""

from __future__ import annotations

import threading
from functools import cache
from io import BytesIO
from typing import Any
from urllib.parse import urlparse

from fsspec import AbstractFileSystem
from pyiceberg.io import S3_SSE_KMS_KEY_ID, InputStream, OutputStream
from pyiceberg.io.fsspec import FsspecFileIO, FsspecInputFile, FsspecOutputFile
from s3fs import S3FileSystem

from telemetry_assets.aws.clients import environment, region
from telemetry_assets.aws.limits import CONNECT_SECONDS, MOST_THREADS, READ_SECONDS, RETRIES
from telemetry_assets.aws.requests import encryption

_lock = threading.Lock()


class _InputFile(FsspecInputFile):
    """Reads metadata files with one request; s3fs would first request the size."""

    def open(self, seekable: bool = True) -> InputStream:
        """Open the file. Metadata files and streams without seeking are read whole, other files in parts."""
        if not seekable or self.location.endswith((".json", ".avro")):
            return BytesIO(self._fs.cat_file(self.location, max_concurrency=1))
        return super().open(seekable)


class _OutputFile(FsspecOutputFile):
    """Writes without a request for whether the file exists: every file name of Iceberg contains a UUID."""

    def create(self, overwrite: bool = False) -> OutputStream:
        """Open a stream; the object exists once the stream is closed."""
        return super().create(overwrite=True)


class S3FileIO(FsspecFileIO):
    """PyIceberg's FileIO for fsspec, with one S3 client per process instead of one per thread."""

    def new_input(self, location: str) -> FsspecInputFile:
        """A file to read."""
        return _InputFile(location, self.get_fs(urlparse(location).scheme))

    def new_output(self, location: str) -> FsspecOutputFile:
        """A file to write."""
        return _OutputFile(location, self.get_fs(urlparse(location).scheme))

    def get_fs(self, scheme: str, hostname: str | None = None) -> AbstractFileSystem:
        """The file system of a scheme. The file system of S3 is thread-safe."""
        if scheme != "s3":
            return super().get_fs(scheme, hostname)
        kms_key_id = self.properties.get(S3_SSE_KMS_KEY_ID, "")
        with _lock:
            return _file_system(environment(), kms_key_id)


@cache
def _file_system(_environment: frozenset[tuple[str, str]], kms_key_id: str) -> Any:
    file_system = S3FileSystem(
        client_kwargs={"region_name": region()} if region() else {},
        config_kwargs={
            "retries": RETRIES,
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "max_pool_connections": MOST_THREADS,
        },
        s3_additional_kwargs=encryption(kms_key_id),
        # Other processes write to the bucket too.
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    # s3fs repeats a read whose response ends early; the SDK only retries requests.
    file_system.retries = 3
    return file_system
