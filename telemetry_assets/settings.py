"""Every setting, typed, from ``TELEMETRY_*`` environment variables and a ``.env`` file.

Settings are read here and nowhere else, and only when :func:`load_settings` is called: importing
the project reads nothing.
"""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from telemetry_assets.aws.limits import MOST_THREADS
from telemetry_assets.aws.locations import S3Location, is_s3
from telemetry_assets.errors import SettingsError
from telemetry_assets.text.masking import masked_text

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MEBIBYTE = 1024 * 1024
# As EMR Serverless takes it.
_ROLE_ARN = re.compile(r"arn:aws[a-zA-Z0-9-]*:iam::[0-9]{12}:role/([!-~]+/)?[\w+=,.@-]+")


def project_root() -> Path:
    """The clone that this package runs from, or the working directory for an installed wheel.

    Relative folders in settings, and the ``.env`` file, are taken from here.
    """
    clone = Path(__file__).resolve().parent.parent
    return clone if (clone / "pyproject.toml").is_file() else Path.cwd()


class RemoteSize(BaseModel):
    """How much of EMR Serverless or Glue a step may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    executors: int = Field(4, ge=1, description="Most executors; in Glue the workers beside the driver's.")
    glue_worker_type: str = Field("G.1X", description="Glue's worker type.")
    spark: dict[str, str] = Field({}, description="More of Spark's own configuration.")


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
    catalog_busy_seconds: float = Field(
        30, ge=0, description="How long a request to the SQLite catalog waits for other processes to release it."
    )
    engine: Literal["embedded", "spark", "emr_serverless", "glue"] = Field(
        "embedded", description="Where the transforms run."
    )
    spark_configuration: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="More of Spark's own configuration, as a JSON object."
    )
    scripts_uri: str = Field("", description="Where `make package` puts what remote Spark runs: s3://bucket/prefix.")
    emr_application_id: str = Field("", description="The application of EMR Serverless that steps run in.")
    emr_job_role_arn: str = Field("", description="The role that steps in EMR Serverless run as.")
    emr_python: str = Field("/usr/bin/python3.11", description="The Python 3.11 of EMR Serverless's image.")
    glue_job_name: str = Field("", description="The Glue job that steps run as.")
    remote_sizes: Annotated[dict[str, dict[str, Any]], NoDecode] = Field(
        {}, description="What steps may use, as a JSON object by `default`, `rebuild`, table, or `table/rebuild`."
    )
    remote_wait_minutes: float = Field(
        60, gt=0, description="How long a step waits for a remote service to take it and to have room for it."
    )
    remote_timeout_minutes: int = Field(120, ge=5, description="How long a remote step may run.")
    remote_poll_seconds: float = Field(5, gt=0, le=10, description="Seconds between two looks at a remote step.")
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
    spark_ingestion_min_bytes: int = Field(
        1024 * MEBIBYTE, ge=0, description="A backlog of more bytes is parsed in Spark, where the engine is one."
    )
    spark_batch_max_uploads: int = Field(20_000, ge=1, description="Uploads in one batch that Spark parses, at most.")
    spark_batch_max_bytes: int = Field(
        16 * 1024 * MEBIBYTE, ge=1, description="Bytes of the uploads of one batch that Spark parses, at most."
    )
    upload_max_bytes: int = Field(
        256 * MEBIBYTE, ge=1, description="Bytes of one upload after decompression, above which it is rejected."
    )
    upload_max_documents: int = Field(
        1_000_000, ge=1, description="Documents of one upload, above which it is rejected."
    )
    upload_max_event_dates: int = Field(
        400, ge=1, description="Different event dates of one upload, above which it is rejected."
    )
    upload_max_field_names: int = Field(
        10_000, ge=1, le=10_000, description="Different fields of one upload that no column takes, likewise."
    )
    upload_max_broken_documents: int = Field(
        10_000, ge=1, description="Documents of one upload that are not JSON, likewise."
    )
    read_threads: int = Field(8, ge=1, le=MOST_THREADS, description="Uploads and files moved or read at a time.")
    kms_key_id: str = Field(
        "", description="The KMS key for everything written to S3; where it is empty, as the bucket says."
    )
    metrics_namespace: str = Field(
        "", description="The namespace of CloudWatch that metrics are put into; none where it is empty."
    )
    webserver_hosts: str = Field(
        "", description="Names by which browsers reach the UI, separated by commas; addresses are always taken."
    )
    # Dagster's daemon goes round every 5 s; an interval of just as long is often missed by a moment, and is then 10 s.
    sensor_interval_seconds: int = Field(3, ge=1, description="Seconds between two looks of the upload sensor.")

    @field_validator("spark_configuration", "remote_sizes", mode="before")
    @classmethod
    def _json_object(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        try:
            read = json.loads(value or "{}")
        except ValueError as error:
            raise ValueError(f"is no JSON object ({error})") from None
        if not isinstance(read, dict):
            raise ValueError("is no JSON object")
        return _texts(read) if info.field_name == "spark_configuration" else read

    @field_validator("remote_sizes")
    @classmethod
    def _sizes(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for number, (name, size) in enumerate(value.items(), 1):
            if isinstance(size.get("spark"), dict):
                size["spark"] = _texts(size["spark"])
            try:
                RemoteSize(**size)
            except ValidationError as error:
                told = "; ".join(f"{_named(one)} {_said(one)}" for one in error.errors())
                # Other names are not repeated: a secret may have been put there.
                shown = name if name in ("default", "rebuild") else f"entry {number}"
                raise ValueError(f"{shown}: {told}") from None
        return value

    def remote_size(self, table: str, *, rebuild: bool) -> RemoteSize:
        """What a step of a table may use: the most particular setting wins, and Spark's own settings add up.

        :param rebuild: whether chosen dates are made anew, as a backfill does.
        """
        names = ["default", *(["rebuild"] if rebuild else []), table, *([f"{table}/rebuild"] if rebuild else [])]
        given = [self.remote_sizes.get(name, {}) for name in names]
        spark = {name: value for size in given for name, value in size.get("spark", {}).items()}
        chosen = {name: value for size in given for name, value in size.items()}
        return RemoteSize(**{**chosen, "spark": {**self.spark_configuration, **spark}})

    def spark_configurations(self) -> list[dict[str, str]]:
        """All that is set of Spark's own configuration: for every Spark, and for each size."""
        return [self.spark_configuration, *(size.get("spark", {}) for size in self.remote_sizes.values())]

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

    @field_validator("scripts_uri")
    @classmethod
    def _in_s3(cls, value: str) -> str:
        if not value.strip():
            return ""
        if not is_s3(value):
            raise ValueError("does not begin with s3://")
        return S3Location.parse(value).uri().rstrip("/")

    @field_validator("emr_job_role_arn")
    @classmethod
    def _role(cls, value: str) -> str:
        if value and not _ROLE_ARN.fullmatch(value):
            raise ValueError("is no ARN of a role, such as arn:aws:iam::123456789012:role/telemetry-job")
        return value

    @property
    def is_in_s3(self) -> bool:
        """Whether uploads and tables are in S3; otherwise they are in folders."""
        return is_s3(self.lakehouse_uri)

    @property
    def is_remote(self) -> bool:
        """Whether the transforms run in a service rather than on this machine."""
        return self.engine in ("emr_serverless", "glue")

    def landing_folder(self) -> Path:
        """The landing location, which is a folder."""
        return Path(self.landing_uri)

    def lakehouse_folder(self) -> Path:
        """The lakehouse, which is a folder."""
        return Path(self.lakehouse_uri)

    def landing_in_s3(self) -> S3Location:
        """The landing location, which is in S3."""
        return S3Location.parse(self.landing_uri)

    def scripts_in_s3(self) -> S3Location:
        """Where what remote Spark runs is kept."""
        return S3Location.parse(self.scripts_uri)

    def lakehouse_in_s3(self) -> S3Location:
        """The lakehouse, which is in S3."""
        return S3Location.parse(self.lakehouse_uri)


