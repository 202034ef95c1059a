"""Finds and parses the documents in the bytes of an upload."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Literal, NamedTuple

from telemetry_assets.ingestion.parsing.content import UploadRejectedError, text_content
from telemetry_assets.ingestion.parsing.documents import TOO_LONG, BronzeRow, Reason, Rejection, accept, accept_value
from telemetry_assets.ingestion.parsing.json_reader import UNPARSED, JsonReader, JsonText
from telemetry_assets.ingestion.parsing.json_scan import (
    MAX_DOCUMENT_CHARACTERS,
    WHITE_SPACE,
    Content,
    is_nested_too_deep,
    is_value,
    stripped_end,
)

PARSER_EDITION = 2
"""Raise it if uploads are parsed into other documents, or other documents are accepted. A batch that a run of another
edition has begun to write is then written again."""

_BETWEEN_VALUES = re.compile(rb"[ \t\r\n\x1e]*")
_BETWEEN_ELEMENTS = re.compile(rb"[ \t\r\n,]*")


class Limits(NamedTuple):
    """The limits of one upload.

    :param content_bytes: bytes after decompression. The limit also applies to the total bytes of its URI, which every
        row repeats.
    :param event_dates: different event dates. Each is a partition of every table.
    :param field_names: different names of unknown fields.
    :param broken_documents: documents that are not JSON.
    """

    content_bytes: int
    documents: int
    event_dates: int = 400
    field_names: int = 10_000
    broken_documents: int = 10_000

    def exclude(self, stored_bytes: int) -> bool:
        """Whether an upload of this stored size is too large in any case, so it need not be read.

        A compressed upload exceeds its content at most by gzip's overhead.
        """
        return stored_bytes > self.content_bytes + self.content_bytes // 100 + 1024


_REST = (
    "The end of the broken document that begins here was not found, so the rest of the upload is rejected as one "
    "document. It may have been cut off. Correct the producer, and send the rest again."
)
_NO_BRACKET = (
    "The closing bracket of the array is missing. The upload may have been cut off: compare it with its source."
)


class _Document(NamedTuple):
    found: JsonText
    is_rest: bool = False
    """Whether it is the rest of the upload, in which no document could be found."""


def parse_upload(name: str, content: bytes, ingested_at: datetime, limits: Limits) -> Iterator[BronzeRow | Rejection]:
    """Parse every document of an upload, in order. docs/uploads.md, "How documents are found".

    :param name: the upload's file name or key.
    :param content: its bytes, as stored.
    :param ingested_at: the batch's ingestion time (UTC).
    :raises UploadRejectedError: if the upload is rejected as a whole. If some documents were yielded before, they do
        not count.
    """
    text = text_content(name, content, limits.content_bytes)
    broken = 0
    for position, document in enumerate(_documents(text)):
        if position >= limits.documents:
            raise too_many("documents", limits.documents)
        parsed = _parsed(text, document, position, ingested_at)
        if isinstance(parsed, Rejection) and parsed.reason == "not_json":
            broken += 1
            if broken > limits.broken_documents:
                raise too_many("broken_documents", limits.broken_documents)
        yield parsed


def _parsed(text: Content, document: _Document, position: int, ingested_at: datetime) -> BronzeRow | Rejection:
    found = document.found
    if document.is_rest:
        message = _REST if found.end > found.start else _NO_BRACKET
        reason: Reason = "nested_too_deep" if is_nested_too_deep(text, found.start, found.end) else "not_json"
        return Rejection(position, reason, message, found.text)
    # A document that is too long is not a row, because a row needs about ten times its bytes of memory.
    if found.text is None:
        return Rejection(position, "too_large", TOO_LONG, None)
    if found.parsed is UNPARSED:
        return accept(found.text, position, ingested_at)
    return accept_value(found.parsed, found.text, position, ingested_at)


def whole_upload(reason: Reason, message: str, content: bytes | None, max_bytes: int) -> Rejection:
    """The rejection of an upload as a whole.

    Its payload is the content of the upload, in base64 if it is not UTF-8. It is None if the content is larger than
    ``max_bytes`` or than a document may be.
    """
    if content is None or len(content) > min(max_bytes, MAX_DOCUMENT_CHARACTERS):
        return Rejection(None, reason, message, None)
    try:
        payload = content.decode()
    except UnicodeDecodeError:
        payload = base64.b64encode(content).decode()
    return Rejection(None, reason, message, payload)


_Counted = Literal["documents", "event_dates", "field_names", "broken_documents"]
_TOO_MANY: dict[_Counted, tuple[Reason, str, str]] = {
    "documents": ("too_many_documents", "documents", "Send it in parts"),
    "event_dates": ("too_many_event_dates", "different event dates", "Send it in parts"),
    "field_names": ("too_many_field_names", "different unknown fields", "Send their values in a list under one name"),
    "broken_documents": ("too_many_broken_documents", "documents that are not JSON", "Correct the producer"),
}


def too_many(counted: _Counted, limit: int) -> UploadRejectedError:
    """The error for an upload that exceeds a limit."""
    reason, things, advice = _TOO_MANY[counted]
    return UploadRejectedError(
        reason,
        f"The upload has more than {limit:,} {things}. {advice}, or raise TELEMETRY_UPLOAD_MAX_{counted.upper()}. "
        "The archive keeps it.",
    )


def _documents(text: Content) -> Iterator[_Document]:
    """The documents of a text: the elements of an array, or a sequence of values."""
    reader = JsonReader(text)
    reader.skip(WHITE_SPACE)
    if reader.peek() == b"[" and not _is_value_and_more(text, reader.position):
        yield from _array(reader)
    yield from _sequence(reader)


def _is_value_and_more(text: Content, start: int) -> bool:
    """Whether the first line is one complete value, and another line that is one follows."""
    line_end = text.find(b"\n", start)
    following = _BETWEEN_VALUES.match(text, line_end) if line_end >= 0 else None
    if following is None or following.end() == len(text):
        return False
    return _is_value_in_line(text, start) and _is_value_in_line(text, following.end())


def _is_value_in_line(text: Content, start: int) -> bool:
    line_end = text.find(b"\n", start)
    return is_value(text, start, stripped_end(text, start, len(text) if line_end < 0 else line_end))


def _sequence(reader: JsonReader) -> Iterator[_Document]:
    reader.skip(_BETWEEN_VALUES)
    while not reader.is_at_end:
        found = reader.read()
        if found is None and reader.is_exhausted:
            yield _Document(reader.take_rest(), is_rest=True)
        else:
            yield _Document(found or reader.take(reader.line_end()))
        reader.skip(_BETWEEN_VALUES)


def _array(reader: JsonReader) -> Iterator[_Document]:
    """The elements of the array that begins at the reader's position."""
    reader.take(reader.position + 1)
    reader.skip(_BETWEEN_ELEMENTS)
    while not reader.is_at_end:
        if reader.peek() == b"]":
            reader.take(reader.position + 1)
            return
        found = reader.read()
        if found is None and not reader.is_exhausted and (end := reader.element_end()) is not None:
            found = reader.take(end)
        if found is None:
            break
        yield _Document(found)
        reader.skip(_BETWEEN_ELEMENTS)
    yield _Document(reader.take_rest(), is_rest=True)
