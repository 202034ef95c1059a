"""All settings, with their types, from ``TELEMETRY_*`` environment variables and a ``.env`` file.

Only :func:`load_settings` reads them. Importing the project reads nothing.
"""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from telemetry_assets.aws.limits import MOST_THREADS
from telemetry_assets.aws.locations import S3Location, is_s3
from telemetry_assets.errors import SettingsError
from telemetry_assets.tables.alert_rules import AlertRules, read_alert_rules
from telemetry_assets.text.masking import masked_text

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MEBIBYTE = 1024 * 1024
# The format that EMR Serverless accepts.
_ROLE_ARN = re.compile(r"arn:aws[a-zA-Z0-9-]*:iam::[0-9]{12}:role/([!-~]+/)?[\w+=,.@-]+")


def project_root() -> Path:
    """The root of the clone that this package runs from; for an installed wheel, the working directory.

    Relative folders in settings are relative to it, and the ``.env`` file is in it.
    """
    clone = Path(__file__).resolve().parent.parent
    return clone if (clone / "pyproject.toml").is_file() else Path.cwd()


class RemoteSize(BaseModel):
    """The resources of a step in EMR Serverless or Glue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    executors: int = Field(4, ge=1, description="Maximum number of executors; in Glue, of workers without the driver.")
    glue_worker_type: str = Field("G.1X", description="The worker type of Glue.")
    spark: dict[str, str] = Field({}, description="Additional Spark configuration.")


class Settings(BaseSettings):
    """The settings of a deployment. Each field is the environment variable ``TELEMETRY_<FIELD NAME>``."""

    model_config = SettingsConfigDict(env_prefix="TELEMETRY_", extra="ignore", frozen=True)

    landing_uri: str = Field("data/landing", description="Where uploads arrive: a folder, or s3://bucket/prefix.")
    lakehouse_uri: str = Field(
        "data/lakehouse", description="Where tables, archive and state are stored: a folder, or s3://bucket/prefix."
    )
    catalog: Literal["sqlite", "glue"] = Field(
        "sqlite", description="The Iceberg catalog. Default: sqlite if the lakehouse is a folder, glue if it is in S3."
    )
    catalog_busy_seconds: float = Field(
        30, ge=0, description="How long a request to the SQLite catalog waits while another process has it locked."
    )
    engine: Literal["embedded", "spark", "emr_serverless", "glue"] = Field(
        "embedded", description="Where the transforms run."
    )
    spark_configuration: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="Additional Spark configuration, as a JSON object."
    )
    scripts_uri: str = Field(
        "", description="Where `make package` uploads the code for remote Spark: s3://bucket/prefix."
    )
    emr_application_id: str = Field("", description="The EMR Serverless application that runs the steps.")
    emr_job_role_arn: str = Field("", description="The role of the steps in EMR Serverless.")
    emr_python: str = Field("/usr/bin/python3.11", description="The path of Python 3.11 in EMR Serverless's image.")
    glue_job_name: str = Field("", description="The Glue job that runs the steps.")
    remote_sizes: Annotated[dict[str, dict[str, Any]], NoDecode] = Field(
        {}, description="The resources of remote steps: JSON, by `default`, `rebuild`, table, or `table/rebuild`."
    )
    remote_wait_minutes: float = Field(
        60, gt=0, description="How long a step waits for a remote service to accept it and to have capacity for it."
    )
    remote_timeout_minutes: int = Field(120, ge=5, description="How long a remote step may run.")
    remote_poll_seconds: float = Field(5, gt=0, le=10, description="Seconds between two polls of a remote step.")
    first_event_date: date | None = Field(
        None,
        description="The first partition in Dagster. Default: the earliest event date in the tables when Dagster loads "
        "the code. Tables accept earlier dates too.",
    )
    upload_minimum_age_seconds: float = Field(
        0.5, ge=0, description="A file is ingested if two checks at least this far apart find it unchanged."
    )
    batch_max_uploads: int = Field(1000, ge=1, description="Maximum number of uploads in one ingestion batch.")
    batch_max_bytes: int = Field(
        128 * MEBIBYTE,
        ge=1,
        description="Maximum bytes of one batch, of its uploads as stored and of its rows. One upload may have more.",
    )
    spark_ingestion_min_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=0,
        description="A backlog with more bytes is parsed in Spark, if the engine uses Spark.",
    )
    spark_batch_max_uploads: int = Field(
        20_000, ge=1, description="Maximum number of uploads in one batch that Spark parses."
    )
    spark_batch_max_bytes: int = Field(
        16 * 1024 * MEBIBYTE, ge=1, description="Maximum bytes of the uploads in one batch that Spark parses."
    )
    update_max_rows: int = Field(
        100_000,
        ge=1,
        description="A refresh updates rows if at most this number of upstream rows changed; else it rebuilds dates.",
    )
    rebuild_max_rows: int = Field(
        500_000,
        ge=1,
        description="The embedded engine reads at most this number of Bronze rows at a time to rebuild Silver.",
    )
    gold_rebuild_max_rows: int = Field(
        2_000_000,
        ge=1,
        description="The embedded engine reads at most this number of Silver rows at a time to rebuild Gold.",
    )
    spark_rebuild_max_rows: int = Field(
        50_000_000, ge=1, description="Spark reads at most this number of upstream rows at a time to rebuild a table."
    )
    upload_max_bytes: int = Field(
        256 * MEBIBYTE, ge=1, description="Maximum bytes of one upload after decompression; a larger one is rejected."
    )
    upload_max_documents: int = Field(
        1_000_000, ge=1, description="Maximum documents in one upload; one with more is rejected."
    )
    upload_max_event_dates: int = Field(
        400, ge=1, description="Maximum different event dates in one upload; one with more is rejected."
    )
    upload_max_field_names: int = Field(
        10_000,
        ge=1,
        le=10_000,
        description="Maximum unknown fields in one upload; one with more is rejected.",
    )
    upload_max_broken_documents: int = Field(
        10_000, ge=1, description="Maximum documents in one upload that are not JSON; one with more is rejected."
    )
    read_threads: int = Field(
        8, ge=1, le=MOST_THREADS, description="Number of uploads that are moved or read at the same time."
    )
    alert_rules: Annotated[AlertRules, NoDecode] = Field(
        default_factory=read_alert_rules,
        description="The TOML file with the alert rules. If empty, the rules of docs/contract.md apply.",
    )
    snapshot_retention_hours: float = Field(
        1,
        gt=0,
        description="How long a snapshot of a table can be read after another one has replaced it as the current one.",
    )
    snapshots_min: int = Field(
        20, ge=1, description="Maintenance keeps this number of a table's newest snapshots, even if they are older."
    )
    daily_snapshot_days: int = Field(
        7, ge=0, description="Days for which the last snapshot of each day of the Gold tables is kept, as a tag."
    )
    orphan_age_hours: float = Field(
        72, gt=0, description="Maintenance deletes files that no table needs if they are older than this."
    )
    commits_before_compaction: int = Field(
        16, ge=1, description="After a run, a table with this number of commits that were not compacted is compacted."
    )
    maintenance_seconds: float = Field(
        1, ge=0, description="How long a run maintains tables at its end; 0 turns this off, but not `maintain`."
    )
    archive_retention_days: float = Field(
        0,
        ge=0,
        description="The job `maintain` deletes archived uploads that were ingested this many days ago; 0 keeps all.",
    )
    rejected_retention_days: float = Field(
        0,
        ge=0,
        description="The job `maintain` deletes rejected documents that were ingested this many days ago; 0 keeps all.",
    )
    run_history_days: float = Field(
        7, gt=0, description="The job `maintain` removes older runs from Dagster's history."
    )
    kms_key_id: str = Field(
        "", description="The KMS key for everything written to S3. If empty, the bucket's default encryption applies."
    )
    metrics_namespace: str = Field(
        "", description="The CloudWatch namespace of the metrics. If empty, no metrics are sent."
    )
    webserver_hosts: str = Field(
        "",
        description="Host names by which browsers reach the UI, separated by commas. IP addresses are always accepted.",
    )
    # Dagster's daemon evaluates sensors every 5 s. An interval of 5 s often just misses an evaluation and becomes 10 s.
    sensor_interval_seconds: int = Field(
        3, ge=1, description="Minimum number of seconds between two evaluations of the upload sensor."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_catalog(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("catalog"):
            return values
        return {**values, "catalog": _catalog_of(str(values.get("lakehouse_uri", "")))}

    @field_validator("first_event_date", mode="before")
    @classmethod
    def _unset_if_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("alert_rules", mode="before")
    @classmethod
    def _rules_of_file(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not value.strip():
            return read_alert_rules()
        try:
            file = project_root() / Path(value).expanduser()
        except RuntimeError as error:
            raise ValueError(f"names a file that cannot be read ({error})") from None
        return read_alert_rules(file)

    @field_validator("spark_configuration", "remote_sizes", mode="before")
    @classmethod
    def _json_object(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        try:
            read = json.loads(value or "{}")
        except ValueError as error:
            raise ValueError(f"is not a JSON object ({error})") from None
        if not isinstance(read, dict):
            raise ValueError("is not a JSON object")
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
                problems = "; ".join(f"{_field_name(one)} {_message(one)}" for one in error.errors())
                # Other names are not quoted, because a user may have entered a secret instead of a name.
                shown = name if name in ("default", "rebuild") else f"entry {number}"
                raise ValueError(f"{shown}: {problems}") from None
        return value

    def remote_size(self, table: str, *, rebuild: bool) -> RemoteSize:
        """The resources of a step: the most specific entry takes precedence, and Spark configurations are merged.

        :param table: the table that the step refreshes, e.g. ``silver.car_telemetry``.
        :param rebuild: whether the step recalculates chosen event dates, as a backfill does.
        """
        names = ["default", *(["rebuild"] if rebuild else []), table, *([f"{table}/rebuild"] if rebuild else [])]
        given = [self.remote_sizes.get(name, {}) for name in names]
        spark = {name: value for size in given for name, value in size.get("spark", {}).items()}
        chosen = {name: value for size in given for name, value in size.items()}
        return RemoteSize(**{**chosen, "spark": {**self.spark_configuration, **spark}})

    def spark_configurations(self) -> list[dict[str, str]]:
        """Every Spark configuration in the settings: the general one, and that of each entry of ``remote_sizes``."""
        return [self.spark_configuration, *(size.get("spark", {}) for size in self.remote_sizes.values())]

    @field_validator("landing_uri", "lakehouse_uri")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; set it to a folder, or to s3://bucket/prefix")
        if is_s3(value):
            return S3Location.parse(value).uri().rstrip("/")
        if "://" in value and not value.startswith("file://"):
            raise ValueError("is neither a folder nor a URI that begins with s3://")
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
            raise ValueError("is not the ARN of a role, such as arn:aws:iam::123456789012:role/telemetry-job")
        return value

    @property
    def is_in_s3(self) -> bool:
        """Whether the landing location and the lakehouse are in S3; otherwise they are folders."""
        return is_s3(self.lakehouse_uri)

    @property
    def is_remote(self) -> bool:
        """Whether the transforms run in an AWS service instead of on this machine."""
        return self.engine in ("emr_serverless", "glue")

    def landing_folder(self) -> Path:
        """The landing location, if it is a folder."""
        return Path(self.landing_uri)

    def lakehouse_folder(self) -> Path:
        """The lakehouse, if it is a folder."""
        return Path(self.lakehouse_uri)

    def landing_in_s3(self) -> S3Location:
        """The landing location, if it is in S3."""
        return S3Location.parse(self.landing_uri)

    def scripts_in_s3(self) -> S3Location:
        """The location of the code for remote Spark."""
        return S3Location.parse(self.scripts_uri)

    def lakehouse_in_s3(self) -> S3Location:
        """The lakehouse, if it is in S3."""
        return S3Location.parse(self.lakehouse_uri)


def load_settings() -> Settings:
    """Read the settings from the environment and from ``.env`` in the project's root.

    :raises SettingsError: naming each variable that cannot be used, and the reason.
    """
    try:
        settings = Settings(_env_file=project_root() / ".env")
    except ValidationError as error:
        # Values are not quoted: a user may have entered a secret in the wrong variable.
        problems = "\n".join(
            f"  - TELEMETRY_{str(problem['loc'][0]).upper()}: {_message(problem)}" for problem in error.errors()
        )
        raise SettingsError(f"These settings cannot be used:\n{problems}") from None
    _require_one_kind_of_location(settings)
    _require_matching_catalog(settings)
    _require_separate_locations(settings)
    return settings


def _field_name(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0])
    return name if name in RemoteSize.model_fields else "another name"


def _message(problem: ErrorDetails) -> str:
    """Pydantic's message, reworded if users would not understand it."""
    if problem["type"] == "extra_forbidden":
        return f"is unknown; known are {', '.join(RemoteSize.model_fields)}"
    return problem["msg"].removeprefix("Value error, ")