def load_settings() -> Settings:
    """Read the settings from the environment and from ``.env`` in the project's root.

    :raises SettingsError: naming each variable that cannot be used, and why.
    """
    try:
        settings = Settings(_env_file=project_root() / ".env")
    except ValidationError as error:
        # By their names: a value may be a secret, also one that somebody has put into the wrong variable.
        problems = "\n".join(
            f"  - TELEMETRY_{str(problem['loc'][0]).upper()}: {_said(problem)}" for problem in error.errors()
        )
        raise SettingsError(f"These settings cannot be used:\n{problems}") from None
    _hold_one_place(settings)
    _hold_apart(settings)
    return settings


def _named(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0])
    return name if name in RemoteSize.model_fields else "another name"


def _said(problem: ErrorDetails) -> str:
    """What pydantic found, without its own vocabulary where that says nothing to a reader."""
    if problem["type"] == "extra_forbidden":
        return f"is unknown; known are {', '.join(RemoteSize.model_fields)}"
    return problem["msg"].removeprefix("Value error, ")


def _texts(configuration: dict[str, Any]) -> dict[str, str]:
    # Spark takes texts only; a number or `true` is as well understood.
    return {name: one if isinstance(one, str) else json.dumps(one) for name, one in configuration.items()}


def _shown(settings: Settings, name: str) -> str:
    return f"TELEMETRY_{name.upper()}={masked_text(getattr(settings, name))}"


