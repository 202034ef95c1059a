"""The journal entry of the one batch in progress: which uploads, which versions of them, which moment."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from telemetry_assets.errors import JournalUnreadableError
from telemetry_assets.file_system.errors import is_storage_error
from telemetry_assets.file_system.posix import lock_file
from telemetry_assets.ingestion.journal.attempts import AttemptFiles, Attempts
from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets.lakehouse.batch_rows import TablePosition
from telemetry_assets.settings import Settings
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_FILE_NAME = "in_progress.json"


@dataclass
class BatchUpload:
    """An upload of a batch, and what became of it; other than claimed only once the batch in progress says so.

    ``gone``: not there any more, or, with a problem, not to be moved. ``postponed``: too much for this batch.
    ``changed``: its writer went on after it was claimed. ``fatal``: runs have died while they parsed it.
    """

    upload: WaitingUpload
    outcome: Literal["changed", "claimed", "fatal", "gone", "postponed", "unreadable"] = "claimed"
    problem: str = ""

    @property
    def is_in_batch(self) -> bool:
        """Whether the batch has rows of it."""
        return self.outcome in ("claimed", "fatal", "unreadable")

    @property
    def is_unclaimable(self) -> bool:
        """Whether it is still where uploads wait, because this process may not move it."""
        return self.outcome == "gone" and bool(self.problem)


@dataclass(frozen=True)
class ReplaySelection:
    """Which rejected documents are put through ingestion once more: those for which all that is given holds.

    :param reasons: any of these reasons; all where there is none.
    :param uploads: any of these uploads, by their whole URI or what it ends in after a slash; all where there is none.
    :param since: rejected at this moment (UTC) or later.
    """

    reasons: tuple[str, ...] = ()
    uploads: tuple[str, ...] = ()
    since: datetime | None = None

    def names(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of the rejected documents is among them."""
        uri = row["source_uri"]
        return (
            (not self.reasons or row["reason"] in self.reasons)
            and (not self.uploads or any(uri == one or uri.endswith(f"/{one}") for one in self.uploads))
            and (self.since is None or row["ingested_at"] >= self.since)
        )


@dataclass
class JournalEntry:
    """The one batch in progress, or the one replay of rejected documents."""

    batch_id: str
    ingested_at: datetime
    uploads: list[BatchUpload]
    settled: bool = False
    """Whether the batch's moment and what becomes of each upload stand, so that its rows may be written."""
    limits: Limits | None = None
    """What one upload may hold, for every run of the batch or the replay, whatever its own settings say."""
    is_scaled: bool = False
    """Whether it is larger than what one process takes, so that Spark parses it."""
    replay: ReplaySelection | None = None
    """Set where no uploads are taken, but rejected documents once more."""
    positions: dict[str, TablePosition] = field(default_factory=dict)
    """By table, where it was before the batch was begun: the batch's rows can only be in files that came later."""
    tag: str = field(default="", compare=False)
    """Which state of the batch in progress this is, as its store tells states apart."""

    def of_state(self, tag: str) -> JournalEntry:
        """The same journal entry, as the state of this tag."""
        return replace(self, tag=tag)


class Journal(Protocol):
    """Keeps the batch in progress, for as long as its batch is unfinished. One at a time, whoever writes."""

    def load(self) -> JournalEntry | None:
        """The batch in progress, None where there is none.

        :raises JournalUnreadableError: where somebody else has written to it.
        """
        ...

    def create(self, entry: JournalEntry) -> bool:
        """Make it the batch in progress; False where another one is."""
        ...

    def replace(self, entry: JournalEntry) -> bool:
        """Write the batch in progress anew; False where it is in another state than the one this was loaded from."""
        ...

    def remove(self, entry: JournalEntry) -> None:
        """Say that the batch is finished, where it still is the one in progress."""
        ...

    def attempts(self, batch_id: str) -> Attempts:
        """The notes of the runs that have taken a batch up after its first one."""
        ...