def _texts(configuration: dict[str, Any]) -> dict[str, str]:
    # Spark accepts only texts; in JSON, users may write numbers and booleans.
    return {name: one if isinstance(one, str) else json.dumps(one) for name, one in configuration.items()}


def _shown(settings: Settings, name: str) -> str:
    return f"TELEMETRY_{name.upper()}={masked_text(getattr(settings, name))}"


def _require_one_kind_of_location(settings: Settings) -> None:
    if is_s3(settings.landing_uri) != settings.is_in_s3:
        raise SettingsError(
            f"{_shown(settings, 'landing_uri')} and {_shown(settings, 'lakehouse_uri')} must "
            "both be folders or both be in S3, because runs do not move uploads between a folder and S3. Change one of "
            "them."
        )


def _catalog_of(lakehouse_uri: str) -> str:
    return "glue" if is_s3(lakehouse_uri) else "sqlite"


def _require_matching_catalog(settings: Settings) -> None:
    catalog = _catalog_of(settings.lakehouse_uri)
    if settings.catalog != catalog:
        raise SettingsError(
            f"TELEMETRY_CATALOG={settings.catalog} cannot be used with {_shown(settings, 'lakehouse_uri')}. Set it to "
            f"{catalog}, or remove it: the catalog of a folder is sqlite, and the catalog of a location in S3 is glue."
        )


