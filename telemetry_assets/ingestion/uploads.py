"""An upload's bytes become documents, judged one by one: endings, compression, encoding, framing. Pure."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import AnyStr, NamedTuple

from telemetry_assets.ingestion.documents import BronzeRow, Reason, Rejection, accept
from telemetry_assets.ingestion.json_values import MAX_DOCUMENT_CHARACTERS, bracketed_end, nests_too_deep, value_end

_ENDINGS = (".json", ".jsonl", ".ndjson")
_LINE_ENDINGS = (".jsonl", ".ndjson")
_WHITE_SPACE = " \t\r\n"
_CHUNK = 1024 * 1024
_FED_AT_A_TIME = 16 * 1024
_MOST_BROKEN_ELEMENTS = 1000
_GZIP_WINDOW = 31
_BLANK = re.compile(r"[ \t\r\n]*")
# Zero bytes after a member are padding, as gzip itself treats them.
_PADDING = re.compile(rb"\0*")
_WORDS = re.compile(r'[^,"\[\]{}]+')


class Limits(NamedTuple):
    """How much one upload may hold: bytes after decompression, and documents."""

    content_bytes: int
    documents: int

    def exclude(self, stored_bytes: int) -> bool:
        """Whether an upload of this size is too large, compressed or not, so that it need not be read.

        A compressed upload is never larger than what is in it by more than gzip's own overhead.
        """
        return stored_bytes > self.content_bytes + self.content_bytes // 100 + 1024


class UploadRejectedError(Exception):
    """An upload that cannot be taken apart into documents, so that all of it is one rejection."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        self.message = message


class _Span(NamedTuple):
    start: int
    end: int
    is_broken_rest: bool = False


def parse_upload(name: str, content: bytes, ingested_at: datetime, limits: Limits) -> Iterator[BronzeRow | Rejection]:
    """Every document of an upload in its order, as a Bronze row or a rejection.

    :param name: the upload's file name or key; its ending tells whether it is taken.
    :param content: its bytes, as stored.
    :param ingested_at: the batch's moment, UTC.
    :raises UploadRejectedError: at any document, where the upload is rejected as a whole; what came before it does
        not count then.
    """
    text = _text(name, content, limits.content_bytes)
    for position, span in enumerate(_documents(text, name, limits.documents)):
        if position >= limits.documents:
            raise _too_many(limits.documents)
        document = text[span.start : span.end]
        yield _broken_rest(document, position) if span.is_broken_rest else accept(document, position, ingested_at)


def _broken_rest(text: str, position: int) -> Rejection:
    message = "The array is broken here: what follows is kept in one piece. Mend it at its source, send it again."
    return Rejection(position, "nested_too_deep" if nests_too_deep(text) else "not_json", message, text)


def whole_upload(reason: Reason, message: str, content: bytes | None, max_bytes: int) -> Rejection:
    """The one rejection of an upload that cannot be taken apart into documents.

    Its payload is the upload itself, in base64 where it is not text; None where that is larger than ``max_bytes`` or
    than a document may be (the archive has it).
    """
    if content is None or len(content) > min(max_bytes, MAX_DOCUMENT_CHARACTERS):
        return Rejection(None, reason, message, None)
    try:
        payload = content.decode()
    except UnicodeDecodeError:
        payload = base64.b64encode(content).decode()
    return Rejection(None, reason, message, payload)


def _text(name: str, content: bytes, max_bytes: int) -> str:
    if not name.removesuffix(".gz").endswith(_ENDINGS):
        raise UploadRejectedError(
            "unsupported_ending",
            "An upload's name ends in .json, .jsonl or .ndjson, or one of these and .gz. Rename it and send it again.",
        )
    if name.endswith(".gz"):
        content = _decompress(content, max_bytes)
    elif len(content) > max_bytes:
        raise _too_large(max_bytes)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UploadRejectedError(
            "not_utf8", f"The upload is not UTF-8 (byte {error.start}: {error.reason}). Encode it as UTF-8."
        ) from error
    if not text.strip(_WHITE_SPACE):
        raise UploadRejectedError("empty_upload", "The upload is empty.")
    return text


def _too_large(max_bytes: int) -> UploadRejectedError:
    return UploadRejectedError(
        "too_large",
        f"The upload is larger than {max_bytes:,} bytes after decompression. Send it in parts, or raise "
        "TELEMETRY_UPLOAD_MAX_BYTES. The archive keeps it.",
    )


def _too_many(documents: int) -> UploadRejectedError:
    return UploadRejectedError(
        "too_large",
        f"The upload holds more than {documents:,} documents. Send it in parts, or raise "
        "TELEMETRY_UPLOAD_MAX_DOCUMENTS. The archive keeps it.",
    )


