"""An independent implementation of docs/contract.md, sections 1 and 2: an upload's Bronze rows and rejections.

It is the first half of :mod:`telemetry_assets_tests.harness.contract_reading`, and shares no code with
`telemetry_assets` either.
"""

import gzip
import io
import json
import math
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
ENDINGS = (".json", ".jsonl", ".ndjson")
BLANKS = " \t\r\n"
DEEPEST_NESTING = 900
TIME_KEYS = {"event": "telemetryTimestamp", "vehicle": "event_primary_timestamp"}
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
SEPARATOR = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)

Row = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """A slice of an upload that counts as one document; with a `reason`, it is rejected even if it is JSON."""

    text: str
    reason: str | None = None


class RejectedError(Exception):
    """An upload or a document that is not accepted; its argument is the reason."""


def upload_text(source_uri: str, content: bytes, max_upload_bytes: int) -> str:
    """The upload's text without its byte order mark."""
    if not source_uri.removesuffix(".gz").endswith(ENDINGS):
        raise RejectedError("unsupported_ending")
    if source_uri.endswith(".gz"):
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(max_upload_bytes + 1)
        except (OSError, EOFError, zlib.error):
            raise RejectedError("broken_gzip") from None
    if len(content) > max_upload_bytes:
        raise RejectedError("too_large")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RejectedError("not_utf8") from None
    if not text.strip(BLANKS):
        raise RejectedError("empty_upload")
    return text


def documents(text: str, name: str) -> list[Piece]:
    """The documents in a text that is not blank, in order; `name` is the upload's, without `.gz`."""
    text = text.strip(BLANKS)
    elements, rest = _array_elements(text) if text[0] == "[" else ([], text)
    if rest is None:
        return [Piece(element) for element in elements]
    if text[0] != "[" and _is_json(text):
        return [Piece(text)]
    lines = [stripped for line in text.split("\n") if (stripped := line.strip(BLANKS))]
    whole_lines = [line for line in lines if _is_json(line)]
    object_lines = [line for line in whole_lines if line[0] == "{"]
    is_array = len([one for one in elements if one[0] == "{"]) >= len(object_lines)
    may_break_off = not name.endswith((".jsonl", ".ndjson")) and (len(lines) == 1 or not _is_json(lines[0]))
    if text[0] == "[" and is_array and may_break_off:
        reason = "nested_too_deep" if _nesting(rest) > DEEPEST_NESTING else "not_json"
        return [*(Piece(element) for element in elements), Piece(rest, reason)]
    if name.endswith(".json") and len(lines) > 1 and not object_lines and len(whole_lines) < len(lines):
        return [Piece(text)]
    return [Piece(line) for line in lines]


def _is_json(text: str) -> bool:
    return _end_of_json(text, 0) == len(text)


def _end_of_json(text: str, start: int) -> int:
    """The end of the JSON value that begins at ``start``; -1 if there is none.

    A value that nests too deep for Python's parser ends where its brackets end: it is rejected in any case, and its
    neighbors are not.
    """
    try:
        return json.JSONDecoder(parse_int=str).raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        return _end_of_brackets(text, start) if _nesting(text[start : error.pos]) > DEEPEST_NESTING else -1


def _array_elements(text: str) -> tuple[list[str], str | None]:
    """The elements of the array at the start of the text, and the rest after the last one; None if it is complete."""
    elements: list[str] = []
    start = len(text) - len(text[1:].lstrip(BLANKS))
    while text[start : start + 1] != "]":
        end = _end_of_json(text, start)
        end = _end_of_broken(text, start) if end < 0 else end
        if end < 0:
            return elements, text[start:]
        elements.append(text[start:end])
        separator = SEPARATOR.match(text, end)
        assert separator is not None
        start = separator.end()
        if "," not in separator[0] and text[start : start + 1] != "]":
            return elements, text[start:]
    return elements, text[start + 1 :].strip(BLANKS) or None


def _end_of_broken(text: str, start: int) -> int:
    """The end of invalid JSON that is an element by itself; -1 otherwise."""
    if text[start : start + 1] in ("{", "["):
        end = _end_of_brackets(text, start)
    else:
        end = start + len(re.split(r'[,"\[\]{}]', text[start:], maxsplit=1)[0].rstrip(BLANKS))
        end = -1 if end == start else end
    return end if end >= 0 and text[end:].lstrip(BLANKS)[:1] in (",", "]") else -1


