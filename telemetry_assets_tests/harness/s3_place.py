"""A landing location in S3 with a test's access to it."""

from __future__ import annotations

from typing import Any

from telemetry_assets.aws.clients import s3_client
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.ingestion.landing.s3 import S3Landing
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.places import BATCH

BUCKET = "cars"


class S3Place:
    """A prefix in a bucket, or a whole bucket, with or without versioning."""

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
        """The contents of all versions of a name, newest first; a delete marker has a placeholder."""
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
