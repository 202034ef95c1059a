"""The Bronze rows and rejections of an upload's bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from telemetry_assets.ingestion.parsing.content import UploadRejectedError
from telemetry_assets.ingestion.parsing.documents import BronzeRow, Rejection
from telemetry_assets.ingestion.parsing.framing import Limits, parse_upload, whole_upload

INGESTED_AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
LIMIT = 100_000
LIMITS = Limits(content_bytes=LIMIT, documents=10_000)


class Parsed(NamedTuple):
    """The Bronze rows and rejections of an upload."""

    rows: list[BronzeRow]
    rejections: list[Rejection]


def parsed(name: str, content: bytes | str, limits: Limits = LIMITS) -> Parsed:
    content = content if isinstance(content, bytes) else content.encode()
    try:
        outcomes = list(parse_upload(name, content, INGESTED_AT, limits))
    except UploadRejectedError as rejected:
        outcomes = [whole_upload(rejected.reason, rejected.message, content, limits.content_bytes)]
    return Parsed(
        [one for one in outcomes if isinstance(one, BronzeRow)], [one for one in outcomes if isinstance(one, Rejection)]
    )
