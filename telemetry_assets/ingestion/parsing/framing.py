"""Finds and parses the documents in the bytes of an upload: file ending, compression, encoding and framing."""

from __future__ import annotations

import base64
import codecs
import re
import zlib
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Literal, NamedTuple

from telemetry_assets.ingestion.parsing.documents import TOO_LONG, BronzeRow, Reason, Rejection, accept
from telemetry_assets.ingestion.parsing.json_scan import (
    MAX_DOCUMENT_CHARACTERS,
    ArrayBrackets,
    Content,
    is_nested_too_deep,
    is_too_long,
    is_value,
    scalar_end,
    text_of,
    unquoted_end,
)

_ENDINGS = (".json", ".jsonl", ".ndjson")
_LINE_ENDINGS = (".jsonl", ".ndjson")
_WHITE_SPACE = b" \t\r\n"
_CHUNK = 1024 * 1024
_LEAST_FED, _MOST_FED = 256, 16 * 1024
_GZIP_WINDOW = 31
_BLANK = re.compile(rb"[ \t\r\n]*")
# Zero bytes after a member are padding, as for gzip itself.
_PADDING = re.compile(rb"\0*")
_CLOSING = ord("]")


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


class UploadRejectedError(Exception):
    """An upload is rejected as a whole."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        self.message = message


class _Span(NamedTuple):
    start: int
    end: int
    is_broken_rest: bool = False


def parse_upload(name: str, content: bytes, ingested_at: datetime, limits: Limits) -> Iterator[BronzeRow | Rejection]:
    """Parse every document of an upload, in order.

    :param name: the upload's file name or key, whose ending decides how it is read.
    :param content: its bytes, as stored.
    :param ingested_at: the batch's ingestion time (UTC).
    :raises UploadRejectedError: if the upload is rejected as a whole. If some documents were yielded before, they do
        not count.
    """
    text = _text(name, content, limits.content_bytes)
    broken = 0
    for position, span in enumerate(_documents(text, name, limits)):
        if position >= limits.documents:
            raise too_many("documents", limits.documents)
        parsed = _parsed(text, span, position, ingested_at)
        if isinstance(parsed, Rejection) and parsed.reason == "not_json":
            broken += 1
            if broken > limits.broken_documents:
                raise too_many("broken_documents", limits.broken_documents)
        yield parsed


def _parsed(text: Content, span: _Span, position: int, ingested_at: datetime) -> BronzeRow | Rejection:
    # A document that is too long is not decoded, because a row needs about ten times its bytes of memory.
    document = None if is_too_long(text, span.start, span.end) else text_of(text, span.start, span.end)
    if span.is_broken_rest:
        message = (
            "The array is broken here, so the rest of the upload is rejected as one document. Correct the producer, "
            "and send the rest again."
        )
        reason: Reason = "nested_too_deep" if is_nested_too_deep(text, span.start, span.end) else "not_json"
        return Rejection(position, reason, message, document)
    if document is None:
        return Rejection(position, "too_large", TOO_LONG, None)
    return accept(document, position, ingested_at)


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


def _text(name: str, content: bytes, max_bytes: int) -> Content:
    """The content of the upload, as UTF-8 without byte order mark."""
    if not name.removesuffix(".gz").endswith(_ENDINGS):
        raise UploadRejectedError(
            "unsupported_ending",
            "An upload's name ends in .json, .jsonl or .ndjson, or one of these and .gz. Rename it and send it again.",
        )
    text: Content = content
    if name.endswith(".gz"):
        text = _decompress(content, max_bytes)
    elif len(content) > max_bytes:
        raise _too_large(max_bytes)
    _require_utf8(text)
    if text.startswith(codecs.BOM_UTF8):
        text = text[len(codecs.BOM_UTF8) :]
    if _skip_white_space(text, 0) == len(text):
        raise UploadRejectedError("empty_upload", "The upload is empty.")
    return text


def _require_utf8(text: Content) -> None:
    """Check the encoding in pieces: a single rare character makes a decoded text four times as large."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _CHUNK):
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(text[start : start + _CHUNK], final=start + _CHUNK >= len(text))
        except UnicodeDecodeError as error:
            place = start - kept + error.start
            raise UploadRejectedError(
                "not_utf8", f"The upload is not UTF-8 (byte {place}: {error.reason}). Encode it as UTF-8."
            ) from error


def _too_large(max_bytes: int) -> UploadRejectedError:
    return UploadRejectedError(
        "too_large",
        f"The upload is larger than {max_bytes:,} bytes after decompression. Send it in parts, or raise "
        "TELEMETRY_UPLOAD_MAX_BYTES. The archive keeps it.",
    )


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


def _decompress(content: bytes, max_bytes: int) -> bytearray:
    """Decompress all members of a gzip stream, up to ``max_bytes``.

    ``gzip.GzipFile`` is not used. It reads headers and padding byte by byte in Python, so 32 MiB of padding take 20 s
    instead of 0.2 s, a file name of 32 MiB takes 13 s instead of 0.1 s, and many small members take 3 to 4 times as
    long.
    """
    text = bytearray()
    position = 0
    try:
        while position < len(content):
            member = zlib.decompressobj(_GZIP_WINDOW)
            # In small pieces, because zlib copies the bytes after the end of a member.
            piece = _LEAST_FED
            while not member.eof:
                fed = content[position : position + piece]
                part = member.decompress(fed, _CHUNK)
                position += len(fed) - len(member.unconsumed_tail) - len(member.unused_data)
                if len(text) + len(part) > max_bytes:
                    raise _too_large(max_bytes)
                if not part and not fed and not member.eof:
                    raise zlib.error("it ends too early")
                text += part
                piece = min(2 * piece, _MOST_FED)
            position = _end_of(_PADDING, content, position)
    except zlib.error as error:
        raise UploadRejectedError(
            "broken_gzip", f"The upload is not complete gzip data: {error}. Send it again."
        ) from error
    return text


