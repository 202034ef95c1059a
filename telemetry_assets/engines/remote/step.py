"""What a remote program is told, and what it tells: a folder in the lakehouse for each step.

``<lakehouse>/remote/<run>/<table>-<number>/`` holds ``step.json``, who follows it (``followers.json``), and what the
program tells (``messages/1.json``, …): messages of Dagster Pipes, which whoever comes later can read too.
"""

from __future__ import annotations

import json
import uuid
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

from telemetry_assets.aws.clients import s3_client
from telemetry_assets.aws.errors import GONE, error_code
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.aws.requests import encryption, get_object
from telemetry_assets.engines.base import PartitionResult, RefreshResult, RemoteRun
from telemetry_assets.errors import QualityError, RemoteRunError, TelemetryAssetsError
from telemetry_assets.settings import Settings
from telemetry_assets.tables import derived_table_named
from telemetry_assets.tables.derived import DerivedTable
from telemetry_assets.transforms.refresh import RefreshParameters

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

STEP = "step.json"
FOLLOWERS = "followers.json"
MESSAGES = "messages"
_FOLDER = "remote"


class RemoteStep(BaseModel):
    """A step as a remote program does it.

    :param settings: those of the deployment, as the program takes them.
    :param event_dates: the dates to take; None for those that the table is behind on.
    :param run_id: of the run that has started it.
    :param upstream_snapshot_id: the upstream's snapshot when the step was planned.
    :param package: the package that does it.
    :param journal_entry: of the batch that is to be parsed, where the table is Bronze.
    """

    model_config = ConfigDict(frozen=True)

    settings: dict[str, Any]
    table: str
    event_dates: tuple[date, ...] | None
    insurance_as_of: date
    rebuild: bool
    run_id: str
    upstream_snapshot_id: int | None
    package: str
    journal_entry: str | None = None

    @property
    def program_settings(self) -> Settings:
        """The settings, as the program takes them."""
        return Settings(**self.settings)

    @property
    def contract(self) -> DerivedTable:
        """The table that is brought up to date."""
        return derived_table_named(self.table)

    @property
    def dates(self) -> frozenset[date] | None:
        """The dates to take."""
        return None if self.event_dates is None else frozenset(self.event_dates)

    @property
    def parameters(self) -> RefreshParameters:
        """What the run decides."""
        return RefreshParameters(self.insurance_as_of, self.rebuild)

    def is_same_work(self, other: RemoteStep) -> bool:
        """Whether both take the same from the same, so that what one has done need not be done by the other."""
        return self.model_dump(exclude={"run_id"}) == other.model_dump(exclude={"run_id"})


class StepFolder:
    """A step's folder in the lakehouse."""

    def __init__(self, location: S3Location, settings: Settings) -> None:
        self.location = location
        self._encryption: dict[str, Any] = encryption(settings.kms_key_id)
        self._read: set[str] = set()

    @classmethod
    def new(cls, step: RemoteStep, settings: Settings) -> StepFolder:
        """A folder with a step in it."""
        location = steps_location(settings).below(step.run_id, f"{step.table}-{uuid.uuid4().hex}")
        folder = cls(location, settings)
        folder._write(STEP, step.model_dump_json())
        folder.follow(step.run_id)
        return folder

    @classmethod
    def of(cls, step_uri: str, settings: Settings) -> StepFolder | None:
        """The folder of a step that a remote run was started with; None where it is of another lakehouse."""
        if not step_uri.startswith(steps_location(settings).uri()) or not step_uri.endswith(f"/{STEP}"):
            return None
        return cls(S3Location.parse(step_uri.removesuffix(STEP)), settings)

    @property
    def uri(self) -> str:
        """What a remote run is started with."""
        return self.location.uri(STEP)

    @property
    def name(self) -> str:
        """The folder's own name, unlike any other's."""
        return self.location.prefix.rstrip("/").rsplit("/", 1)[-1]

    @cached_property
    def step(self) -> RemoteStep | None:
        """The step; None where somebody has removed it."""
        text = self._text(STEP)
        return None if text is None else RemoteStep.model_validate_json(text)

    def follow(self, run_id: str) -> None:
        """Say that a run follows the step too."""
        self._write(FOLLOWERS, json.dumps([*self.followers(), run_id]))

    def leave(self, run_id: str) -> None:
        """Say that a run follows the step no more."""
        self._write(FOLLOWERS, json.dumps([one for one in self.followers() if one != run_id]))

    def followers(self) -> list[str]:
        """The runs that have followed the step, the newest last."""
        text = self._text(FOLLOWERS)
        return [] if text is None else list(json.loads(text))

    def new_messages(self) -> list[dict[str, Any]]:
        """The messages that came since the last call, in their order. A lost piece does not keep back later ones."""
        keys = [
            one["Key"]
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.location.bucket, Prefix=self.location.below(MESSAGES).prefix
            )
            for one in page.get("Contents", [])
        ]
        new = sorted(set(keys) - self._read, key=_number)
        pieces = [get_object(self._client, self.location.bucket, key)[0] for key in new]
        # Where one cannot be read, none of them was: the next call has them all.
        self._read.update(new)
        return [json.loads(line) for piece in pieces for line in piece.decode().splitlines()]

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