def _require_separate_locations(settings: Settings) -> None:
    landing, lakehouse = PurePosixPath(settings.landing_uri), PurePosixPath(settings.lakehouse_uri)
    if landing.is_relative_to(lakehouse):
        raise SettingsError(
            f"{_shown(settings, 'landing_uri')} lies inside "
            f"{_shown(settings, 'lakehouse_uri')}, so the lakehouse's files would be ingested as uploads. "
            "Use two separate locations."
        )
    if lakehouse.is_relative_to(landing):
        raise SettingsError(
            f"{_shown(settings, 'lakehouse_uri')} lies inside "
            f"{_shown(settings, 'landing_uri')}, so the lakehouse's files would be ingested as uploads. "
            "Use two separate locations."
        )


def require_engine_settings(settings: Settings) -> None:
    """Check that the settings have what their engine needs. Commands that only read tables and uploads need no engine.

    :raises SettingsError: naming the missing settings.
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
            "Spark needs tables in S3 and the Glue Data Catalog. Set TELEMETRY_LAKEHOUSE_URI to a location in S3, or "
            "TELEMETRY_ENGINE to embedded or spark."
        )
    missing = [f"TELEMETRY_{name.upper()}" for name in needed if not getattr(settings, name)]
    if missing:
        raise SettingsError(f"TELEMETRY_ENGINE={settings.engine} needs {' and '.join(missing)} (docs/spark.md).")
