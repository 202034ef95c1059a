"""Parses the uploads of a batch: the protocol of a parser, its result, and the parser that runs in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import pyarrow as pa
from pyiceberg.manifest import DataFile

from telemetry_assets.file_system import is_storage_error
from telemetry_assets.ingestion.journal.base import BatchUpload, JournalEntry
from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.ingestion.parsing.arrow_rows import (
    Counts,
    Origin,
    UploadReport,
    UploadRows,
    gathered,
    upload_rows,
)
from telemetry_assets.ingestion.parsing.framing import Limits, whole_upload
from telemetry_assets.lakehouse.batch_rows import contains_batch
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.settings import Settings
from telemetry_assets.tables import REJECTED
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_READ_AHEAD = 64
"""How many uploads are read before it is known whether the batch has room for them."""


@dataclass(frozen=True)
class ParsedBatch:
    """The rows of a batch, and the outcome of each of its uploads.

    :param uploads: every upload of the journal entry with its outcome, in the entry's order.
    :param reports: a report for each upload that is in the batch, in the same order.
    :param accepted: how many documents were accepted.
    :param rejected: how many documents were rejected; an upload that is rejected as a whole counts as one.
    :param counts: what was counted over all uploads of the batch.
    :param bronze: the accepted documents, as rows in memory or as data files that are not in the table yet. None if no
        upload is in the batch.
    :param rejections: the rejected documents, in the same form.
    """

    uploads: tuple[BatchUpload, ...]
    reports: Sequence[UploadReport]
    accepted: int
    rejected: int
    counts: Counts
    bronze: pa.Table | Sequence[DataFile]
    rejections: pa.Table | Sequence[DataFile]


class Parser(Protocol):
    """Parses batches."""

    def parse(self, entry: JournalEntry, run_id: str) -> ParsedBatch:
        """Read and parse every upload that is in the batch.

        If the entry is settled, the outcomes stay as they are and the rows are always the same.

        :raises OSError: if the landing location cannot be read, or an upload of a settled batch.
        """
        ...


@dataclass(frozen=True)
class LocalParser:
    """Parses in this process, up to :attr:`Settings.batch_max_bytes` of rows in memory.

    :param before_each: called with the number of each upload before it is read. The uploads are then read one by one,
        otherwise several at a time.
    """

    landing: Landing
    lakehouse: Lakehouse
    settings: Settings
    before_each: Callable[[int], None] | None = None

    def parse(self, entry: JournalEntry, run_id: str) -> ParsedBatch:
        """See :meth:`Parser.parse`. Uploads that do not fit any more are postponed."""
        rows = _BatchRows(self.settings.batch_max_bytes, self._limits(entry).event_dates, entry.settled)
        uploads = list(entry.uploads)
        numbers = [number for number, item in enumerate(uploads) if item.is_in_batch]
        read_ahead = _READ_AHEAD if self.before_each is None else 1
        with ThreadPoolExecutor(self.settings.read_threads) as threads:
            for start in range(0, len(numbers), read_ahead):
                some = numbers[start : start + read_ahead]
                if self.before_each is not None:
                    self.before_each(some[0])
                items = [entry.uploads[number] for number in some]
                read: Iterable[tuple[BatchUpload, bytes | None]] = (
                    ((item, None) for item in items) if rows.is_full else threads.map(partial(self._read, entry), items)
                )
                for number, (item, content) in zip(some, read, strict=True):
                    is_taken = item.outcome == "changed" or self._add(rows, entry, item, content)
                    # All later uploads are postponed too, because the newest ingestion of an event wins.
                    uploads[number] = item if is_taken else replace(entry.uploads[number], outcome="postponed")
        return rows.parsed_batch(uploads)

    def parse_one(self, entry: JournalEntry, item: BatchUpload) -> tuple[BatchUpload, UploadRows | None]:
        """Read and parse one upload of a batch.

        :returns: the upload with its outcome, and its rows, which are None if it is not in the batch.
        """
        item, content = self._read(entry, item)
        return item, self._rows(entry, item, content) if item.is_in_batch else None

    def _add(self, rows: _BatchRows, entry: JournalEntry, item: BatchUpload, content: bytes | None) -> bool:
        return not rows.is_full and rows.add(self._rows(entry, item, content))

    def _read(self, entry: JournalEntry, item: BatchUpload) -> tuple[BatchUpload, bytes | None]:
        """The upload with its outcome, and its bytes, which are None if it must not be parsed."""
        if item.outcome in ("fatal", "unreadable") or self._limits(entry).exclude(item.upload.size):
            return item, None
        try:
            content = self.landing.read(entry.batch_id, item.upload)
            if not entry.settled and not self.landing.is_as_claimed(entry.batch_id, item.upload):
                logger.info("%s is still being written; it waits until it is complete", item.upload.uri)
                return replace(item, outcome="changed"), None
            return item, content
        except OSError as error:
            if is_storage_error(error):
                # The file system is at fault. The upload must not be rejected for it.
                raise
            if entry.settled and contains_batch(self.lakehouse.table(REJECTED), entry.batch_id):
                # The batch's rejected documents are already committed, so no rejection can be added.
                raise
            return replace(item, outcome="unreadable", problem=error.strerror or str(error)), None

    def _limits(self, entry: JournalEntry) -> Limits:
        return entry.limits or limits_of(self.settings)

    def _rows(self, entry: JournalEntry, item: BatchUpload, content: bytes | None) -> UploadRows:
        limits = self._limits(entry)
        limit = limits.content_bytes
        origin = Origin(item.upload.uri, entry.ingested_at, entry.batch_id)
        if content is not None:
            return upload_rows(item.upload.name, content, origin, limits)
        if item.outcome == "fatal":
            message = (
                "Three runs in a row were killed, or ran out of memory, the last two while they parsed this upload. "
                "Give runs more memory, then replay it (`telemetry-assets replay-rejected --reason parser_died`), or "
                "send it in parts. The archive keeps it."
            )
            return gathered([whole_upload("parser_died", message, None, limit)], origin)
        if item.outcome == "unreadable":
            message = f"The upload cannot be read: {item.problem}. Grant access, then move it back from the archive."
            return gathered([whole_upload("unreadable_upload", message, None, limit)], origin)
        message = f"The upload is larger than {limit:,} bytes. Send it in parts, or raise TELEMETRY_UPLOAD_MAX_BYTES."
        return gathered([whole_upload("too_large", f"{message} The archive keeps it.", None, limit)], origin)


def limits_of(settings: Settings) -> Limits:
    """The limits of one upload, from the settings."""
    return Limits(
        settings.upload_max_bytes,
        settings.upload_max_documents,
        settings.upload_max_event_dates,
        settings.upload_max_field_names,
        settings.upload_max_broken_documents,
    )


@dataclass
class _BatchRows:
    """Collects the rows of a batch up to its bounds. The first upload always fits.

    :param is_unbounded: whether the batch is settled, so all of its uploads have to fit.
    """

    max_bytes: int
    max_event_dates: int
    is_unbounded: bool
    is_full: bool = False
    size: int = 0
    event_dates: set[str] = field(default_factory=set)
    reports: list[UploadReport] = field(default_factory=list)
    bronze: list[pa.Table] = field(default_factory=list)
    rejections: list[pa.Table] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def add(self, rows: UploadRows) -> bool:
        """Add the rows of one more upload; False if they do not fit."""
        self.size += rows.size
        self.event_dates.update(rows.counts.event_dates.names())
        exceeds = self.size > self.max_bytes or len(self.event_dates) > self.max_event_dates
        if exceeds and self.reports and not self.is_unbounded:
            self.is_full = True
            return False
        self.reports.append(rows.report)
        self.bronze.append(rows.bronze)
        self.rejections.append(rows.rejected)
        # Added immediately, because each upload may count thousands of names.
        self.counts.add_all(rows.counts)
        self.is_full = self.size > self.max_bytes and not self.is_unbounded
        return True

    def parsed_batch(self, uploads: Iterable[BatchUpload]) -> ParsedBatch:
        """The rows of all uploads together."""
        if not self.reports:
            return ParsedBatch(tuple(uploads), [], 0, 0, self.counts, None, None)
        bronze, rejections = pa.concat_tables(self.bronze), pa.concat_tables(self.rejections)
        return ParsedBatch(tuple(uploads), self.reports, len(bronze), len(rejections), self.counts, bronze, rejections)