def opened_step(step_uri: str) -> tuple[S3Location, RemoteStep]:
    """The folder and the step that a program was started with."""
    location = S3Location.parse(step_uri.removesuffix(STEP))
    content, _ = get_object(s3_client(), location.bucket, location.prefix + STEP)
    return location, RemoteStep.model_validate_json(content)


def steps_location(settings: Settings) -> S3Location:
    """Where the folders of all steps of a lakehouse are."""
    return settings.lakehouse_in_s3().below(_FOLDER)


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))


def result_to_json(result: RefreshResult) -> dict[str, Any]:
    """A result as a program tells it. Rows of a preview become the texts that people are shown."""
    partitions = [
        [day, one.rows, one.figures, [{name: _shown(cell) for name, cell in row.items()} for row in one.preview]]
        for day, one in result.partitions.items()
    ]
    told = {
        "event_dates": result.event_dates,
        "rows_read": [[day, rows] for day, rows in result.rows_read.items()],
        "rows_written": result.rows_written,
        "partitions": partitions,
        "changed": result.changed,
        "snapshot_id": str(result.snapshot_id) if result.snapshot_id is not None else None,
        "seconds": result.seconds,
    }
    read: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return read


def _shown(cell: object) -> object:
    return cell if cell is None or isinstance(cell, bool | int | float | str) else str(cell)


def result_from_json(contract: DerivedTable, told: dict[str, Any], remote: RemoteRun) -> RefreshResult:
    """What :func:`result_to_json` was made from."""

    def day(text: str | None) -> date | None:
        return None if text is None else date.fromisoformat(text)

    return RefreshResult(
        contract=contract,
        event_dates=tuple(map(date.fromisoformat, told["event_dates"])),
        rows_read={date.fromisoformat(text): rows for text, rows in told["rows_read"]},
        rows_written=told["rows_written"],
        partitions={
            day(text): PartitionResult(rows, figures, preview) for text, rows, figures, preview in told["partitions"]
        },
        changed=told["changed"],
        snapshot_id=int(told["snapshot_id"]) if told["snapshot_id"] is not None else None,
        seconds=told["seconds"],
        remote=remote,
    )


def error_to_json(error: TelemetryAssetsError) -> dict[str, Any]:
    """An error as a program tells it."""
    rows = {"table": error.table, "rows": error.rows} if isinstance(error, QualityError) else {}
    return {"message": str(error), **rows}


def error_from_json(told: dict[str, Any], log: list[str]) -> TelemetryAssetsError:
    """What :func:`error_to_json` was made from, or as much of it as a caller acts on."""
    if "rows" in told:
        return QualityError(told["message"], told["table"], told["rows"])
    return RemoteRunError(told["message"], log)
