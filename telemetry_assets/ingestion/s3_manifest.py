"""The manifest of the batch in progress in an object of S3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from telemetry_assets.aws import (
    GONE,
    PRECONDITION_FAILED,
    delete_object_if,
    error_code,
    get_object,
    put_object_if,
)
from telemetry_assets.ingestion.manifests import Manifest, read_manifest, written

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@dataclass(frozen=True)
class ManifestObject:
    """The manifest in progress in an object of S3, whose ETag tells its states apart.

    :param encryption: arguments of each write, such as the KMS key.
    """

    client: S3Client
    bucket: str
    key: str
    encryption: dict[str, Any]

    def load(self) -> Manifest | None:
        """See :meth:`ManifestStore.load`."""
        try:
            content, etag = get_object(self.client, self.bucket, self.key)
        except ClientError as error:
            if error_code(error) in GONE:
                return None
            raise
        return read_manifest(content, etag, f"s3://{self.bucket}/{self.key}")

    def create(self, manifest: Manifest) -> bool:
        """See :meth:`ManifestStore.create`."""
        return self._put(manifest, IfNoneMatch="*")

    def replace(self, manifest: Manifest) -> bool:
        """See :meth:`ManifestStore.replace`."""
        return self._put(manifest, IfMatch=manifest.tag)

    def remove(self, manifest: Manifest) -> None:
        """See :meth:`ManifestStore.remove`."""
        current = self.load()
        while current is not None and current.batch_id == manifest.batch_id:
            try:
                delete_object_if(self.client, self.bucket, self.key, current.tag)
            except ClientError as error:
                if error_code(error) not in GONE | PRECONDITION_FAILED:
                    raise
            current = self.load()

    def _put(self, manifest: Manifest, **condition: Any) -> bool:
        content = written(manifest)
        try:
            etag = put_object_if(self.client, self.bucket, self.key, content, **condition, **self.encryption)
        except ClientError as error:
            if error_code(error) not in GONE | PRECONDITION_FAILED:
                raise
            # An answer that was lost is asked for again, and then meets what it has written.
            current = self.load()
            if current is None or written(current) != content:
                return False
            etag = current.tag
        manifest.tag = etag
        return True
