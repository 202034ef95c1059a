"""Requests to AWS, named as its API names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

# The first that a query or the headers have names the operation.
_OF_BUCKET: dict[str, tuple[tuple[str, str], ...]] = {
    "GET": (
        ("list-type", "ListObjectsV2"),
        ("versions", "ListObjectVersions"),
        ("uploads", "ListMultipartUploads"),
        ("versioning", "GetBucketVersioning"),
        ("location", "GetBucketLocation"),
        ("encryption", "GetBucketEncryption"),
        ("", "ListObjects"),
    ),
    "HEAD": (("", "HeadBucket"),),
    "PUT": (
        ("versioning", "PutBucketVersioning"),
        ("encryption", "PutBucketEncryption"),
        ("lifecycle", "PutBucketLifecycleConfiguration"),
        ("", "CreateBucket"),
    ),
    "POST": (("delete", "DeleteObjects"),),
    "DELETE": (("", "DeleteBucket"),),
}
_OF_OBJECT: dict[str, tuple[tuple[str, str], ...]] = {
    "GET": (
        ("uploadId", "ListParts"),
        ("attributes", "GetObjectAttributes"),
        ("tagging", "GetObjectTagging"),
        ("", "GetObject"),
    ),
    "HEAD": (("", "HeadObject"),),
    "PUT": (
        ("tagging", "PutObjectTagging"),
        ("partNumber x-amz-copy-source", "UploadPartCopy"),
        ("partNumber", "UploadPart"),
        ("x-amz-copy-source", "CopyObject"),
        ("", "PutObject"),
    ),
    "POST": (("uploads", "CreateMultipartUpload"), ("uploadId", "CompleteMultipartUpload")),
    "DELETE": (("uploadId", "AbortMultipartUpload"), ("tagging", "DeleteObjectTagging"), ("", "DeleteObject")),
}


@dataclass(frozen=True)
class Request:
    """One request.

    :param operation: e.g. ``PutObject`` or ``UpdateTable``.
    :param bucket: for Glue, the database.
    :param key: of a listing, its prefix; for Glue, the table.
    :param number: of all requests, counted from 1.
    :param is_conditional_write: whether S3 must look at what is there before it writes.
    """

    service: str
    operation: str
    bucket: str
    key: str
    number: int
    is_conditional_write: bool = False


def read_request(method: str, path: str, headers: Mapping[str, str], body: bytes, number: int) -> Request:
    """What a request asks for.

    :param path: as it was sent, with its query.
    :param headers: by their names in small letters.
    """
    if target := headers.get("x-amz-target"):
        service, _, operation = target.partition(".")
        asked = json.loads(body or b"{}")
        table = asked.get("TableInput", {}).get("Name") or asked.get("Name") or asked.get("TableName") or ""
        database = asked.get("DatabaseName") or asked.get("DatabaseInput", {}).get("Name") or ""
        return Request(service.removeprefix("AWS").lower(), operation, database, table, number)
    service = _signed_for(headers.get("authorization", ""))
    if service != "s3":
        return Request(service, parse_qs(body.decode(errors="replace")).get("Action", [""])[0], "", "", number)
    place, _, query = path.partition("?")
    _, bucket, *rest = place.split("/", 2)
    asked_of = parse_qs(query, keep_blank_values=True)
    key = unquote(rest[0]) if rest else ""
    operations = (_OF_OBJECT if key else _OF_BUCKET if bucket else {"GET": (("", "ListBuckets"),)}).get(method, ())
    has = {*asked_of, *headers}
    operation = next((name for marks, name in operations if has.issuperset(marks.split())), method)
    is_conditional = method in ("PUT", "POST", "DELETE") and not has.isdisjoint(("if-match", "if-none-match"))
    return Request(service, operation, unquote(bucket), key or asked_of.get("prefix", [""])[0], number, is_conditional)


def _signed_for(authorization: str) -> str:
    """The service that a request is signed for; one that is not signed is for S3."""
    scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3] if len(scope) == 5 else "s3"
