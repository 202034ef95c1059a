"""An independent implementation of docs/contract.md, section 1: the documents of an upload and their Bronze columns.

It is the first half of :mod:`telemetry_assets_tests.harness.contract_reading`, and shares no code with
`telemetry_assets` either. docs/uploads.md defines where a broken document ends.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from telemetry_assets_tests.harness.contract_reading_of_fields import date_value, text_value

Row = dict[str, Any]

ENDINGS = (".json", ".jsonl", ".ndjson")
GZIP_MAGIC = b"\x1f\x8b"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
UTF_32_MARK = b"\xff\xfe\0\0"
BLANKS = " \t\r\n"
RECORD_SEPARATOR = "\x1e"
BETWEEN_VALUES = re.compile(r"[ \t\r\n\x1e]*")
BETWEEN_ELEMENTS = re.compile(r"[ \t\r\n,]*")
WHITE_SPACE = re.compile(r"[ \t\r\n]*")
INDENTATION = re.compile(r"[ \t]*")
REST_OF_LINE = re.compile(r"[^\n\x1e]*")
BARE_TEXT = re.compile(r'[^,"\[\]{}]*')
COMMA_OR_CLOSING_BRACKET = re.compile(r"[ \t\r\n]*[,\]]")
NEXT_ELEMENT = re.compile(r"[ \t\r\n]*(,[ \t\r\n]*\{|\][ \t\r\n]*\Z)")
STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
LEVELS = {"[": 1, "{": 1, "]": -1, "}": -1}
DEEPEST_NESTING = 900
LONGEST_DOCUMENT = 8 * 1024 * 1024
# Integers stay text, because Python reads only 4,300 digits of an integer.
DECODER = json.JSONDecoder(parse_int=str)
VIN = re.compile(r"[0-9A-HJ-NPR-Za-hj-npr-z]{17}")
TIME_KEYS = {"event": "telemetryTimestamp", "vehicle": "event_primary_timestamp"}
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


class RejectedError(Exception):
    """An upload or a document that is not accepted; its argument is the reason."""


def upload_text(source_uri: str, content: bytes, max_upload_bytes: int) -> str:
    """The upload's text without its byte order mark."""
    if not source_uri.lower().removesuffix(".gz").endswith(ENDINGS):
        raise RejectedError("unsupported_ending")
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(max_upload_bytes + 1)
        except (OSError, EOFError, zlib.error):
            raise RejectedError("broken_gzip") from None
    if len(content) > max_upload_bytes:
        raise RejectedError("too_large")
    is_utf_16 = content.startswith(UTF_16_MARKS) and not content.startswith(UTF_32_MARK)
    try:
        text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise RejectedError("not_utf8") from None
    if not text.strip(BLANKS + RECORD_SEPARATOR):
        raise RejectedError("empty_upload")
    return text


def documents(text: str) -> list[str]:
    """The documents in a text, in order; each broken document is one of them."""
    start = _skip(WHITE_SPACE, text, 0)
    is_array = text[start : start + 1] == "[" and not _has_arrays_in_lines(text, start)
    return list(_elements(text, start + 1) if is_array else _values(text, 0))


def _skip(pattern: re.Pattern[str], text: str, start: int) -> int:
    """The end of what the pattern matches at ``start``; the pattern also matches the empty text."""
    found = pattern.match(text, start)
    assert found is not None
    return found.end()


def _has_arrays_in_lines(text: str, start: int) -> bool:
    """Whether the line of ``start`` is one complete value, and the next line with text is one too."""
    line, _, more = text[start:].partition("\n")
    following = more.lstrip(BLANKS + RECORD_SEPARATOR).partition("\n")[0]
    return _is_one_value(line) and _is_one_value(following)


def _values(text: str, start: int) -> Iterator[str]:
    """The documents of a sequence of values."""
    while (start := _skip(BETWEEN_VALUES, text, start)) < len(text):
        end = _end_of_value(text, start) or _end_of_broken_text(text, start)
        yield text[start:end]
        start = end


def _elements(text: str, start: int) -> Iterator[str]:
    """The documents of an array whose opening bracket stands before ``start``, and of the text after the array."""
    while (start := _skip(BETWEEN_ELEMENTS, text, start)) < len(text):
        if text[start] == "]":
            yield from _values(text, start + 1)
            return
        end = _end_of_value(text, start) or _end_of_broken_element(text, start)
        yield text[start:end]
        if end is None:
            return
        start = end
    yield ""  # The closing bracket is missing.