def _end_of_brackets(text: str, start: int) -> int:
    """The end of the object or array at ``start``, by its brackets alone; -1 if it does not end."""
    level = 0
    for token in STRING_OR_BRACKET.finditer(text, start):
        level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if level == 0 and token[0][0] != '"':
            return token.end()
    return -1


def _nesting(text: str) -> int:
    """The maximum nesting depth of objects and arrays."""
    level = deepest = 0
    for token in STRING_OR_BRACKET.findall(text):
        level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token, 0)
        deepest = max(deepest, level)
    return deepest


def bronze_columns(piece: Piece, ingested_at: datetime) -> Row:
    """The Bronze columns that come from the document itself."""
    if piece.reason is not None:
        raise RejectedError(piece.reason)
    if _nesting(piece.text) > DEEPEST_NESTING:
        raise RejectedError("nested_too_deep")
    try:
        document = json.loads(piece.text)
    except ValueError:
        # Invalid JSON, or an integer with more digits than Python reads.
        raise RejectedError("not_json") from None
    if not isinstance(document, dict):
        raise RejectedError("not_an_object")
    car_chassis = text_value(document.get("carChassis"))
    if not car_chassis:
        raise RejectedError("missing_car_chassis")
    shape = "event" if TIME_KEYS["event"] in document else "vehicle"
    as_written = document.get(TIME_KEYS[shape])
    moment = event_moment(as_written, ingested_at)
    return {
        "event_id": text_value(document.get("event_id")) or f"{car_chassis}_{as_written}",
        "car_chassis": car_chassis,
        "event_primary_timestamp": as_written,
        "telemetry_timestamp": moment,
        "event_date": moment.date(),
        "document_shape": shape,
        "payload": piece.text,
    }


def event_moment(as_written: object, ingested_at: datetime) -> datetime:
    """The time of a document, in UTC."""
    if as_written is None or as_written == "":
        raise RejectedError("missing_time")
    if not isinstance(as_written, str) or not _is_iso_8601(as_written):
        raise RejectedError("unparseable_time")
    local = datetime.fromisoformat(as_written)
    try:
        moment = local.replace(tzinfo=UTC) if local.tzinfo is None else local.astimezone(UTC)
    except OverflowError:
        raise RejectedError("time_before_2000" if local.year < 2000 else "time_in_future") from None
    if moment < EARLIEST:
        raise RejectedError("time_before_2000")
    if moment - ingested_at > timedelta(hours=24):
        raise RejectedError("time_in_future")
    return moment


def _is_iso_8601(text: str) -> bool:
    """Whether the text is a date, or a date and a time separated by `T` or a space."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    day, *clock = re.split("[T ]", text, maxsplit=1)
    if date_value(day) is None or not text.isascii():
        return False
    if not clock:
        return True
    time, sign, offset = re.fullmatch(r"([^Z+-]*)([Z+-]?)(.*)", clock[0], re.DOTALL).groups()  # type: ignore[union-attr]  # matches anything
    hands, dot, fraction = re.fullmatch(r"([^.,]*)([.,]?)(.*)", time, re.DOTALL).groups()  # type: ignore[union-attr]  # matches anything
    # Only seconds may have a fraction: 14:30.5 is half a minute in ISO 8601 and half a second in Python.
    has_whole_fraction = not dot or (fraction.isdigit() and len(hands.replace(":", "")) == 6)
    has_whole_offset = not offset if sign in ("", "Z") else re.fullmatch(r"\d\d(:?\d\d(:?\d\d)?)?", offset)
    return bool(re.fullmatch(r"\d\d(:\d\d){0,2}|(\d\d){1,3}", hands) and has_whole_fraction and has_whole_offset)


def text_value(value: object) -> str | None:
    """The value if it is text without lone surrogates, which UTF-8 cannot encode."""
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        return None
    return value


def date_value(value: object) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) and value.isascii() else None
    except ValueError:
        return None


def number_value(value: object) -> float | None:
    """A finite number, also if it is written as text."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip(BLANKS)):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