@dataclass(frozen=True)
class JournalFile:
    """The batch in progress in a file."""

    path: Path

    def load(self) -> JournalEntry | None:
        """See :meth:`Journal.load`."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        return journal_entry_from_json(content, _digest(content), str(self.path))

    def create(self, entry: JournalEntry) -> bool:
        """See :meth:`Journal.create`. The file appears whole or not at all."""
        with self._drafted(entry) as draft:
            if not self._appeared(draft):
                return False
        entry.tag = _digest(written(entry))
        return True

    def replace(self, entry: JournalEntry) -> bool:
        """See :meth:`Journal.replace`. In one step."""
        with self._drafted(entry) as draft, self._current() as current:
            if current is None or current.tag != entry.tag:
                return False
            draft.rename(self.path)
        entry.tag = _digest(written(entry))
        return True

    def remove(self, entry: JournalEntry) -> None:
        """See :meth:`Journal.remove`."""
        with self._current() as current:
            if current is not None and current.batch_id == entry.batch_id:
                self.path.unlink()

    def attempts(self, batch_id: str) -> Attempts:
        """See :meth:`Journal.attempts`."""
        return AttemptFiles(self.path.parent / "attempts" / batch_id)

    def _appeared(self, draft: Path) -> bool:
        """Give the draft the journal entry's name, unless there is one already."""
        try:
            # In one step for all hosts of a shared file system, whatever its locks are worth.
            os.link(draft, self.path)
        except FileExistsError:
            return False
        except OSError as error:
            if is_storage_error(error):
                raise
            logger.debug("%s: no hard links (%s); a lock is used instead", self.path.parent, error)
            with self._locked():
                if os.path.lexists(self.path):
                    return False
                draft.rename(self.path)
        return True

    @contextmanager
    def _current(self) -> Iterator[JournalEntry | None]:
        """The batch in progress; nobody ends it or begins another before this is over."""
        with self._locked():
            yield self.load()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            lock_file(lock)
            yield

    @contextmanager
    def _drafted(self, entry: JournalEntry) -> Iterator[Path]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("wb") as file:
                file.write(written(entry))
                file.flush()
                # On the disk before it has its name, or a loss of power could leave an empty entry.
                os.fsync(file.fileno())
            yield draft
        finally:
            draft.unlink(missing_ok=True)


def open_journal(settings: Settings) -> Journal:
    """The batch in progress of the lakehouse that the settings name."""
    if settings.is_in_s3:
        from telemetry_assets.aws.clients import s3_client
        from telemetry_assets.aws.requests import encryption
        from telemetry_assets.ingestion.journal.s3 import JournalObject

        state = settings.lakehouse_in_s3().below("ingestion")
        return JournalObject(s3_client(), state.bucket, f"{state.prefix}{_FILE_NAME}", encryption(settings.kms_key_id))
    return JournalFile(settings.lakehouse_folder() / "ingestion" / _FILE_NAME)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def written(entry: JournalEntry) -> bytes:
    """A journal entry as it is stored."""
    # Names of files that are not UTF-8 hold lone surrogates, which only the escapes of ASCII JSON can carry.
    return json.dumps(asdict(entry.of_state("")), default=datetime.isoformat).encode("ascii")


def journal_entry_from_json(content: bytes, tag: str, place: str) -> JournalEntry:
    """A journal entry as :func:`written` has stored it.

    :raises JournalUnreadableError: where somebody else has written to it.
    """
    try:
        read = json.loads(content)
        uploads = [
            BatchUpload(
                WaitingUpload(**{**one["upload"], "modified": datetime.fromisoformat(one["upload"]["modified"])}),
                one["outcome"],
                one["problem"],
            )
            for one in read["uploads"]
        ]
        moment = datetime.fromisoformat(read["ingested_at"])
        limits = Limits(*read["limits"]) if read.get("limits") else None
        replay = _replay(read.get("replay"))
        settled, is_scaled = bool(read.get("settled")), bool(read.get("is_scaled"))
        positions = {name: TablePosition(**position) for name, position in read.get("positions", {}).items()}
        return JournalEntry(read["batch_id"], moment, uploads, settled, limits, is_scaled, replay, positions, tag)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalUnreadableError(place, str(error)) from error


def _replay(read: dict[str, Any] | None) -> ReplaySelection | None:
    if read is None:
        return None
    since = datetime.fromisoformat(read["since"]) if read["since"] else None
    return ReplaySelection(tuple(read["reasons"]), tuple(read["uploads"]), since)
