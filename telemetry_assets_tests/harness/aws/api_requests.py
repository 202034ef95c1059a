"""Names HTTP requests to AWS by their API operation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, unquote

# Services whose name in the signature differs from their name in the API.
_SERVICES = {"graniteserviceversion20100801": "monitoring"}
# The first of these that the query or the headers contain determines the operation.
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
_KEY = re.compile("<Key>(.*?)</Key>")
_OF_EMR_SERVERLESS = (
    ("POST", re.compile("/applications"), "CreateApplication"),
    ("GET", re.compile("/applications/([^/]+)"), "GetApplication"),
    ("POST", re.compile("/applications/([^/]+)/jobruns"), "StartJobRun"),
    ("GET", re.compile("/applications/([^/]+)/jobruns"), "ListJobRuns"),
    ("GET", re.compile("/applications/([^/]+)/jobruns/([^/]+)"), "GetJobRun"),
    ("DELETE", re.compile("/applications/([^/]+)/jobruns/([^/]+)"), "CancelJobRun"),
)
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
    """A request to AWS.

    :param operation: e.g. ``PutObject`` or ``UpdateTable``.
    :param bucket: the bucket; the database for Glue and the application for EMR Serverless.
    :param key: the key, or a listing's prefix; the table or the job for Glue and the run for EMR Serverless.
    :param number: the request's number, counted from 1.
    :param is_conditional_write: whether S3 compares the current object with a condition before it writes.
    :param names: other names in policies' conditions: the role that is passed, the metrics' namespace, the log group;
        the keys of ``DeleteObjects``, one per line.
    """

    service: str
    operation: str
    bucket: str
    key: str
    number: int
    is_conditional_write: bool = False
    names: str = ""


def read_request(method: str, path: str, headers: Mapping[str, str], body: bytes, number: int) -> Request:
    """Determine the operation, the bucket and the key of an HTTP request.

    :param path: the raw path with its query.
    :param headers: headers by lower-case name.
    """
    if target := headers.get("x-amz-target"):
        service, _, operation = target.partition(".")
        asked = json.loads(body or b"{}")
        named = (asked.get(name) for name in ("Name", "TableName", "JobName"))
        table = asked.get("TableInput", {}).get("Name") or next(filter(None, named), "")
        database = asked.get("DatabaseName") or asked.get("DatabaseInput", {}).get("Name") or ""
        name = service.removeprefix("AWS").lower().partition("_")[0]
        names = asked.get("Namespace") or asked.get("logGroupName") or ""
        return Request(_SERVICES.get(name, name), operation, database, table, number, names=names)
    service = _signed_for(headers.get("authorization", ""))
    if service == "emr-serverless":
        names = json.loads(body or b"{}").get("executionRoleArn", "")
        return replace(_of_emr_serverless(method, path.partition("?")[0], number), names=names)
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
    names = "\n".join(_KEY.findall(body.decode())) if operation == "DeleteObjects" else ""
    key = key or asked_of.get("prefix", [""])[0]
    return Request(service, operation, unquote(bucket), key, number, is_conditional, names=names)


def _of_emr_serverless(method: str, path: str, number: int) -> Request:
    for asked, place, operation in _OF_EMR_SERVERLESS:
        if method == asked and (found := place.fullmatch(path)):
            application, run_id, *_ = (*found.groups(), "", "")
            return Request("emr-serverless", operation, application, run_id, number)
    return Request("emr-serverless", f"{method} {path}", "", "", number)


def access_key_of(authorization: str) -> str:
    """The access key that signed a request; empty if it is not signed."""
    return authorization.partition("Credential=")[2].partition("/")[0]


def _signed_for(authorization: str) -> str:
    """The service that a request is signed for; S3 if it is not signed."""
    scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3] if len(scope) == 5 else "s3"
