"""The journal: the batch or replay in progress, and the upload that each resuming run was parsing.

A journal has at most one entry, from before its first upload is claimed until its rows are committed and its uploads
are archived. ``base.py`` defines the entry and the protocol; ``file.py`` and ``s3.py`` store it. After a batch
is finished, the ledger (``bronze.uploads``) has the result of each upload; the journal does not.
"""

from __future__ import annotations

from telemetry_assets.ingestion.journal.base import Journal
from telemetry_assets.settings import Settings

_FILE_NAME = "in_progress.json"


def open_journal(settings: Settings) -> Journal:
    """Open the journal of the lakehouse that the settings name."""
    if settings.is_in_s3:
        from telemetry_assets.aws.clients import s3_client
        from telemetry_assets.aws.requests import encryption
        from telemetry_assets.ingestion.journal.s3 import JournalObject

        state = settings.lakehouse_in_s3().below("ingestion")
        return JournalObject(s3_client(), state.bucket, f"{state.prefix}{_FILE_NAME}", encryption(settings.kms_key_id))
    from telemetry_assets.ingestion.journal.file import JournalFile

    return JournalFile(settings.lakehouse_folder() / "ingestion" / _FILE_NAME)