def _documents(text: Content, name: str, limits: Limits) -> Iterator[_Span]:
    """Find the documents: one object, the elements of one array, or one document per line.

    If an array is broken, the text after its last element is the last document.
    """
    at_most = limits.documents
    start, stop = _skip_white_space(text, 0), _stripped_end(text, 0, len(text))
    line_ending = name.removesuffix(".gz").endswith(_LINE_ENDINGS)
    if text[start : start + 1] == b"[":
        elements, array_end, whole = _array(text, start, limits)
        trailing = _skip_white_space(text, array_end)
        if len(elements) > at_most or (whole and trailing == len(text)):
            yield from elements
            return
        first = _first_line(text, start)
        # A text of one line is not read as one document per line, even if its brackets are broken.
        is_lines = (
            line_ending
            or (first.end < stop and is_value(text, first.start, first.end))
            or _has_more_objects_in_lines(text, elements, at_most)
        )
        if not is_lines:
            yield from elements
            yield _Span(trailing, stop, is_broken_rest=True)
            return
    elif is_value(text, start, stop):
        yield _Span(start, stop)
        return
    beginnings = _beginnings_of_whole_lines
    if line_ending or b"{" in beginnings(text, at_most) or all(beginnings(text, at_most)):
        yield from _lines(text)
    else:
        yield _Span(start, stop)


def _lines(text: Content) -> Iterator[_Span]:
    position = 0
    while position < len(text):
        line_end = text.find(b"\n", position)
        line_end = len(text) if line_end < 0 else line_end
        start = _skip_white_space(text, position)
        end = _stripped_end(text, start, line_end)
        if start < end:
            yield _Span(start, end)
        position = max(line_end + 1, start)


def _has_more_objects_in_lines(text: Content, elements: list[_Span], at_most: int) -> bool:
    in_elements = sum(text[element.start : element.start + 1] == b"{" for element in elements)
    return sum(first == b"{" for first in _beginnings_of_whole_lines(text, at_most)) > in_elements


def _beginnings_of_whole_lines(text: Content, at_most: int) -> Iterator[Content]:
    """For ``at_most`` + 1 lines: the first character of each line that is a JSON value, nothing for other lines."""
    for line in islice(_lines(text), at_most + 1):
        yield text[line.start : line.start + 1] if is_value(text, line.start, line.end) else b""


def _skip_white_space(text: Content, position: int) -> int:
    return _end_of(_BLANK, text, position)


def _end_of(pattern: re.Pattern[bytes], text: Content, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _first_line(text: Content, start: int) -> _Span:
    line_end = text.find(b"\n", start)
    return _Span(start, _stripped_end(text, start, len(text) if line_end < 0 else line_end))


def _stripped_end(text: Content, start: int, end: int) -> int:
    """The end of a part without trailing white space. Searches in pieces, so that the part is not copied."""
    while end > start:
        piece = max(start, end - _CHUNK)
        kept = len(text[piece:end].rstrip(_WHITE_SPACE))
        if kept:
            return piece + kept
        end = piece
    return start


def _array(text: Content, start: int, limits: Limits) -> tuple[list[_Span], int, bool]:
    """Find the elements of an array, up to one more than the limit of documents.

    :returns: the elements, the position after the last one that was read, and whether the closing bracket was read.
    :raises UploadRejectedError: if more elements are broken than the limits allow.
    """
    elements: list[_Span] = []
    broken = 0
    brackets = ArrayBrackets(text, start)
    position = _skip_white_space(text, start + 1)
    while position < len(text) and len(elements) <= limits.documents:
        if text[position] == _CLOSING:
            return elements, position + 1, True
        end = _bracketed_end(text, position, brackets) if text[position] in b"[{" else scalar_end(text, position)
        if end is None and text[position] not in b"[{":
            end = _unquoted_end(text, position)
            broken += 1
            if broken > limits.broken_documents:
                raise too_many("broken_documents", limits.broken_documents)
        if end is None:
            break
        elements.append(_Span(position, end))
        position = _skip_white_space(text, end)
        closing = text[position : position + 1]
        if closing == b"]":
            return elements, position + 1, True
        if closing != b",":
            break
        position = _skip_white_space(text, position + 1)
    return elements, position, False


def _bracketed_end(text: Content, start: int, brackets: ArrayBrackets) -> int | None:
    """The end of an object or array, which may be broken; None if no end before the next element is found."""
    end = brackets.end(start)
    if end is None or _is_followed_by_another(text, end) or is_value(text, start, end):
        return end
    return None


def _unquoted_end(text: Content, start: int) -> int | None:
    """The end of an element that is not JSON; None if no end before the next element is found."""
    end = unquoted_end(text, start)
    return end if end is not None and _is_followed_by_another(text, end) else None


def _is_followed_by_another(text: Content, end: int) -> bool:
    after = _skip_white_space(text, end)
    return text[after : after + 1] in (b",", b"]")
