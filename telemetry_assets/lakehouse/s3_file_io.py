"""How PyIceberg reads and writes files in S3: with s3fs, by the same credential chain and retries as all else."""

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

_one_at_a_time = threading.Lock()


class _InputFile(FsspecInputFile):
    """One request for a file that is read whole, as all metadata is; asking for its size first would make it two."""

    def open(self, seekable: bool = True) -> InputStream:
        """The file's bytes; those of data files in parts, unless they are read from their beginning to their end."""
        if not seekable or self.location.endswith((".json", ".avro")):
            return BytesIO(self._fs.cat_file(self.location, max_concurrency=1))
        return super().open(seekable)


class _OutputFile(FsspecOutputFile):
    """Does not ask whether a file is there before it is written: every name that Iceberg gives carries a UUID."""

    def create(self, overwrite: bool = False) -> OutputStream:
        """A stream into the file, which is there when that is closed."""
        return super().create(overwrite=True)


class S3FileIO(FsspecFileIO):
    """PyIceberg's own, but for one client of S3 in the whole process, where it makes one for each thread."""

    def new_input(self, location: str) -> FsspecInputFile:
        """A file to be read."""
        return _InputFile(location, self.get_fs(urlparse(location).scheme))

    def new_output(self, location: str) -> FsspecOutputFile:
        """A file to be written."""
        return _OutputFile(location, self.get_fs(urlparse(location).scheme))

    def get_fs(self, scheme: str, hostname: str | None = None) -> AbstractFileSystem:
        """The file system of a scheme; that of S3 may be used by several threads."""
        if scheme != "s3":
            return super().get_fs(scheme, hostname)
        kms_key_id = self.properties.get(S3_SSE_KMS_KEY_ID, "")
        with _one_at_a_time:
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
        # Other processes write there too.
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    # Beside the SDK's own: of answers that break off while they are read.
    file_system.retries = 3
    return file_system
