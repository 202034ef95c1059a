"""The places of a deployment: a bucket or folders, which producer and judge access without the workers' proxies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from botocore.exceptions import ClientError
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.settings import Settings
from telemetry_assets_tests.chaos.disks import FILLER, Disk
from telemetry_assets_tests.chaos.steps import Schedule
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.contract_reading import Upload
from telemetry_assets_tests.harness.deployment import BUCKET, IN_S3, keys

_IN_PROGRESS = "in_progress.json"
_FOREIGN_BUSY_SECONDS = 1


class Stage(Protocol):
    """A deployment's place."""

    settings: Settings

    def clear(self, schedule: Schedule) -> None:
        """Empty the place and configure it for a schedule."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write an upload."""
        ...

    def reopen(self, name: str) -> BinaryIO:
        """Open a waiting upload to append to it. In folders only."""
        ...

    def delete(self, name: str) -> None:
        """Delete a waiting upload."""
        ...

    def waits(self, name: str) -> bool:
        """Whether an upload of this name waits."""
        ...

    def archived(self) -> dict[str, list[Upload]]:
        """The archived uploads by batch."""
        ...

    def left(self) -> list[str]:
        """The remaining work: waiting and claimed uploads, and the batch in progress."""
        ...

    def open_catalog(self) -> Catalog:
        """Open the catalog as another program does."""
        ...

    def catalog_file(self) -> Path | None:
        """The catalog's SQLite file; None for other catalogs."""
        ...

    def disk(self) -> Disk | None:
        """The schedule's own disk, if it has one."""
        ...


class BucketStage:
    """A bucket, with versioning or without."""

    def __init__(self, aws: AwsServices) -> None:
        self.aws = aws
        self.settings = Settings(**IN_S3)
        self._client: Any = aws.client("s3", max_pool_connections=10)

    def clear(self, schedule: Schedule) -> None:
        """See :meth:`Stage.clear`."""
        self.aws.reset()
        self.aws.make_bucket(BUCKET, versioned=schedule.versioned)

    def put(self, name: str, content: bytes) -> None:
        """See :meth:`Stage.put`."""
        self._client.put_object(Bucket=BUCKET, Key=f"landing/{name}", Body=content)

    def reopen(self, name: str) -> BinaryIO:
        """See :meth:`Stage.reopen`."""
        raise OSError(f"{name} is an object, which cannot grow")

    def delete(self, name: str) -> None:
        """See :meth:`Stage.delete`."""
        self._client.delete_object(Bucket=BUCKET, Key=f"landing/{name}")

    def waits(self, name: str) -> bool:
        """See :meth:`Stage.waits`."""
        try:
            self._client.head_object(Bucket=BUCKET, Key=f"landing/{name}")
        except ClientError:
            return False
        return True

    def archived(self) -> dict[str, list[Upload]]:
        """See :meth:`Stage.archived`."""
        archive = self.settings.lakehouse_in_s3().below("archive")
        batches: dict[str, list[Upload]] = {}
        for key in keys(self._client, archive):
            batch, _, name = key.removeprefix(archive.prefix).partition("/")
            content = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            batches.setdefault(batch, []).append(Upload(self.settings.landing_in_s3().uri(name), content))
        return batches

    def left(self) -> list[str]:
        """See :meth:`Stage.left`."""
        waiting = keys(self._client, self.settings.landing_in_s3())
        journal = self.settings.lakehouse_in_s3().below("ingestion")
        in_progress = [key for key in keys(self._client, journal) if key.endswith(f"/{_IN_PROGRESS}")]
        return [f"{key} is left" for key in (*waiting, *in_progress)]

    def open_catalog(self) -> Catalog:
        """See :meth:`Stage.open_catalog`."""
        # The product's code for Glue uses the endpoint of this process's AWS.
        return open_lakehouse(self.settings).catalog

    def catalog_file(self) -> Path | None:
        """See :meth:`Stage.catalog_file`."""
        return None

    def disk(self) -> Disk | None:
        """See :meth:`Stage.disk`."""
        return None


class FolderStage:
    """Folders on one file system, with an optional small disk for one or all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disk: Disk | None = None
        self.settings = Settings(
            landing_uri=str(folder / "landing"),
            lakehouse_uri=str(folder / "lakehouse"),
            upload_minimum_age_seconds=0,
        )

    def clear(self, schedule: Schedule) -> None:
        """See :meth:`Stage.clear`."""
        if self._disk is not None:
            self._disk.detach()
            self._disk = None
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        if schedule.disk:
            self._disk = Disk(self._folder / schedule.disk if schedule.disk != "both" else self._folder)
            self._disk.attach()
        self.settings.landing_folder().mkdir(parents=True, exist_ok=True)

    def put(self, name: str, content: bytes) -> None:
        """See :meth:`Stage.put`."""
        path = self.settings.landing_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        draft.write_bytes(content)
        draft.rename(path)

    def reopen(self, name: str) -> BinaryIO:
        """See :meth:`Stage.reopen`."""
        # Unbuffered, so that closing it writes nothing.
        return (self.settings.landing_folder() / name).open("ab", buffering=0)

    def delete(self, name: str) -> None:
        """See :meth:`Stage.delete`."""
        (self.settings.landing_folder() / name).unlink(missing_ok=True)

    def waits(self, name: str) -> bool:
        """See :meth:`Stage.waits`."""
        return (self.settings.landing_folder() / name).exists()

    def archived(self) -> dict[str, list[Upload]]:
        """See :meth:`Stage.archived`."""
        archive = self._lakehouse / "archive"
        batches: dict[str, list[Upload]] = {}
        for path in sorted(archive.rglob("*")):
            if path.is_file():
                batch, *name = path.relative_to(archive).parts
                uri = f"file://{self.settings.landing_folder() / Path(*name)}"
                batches.setdefault(batch, []).append(Upload(uri, path.read_bytes()))
        return batches

    def left(self) -> list[str]:
        """See :meth:`Stage.left`."""
        landing, in_progress = self.settings.landing_folder(), self._lakehouse / "ingestion" / _IN_PROGRESS
        files = [one for one in sorted(landing.rglob("*")) if one.is_file() and one.name != FILLER]
        return [f"{one} is left" for one in (*files, *([in_progress] if in_progress.exists() else []))]

    def open_catalog(self) -> SqlCatalog:
        """See :meth:`Stage.open_catalog`."""
        uri = f"sqlite:///{self.catalog_file()}?timeout={_FOREIGN_BUSY_SECONDS}"
        return SqlCatalog("telemetry", uri=uri, warehouse=f"file://{self._lakehouse}")

    def catalog_file(self) -> Path:
        """See :meth:`Stage.catalog_file`."""
        return self._lakehouse / "catalog.sqlite"

    def disk(self) -> Disk | None:
        """See :meth:`Stage.disk`."""
        return self._disk

    @property
    def _lakehouse(self) -> Path:
        return self.settings.lakehouse_folder()
