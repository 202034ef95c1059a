"""Where a deployment lives: a bucket or folders, as the producer and the judge see them, past every worker's proxy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import ClientError

from telemetry_assets.settings import Settings
from telemetry_assets_tests.aws.services import AwsServices
from telemetry_assets_tests.contract_reading import Upload
from telemetry_assets_tests.deployment import BUCKET, IN_S3, keys


class Stage(Protocol):
    """A deployment's place."""

    settings: Settings

    def clear(self, *, versioned: bool) -> None:
        """Make it empty."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write an upload."""
        ...

    def delete(self, name: str) -> None:
        """Take an upload back."""
        ...

    def waits(self, name: str) -> bool:
        """Whether an upload of this name is where uploads wait."""
        ...

    def archived(self) -> dict[str, list[Upload]]:
        """The archive, by batch."""
        ...


class BucketStage:
    """A bucket, with versioning or without."""

    def __init__(self, aws: AwsServices) -> None:
        self.aws = aws
        self.settings = Settings(**IN_S3)
        self._client: Any = aws.client("s3", max_pool_connections=10)

    def clear(self, *, versioned: bool) -> None:
        """See :meth:`Stage.clear`."""
        self.aws.reset()
        self.aws.make_bucket(BUCKET, versioned=versioned)

    def put(self, name: str, content: bytes) -> None:
        """See :meth:`Stage.put`."""
        self._client.put_object(Bucket=BUCKET, Key=f"landing/{name}", Body=content)

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


class FolderStage:
    """Folders on one file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.settings = Settings(
            landing_uri=str(folder / "landing"),
            lakehouse_uri=str(folder / "lakehouse"),
            upload_minimum_age_seconds=0,
        )

    def clear(self, *, versioned: bool) -> None:
        """See :meth:`Stage.clear`."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.settings.landing_folder().mkdir(parents=True)

    def put(self, name: str, content: bytes) -> None:
        """See :meth:`Stage.put`."""
        path = self.settings.landing_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        draft.write_bytes(content)
        draft.rename(path)

    def delete(self, name: str) -> None:
        """See :meth:`Stage.delete`."""
        (self.settings.landing_folder() / name).unlink(missing_ok=True)

    def waits(self, name: str) -> bool:
        """See :meth:`Stage.waits`."""
        return (self.settings.landing_folder() / name).exists()

    def archived(self) -> dict[str, list[Upload]]:
        """See :meth:`Stage.archived`."""
        archive = self.settings.lakehouse_folder() / "archive"
        batches: dict[str, list[Upload]] = {}
        for path in sorted(archive.rglob("*")):
            if path.is_file():
                batch, *name = path.relative_to(archive).parts
                uri = f"file://{self.settings.landing_folder() / Path(*name)}"
                batches.setdefault(batch, []).append(Upload(uri, path.read_bytes()))
        return batches
