"""Corrections of moto's S3. The server handles one request at a time, so a check and a write are one step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from moto.core.common_types import TYPE_RESPONSE
from moto.s3.exceptions import MissingKey, PreconditionFailed
from moto.s3.models import FakeBucket, FakeDeleteMarker, FakeKey
from moto.s3.responses import S3Response

from telemetry_assets_tests.harness.aws.listing_pages import ListingPage, Version, listing_page, xml

_LARGEST_PAGE = 1000
_permission_of_moto = FakeBucket.get_permission


def _permission(bucket: FakeBucket, action: str, resource: str) -> Any:
    """Evaluate a bucket policy with its conditions, which moto ignores; every request counts as sent over TLS."""
    if bucket.policy is None:
        return _permission_of_moto(bucket, action, resource)
    whole = bucket.policy
    policy = json.loads(whole)
    policy["Statement"] = [one for one in policy["Statement"] if "aws:SecureTransport" not in json.dumps(one)]
    try:
        bucket.policy = json.dumps(policy).encode()
        return _permission_of_moto(bucket, action, resource)
    finally:
        bucket.policy = whole


setattr(FakeBucket, _permission_of_moto.__name__, _permission)
# moto deletes all versions if versioning is suspended, and fails on a delete marker.
FakeDeleteMarker.dispose = lambda _: None  # type: ignore[attr-defined]


class CorrectedS3Response(S3Response):
    """S3's responses."""

    def _key_response(self, request: Any, full_url: str) -> TYPE_RESPONSE:
        """Keep the versions of a bucket whose versioning is suspended, and write null versions and null delete markers.

        moto drops all its versions at the next write.
        """
        bucket = self.backend.buckets.get(self.bucket_name)
        if not isinstance(bucket, FakeBucket) or bucket.versioning_status != "Suspended":
            return super()._key_response(request, full_url)
        key = self.parse_key_name()
        before = list(bucket.keys.getlist(key, []))
        bucket.versioning_status = "Enabled"
        try:
            status, headers, body = super()._key_response(request, full_url)
        finally:
            bucket.versioning_status = "Suspended"
        *kept, new = bucket.keys.getlist(key, []) or [None]
        if len(kept) >= len(before) and new is not None:
            new._version_id = "null"
            bucket.keys.setlist(key, [*(one for one in kept if one.version_id != "null"), new])
            headers["x-amz-version-id"] = "null"
        return status, headers, body

    def copy_object(self) -> TYPE_RESPONSE:
        """Check conditions on source and target as S3 does; moto checks ``x-amz-copy-source-if-none-match`` only."""
        self._check_copied()
        self._check_overwritten()
        return super().copy_object()

    def upload_part_copy(self) -> TYPE_RESPONSE:
        """Check conditions on the source as S3 does; moto does not."""
        self._check_copied()
        return super().upload_part_copy()

    def _key_response_post(
        self, request: Any, body: bytes, bucket_name: str, query: dict[str, Any], key_name: str
    ) -> TYPE_RESPONSE:
        """Check ``If-Match`` when a multipart upload completes, as S3 does; moto checks ``If-None-Match`` only."""
        if "uploadId" in query and self.headers.get("If-Match"):
            self._check_overwritten()
        return super()._key_response_post(request, body, bucket_name, query, key_name)

    def delete_object(self) -> TYPE_RESPONSE:
        """Let ``If-Match: *`` match any object but a delete marker (412), as S3 does; moto compares it as an ETag."""
        key, condition = self.parse_key_name(), self.headers.get("If-Match")
        if condition == "*" and isinstance(self._bucket().keys.get(key), FakeDeleteMarker):
            raise PreconditionFailed("If-Match")
        if condition:
            self._check_overwritten()
        _, answer = self.backend.delete_object(
            self.bucket_name,
            key,
            version_id=self._get_param("versionId"),
            bypass=self.headers.get("X-Amz-Bypass-Governance-Retention"),
        )
        return 204, {f"x-amz-{name}": value for name, value in answer.items()}, ""

    def list_objects_v2(self) -> TYPE_RESPONSE:
        """Omit common prefixes of deleted objects only and encode the delimiter, as S3 does and moto does not."""
        parameters = self._parameters()
        latest = ((name, self._bucket().keys[name]) for name in self._bucket().keys)
        keys = {name: [content] for name, content in latest if isinstance(content, FakeKey)}
        token = parameters.get("continuation-token", "")
        begin = bytes.fromhex(token).decode() if token else parameters.get("start-after", "")
        page = listing_page(
            keys, parameters.get("prefix", ""), parameters.get("delimiter", ""), (begin, ""), _limit(parameters)
        )
        shown = self._shown_page(parameters, page)
        shown["KeyCount"] = len(page.versions) + len(page.prefixes)
        shown["Contents"] = [_shown_object(one, _encoder(parameters)) for one in page.versions]
        if page.next_marker:
            shown["NextContinuationToken"] = page.next_marker[0].encode().hex()
        self.data["Action"] = "ListObjectsV2"
        return 200, {}, xml("ListBucketResult", shown)

    def list_object_versions(self) -> TYPE_RESPONSE:
        """List each key's versions in the order of their writes, and encode keys if requested, as S3 does.

        moto copies the bucket for each page, orders by milliseconds, and its pages overlap if they end within a key
        that has several versions.
        """
        parameters, keys = self._parameters(), self._bucket().keys
        encode = _encoder(parameters)
        marker = (parameters.get("key-marker", ""), parameters.get("version-id-marker", ""))
        versions = {name: keys.getlist(name) for name in keys}
        page = listing_page(
            versions, parameters.get("prefix", ""), parameters.get("delimiter", ""), marker, _limit(parameters)
        )
        shown = self._shown_page(parameters, page)
        shown["Version"] = [_shown_version(one, encode) for one in page.versions if isinstance(one.content, FakeKey)]
        marks = [one for one in page.versions if not isinstance(one.content, FakeKey)]
        shown["DeleteMarker"] = [_shown_version(one, encode) for one in marks]
        if page.next_marker:
            shown["NextKeyMarker"], shown["NextVersionIdMarker"] = encode(page.next_marker[0]), page.next_marker[1]
        self.data["Action"] = "ListObjectVersions"
        return 200, {}, xml("ListVersionsResult", shown)

    def _parameters(self) -> dict[str, str]:
        return {name: values[0] for name, values in self._get_querystring(self.request, self.uri).items()}

    def _shown_page(self, parameters: Mapping[str, str], page: ListingPage) -> dict[str, Any]:
        encode = _encoder(parameters)
        shown: dict[str, Any] = {"Name": self.bucket_name, "Prefix": encode(parameters.get("prefix", ""))}
        if parameters.get("encoding-type"):
            shown["EncodingType"] = parameters["encoding-type"]
        if parameters.get("delimiter"):
            shown["Delimiter"] = encode(parameters["delimiter"])
        shown["MaxKeys"] = _limit(parameters)
        shown["IsTruncated"] = page.next_marker is not None
        shown["CommonPrefixes"] = [{"Prefix": encode(one)} for one in page.prefixes]
        return shown

    def _bucket(self) -> FakeBucket:
        return self.backend.get_bucket(self.bucket_name)

    def _current(self) -> FakeKey | None:
        return self.backend.get_object(self.bucket_name, self.parse_key_name())

    def _check_overwritten(self) -> None:
        """Refuse to write or delete a key whose current version does not meet the condition."""
        current, if_match = self._current(), self.headers.get("If-Match")
        if self.headers.get("If-None-Match") == "*" and current is not None:
            raise PreconditionFailed("If-None-Match")
        if if_match and current is None:
            raise MissingKey(key=self.parse_key_name())
        if if_match and current is not None and not _same(if_match, current.etag):
            raise PreconditionFailed("If-Match")

    def _check_copied(self) -> None:
        """Refuse to copy a source that does not meet the condition; moto reports a missing source."""
        condition = self.headers.get("x-amz-copy-source-if-match")
        path, _, query = self.headers["x-amz-copy-source"].partition("?")
        bucket, _, key = unquote(path).removeprefix("/").partition("/")
        source = self.backend.get_object(bucket, key, version_id=parse_qs(query).get("versionId", [None])[0])
        if condition and source is not None and not _same(condition, source.etag):
            raise PreconditionFailed("x-amz-copy-source-If-Match")


def _same(condition: str, etag: str) -> bool:
    return condition == "*" or condition.strip('"') == etag.strip('"')


def _encoder(parameters: Mapping[str, str]) -> Callable[[str], str]:
    return quote if parameters.get("encoding-type") == "url" else str


def _limit(parameters: Mapping[str, str]) -> int:
    return min(int(parameters.get("max-keys") or _LARGEST_PAGE), _LARGEST_PAGE)


def _shown_object(one: Version, encode: Callable[[str], str]) -> dict[str, Any]:
    return {
        "Key": encode(one.content.name),
        "LastModified": one.content.last_modified_ISO8601,
        "ETag": one.content.etag,
        "Size": one.content.size,
        "StorageClass": one.content.storage_class,
    }


def _shown_version(one: Version, encode: Callable[[str], str]) -> dict[str, Any]:
    version = {"VersionId": one.content.version_id, "IsLatest": one.is_latest}
    if isinstance(one.content, FakeKey):
        return _shown_object(one, encode) | version
    return {"Key": encode(one.content.name), "LastModified": one.content.last_modified_ISO8601} | version
