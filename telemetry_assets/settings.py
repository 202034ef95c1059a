"""Every setting, typed, from ``TELEMETRY_*`` environment variables and a ``.env`` file.

Settings are read here and nowhere else, and only when :func:`load_settings` is called: importing
the project reads nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from telemetry_assets.errors import SettingsError

MEBIBYTE = 1024 * 1024


def project_root() -> Path:
    """The clone that this package runs from, or the working directory for an installed wheel.

    Relative folders in settings, and the ``.env`` file, are taken from here.
    """
    clone = Path(__file__).resolve().parent.parent
    return clone if (clone / "pyproject.toml").is_file() else Path.cwd()


class Settings(BaseSettings):
    """What a deployment decides; every field is ``TELEMETRY_<FIELD NAME>`` in the environment."""

    model_config = SettingsConfigDict(env_prefix="TELEMETRY_", extra="ignore", frozen=True)

    landing_uri: str = Field("data/landing", description="Where uploads arrive: a folder.")
    lakehouse_uri: str = Field("data/lakehouse", description="Where tables, archive and state live: a folder.")
    catalog: Literal["sqlite"] = Field("sqlite", description="The Iceberg catalog.")
    engine: Literal["embedded"] = Field("embedded", description="Where the transforms run.")
    first_event_date: date = Field(
        date(2020, 1, 1), description="The first partition of the assets in Dagster. Tables take earlier dates too."
    )
    upload_minimum_age_seconds: float = Field(
        0.5, ge=0, description="A file younger than this may still be written to, so it is not taken yet."
    )
    batch_max_uploads: int = Field(1000, ge=1, description="Uploads in one ingestion batch, at most.")
    batch_max_bytes: int = Field(
        128 * MEBIBYTE,
        ge=1,
        description="Bytes of one batch, of its uploads as stored and of its rows, at most; one upload always fits.",
    )
    upload_max_bytes: int = Field(
        256 * MEBIBYTE, ge=1, description="Bytes of one upload after decompression, above which it is rejected."
    )
    upload_max_documents: int = Field(
        1_000_000, ge=1, description="Documents of one upload, above which it is rejected."
    )
    read_threads: int = Field(4, ge=1, description="Uploads read at a time.")
    # Dagster's daemon goes round every 5 s; an interval of just as long is often missed by a moment, and is then 10 s.
    sensor_interval_seconds: int = Field(3, ge=1, description="Seconds between two looks of the upload sensor.")

    @field_validator("landing_uri", "lakehouse_uri")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; give a folder")
        if "://" in value and not value.startswith("file://"):
            return value.rstrip("/")
        return str((project_root() / Path(value.removeprefix("file://")).expanduser()).resolve())

    def landing_folder(self) -> Path:
        """The landing location as a folder.

        :raises SettingsError: where it is not one.
        """
        return _folder(self.landing_uri, "TELEMETRY_LANDING_URI")

    def lakehouse_folder(self) -> Path:
        """The lakehouse as a folder.

        :raises SettingsError: where it is not one.
        """
        return _folder(self.lakehouse_uri, "TELEMETRY_LAKEHOUSE_URI")


def _folder(location: str, variable: str) -> Path:
    if "://" in location:
        raise SettingsError(f"{variable}={location} is not a folder. This version reads and writes folders only.")
    return Path(location)


def unknown_settings() -> Iterator[tuple[str, str]]:
    """Each ``TELEMETRY_*`` variable that is no setting, with the setting that is spelled most like it, or nothing."""
    known = [f"TELEMETRY_{name.upper()}" for name in Settings.model_fields]
    given = {*os.environ, *dotenv_values(project_root() / ".env")}
    for name in sorted(given):
        if name.startswith("TELEMETRY_") and name not in known:
            yield name, next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), "")


def load_settings() -> Settings:
    """Read the settings from the environment and from ``.env`` in the project's root.

    :raises SettingsError: naming each variable that cannot be used, and why.
    """
    try:
        settings = Settings(_env_file=project_root() / ".env")
    except ValidationError as error:
        problems = "\n".join(
            f"  - TELEMETRY_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            f" (it is {problem['input']!r})"
            for problem in error.errors()
        )
        raise SettingsError(f"These settings cannot be used:\n{problems}") from error
    landing, lakehouse = Path(settings.landing_uri), Path(settings.lakehouse_uri)
    if landing.is_relative_to(lakehouse):
        raise SettingsError(
            f"TELEMETRY_LANDING_URI={landing} lies inside TELEMETRY_LAKEHOUSE_URI={lakehouse}, so what the lakehouse "
            "keeps there would be taken for uploads. Put them side by side."
        )
    if lakehouse.is_relative_to(landing):
        raise SettingsError(
            f"TELEMETRY_LAKEHOUSE_URI={lakehouse} lies inside TELEMETRY_LANDING_URI={landing}, so the tables' own "
            "files would be taken for uploads. Put them side by side."
        )
    return settings