def _is_one_value(text: str) -> bool:
    text = text.strip(BLANKS)
    return text != "" and _end_of_value(text, 0) == len(text)


def _end_of_value(text: str, start: int) -> int | None:
    """The end of the JSON value that begins at ``start``; None if there is none.

    A value that nests too deep ends where its brackets end: it is rejected in any case, and its neighbors are not.
    """
    try:
        return DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        is_deep = _nesting(text[start : error.pos]) > DEEPEST_NESTING
    except RecursionError:
        is_deep = True
    return _end_of_brackets(text, start) if is_deep else None


def _end_of_broken_text(text: str, start: int) -> int:
    """The end of a broken document in a sequence: of its line, or of an object or array with indented lines."""
    end = place = _skip(REST_OF_LINE, text, start + 1)
    closing = {"{": "}", "[": "]"}.get(text[start])
    if closing is None:
        return end
    indentation = _indentation(text, text.rfind("\n", 0, start) + 1)
    while text[place : place + 1] == "\n":
        line = place + 1
        place = _skip(REST_OF_LINE, text, line)
        content = text[line:place].strip(BLANKS)
        if not content:
            continue
        if _indentation(text, line) == indentation and content[0] == closing:
            return line + indentation + 1
        if _indentation(text, line) <= indentation or (content[0] == "{" and _is_one_value(content)):
            return end
        end = place
    return end


def _indentation(text: str, line: int) -> int:
    """The number of spaces and tabs at the beginning of the line that begins at ``line``."""
    return _skip(INDENTATION, text, line) - line


def _end_of_broken_element(text: str, start: int) -> int | None:
    """The end of a broken element of an array; None if it is the rest of the text."""
    end_of_lines = _end_of_broken_text(text, start)
    lines = text[:end_of_lines].rstrip(BLANKS)
    if text[start] in "{[":
        end = _end_of_brackets(lines, start)
        earlier = _end_of_all_brackets(lines if end is None else lines[: end - 1], start)
        end = earlier if earlier is not None and NEXT_ELEMENT.match(text, earlier) else end
    else:
        end = start + len(lines[start : _skip(BARE_TEXT, lines, start)].rstrip(BLANKS))
    if end is not None and end > start and COMMA_OR_CLOSING_BRACKET.match(text, end):
        return end
    end = end_of_lines
    if _skip(WHITE_SPACE, text, end) == len(text):
        return None
    return start + len(text[start:end].rstrip(BLANKS).removesuffix(","))


def _end_of_brackets(text: str, start: int) -> int | None:
    """The end of the object or array at ``start``, by its brackets alone; None if it does not end."""
    level = 0
    for token in STRING_OR_BRACKET.finditer(text, start):
        level += LEVELS.get(token[0], 0)
        if level == 0:
            return token.end()
    return None


def _end_of_all_brackets(text: str, start: int) -> int | None:
    """As :func:`_end_of_brackets`, but brackets in strings count too."""
    level = 0
    for token in re.finditer(r"[\[\]{}]", text[start:]):
        level += LEVELS[token[0]]
        if level == 0:
            return start + token.end()
    return None


def _nesting(text: str) -> int:
    """The maximum nesting depth of objects and arrays."""
    level = deepest = 0
    for token in STRING_OR_BRACKET.findall(text):
        level += LEVELS.get(token, 0)
        deepest = max(deepest, level)
    return deepest


def bronze_columns(text: str, ingested_at: datetime) -> Row:
    """The Bronze columns that come from the document itself."""
    document = _json_object(text)
    car_chassis = car_name(document.get("carChassis"))
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
        "payload": text,
    }


def _json_object(text: str) -> dict[str, Any]:
    """The object that the text contains."""
    if len(text) > LONGEST_DOCUMENT:
        raise RejectedError("too_large")
    if _nesting(text) > DEEPEST_NESTING:
        raise RejectedError("nested_too_deep")
    try:
        document = json.loads(text)
    except ValueError:
        # Invalid JSON, or an integer with more digits than Python reads.
        raise RejectedError("not_json") from None
    if not isinstance(document, dict):
        raise RejectedError("not_an_object")
    return document


def car_name(car_chassis: object) -> str:
    """The car's name: without white space around it, and in upper case if it is a VIN."""
    name = (text_value(car_chassis) or "").strip(BLANKS)
    if not name:
        raise RejectedError("missing_car_chassis")
    return name.upper() if VIN.fullmatch(name) else name


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