def _decompress(content: bytes, max_bytes: int) -> bytes:
    """All members of a gzip stream, one after another, as `gzip >> file` writes them."""
    parts: list[bytes] = []
    size = position = 0
    try:
        while position < len(content):
            member = zlib.decompressobj(_GZIP_WINDOW)
            while not member.eof:
                # In small pieces, as what a member leaves over is copied.
                fed = content[position : position + _FED_AT_A_TIME]
                part = member.decompress(fed, _CHUNK)
                position += len(fed) - len(member.unconsumed_tail) - len(member.unused_data)
                size += len(part)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                if not part and not fed and not member.eof:
                    raise zlib.error("it ends too early")
                parts.append(part)
            position = _end_of(_PADDING, content, position)
    except zlib.error as error:
        raise UploadRejectedError("broken_gzip", f"The upload is not whole gzip: {error}. Send it again.") from error
    return b"".join(parts)


def _documents(text: str, name: str, at_most: int) -> Iterator[_Span]:
    """Where the documents are, in order: one object, the elements of one array, or one per line.

    Of an array that breaks off, the last is what comes after its last element.
    """
    start = _skip_white_space(text, 0)
    line_ending = name.removesuffix(".gz").endswith(_LINE_ENDINGS)
    if text[start] == "[":
        elements, array_end, whole = _array(text, start, at_most)
        trailing = _skip_white_space(text, array_end)
        if len(elements) > at_most or (whole and trailing == len(text)):
            yield from elements
            return
        first = _first_line(text, start)
        # What is one line is not lines, however its brackets stand.
        is_lines = (
            line_ending
            or (start + len(first) < len(text.rstrip(_WHITE_SPACE)) and _is_json(first))
            or _has_more_objects_in_lines(text, elements, at_most)
        )
        if not is_lines:
            yield from elements
            yield _Span(trailing, len(text.rstrip(_WHITE_SPACE)), is_broken_rest=True)
            return
    elif (end := value_end(text, start)) is not None and _skip_white_space(text, end) == len(text):
        yield _Span(start, end)
        return
    beginnings = _beginnings_of_whole_lines
    if line_ending or "{" in beginnings(text, at_most) or all(beginnings(text, at_most)):
        yield from _lines(text)
    else:
        yield _Span(start, len(text.rstrip(_WHITE_SPACE)))


def _lines(text: str) -> Iterator[_Span]:
    position = 0
    while position < len(text):
        line_end = text.find("\n", position)
        line_end = len(text) if line_end < 0 else line_end
        start, end = _skip_white_space(text, position), line_end
        while end > start and text[end - 1] in _WHITE_SPACE:
            end -= 1
        if start < end:
            yield _Span(start, end)
        position = max(line_end + 1, start)


def _has_more_objects_in_lines(text: str, elements: list[_Span], at_most: int) -> bool:
    in_elements = sum(text[element.start] == "{" for element in elements)
    return sum(first == "{" for first in _beginnings_of_whole_lines(text, at_most)) > in_elements


def _beginnings_of_whole_lines(text: str, at_most: int) -> Iterator[str]:
    """The first character of each line that is JSON by itself, of others none; of one line more than ``at_most``."""
    for line in islice(_lines(text), at_most + 1):
        # By its own text: to look beyond its end costs the whole upload for each line that breaks off.
        yield text[line.start] if _is_json(text[line.start : line.end]) else ""


def _skip_white_space(text: str, position: int) -> int:
    return _end_of(_BLANK, text, position)


def _end_of(pattern: re.Pattern[AnyStr], text: AnyStr, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _first_line(text: str, start: int) -> str:
    return text[start:].partition("\n")[0].strip(_WHITE_SPACE)


def _is_json(text: str) -> bool:
    return value_end(text, 0) == len(text)


def _array(text: str, start: int, at_most: int) -> tuple[list[_Span], int, bool]:
    """An array's elements, where reading ended, and whether that is behind its closing bracket.

    One element more than ``at_most`` is where reading ends in any case, and so is one broken element too many, as each
    costs a look through all that comes before it.
    """
    elements: list[_Span] = []
    broken = 0
    position = _skip_white_space(text, start + 1)
    while position < len(text) and len(elements) <= at_most:
        if text[position] == "]":
            return elements, position + 1, True
        end = value_end(text, position)
        if end is None and broken < _MOST_BROKEN_ELEMENTS:
            broken += 1
            end = _broken_element_end(text, position)
        if end is None:
            break
        elements.append(_Span(position, end))
        position = _skip_white_space(text, end)
        closing = text[position : position + 1]
        if closing == "]":
            return elements, position + 1, True
        if closing != ",":
            break
        position = _skip_white_space(text, position + 1)
    return elements, position, False


def _broken_element_end(text: str, start: int) -> int | None:
    """Where an element that is not JSON ends; None where nobody can say, as nothing tells it from its neighbours."""
    if text[start] in "[{":
        end = bracketed_end(text, start)
    else:
        words = _WORDS.match(text, start)
        end = start + len(words.group().rstrip(_WHITE_SPACE)) if words else None
    if end is None or text[(after := _skip_white_space(text, end)) : after + 1] not in (",", "]"):
        return None
    return end
