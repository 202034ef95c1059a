"""The journal in objects of S3."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from telemetry_assets.aws.errors import GONE, PRECONDITION_FAILED, error_code
from telemetry_assets.aws.requests import delete_object_if, get_object, put_object_if
from telemetry_assets.ingestion.journal.base import Attempt, Attempts, JournalEntry

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SILENCE = timedelta(minutes=15)
"""A run that has not written its note for this long is dead. Parsing one upload takes seconds."""


@dataclass(frozen=True)
class JournalObject:
    """The entry in an object. Its tag is the object's ETag.

    :param encryption: arguments of each write, such as the KMS key.
    """

    client: S3Client
    bucket: str
    key: str
    encryption: dict[str, Any]

    def load(self) -> JournalEntry | None:
        """See :meth:`Journal.load`."""
        try:
            content, etag = get_object(self.client, self.bucket, self.key)
        except ClientError as error:
            if error_code(error) in GONE:
                return None
            raise
        return JournalEntry.from_json(content, etag, f"s3://{self.bucket}/{self.key}")

    def create(self, entry: JournalEntry) -> JournalEntry | None:
        """See :meth:`Journal.create`."""
        return self._put(entry, IfNoneMatch="*")

    def replace(self, entry: JournalEntry) -> JournalEntry | None:
        """See :meth:`Journal.replace`."""
        return self._put(entry, IfMatch=entry.tag)

    def remove(self, entry: JournalEntry) -> None:
        """See :meth:`Journal.remove`."""
        current = self.load()
        while current is not None and current.batch_id == entry.batch_id:
            try:
                delete_object_if(self.client, self.bucket, self.key, current.tag)
            except ClientError as error:
                if error_code(error) not in GONE | PRECONDITION_FAILED:
                    raise
            current = self.load()

    def attempts(self, batch_id: str) -> Attempts:
        """See :meth:`Journal.attempts`."""
        folder, _, _ = self.key.rpartition("/")
        return AttemptObjects(self.client, self.bucket, f"{folder}/attempts/{batch_id}/", self.encryption)

    def _put(self, entry: JournalEntry, **condition: Any) -> JournalEntry | None:
        content = entry.to_json()
        try:
            etag = put_object_if(self.client, self.bucket, self.key, content, **condition, **self.encryption)
        except ClientError as error:
            if error_code(error) not in GONE | PRECONDITION_FAILED:
                raise
            # boto3 repeats a request whose response was lost. The condition then fails on the object that the first
            # request has written.
            current = self.load()
            return current if current is not None and current.to_json() == content else None
        return replace(entry, tag=etag)


@dataclass(frozen=True)
class AttemptObjects:
    """Notes in objects. S3 has no locks, so a run counts as dead if it is silent for :data:`SILENCE`."""

    client: S3Client
    bucket: str
    prefix: str
    encryption: dict[str, Any]

    def begin(self) -> Attempt:
        """See :meth:`Attempts.begin`."""
        return _AttemptObject(self, f"{self.prefix}{uuid.uuid4().hex}")

    def deaths(self) -> list[int]:
        """See :meth:`Attempts.deaths`."""
        return [note["upload"] for key, written_at in self._listed() if (note := self._note(key, written_at))]

    def forget(self) -> None:
        """See :meth:`Attempts.forget`."""
        for key, _ in self._listed():
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def put(self, key: str, upload: int, *, is_over: bool) -> None:
        """Write a note.

        :param is_over: whether the run has died, so that :data:`SILENCE` does not have to pass.
        """
        body = json.dumps({"upload": upload, "is_over": is_over}).encode()
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **self.encryption)

    def _note(self, key: str, written_at: datetime) -> dict[str, Any] | None:
        """The note of a dead run; None if the run is alive or has ended."""
        try:
            note: dict[str, Any] = json.loads(get_object(self.client, self.bucket, key)[0])
        except ClientError as error:
            if error_code(error) in GONE:
                return None
            raise
        return note if note["is_over"] or datetime.now(UTC) - written_at > SILENCE else None

    def _listed(self) -> list[tuple[str, datetime]]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return [(one["Key"], one["LastModified"]) for page in pages for one in page.get("Contents", [])]


@dataclass
class _AttemptObject:
    notes: AttemptObjects
    key: str
    upload: int | None = None

    def note(self, number: int) -> None:
        """See :meth:`Attempt.note`."""
        self.upload = number
        self.notes.put(self.key, number, is_over=False)

    def end(self, *, is_death: bool = False) -> None:
        """See :meth:`Attempt.end`."""
        if self.upload is None:
            return
        if is_death:
            self.notes.put(self.key, self.upload, is_over=True)
        else:
            self.notes.client.delete_object(Bucket=self.notes.bucket, Key=self.key)
