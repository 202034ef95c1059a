"""Every setting, typed, from ``TELEMETRY_*`` environment variables and a ``.env`` file.

Settings are read here and nowhere else, and only when :func:`load_settings` is called: importing
the project reads nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import date
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from telemetry_assets.errors import SettingsError
from telemetry_assets.locations import S3Location, is_s3

MEBIBYTE = 1024 * 1024
MOST_THREADS = 32


def project_root() -> Path:
    """The clone that this package runs from, or the working directory for an installed wheel.

    Relative folders in settings, and the ``.env`` file, are taken from here.
    """
    clone = Path(__file__).resolve().parent.parent
    return clone if (clone / "pyproject.toml").is_file() else Path.cwd()


class Settings(BaseSettings):
    """What a deployment decides; every field is ``TELEMETRY_<FIELD NAME>`` in the environment."""

    model_config = SettingsConfigDict(env_prefix="TELEMETRY_", extra="ignore", frozen=True)

    landing_uri: str = Field("data/landing", description="Where uploads arrive: a folder, or s3://bucket/prefix.")
    lakehouse_uri: str = Field(
        "data/lakehouse", description="Where tables, archive and state live: a folder, or s3://bucket/prefix."
    )
    catalog: Literal["sqlite", "glue"] = Field(
        "sqlite", description="The Iceberg catalog: SQLite with a folder, the Glue Data Catalog with S3."
    )
    engine: Literal["embedded", "spark"] = Field("embedded", description="Where the transforms run.")
    spark_configuration: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="More of Spark's own configuration, as a JSON object."
    )
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
    read_threads: int = Field(8, ge=1, le=MOST_THREADS, description="Uploads and files moved or read at a time.")
    kms_key_id: str = Field(
        "", description="The KMS key for everything written to S3; where it is empty, as the bucket says."
    )
    # Dagster's daemon goes round every 5 s; an interval of just as long is often missed by a moment, and is then 10 s.
    sensor_interval_seconds: int = Field(3, ge=1, description="Seconds between two looks of the upload sensor.")

    @field_validator("spark_configuration", mode="before")
    @classmethod
    def _json_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            read = json.loads(value or "{}")
        except ValueError as error:
            raise ValueError(f"is no JSON object ({error})") from error
        if not isinstance(read, dict):
            raise ValueError("is no JSON object")
        # Spark takes texts only; a number or `true` is as well understood.
        return {name: one if isinstance(one, str) else json.dumps(one) for name, one in read.items()}

    @field_validator("landing_uri", "lakehouse_uri")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; give a folder, or s3://bucket/prefix")
        if is_s3(value):
            return S3Location.parse(value).uri().rstrip("/")
        if "://" in value and not value.startswith("file://"):
            raise ValueError("is neither a folder nor an address that begins with s3://")
        return str((project_root() / Path(value.removeprefix("file://")).expanduser()).resolve())

    @property
    def is_in_s3(self) -> bool:
        """Whether uploads and tables are in S3; otherwise they are in folders."""
        return is_s3(self.lakehouse_uri)

    def landing_folder(self) -> Path:
        """The landing location, which is a folder."""
        return Path(self.landing_uri)

    def lakehouse_folder(self) -> Path:
        """The lakehouse, which is a folder."""
        return Path(self.lakehouse_uri)

    def landing_in_s3(self) -> S3Location:
        """The landing location, which is in S3."""
        return S3Location.parse(self.landing_uri)

    def lakehouse_in_s3(self) -> S3Location:
        """The lakehouse, which is in S3."""
        return S3Location.parse(self.lakehouse_uri)


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
            f"  - TELEMETRY_{str(problem['loc'][0]).upper()}: {problem['msg']} (it is {problem['input']!r})"
            for problem in error.errors()
        )
        raise SettingsError(f"These settings cannot be used:\n{problems}") from error
    _hold_one_place(settings)
    _hold_apart(settings)
    return settings


def _hold_one_place(settings: Settings) -> None:
    if is_s3(settings.landing_uri) != settings.is_in_s3:
        raise SettingsError(
            f"TELEMETRY_LANDING_URI={settings.landing_uri} and TELEMETRY_LAKEHOUSE_URI={settings.lakehouse_uri} have "
            "to be two folders or two locations in S3: an upload moves from the one to the other in one step."
        )
    catalog = "glue" if settings.is_in_s3 else "sqlite"
    if settings.catalog != catalog:
        raise SettingsError(
            f"TELEMETRY_CATALOG={settings.catalog} does not go with TELEMETRY_LAKEHOUSE_URI={settings.lakehouse_uri}. "
            f"Set it to {catalog}: tables in a folder are in a SQLite catalog, tables in S3 in the Glue Data Catalog."
        )


def _hold_apart(settings: Settings) -> None:
    landing, lakehouse = PurePosixPath(settings.landing_uri), PurePosixPath(settings.lakehouse_uri)
    if landing.is_relative_to(lakehouse):
        raise SettingsError(
            f"TELEMETRY_LANDING_URI={settings.landing_uri} lies inside "
            f"TELEMETRY_LAKEHOUSE_URI={settings.lakehouse_uri}, so what the lakehouse keeps there would be taken for "
            "uploads. Put them side by side."
        )
    if lakehouse.is_relative_to(landing):
        raise SettingsError(
            f"TELEMETRY_LAKEHOUSE_URI={settings.lakehouse_uri} lies inside "
            f"TELEMETRY_LANDING_URI={settings.landing_uri}, so the tables' own files would be taken for uploads. "
            "Put them side by side."
        )
