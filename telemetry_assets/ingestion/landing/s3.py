"""A prefix in S3 as the landing location. A claim copies an object to the archive, where only the pipeline writes.

Runs read the copy. When its rows are in Bronze, they delete exactly the version that was copied. Versions are
identified by version id in a bucket with versioning, and by ETag in other buckets, where equal contents have equal
ETags.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from botocore.exceptions import ClientError

from telemetry_assets.aws.errors import GONE, PRECONDITION_FAILED, error_code
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.aws.requests import delete_object_if, get_object
from telemetry_assets.ingestion.landing.base import (
    Listing,
    WaitingUpload,
    is_finished,
    new_batch_id,
    newest_batch_ids,
)
from telemetry_assets.text.plain import plain_logger

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ObjectVersionTypeDef

logger = plain_logger(__name__)

_LARGEST_COPY = 5 * 1024**3
_LONGEST_KEY = 1024
# Objects in these storage classes cannot be read until they are restored.
_ARCHIVE_STORAGE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_FOLDER_MARK = "_$folder$"
_UNVERSIONED = "null"
# Errors that concern this process or the bucket, and not one object.
_OF_ALL_OBJECTS = frozenset(
    {
        *("ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed"),
        *("NoSuchBucket", "SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestLimitExceeded"),
        *("OperationAborted", "ConditionalRequestConflict"),
    }
)


@dataclass(frozen=True)
class S3Landing:
    """A bucket, or a prefix of a bucket.

    :param landing: where uploads arrive.
    :param archive_location: the archive, with a prefix for each batch.
    :param released: where a released upload waits if its key has a newer object now.
    :param encryption: arguments of each copy, such as the KMS key.
    """

    client: S3Client
    landing: S3Location
    archive_location: S3Location
    released: S3Location
    encryption: dict[str, Any]

    @property
    def archive_can_change(self) -> bool:
        """See :attr:`Landing.archive_can_change`. The archive has a copy."""
        return False

    def waiting(self) -> Iterator[WaitingUpload]:
        """See :meth:`Landing.waiting`."""
        # Released uploads first: they are older than what replaced them, even if S3 shows the same second.
        for _, upload in self._released():
            yield upload
        for upload, problem in self._listed():
            if not problem:
                yield upload

    def listing(self) -> Listing:
        """See :meth:`Landing.listing`."""
        return Listing(tuple(self.waiting()), time.monotonic())

    def stable(self, listing: Listing) -> list[WaitingUpload]:
        """See :meth:`Landing.stable`. An object appears only when it is complete."""
        return list(listing.uploads)

    def obstacles(self) -> Iterator[tuple[str, str]]:
        """See :meth:`Landing.obstacles`."""
        for upload, problem in self._listed():
            if problem:
                yield upload.uri, problem

    def begin(self, batch_id: str) -> None:
        """See :meth:`Landing.begin`. S3 needs no preparation."""

    def claim(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.claim`."""
        archived = self._archived_at(batch_id, upload)
        if self._copy(self.landing, self._waits_at(upload), archived, upload, CopySourceIfMatch=upload.version):
            return True
        for key, released in self._released():
            if released == upload and self._copy(self.released, key, archived, upload):
                return True
        return self._exists(self.archive_location, archived)

    def read(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """See :meth:`Landing.read`."""
        key = self._archived_at(batch_id, upload)
        try:
            return get_object(self.client, self.archive_location.bucket, key)[0]
        except ClientError as error:
            if error_code(error) not in GONE:
                raise
            if not self.claim(batch_id, upload):
                raise FileNotFoundError(errno.ENOENT, "its copy is gone from the archive", upload.uri) from error
        return get_object(self.client, self.archive_location.bucket, key)[0]

    def is_as_claimed(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.is_as_claimed`. A copy never changes."""
        return True

    def archive(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.archive`. The archive has the copy already; its source is deleted."""
        if not self._deleted(upload):
            for key, released in self._released():
                if released == upload:
                    self.client.delete_object(Bucket=self.released.bucket, Key=key)

    def release(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.release`. If it was not replaced, its source still waits."""
        archived = self._archived_at(batch_id, upload)
        if not self._exists(self.archive_location, archived):
            return
        waits_at = self._waits_at(upload)
        if not self._exists(self.landing, waits_at, IfMatch=upload.version):
            self._copy(self.archive_location, archived, self._released_at(batch_id, upload), upload)
            self._deleted(upload)
        self.client.delete_object(Bucket=self.archive_location.bucket, Key=archived)

    def read_archived(self, batch_id: str, uri: str) -> bytes:
        """See :meth:`Landing.read_archived`."""
        return self._read_archived(f"{self.archive_location.prefix}{batch_id}/{uri.removeprefix(self.landing.uri())}")

    def archived_content(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """See :meth:`Landing.archived_content`."""
        return self._read_archived(self._archived_at(batch_id, upload))

    def _read_archived(self, key: str) -> bytes:
        try:
            return get_object(self.client, self.archive_location.bucket, key)[0]
        except ClientError as error:
            if error_code(error) not in GONE:
                raise _refused(error) from error
            raise FileNotFoundError(errno.ENOENT, "the archive has no copy of it", key) from error

    def archive_uri(self, batch_id: str, upload: WaitingUpload) -> str:
        """See :meth:`Landing.archive_uri`."""
        return f"s3://{self.archive_location.bucket}/{self._archived_at(batch_id, upload)}"

    def archived_batches(self) -> list[str]:
        """See :meth:`Landing.archived_batches`."""
        return list(self._batches_after(""))

    def newest_batches(self, count: int, since: datetime | None) -> list[str]:
        """See :meth:`Landing.newest_batches`. Lists only batches since the hour before ``since``."""
        after = f"{since - timedelta(hours=1):%Y%m%dT%H}" if since else ""
        # Ids of older versions sort after those of this century, and there may be many.
        return newest_batch_ids(takewhile(lambda batch: batch < "21", self._batches_after(after)), count)

    def _batches_after(self, name: str) -> Iterator[str]:
        location = self.archive_location
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=location.bucket, Prefix=location.prefix, StartAfter=f"{location.prefix}{name}", Delimiter="/"
        )
        for page in pages:
            for entry in page.get("CommonPrefixes", []):
                yield entry["Prefix"].removeprefix(location.prefix).rstrip("/")

    def archived(self, batch_id: str) -> Iterator[WaitingUpload]:
        """See :meth:`Landing.archived`."""
        of_batch = self.archive_location.below(batch_id)
        for entry in _entries(self.client, of_batch):
            name = entry["Key"].removeprefix(of_batch.prefix)
            yield WaitingUpload(self.landing.uri(name), name, entry["ETag"], entry["Size"], entry["LastModified"])

    def move_back(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.move_back`."""
        archived = self._archived_at(batch_id, upload)
        if not self._copy(self.archive_location, archived, self._released_at(batch_id, upload), upload):
            return False
        self.client.delete_object(Bucket=self.archive_location.bucket, Key=archived)
        return True

    def delete_archived(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.delete_archived`."""
        self.client.delete_object(Bucket=self.archive_location.bucket, Key=self._archived_at(batch_id, upload))

    def claimed(self) -> Iterator[tuple[str, WaitingUpload]]:
        """See :meth:`Landing.claimed`. Always empty: the source of a claim waits until its rows are in Bronze."""
        return iter(())

    def finish(self, batch_id: str) -> None:
        """See :meth:`Landing.finish`. In S3 a claim leaves nothing to remove."""

    def _listed(self) -> Iterator[tuple[WaitingUpload, str]]:
        """The uploads in the landing location, each with the problem that prevents a claim; empty if there is none."""
        for entry in _entries(self.client, self.landing):
            name = entry["Key"].removeprefix(self.landing.prefix)
            is_folder = not entry["Size"] and (name.endswith(("/", _FOLDER_MARK)) or not name)
            if is_folder or not is_finished(name):
                continue
            upload = WaitingUpload(self.landing.uri(name), name, entry["ETag"], entry["Size"], entry["LastModified"])
            yield upload, self._problem(upload, entry.get("StorageClass", ""))

    def _problem(self, upload: WaitingUpload, storage_class: str) -> str:
        if storage_class in _ARCHIVE_STORAGE_CLASSES:
            return f"its storage class is {storage_class}; copy it to another one, as restoring it does not change that"
        batch_id = new_batch_id(datetime.now(UTC))
        keys = (self._archived_at(batch_id, upload), self._released_at(batch_id, upload))
        if max(len(key.encode()) for key in keys) > _LONGEST_KEY:
            return f"the keys of its copies would be longer than {_LONGEST_KEY} bytes; give it a shorter name"
        return ""

    def _released(self) -> Iterator[tuple[str, WaitingUpload]]:
        """Released uploads with their keys. Keys contain the upload's version and time, which a copy loses."""
        for entry in _entries(self.client, self.released):
            parts = entry["Key"].removeprefix(self.released.prefix).split("/", 3)
            if len(parts) < 4:
                # A marker of a folder, as some tools create.
                continue
            _, modified, version, name = parts
            moment = datetime.fromisoformat(modified)
            yield entry["Key"], WaitingUpload(self.landing.uri(name), name, unquote(version), entry["Size"], moment)

    def _released_at(self, batch_id: str, upload: WaitingUpload) -> str:
        version = quote(upload.version, safe="")
        return "/".join((f"{self.released.prefix}{batch_id}", upload.modified.isoformat(), version, upload.name))

    def _waits_at(self, upload: WaitingUpload) -> str:
        return f"{self.landing.prefix}{upload.name}"

    def _archived_at(self, batch_id: str, upload: WaitingUpload) -> str:
        return f"{self.archive_location.prefix}{batch_id}/{upload.name}"

    def _copy(self, source: S3Location, key: str, target: str, upload: WaitingUpload, **condition: Any) -> bool:
        """Copy an object to the archive's bucket; False if it is gone, or has another version."""
        copied = {"Bucket": source.bucket, "Key": key}
        arguments: dict[str, Any] = {**self.encryption, **condition}
        bucket = self.archive_location.bucket
        try:
            if upload.size > _LARGEST_COPY:
                self.client.copy(copied, bucket, target, ExtraArgs=arguments)  # type: ignore[arg-type]  # a TypedDict
            else:
                # Copying tags would need more permissions.
                arguments["TaggingDirective"] = "REPLACE"
                self.client.copy_object(CopySource=copied, Bucket=bucket, Key=target, **arguments)  # type: ignore[arg-type]  # a TypedDict
        except ClientError as error:
            if error_code(error) in GONE | PRECONDITION_FAILED:
                return False
            raise _refused(error) from error
        return True

    def _exists(self, location: S3Location, key: str, **condition: Any) -> bool:
        try:
            self.client.head_object(Bucket=location.bucket, Key=key, **condition)
        except ClientError as error:
            if error_code(error) in GONE | PRECONDITION_FAILED:
                return False
            raise
        return True

    @cached_property
    def _keeps_versions(self) -> bool:
        return "Status" in self.client.get_bucket_versioning(Bucket=self.landing.bucket)

    def _deleted(self, upload: WaitingUpload) -> bool:
        """Delete exactly this version of an upload; False if it is gone."""
        key = self._waits_at(upload)
        if not self._keeps_versions:
            return self._delete_current(key, upload.version)
        versions = self._versions(key)
        for position, version in enumerate(versions):
            if (version["ETag"], version["LastModified"]) != (upload.version, upload.modified):
                continue
            if version["IsLatest"] and (position + 1 < len(versions) or version["VersionId"] == _UNVERSIONED):
                # A delete marker hides older versions, which would wait again otherwise.
                self._delete_current(key, upload.version)
            if version["VersionId"] != _UNVERSIONED:
                self.client.delete_object(Bucket=self.landing.bucket, Key=key, VersionId=version["VersionId"])
            return True
        return False

    def _delete_current(self, key: str, version: str) -> bool:
        """Delete the key's current object if it is this version. With versioning this adds a delete marker."""
        try:
            delete_object_if(self.client, self.landing.bucket, key, version)
        except ClientError as error:
            if error_code(error) not in GONE | PRECONDITION_FAILED:
                raise
            logger.info("%s has a newer version, which waits", self.landing.uri(key))
            return False
        return True

    def _versions(self, key: str) -> list[ObjectVersionTypeDef]:
        """The versions of a key, the newest first."""
        versions: list[ObjectVersionTypeDef] = []
        pages = self.client.get_paginator("list_object_versions").paginate(Bucket=self.landing.bucket, Prefix=key)
        for page in pages:
            of_key = [version for version in page.get("Versions", []) if version["Key"] == key]
            versions += of_key
            if len(of_key) < len(page.get("Versions", [])):
                break
        return versions


def _entries(client: S3Client, location: S3Location) -> Iterator[Any]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=location.prefix):
        yield from page.get("Contents", [])


def _refused(error: ClientError) -> Exception:
    """A PermissionError for an error that concerns one object, so that others are ingested; else the error itself."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if 400 <= status < 500 and error_code(error) not in _OF_ALL_OBJECTS:
        return PermissionError(errno.EACCES, str(error))
    return error
