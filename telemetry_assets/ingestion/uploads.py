"""An upload's bytes become its documents' texts: endings, compression, encoding, framing. Pure."""

from __future__ import annotations

import base64
import json
import zlib
from datetime import datetime
from typing import NamedTuple

from telemetry_assets.ingestion.documents import BronzeRow, Reason, Rejection, accept, bracketed_end, nests_too_deep

_ENDINGS = (".json", ".jsonl", ".ndjson")
_LINE_ENDINGS = (".jsonl", ".ndjson")
_WHITE_SPACE = " \t\r\n"
_CHUNK = 1024 * 1024
_GZIP_WINDOW = 31
_DECODER = json.JSONDecoder()
_DIGITS_KEPT_DECODER = json.JSONDecoder(parse_int=str)


class Parsed(NamedTuple):
    """What an upload holds; ``len(rows) + len(rejections)`` is the number of documents received from it."""

    rows: list[BronzeRow]
    rejections: list[Rejection]


class _UploadRejectedError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        self.message = message


def parse_upload(name: str, content: bytes, ingested_at: datetime, max_bytes: int) -> Parsed:
    """Every document of an upload, as a Bronze row or a rejection; each stands in exactly one of them.

    :param name: the upload's file name or key; its ending tells whether it is taken.
    :param content: its bytes, as stored.
    :param ingested_at: the batch's moment, UTC.
    :param max_bytes: how large it may be after decompression.
    """
    try:
        text = _text(name, content, max_bytes)
    except _UploadRejectedError as rejected:
        return Parsed([], [whole_upload(rejected.reason, rejected.message, content, max_bytes)])
    documents, rest = _documents(text, name)
    parsed = Parsed([], [])
    for position, document in enumerate(documents):
        judged = accept(document, position, ingested_at)
        if isinstance(judged, BronzeRow):
            parsed.rows.append(judged)
        else:
            parsed.rejections.append(judged)
    if rest is not None:
        message = "The array is broken here: what follows is kept in one piece. Mend it at its source, send it again."
        reason: Reason = "nested_too_deep" if nests_too_deep(rest) else "not_json"
        parsed.rejections.append(Rejection(len(documents), reason, message, rest))
    return parsed


def whole_upload(reason: Reason, message: str, content: bytes | None, max_bytes: int) -> Rejection:
    """The one rejection of an upload that cannot be taken apart into documents.

    Its payload is the upload itself, in base64 where it is not text; None where that is larger than
    ``max_bytes`` (the archive has it).
    """
    if content is None or len(content) > max_bytes:
        return Rejection(None, reason, message, None)
    try:
        payload = content.decode()
    except UnicodeDecodeError:
        payload = base64.b64encode(content).decode()
    return Rejection(None, reason, message, payload)


def _text(name: str, content: bytes, max_bytes: int) -> str:
    if not name.removesuffix(".gz").endswith(_ENDINGS):
        raise _UploadRejectedError(
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
        raise _UploadRejectedError(
            "not_utf8", f"The upload is not UTF-8 (byte {error.start}: {error.reason}). Encode it as UTF-8."
        ) from error
    if not text.strip(_WHITE_SPACE):
        raise _UploadRejectedError("empty_upload", "The upload is empty.")
    return text


def _too_large(max_bytes: int) -> _UploadRejectedError:
    return _UploadRejectedError(
        "too_large",
        f"The upload is larger than {max_bytes:,} bytes after decompression. Send it in parts, or raise "
        "TELEMETRY_UPLOAD_MAX_BYTES. The archive keeps it.",
    )


def _decompress(content: bytes, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while content:
            member = zlib.decompressobj(_GZIP_WINDOW)
            pending = content
            while not member.eof:
                part = member.decompress(pending, _CHUNK)
                pending = member.unconsumed_tail
                size += len(part)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                if not part and not pending and not member.eof:
                    raise zlib.error("it ends too early")
                parts.append(part)
            # Zero bytes after a member are padding, as gzip itself treats them.
            content = member.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise _UploadRejectedError("broken_gzip", f"The upload is not whole gzip: {error}. Send it again.") from error
    return b"".join(parts)


def _documents(text: str, name: str) -> tuple[list[str], str | None]:
    """The documents' texts, in order: of one object, of one array, or one per line.

    Of an array that breaks off, the second value is what comes after its last whole element.
    """
    start = _skip_white_space(text, 0)
    line_ending = name.removesuffix(".gz").endswith(_LINE_ENDINGS)
    if text[start] == "[":
        elements, array_end, whole = _array(text, start)
        rest = text[array_end:].strip(_WHITE_SPACE)
        if whole and not rest:
            return elements, None
        if not line_ending and not _is_json(_first_line(text, start)):
            return elements, rest
    elif (end := _value_end(text, start)) is not None and _skip_white_space(text, end) == len(text):
        return [text[start:end]], None
    lines = [line for line in (line.strip(_WHITE_SPACE) for line in text.split("\n")) if line]
    if line_ending or len(lines) == 1 or any(line.startswith("{") and _is_json(line) for line in lines):
        return lines, None
    return [text.strip(_WHITE_SPACE)], None


def _skip_white_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _WHITE_SPACE:
        position += 1
    return position


def _first_line(text: str, start: int) -> str:
    return text[start:].partition("\n")[0].strip(_WHITE_SPACE)


def _is_json(text: str) -> bool:
    return _value_end(text, 0) == len(text)


def _value_end(text: str, start: int) -> int | None:
    """Where the JSON value that begins at ``start`` ends; None where there is none.

    A value that is JSON and that Python declines (too deep, too many digits) has an end all the same, so
    that it is rejected alone and not together with what follows it.
    """
    try:
        return _DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError:
        return None
    except ValueError:
        return _value_end_of_any_digits(text, start)
    except RecursionError:
        return bracketed_end(text, start)


def _value_end_of_any_digits(text: str, start: int) -> int | None:
    try:
        return _DIGITS_KEPT_DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError:
        return None
    except RecursionError:
        return bracketed_end(text, start)


def _array(text: str, start: int) -> tuple[list[str], int, bool]:
    """The texts of an array's elements, where reading ended, and whether that is behind its closing bracket."""
    elements: list[str] = []
    position = _skip_white_space(text, start + 1)
    if text[position : position + 1] == "]":
        return elements, position + 1, True
    while (end := _value_end(text, position)) is not None:
        elements.append(text[position:end])
        position = _skip_white_space(text, end)
        closing = text[position : position + 1]
        if closing == "]":
            return elements, position + 1, True
        if closing != ",":
            break
        position = _skip_white_space(text, position + 1)
    return elements, position, False
