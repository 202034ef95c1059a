"""The journal entry of the batch in progress, and the protocols of a journal and of its attempts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol

from telemetry_assets.errors import JournalUnreadableError
from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets.ingestion.parsing.framing import PARSER_EDITION, Limits
from telemetry_assets.lakehouse.batch_rows import TablePosition

Outcome = Literal["changed", "claimed", "fatal", "gone", "postponed", "unreadable"]
"""What happens to an upload of a batch.

``claimed``: its documents are in the batch. ``fatal``: it is rejected, because runs were killed while they parsed it.
``unreadable``: it is rejected, because it could not be read. Uploads with other outcomes are not in the batch:
``postponed`` uploads (the batch is full) and ``changed`` uploads (they were still being written) wait again, and
``gone`` uploads could not be claimed.
"""


@dataclass(frozen=True)
class BatchUpload:
    """An upload of a batch and its outcome.

    :param problem: why it could not be claimed or read; empty if there was no error.
    """

    upload: WaitingUpload
    outcome: Outcome = "claimed"
    problem: str = ""

    @property
    def is_in_batch(self) -> bool:
        """Whether the batch has rows of this upload."""
        return self.outcome in ("claimed", "fatal", "unreadable")

    @property
    def is_unclaimable(self) -> bool:
        """Whether the upload still waits because this process may not move it."""
        return self.outcome == "gone" and bool(self.problem)


@dataclass(frozen=True)
class ReplaySelection:
    """Selects rejected documents to ingest again. A document has to match every condition that is given.

    :param reasons: the reason codes to select; any reason if empty.
    :param uploads: the uploads to select, by URI or by the last parts of the URI's path; any upload if empty.
    :param since: select documents rejected at this time (UTC) or later.
    """

    reasons: tuple[str, ...] = ()
    uploads: tuple[str, ...] = ()
    since: datetime | None = None

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of the rejected documents is selected."""
        uri = row["source_uri"]
        return (
            (not self.reasons or row["reason"] in self.reasons)
            and (not self.uploads or any(uri == one or uri.endswith(f"/{one}") for one in self.uploads))
            and (self.since is None or row["ingested_at"] >= self.since)
        )


@dataclass(frozen=True)
class JournalEntry:
    """The batch in progress, or the replay in progress.

    :param ingested_at: the batch's ingestion time (UTC), which all of its rows have.
    :param settled: whether ``ingested_at`` and the outcome of every upload are final. Rows are written only after that,
        so every run that resumes the batch writes the same rows.
    :param limits: the limits of one upload. They apply to every run of this batch, even to a run with other settings.
    :param is_scaled: whether the batch is too large for one process, so Spark parses it.
    :param replay: the rejected documents to ingest again; set if this is a replay, which has no uploads.
    :param positions: the position of each table (by name) before the batch began. Rows of the batch can only be in
        files that were added after it.
    :param parser_edition: the edition of the parser that has settled the entry.
    :param tag: identifies this version of the entry in its store. It is not part of the stored JSON.
    """

    batch_id: str
    ingested_at: datetime
    uploads: tuple[BatchUpload, ...] = ()
    settled: bool = False
    limits: Limits | None = None
    is_scaled: bool = False
    replay: ReplaySelection | None = None
    positions: Mapping[str, TablePosition] = field(default_factory=dict)
    parser_edition: int = PARSER_EDITION
    tag: str = field(default="", compare=False)

    def to_json(self) -> bytes:
        """The entry as it is stored."""
        # A file name that is not UTF-8 has lone surrogates. Only the escapes of ASCII JSON can represent them.
        return json.dumps(asdict(replace(self, tag="")), default=datetime.isoformat).encode("ascii")

    @classmethod
    def from_json(cls, content: bytes, tag: str, place: str) -> JournalEntry:
        """Read what :meth:`to_json` has written.

        :param place: the path or URI to name in an error.
        :raises JournalUnreadableError: if the content is not an entry.
        """
        try:
            read = json.loads(content)
            return cls(
                batch_id=read["batch_id"],
                ingested_at=datetime.fromisoformat(read["ingested_at"]),
                uploads=tuple(map(_upload_from_json, read["uploads"])),
                settled=bool(read.get("settled")),
                limits=Limits(*read["limits"]) if read.get("limits") else None,
                is_scaled=bool(read.get("is_scaled")),
                replay=_replay_from_json(read.get("replay")),
                positions={name: TablePosition(**position) for name, position in read.get("positions", {}).items()},
                # Version 0.1.0 does not write the edition.
                parser_edition=int(read.get("parser_edition", 1)),
                tag=tag,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalUnreadableError(place, str(error)) from error


def _upload_from_json(read: dict[str, Any]) -> BatchUpload:
    upload = WaitingUpload(**{**read["upload"], "modified": datetime.fromisoformat(read["upload"]["modified"])})
    return BatchUpload(upload, read["outcome"], read["problem"])


def _replay_from_json(read: dict[str, Any] | None) -> ReplaySelection | None:
    if read is None:
        return None
    since = datetime.fromisoformat(read["since"]) if read["since"] else None
    return ReplaySelection(tuple(read["reasons"]), tuple(read["uploads"]), since)


class Journal(Protocol):
    """Stores the entry of the batch in progress. There is at most one entry, even if several processes write."""

    def load(self) -> JournalEntry | None:
        """The entry of the batch in progress; None if no batch is in progress.

        :raises JournalUnreadableError: if the stored content is not an entry.
        """
        ...

    def create(self, entry: JournalEntry) -> JournalEntry | None:
        """Store the entry if no batch is in progress.

        :returns: the entry with its tag; None if another batch is in progress.
        """
        ...

    def replace(self, entry: JournalEntry) -> JournalEntry | None:
        """Store a new version of the entry if the stored version still has the tag of ``entry``.

        :returns: the entry with its new tag; None if the stored entry has another tag, or is gone.
        """
        ...

    def remove(self, entry: JournalEntry) -> None:
        """Remove the entry, unless another batch is in progress by now."""
        ...

    def attempts(self, batch_id: str) -> Attempts:
        """The attempts of a batch."""
        ...


class Attempt(Protocol):
    """A run that is parsing a batch which another run began. It notes which upload it is parsing."""

    def note(self, number: int) -> None:
        """Note the number of the upload that this run parses now."""
        ...

    def end(self, *, is_death: bool = False) -> None:
        """Remove the note. If this run has run out of memory (``is_death``), keep it as the note of a dead run."""
        ...


class Attempts(Protocol):
    """The notes of the runs that resumed one batch. They show which uploads kill runs.

    A run removes its note when it ends. So if the run of a note is gone, it was killed or ran out of memory. Each run
    writes its own note, outside of the entry, because several runs may parse the same batch at the same time.
    """

    def begin(self) -> Attempt:
        """Begin an attempt of this process."""
        ...

    def deaths(self) -> list[int]:
        """For each run that has died, the number of the upload that it was parsing."""
        ...

    def forget(self) -> None:
        """Remove all notes of the batch after it is finished."""
        ...


@contextmanager
def attempt(attempts: Attempts) -> Iterator[Attempt]:
    """Begin an attempt, and end it when the block ends. A MemoryError counts as a death; other errors do not."""
    current = attempts.begin()
    try:
        yield current
    except MemoryError:
        current.end(is_death=True)
        raise
    except BaseException:
        current.end()
        raise
    current.end()
