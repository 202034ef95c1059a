"""Landing locations of each kind, and how a test puts uploads there and looks at what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from telemetry_assets.aws.clients import s3_client
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.ingestion.landing.s3 import S3Landing
from telemetry_assets_tests.harness.aws.services import AwsServices

BATCH = "batch-1"
BUCKET = "cars"


class Place(Protocol):
    """A landing location, and what a test does with it."""

    landing: Landing

    def put(self, name: str, content: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def archived(self, name: str, batch_id: str = BATCH) -> bytes: ...


class FolderPlace:
    """A folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "landing"
        self.lakehouse = folder / "lakehouse"
        self.archive = self.lakehouse / "archive"
        self.landing: Landing = FolderLanding(self.folder, self.lakehouse, 0)
        self.folder.mkdir()
        self.landing.begin(BATCH)

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_name(".writing")
        written.write_bytes(content)
        written.rename(path)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def archived(self, name: str, batch_id: str = BATCH) -> bytes:
        return (self.archive / batch_id / name).read_bytes()


class S3Place:
    """A prefix in a bucket, or a whole one, with versioning or without."""

    def __init__(
        self,
        aws: AwsServices,
        *,
        versioned: bool,
        prefix: str = "land ing/",
        endpoint: str | None = None,
        **encryption: str,
    ) -> None:
        for bucket, keeps_versions in ((BUCKET, versioned), ("lakehouse", True)):
            aws.make_bucket(bucket, versioned=keeps_versions)
        self.s3: Any = aws.client("s3")
        self.location, lakehouse = S3Location(BUCKET, prefix), S3Location("lakehouse", "")
        self.archive = lakehouse.below("archive")
        released = lakehouse.below("ingestion", "released")
        self.landing: Landing = S3Landing(s3_client(), self.location, self.archive, released, encryption)

    def put(self, name: str, content: bytes, **arguments: Any) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=f"{self.location.prefix}{name}", Body=content, **arguments)

    def remove(self, name: str) -> None:
        self.s3.delete_object(Bucket=BUCKET, Key=f"{self.location.prefix}{name}")

    def archived(self, name: str, batch_id: str = BATCH) -> bytes:
        content: bytes = self.archived_object(name, batch_id)["Body"].read()
        return content

    def archived_object(self, name: str, batch_id: str = BATCH) -> Any:
        return self.s3.get_object(Bucket=self.archive.bucket, Key=f"{self.archive.prefix}{batch_id}/{name}")

    def versions(self, name: str) -> list[bytes]:
        """What the versions under one name hold, newest first; a delete marker is told as such."""
        key = f"{self.location.prefix}{name}"
        page = self.s3.list_object_versions(Bucket=BUCKET, Prefix=key)
        found = [*page.get("DeleteMarkers", []), *page.get("Versions", [])]
        return [self._content(one) for one in found if one["Key"] == key]

    def _content(self, version: Any) -> bytes:
        if "ETag" not in version:
            return b"(deleted)"
        answer = self.s3.get_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
        content: bytes = answer["Body"].read()
        return content


def names(landing: Landing) -> list[str]:
    """The names of what waits."""
    return sorted(upload.name for upload in landing.waiting())
