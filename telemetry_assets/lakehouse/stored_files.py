"""The files that are stored below a location in a folder or in S3: lists and deletes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from telemetry_assets.aws.limits import MOST_THREADS
from telemetry_assets.aws.locations import S3Location, is_s3

_FILE_SCHEME = "file://"
_SHORT_FILE_SCHEME = "file:"
_S3_SCHEMES = ("s3:", "s3a:", "s3n:")
_KEYS_IN_REQUEST = 1000
"""S3 deletes at most this number of objects per request (``DeleteObjects``)."""


@dataclass(frozen=True)
class StoredFile:
    """A stored file.

    :param uri: where it is, as tables name their files.
    :param bytes: its size.
    :param modified: when it was last written, by the clock of its storage.
    """

    uri: str
    bytes: int
    modified: datetime


def stored_files(location: str) -> Iterator[StoredFile]:
    """All files below a location.

    :param location: a URI without a slash at its end.
    """
    return _objects(location) if is_s3(location) else _files(location)


def delete_files(uris: Iterable[str]) -> None:
    """Delete files. Files that do not exist are ignored.

    :param uris: they may be written as other programs do, such as ``file:/folder/file`` and ``s3a://bucket/key``.
    :raises OSError: if a file cannot be deleted.
    """
    paths: list[str] = []
    keys: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        path = path_of(uri)
        if uri.startswith(_S3_SCHEMES):
            bucket, _, key = path.lstrip("/").partition("/")
            keys[bucket].append(key)
        else:
            paths.append(path)
    for bucket, in_bucket in keys.items():
        for start in range(0, len(in_bucket), _KEYS_IN_REQUEST):
            _delete_objects(bucket, in_bucket[start : start + _KEYS_IN_REQUEST])
    with ThreadPoolExecutor(MOST_THREADS) as threads:
        list(threads.map(lambda path: Path(path).unlink(missing_ok=True), paths))


def path_of(uri: str) -> str:
    """The path of a file without the scheme, and for S3 with the bucket.

    Programs write the same file as ``file:///folder/file`` or ``file:/folder/file``, or as ``s3://bucket/key`` or
    ``s3a://bucket/key``.
    """
    return "/" + uri.partition(":")[2].lstrip("/") if uri.startswith((_SHORT_FILE_SCHEME, *_S3_SCHEMES)) else uri


def _files(location: str) -> Iterator[StoredFile]:
    for path in Path(location.removeprefix(_FILE_SCHEME)).rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            # Another process has deleted it since it was listed.
            continue
        if path.is_file():
            yield StoredFile(f"{_FILE_SCHEME}{path}", status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _objects(location: str) -> Iterator[StoredFile]:
    from telemetry_assets.aws.clients import s3_client

    below = S3Location.parse(location)
    pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=below.bucket, Prefix=below.prefix)
    for page in pages:
        for entry in page.get("Contents", []):
            yield StoredFile(f"s3://{below.bucket}/{entry['Key']}", entry["Size"], entry["LastModified"])


def _delete_objects(bucket: str, keys: Sequence[str]) -> None:
    from telemetry_assets.aws.clients import s3_client

    answer = s3_client().delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
    )
    for error in islice(answer.get("Errors", []), 1):
        raise OSError(f"s3://{bucket}/{error.get('Key')} cannot be deleted: {error.get('Message')}")
