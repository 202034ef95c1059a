"""A step that a job run executes, and the step's folder in the lakehouse.

``<lakehouse>/remote/<run>/<table>-<id>/`` contains ``step.json``, the ids of the runs that follow the job run
(``followers.json``), and the reports of the job run: messages of Dagster Pipes (``messages/1.json``, …). Later runs can
read them too.
"""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

from telemetry_assets.aws.clients import s3_client
from telemetry_assets.aws.errors import GONE, error_code
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.aws.requests import encryption, get_object
from telemetry_assets.engines.plan import RefreshRequest
from telemetry_assets.errors import QualityError, RemoteRunError, TelemetryAssetsError
from telemetry_assets.lakehouse.stored_files import stored_files
from telemetry_assets.settings import Settings
from telemetry_assets.tables import derived_table_named
from telemetry_assets.transforms.refresh import RefreshParameters

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

STEP = "step.json"
FOLLOWERS = "followers.json"
MESSAGES = "messages"
_FOLDER = "remote"
_NOT_COMPARED = {"run_id", "rebuild"}


class RemoteStep(BaseModel):
    """The work of a job run: refreshing a derived table, or parsing a batch.

    :param settings: the settings that the program needs.
    :param table: the full name of the table; Bronze for a batch.
    :param event_dates: the event dates to refresh; None for those on which the table is behind.
    :param rebuild: whether a part of the table is rebuilt, for which the job run may need more memory.
    :param rebuilds: see :meth:`telemetry_assets.engines.base.Engine.refresh`.
    :param run_id: the run that started the job run.
    :param upstream_snapshot_id: the upstream's current snapshot when the refresh was planned.
    :param package: the name of the package that the program is part of.
    :param journal_entry: the journal entry of the batch, as JSON.
    """

    model_config = ConfigDict(frozen=True)

    settings: dict[str, Any]
    table: str
    event_dates: tuple[date, ...] | None
    insurance_as_of: date
    rebuild: bool
    rebuilds: bool
    run_id: str
    upstream_snapshot_id: int | None
    package: str
    journal_entry: str | None = None

    @property
    def program_settings(self) -> Settings:
        """The settings of the program."""
        return Settings(**self.settings)

    @property
    def request(self) -> RefreshRequest:
        """The refresh of the derived table."""
        event_dates = None if self.event_dates is None else frozenset(self.event_dates)
        parameters = RefreshParameters(self.insurance_as_of, self.program_settings.alert_rules)
        return RefreshRequest(derived_table_named(self.table), event_dates, parameters, self.run_id, self.rebuilds)

    def is_same_work(self, other: RemoteStep) -> bool:
        """Whether this step has the effect of another one, so that the other does not have to be executed.

        After a rebuild, the table is no longer planned to be rebuilt.
        """
        is_enough = self.rebuild or not other.rebuild
        return is_enough and self.model_dump(exclude=_NOT_COMPARED) == other.model_dump(exclude=_NOT_COMPARED)


class StepFolder:
    """The folder of a step in S3.

    :param location: the folder.
    """

    def __init__(self, location: S3Location, settings: Settings) -> None:
        self.location = location
        self._encryption: dict[str, Any] = encryption(settings.kms_key_id)
        self._read: set[str] = set()

    @classmethod
    def new(cls, step: RemoteStep, settings: Settings) -> StepFolder:
        """Create the folder of a step, with the run that starts it as its follower."""
        location = steps_location(settings).below(step.run_id, f"{step.table}-{uuid.uuid4().hex}")
        folder = cls(location, settings)
        folder._write(STEP, step.model_dump_json())
        folder.follow(step.run_id)
        return folder

    @classmethod
    def of(cls, step_uri: str, settings: Settings) -> StepFolder | None:
        """The folder of a job run's step; None if it is in another lakehouse.

        :param step_uri: the argument that the job run was started with.
        """
        if not step_uri.startswith(steps_location(settings).uri()) or not step_uri.endswith(f"/{STEP}"):
            return None
        return cls(S3Location.parse(step_uri.removesuffix(STEP)), settings)

    @property
    def uri(self) -> str:
        """The argument that a job run is started with."""
        return self.location.uri(STEP)

    @property
    def name(self) -> str:
        """The unique name of the folder."""
        return self.location.prefix.rstrip("/").rsplit("/", 1)[-1]

    @cached_property
    def step(self) -> RemoteStep | None:
        """The step; None if it was deleted."""
        text = self._text(STEP)
        return None if text is None else RemoteStep.model_validate_json(text)

    def follow(self, run_id: str) -> None:
        """Add a run to the followers."""
        self._write(FOLLOWERS, json.dumps([*self.followers(), run_id]))

    def leave(self, run_id: str) -> None:
        """Remove a run from the followers."""
        self._write(FOLLOWERS, json.dumps([one for one in self.followers() if one != run_id]))

    def followers(self) -> list[str]:
        """The ids of the runs that follow the job run, the newest last."""
        text = self._text(FOLLOWERS)
        return [] if text is None else list(json.loads(text))

    def new_messages(self) -> list[dict[str, Any]]:
        """The messages since the last call, in order. A missing object does not delay the objects after it."""
        keys = [
            one["Key"]
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.location.bucket, Prefix=self.location.below(MESSAGES).prefix
            )
            for one in page.get("Contents", [])
        ]
        new = sorted(set(keys) - self._read, key=_number)
        contents = [get_object(self._client, self.location.bucket, key)[0] for key in new]
        # Advance only if all messages could be read. Otherwise the next call returns all of them.
        self._read.update(new)
        return [json.loads(line) for content in contents for line in content.decode().splitlines()]

    @property
    def _client(self) -> S3Client:
        return s3_client()

    def _write(self, name: str, text: str) -> None:
        self._client.put_object(
            Bucket=self.location.bucket, Key=self.location.prefix + name, Body=text.encode(), **self._encryption
        )

    def _text(self, name: str) -> str | None:
        try:
            content, _ = get_object(self._client, self.location.bucket, self.location.prefix + name)
        except ClientError as error:
            if error_code(error) not in GONE:
                raise
            return None
        return content.decode()


def load_step(step_uri: str) -> tuple[S3Location, RemoteStep]:
    """The folder and the step of a job run.

    :param step_uri: the argument that the job run was started with.
    """
    location = S3Location.parse(step_uri.removesuffix(STEP))
    content, _ = get_object(s3_client(), location.bucket, location.prefix + STEP)
    return location, RemoteStep.model_validate_json(content)


def old_step_files(settings: Settings, written_before: datetime) -> list[str]:
    """The URIs of the files of steps that were written before a time."""
    location = steps_location(settings).uri().rstrip("/")
    return [file.uri for file in stored_files(location) if file.modified < written_before]


def steps_location(settings: Settings) -> S3Location:
    """The folder of all steps of a lakehouse."""
    return settings.lakehouse_in_s3().below(_FOLDER)


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))


def error_to_json(error: TelemetryAssetsError) -> dict[str, Any]:
    """An error as a job run reports it."""
    rows = {"table": error.table, "rows": error.rows} if isinstance(error, QualityError) else {}
    return {"message": str(error), **rows}


def error_from_json(value: dict[str, Any], log: list[str]) -> TelemetryAssetsError:
    """The error of which :func:`error_to_json` returned ``value``, as the type that callers distinguish.

    :param log: the last lines of the job run's log.
    """
    if "rows" in value:
        return QualityError(value["message"], value["table"], value["rows"])
    return RemoteRunError(value["message"], log)
