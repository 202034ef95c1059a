"""The protocol of a landing location, and what its implementations share."""

from __future__ import annotations

import heapq
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

_UNFINISHED_ENDINGS = (".tmp", ".part", ".crdownload")
_BATCH_ID = re.compile(r"\d{8}T\d{6,12}-[0-9a-f]{16}")


@dataclass(frozen=True)
class WaitingUpload:
    """One version of an upload, as a listing shows it.

    :param uri: its URI in the landing location.
    :param name: its path below the landing location.
    :param version: identifies the version: an ETag in S3; inode, time and size of a file.
    :param size: in bytes, as stored.
    :param modified: when it was last modified (UTC).
    """

    uri: str
    name: str
    version: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Listing:
    """A listing of the uploads in a landing location at one time.

    :param uploads: every upload whose name does not mark an unfinished write.
    :param at: the time of the listing, in seconds of this machine's monotonic clock.
    """

    uploads: tuple[WaitingUpload, ...]
    at: float


class Landing(Protocol):
    """A location where uploads arrive. It is the queue of ingestion: every upload in it is to be ingested."""

    @property
    def archive_can_change(self) -> bool:
        """Whether a writer can still change an upload that is in the archive."""
        ...

    def waiting(self) -> Iterator[WaitingUpload]:
        """Every upload that seems to be complete.

        The order is undefined, with one exception: a released upload precedes the upload that replaced it, even if both
        have the same time.
        """
        ...

    def listing(self) -> Listing:
        """Every upload that may be complete. Pass it to :meth:`stable`."""
        ...

    def stable(self, listing: Listing) -> list[WaitingUpload]:
        """The uploads of a listing whose size and time have not changed for the minimum age.

        Waits until the minimum age has passed since the listing. Only this machine's clock is used.
        """
        ...

    def obstacles(self) -> Iterator[tuple[str, str]]:
        """The files, objects and folders that cannot be ingested until a person acts, each with its problem."""
        ...

    def begin(self, batch_id: str) -> None:
        """Prepare for the claims of a batch, before its journal entry is created."""
        ...

    def claim(self, batch_id: str, upload: WaitingUpload) -> bool:
        """Reserve exactly this version of the upload for the batch, so that a replacement is a new upload. Idempotent.

        :returns: False if this version no longer waits and was never claimed.
        :raises LandingUnavailableError: if the location is out of reach.
        :raises OSError: if the upload exists but cannot be claimed.
        """
        ...

    def read(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """Read the claimed version.

        :raises OSError: if it cannot be read.
        """
        ...

    def is_as_claimed(self, batch_id: str, upload: WaitingUpload) -> bool:
        """Whether the claimed version still has the size and the time that it had when it was claimed."""
        ...

    def archive(self, batch_id: str, upload: WaitingUpload) -> None:
        """Move the claimed version to the archive. Idempotent.

        :raises LandingUnavailableError: if the location is out of reach.
        """
        ...

    def release(self, batch_id: str, upload: WaitingUpload) -> None:
        """Undo a claim: the upload waits again, even if a newer upload has its name now."""
        ...

    def read_archived(self, batch_id: str, uri: str) -> bytes:
        """Read the archived upload with this URI.

        :raises OSError: if the archive does not have it.
        """
        ...

    def archived_content(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """Read an upload that :meth:`archived` has listed.

        :raises OSError: if it cannot be read, or is gone.
        """
        ...

    def archive_uri(self, batch_id: str, upload: WaitingUpload) -> str:
        """The URI of an upload of a batch in the archive."""
        ...

    def archived_batches(self) -> list[str]:
        """The ids of all batches in the archive."""
        ...

    def newest_batches(self, count: int, since: datetime | None) -> list[str]:
        """The ids of at most ``count`` archived batches, the newest first.

        Names that :func:`new_batch_id` did not create are left out.

        :param since: batches before this time may be left out.
        """
        ...

    def archived(self, batch_id: str) -> Iterator[WaitingUpload]:
        """The archived uploads of a batch, with their times in the archive; in S3, this is the time of the copy."""
        ...

    def move_back(self, batch_id: str, upload: WaitingUpload) -> bool:
        """Move an archived upload back: it waits again, even if a newer upload has its name now.

        :returns: False if the archive does not have it any more.
        """
        ...

    def delete_archived(self, batch_id: str, upload: WaitingUpload) -> None:
        """Delete an upload from the archive. Idempotent.

        :raises OSError: if it cannot be deleted.
        """
        ...

    def claimed(self) -> Iterator[tuple[str, WaitingUpload]]:
        """Every upload that is claimed and not archived, with the id of its batch."""
        ...

    def finish(self, batch_id: str) -> None:
        """Remove the remains of a batch's claims, after its uploads are archived or released."""
        ...


def new_batch_id(moment: datetime) -> str:
    """An id for a batch that begins at this time (UTC). Ids sort by time."""
    return f"{moment:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:16]}"


def may_be_before(batch_id: str, moment: datetime) -> bool:
    """Whether a batch may have begun before a time (UTC). Ids that :func:`new_batch_id` did not create have no time."""
    return not _BATCH_ID.fullmatch(batch_id) or batch_id < f"{moment:%Y%m%dT%H%M%S%f}"


def newest_batch_ids(names: Iterable[str], count: int) -> list[str]:
    """At most ``count`` of these ids, the newest first. Names that :func:`new_batch_id` did not create are left out."""
    return heapq.nlargest(count, filter(_BATCH_ID.fullmatch, names))


def is_finished(name: str) -> bool:
    """Whether a path below the landing location does not mark an unfinished write.

    These mark an unfinished write: files and folders whose names begin with ``.`` or ``_``, as in Hadoop, and the
    endings of partial downloads.
    """
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return not any(part.startswith((".", "_")) for part in parts) and not name.endswith(_UNFINISHED_ENDINGS)
