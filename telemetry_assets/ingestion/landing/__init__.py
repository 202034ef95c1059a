"""Landing locations: where uploads wait to be ingested, are claimed by a batch, and are archived.

``base.py`` defines the protocol; ``s3.py`` and ``folder.py`` implement it. ``folder.py`` builds on ``files.py`` (one
file that may still be written to) and ``shared_folders.py`` (folders that other users write to). This package neither
parses uploads nor selects the uploads of a batch.
"""

from __future__ import annotations

from telemetry_assets.errors import SettingsError
from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.settings import Settings


def open_landing(settings: Settings) -> Landing:
    """Open the landing location that the settings name.

    :raises SettingsError: if it is a file.
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