def _hold_one_place(settings: Settings) -> None:
    if is_s3(settings.landing_uri) != settings.is_in_s3:
        raise SettingsError(
            f"{_shown(settings, 'landing_uri')} and {_shown(settings, 'lakehouse_uri')} have "
            "to be two folders or two locations in S3: an upload moves from the one to the other in one step."
        )
    catalog = "glue" if settings.is_in_s3 else "sqlite"
    if settings.catalog != catalog:
        raise SettingsError(
            f"TELEMETRY_CATALOG={settings.catalog} does not go with {_shown(settings, 'lakehouse_uri')}. "
            f"Set it to {catalog}: tables in a folder are in a SQLite catalog, tables in S3 in the Glue Data Catalog."
        )


def _hold_apart(settings: Settings) -> None:
    landing, lakehouse = PurePosixPath(settings.landing_uri), PurePosixPath(settings.lakehouse_uri)
    if landing.is_relative_to(lakehouse):
        raise SettingsError(
            f"{_shown(settings, 'landing_uri')} lies inside "
            f"{_shown(settings, 'lakehouse_uri')}, so what the lakehouse keeps there would be taken for "
            "uploads. Put them side by side."
        )
    if lakehouse.is_relative_to(landing):
        raise SettingsError(
            f"{_shown(settings, 'lakehouse_uri')} lies inside "
            f"{_shown(settings, 'landing_uri')}, so the tables' own files would be taken for uploads. "
            "Put them side by side."
        )


def require_engine_settings(settings: Settings) -> None:
    """Refuse settings that lack what their engine needs. Looking at tables and uploads needs no engine.

    :raises SettingsError: naming what is missing.
    """
    needed = {
        "emr_serverless": ("scripts_uri", "emr_application_id", "emr_job_role_arn"),
        "glue": ("scripts_uri", "glue_job_name"),
    }.get(settings.engine)
    if needed is None:
        return
    if not settings.is_in_s3:
        raise SettingsError(
            f"TELEMETRY_ENGINE={settings.engine} cannot reach {_shown(settings, 'lakehouse_uri')}: remote "
            "Spark needs tables in S3 and the Glue Data Catalog. Or set TELEMETRY_ENGINE=embedded, or spark."
        )
    missing = [f"TELEMETRY_{name.upper()}" for name in needed if not getattr(settings, name)]
    if missing:
        raise SettingsError(f"TELEMETRY_ENGINE={settings.engine} needs {' and '.join(missing)} (docs/spark.md).")
