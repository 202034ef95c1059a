"""Locations in S3, and how they differ from folders."""

from __future__ import annotations

from dataclasses import dataclass

_S3_SCHEME = "s3://"


def is_s3(uri: str) -> bool:
    """Whether a location is in S3. Otherwise it is a folder."""
    return uri.startswith(_S3_SCHEME)


@dataclass(frozen=True)
class S3Location:
    """A bucket, or a prefix in a bucket.

    :param prefix: the prefix of all keys; it ends with a slash, or is empty for the whole bucket.
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, uri: str) -> S3Location:
        """The location that ``s3://bucket/prefix`` names.

        :raises ValueError: if it names no bucket.
        """
        bucket, _, path = uri.removeprefix(_S3_SCHEME).partition("/")
        if not bucket:
            raise ValueError("names no bucket; write s3://bucket or s3://bucket/prefix")
        path = path.strip("/")
        return cls(bucket, f"{path}/" if path else "")

    def below(self, *names: str) -> S3Location:
        """A prefix below this one."""
        return S3Location(self.bucket, "".join((self.prefix, *(f"{name}/" for name in names))))

    def uri(self, name: str = "") -> str:
        """The URI of an object below this location, or of the location."""
        return f"{_S3_SCHEME}{self.bucket}/{self.prefix}{name}"
