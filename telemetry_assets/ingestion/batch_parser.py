"""The claimed uploads of a batch become its rows: here, or wherever a :class:`Parser` has more room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol

import pyarrow as pa
from pyiceberg.manifest import DataFile

from telemetry_assets.file_system.errors import is_storage_error
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
from telemetry_assets.lakehouse.batch_rows import holds_batch
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.settings import Settings
from telemetry_assets.tables import REJECTED
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_READ_AHEAD = 64
"""Uploads that are read before it is known whether there is room for them."""


@dataclass(frozen=True)
class BatchRows:
    """The rows of a batch, and what was counted: in memory, or in data files that no table has yet.

    :param uploads: what became of each upload that is in the batch, in the batch's order.
    :param bronze: accepted documents.
    :param rejections: the others.
    """

    uploads: Sequence[UploadReport]
    accepted: int
    rejected: int
    counts: Counts
    bronze: pa.Table | Sequence[DataFile]
    rejections: pa.Table | Sequence[DataFile]


class Parser(Protocol):
    """Makes the rows of a batch."""

    def parse(self, entry: JournalEntry, run_id: str) -> BatchRows:
        """The rows of every upload of a batch. What cannot be read, or is too much, is noted in the journal entry.

        A settled journal entry always gives the same rows.
        """
        ...


@dataclass(frozen=True)
class LocalParser:
    """Parses in this process, as much as :attr:`Settings.batch_max_bytes` lets into memory.

    :param before_each: is called with the number of each upload of the batch before it is read and parsed, one after
        another; where it is not given, several are read at a time.
    """

    landing: Landing
    lakehouse: Lakehouse
    settings: Settings
    before_each: Callable[[int], None] | None = None

    def parse(self, entry: JournalEntry, run_id: str) -> BatchRows:
        """See :meth:`Parser.parse`."""
        taken = _Taken()
        size, limit = 0, self.settings.batch_max_bytes
        dates: set[str] = set()
        numbered = [(number, item) for number, item in enumerate(entry.uploads) if item.is_in_batch]
        read_ahead = _READ_AHEAD if self.before_each is None else 1
        with ThreadPoolExecutor(self.settings.read_threads) as threads:
            for start in range(0, len(numbered), read_ahead):
                some = [item for _, item in numbered[start : start + read_ahead]]
                if self.before_each is not None:
                    self.before_each(numbered[start][0])
                # A settled batch has said already what is too much for it.
                to_read = some if entry.settled or size <= limit else []
                contents = threads.map(lambda item: self._content(entry, item), to_read)
                for item, content in zip_longest(some, contents):
                    if item.outcome == "changed":
                        continue
                    is_open = entry.settled or size <= limit
                    rows = self._rows(entry, item, content) if is_open else None
                    size += rows.size if rows else 0
                    dates.update(rows.counts.event_dates.names() if rows else ())
                    is_full = size > limit or len(dates) > self._limits(entry).event_dates
                    if rows is None or (taken.reports and is_full and not entry.settled):
                        # All that come after it wait too, as the newest ingestion of an event wins.
                        item.outcome, size = "postponed", limit + 1
                    else:
                        taken.add(rows)
        return taken.rows()

    def rows_of(self, entry: JournalEntry, item: BatchUpload) -> UploadRows | None:
        """The rows of one upload of a batch; None, as noted in its item, where its writer goes on.

        That it cannot be read is noted in its item too.
        """
        content = self._content(entry, item)
        return self._rows(entry, item, content) if item.is_in_batch else None

    def _content(self, entry: JournalEntry, item: BatchUpload) -> bytes | None:
        if item.outcome in ("fatal", "unreadable") or self._limits(entry).exclude(item.upload.size):
            return None
        try:
            content = self.landing.read(entry.batch_id, item.upload)
            if not entry.settled and not self.landing.is_as_claimed(entry.batch_id, item.upload):
                logger.info("%s is still being written; it is taken once it is whole", item.upload.uri)
                item.outcome = "changed"
            return content
        except OSError as error:
            if is_storage_error(error):
                # It says nothing about this upload, which would be rejected for good.
                raise
            if entry.settled and holds_batch(self.lakehouse.table(REJECTED), entry.batch_id):
                # What was rejected stands already, so this can no longer be.
                raise
            item.outcome, item.problem = "unreadable", error.strerror or str(error)
            return None

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
    """What one upload may hold, as the settings say."""
    return Limits(
        settings.upload_max_bytes,
        settings.upload_max_documents,
        settings.upload_max_event_dates,
        settings.upload_max_field_names,
        settings.upload_max_broken_documents,
    )


@dataclass(frozen=True)
class _Taken:
    """What is taken of a batch so far. Names are counted together at once, as each upload may have thousands."""

    reports: list[UploadReport] = field(default_factory=list)
    bronze: list[pa.Table] = field(default_factory=list)
    rejections: list[pa.Table] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def add(self, rows: UploadRows) -> None:
        """Take the rows of one more upload."""
        self.reports.append(rows.report)
        self.bronze.append(rows.bronze)
        self.rejections.append(rows.rejected)
        self.counts.add_all(rows.counts)

    def rows(self) -> BatchRows:
        """The rows of all uploads together."""
        if not self.reports:
            return BatchRows([], 0, 0, self.counts, None, None)
        bronze, rejections = pa.concat_tables(self.bronze), pa.concat_tables(self.rejections)
        return BatchRows(self.reports, len(bronze), len(rejections), self.counts, bronze, rejections)
