"""Where uploads wait: what a kind of location has to do, and which kind the settings name.

:class:`Landing` is the whole of it; nothing outside this module asks which kind it is. Each kind is in a module of
its own (``folder_landing.py``).
"""

from __future__ import annotations

import heapq
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings

_UNFINISHED_ENDINGS = (".tmp", ".part", ".crdownload")
_BATCH_ID = re.compile(r"\d{8}T\d{6,12}-[0-9a-f]{16}")


@dataclass(frozen=True)
class WaitingUpload:
    """An upload as a listing shows it: where it is, which version of it, how large and how old."""

    uri: str
    name: str
    version: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class FirstLook:
    """What a landing location held at a moment.

    :param uploads: every upload whose name is that of a finished one.
    :param at: the moment, in seconds of this machine's monotonic clock.
    """

    uploads: tuple[WaitingUpload, ...]
    at: float


class Landing(Protocol):
    """A location where uploads arrive. It is the queue: what is there is what is to do."""

    @property
    def archive_can_change(self) -> bool:
        """Whether a writer that goes on changes an upload that is archived already."""
        ...

    def waiting(self) -> Iterator[WaitingUpload]:
        """Every upload that seems to be whole; of two of one name and age the older first, else in no order.

        Names of unfinished writes are not among them.
        """
        ...

    def first_look(self) -> FirstLook:
        """Every upload that may be whole, to be looked at once more by :meth:`whole`."""
        ...

    def whole(self, look: FirstLook) -> list[WaitingUpload]:
        """The uploads of a first look whose size and time have not changed for at least the minimum age.

        Waits until the minimum age has passed since the first look, by this machine's clock alone.
        """
        ...

    def obstacles(self) -> Iterator[tuple[str, str]]:
        """What keeps uploads from being taken, each with where it is: they wait until somebody does something."""
        ...

    def begin(self, batch_id: str) -> None:
        """Make ready for a batch's claims, before its journal entry says that there is such a batch."""
        ...

    def claim(self, batch_id: str, upload: WaitingUpload) -> bool:
        """Make exactly this version of the upload the batch's own, so that a replacement is a new upload.

        Doing it again is harmless. False where this version is no longer there and was never claimed.

        :raises LandingUnavailableError: where nobody can say, because the location is out of reach.
        :raises OSError: where the upload is there and cannot be claimed.
        """
        ...

    def read(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """The claimed version's bytes.

        :raises OSError: where it cannot be read.
        """
        ...

    def is_as_claimed(self, batch_id: str, upload: WaitingUpload) -> bool:
        """Whether the claimed version still has the size and the time that it was claimed with."""
        ...

    def archive(self, batch_id: str, upload: WaitingUpload) -> None:
        """Move the claimed version to the archive. Doing it again is harmless.

        :raises LandingUnavailableError: where the location is out of reach.
        """
        ...

    def release(self, batch_id: str, upload: WaitingUpload) -> None:
        """Give a claimed upload back: it waits again, also beside a newer one that has taken its name since."""
        ...

    def read_archived(self, batch_id: str, uri: str) -> bytes:
        """The bytes of an archived upload of a batch.

        :raises OSError: where the archive does not have it, or no longer.
        """
        ...

    def archived_content(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """The bytes of an upload that :meth:`archived` has found.

        :raises OSError: where it cannot be read, or is gone.
        """
        ...

    def archive_uri(self, batch_id: str, upload: WaitingUpload) -> str:
        """Where the archive keeps an upload of a batch."""
        ...

    def archived_batches(self) -> list[str]:
        """The batches that the archive has uploads of."""
        ...

    def newest_batches(self, count: int, since: datetime | None) -> list[str]:
        """So many of the archived batches whose ids :func:`new_batch_id` has made, the newest first.

        :param since: where it is given, older batches may be left out.
        """
        ...

    def archived(self, batch_id: str) -> Iterator[WaitingUpload]:
        """The archived uploads of a batch, as they are in the archive; in S3 with the time of the copy."""
        ...

    def put_back(self, batch_id: str, upload: WaitingUpload) -> bool:
        """Move an archived upload back to where uploads wait; False where the archive no longer has it.

        It waits beside a newer one that has taken its name since.
        """
        ...

    def claimed(self) -> Iterator[tuple[str, WaitingUpload]]:
        """Every claimed upload that is not archived yet, with its batch's id."""
        ...

    def finish(self, batch_id: str) -> None:
        """Forget the batch's claims, whose uploads are archived or released."""
        ...


def new_batch_id(moment: datetime) -> str:
    """An id for a batch that is begun at a moment (UTC); ids sort by their moments, as the archive's folders do."""
    return f"{moment:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:16]}"


def newest_batch_ids(names: Iterable[str], count: int) -> list[str]:
    """So many ids that :func:`new_batch_id` has made, the newest first. Older ids and other names are left out."""
    return heapq.nlargest(count, filter(_BATCH_ID.fullmatch, names))


def is_finished(name: str) -> bool:
    """Whether nobody is still writing an upload of this name (a path below the landing location).

    Hidden names, as Hadoop has them (``.x``, ``_x``, folders too), and endings of partial downloads are unfinished.
    """
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return not any(part.startswith((".", "_")) for part in parts) and not name.endswith(_UNFINISHED_ENDINGS)


def open_landing(settings: Settings) -> Landing:
    """The landing location that the settings name.

    :raises SettingsError: where it exists and is not a folder.
    """
    if settings.is_in_s3:
        from telemetry_assets.aws.clients import s3_client
        from telemetry_assets.aws.requests import encryption
        from telemetry_assets.ingestion.landing.s3 import S3Landing

        lakehouse = settings.lakehouse_in_s3()
        return S3Landing(
            s3_client(),
            settings.landing_in_s3(),
            archive_location=lakehouse.below("archive"),
            released=lakehouse.below("ingestion", "released"),
            encryption=encryption(settings.kms_key_id),
        )
    from telemetry_assets.ingestion.landing.folder import FolderLanding

    folder = settings.landing_folder()
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"TELEMETRY_LANDING_URI={folder} is a file. Name a folder.")
    return FolderLanding(folder, settings.lakehouse_folder(), settings.upload_minimum_age_seconds)
