"""Accepts one document as a row of Bronze, or rejects it with a reason."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from telemetry_assets.ingestion.parsing.json_scan import MAX_DOCUMENT_CHARACTERS, MAX_NESTING, nests_too_deep
from telemetry_assets.tables.document_shapes import Shape, car_name, text_of, unknown_fields, values_of

Reason = Literal[
    "broken_gzip",
    "empty_upload",
    "missing_car_chassis",
    "missing_time",
    "nested_too_deep",
    "not_an_object",
    "not_json",
    "not_utf8",
    "parser_died",
    "parser_failed",
    "time_before_2000",
    "time_in_future",
    "too_large",
    "too_many_broken_documents",
    "too_many_documents",
    "too_many_event_dates",
    "too_many_field_names",
    "unparseable_time",
    "unreadable_upload",
    "unsupported_ending",
]

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_TOLERATED_CLOCK_ERROR = timedelta(hours=24)
UNREMARKED_CLOCK_ERROR = timedelta(minutes=5)
"""An event whose time is later than this after its ingestion counts as ahead of the clock."""
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}|[0-9]{4}-W[0-9]{2}(-[0-9])?|[0-9]{4}W[0-9]{2}[0-9]?"
_TIME_OF_DAY = r"[0-9]{2}(:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?|[0-9]{2}([0-9]{2}([.,][0-9]+)?)?)?"
_OFFSET = r"Z|[+-][0-9]{2}(:?[0-9]{2}(:?[0-9]{2})?)?"
_ISO_8601 = re.compile(rf"({_DATE})([T ]({_TIME_OF_DAY})({_OFFSET})?)?", re.ASCII)


_ADVICE_ABOUT_ARRAYS = " Send one array per upload, or objects one after another."
TOO_LONG = (
    f"The document is longer than {MAX_DOCUMENT_CHARACTERS:,} characters; send it in parts. The archive keeps it."
)


class Rejection(NamedTuple):
    """Why a document is not in Bronze.

    :param position: the document's place in its upload, from 0; None if the upload is rejected as a whole.
    :param payload: the document's text; None if it is too long for a row. The archive has it.
    """

    position: int | None
    reason: Reason
    message: str
    payload: str | None


class BronzeRow(NamedTuple):
    """An accepted document, and what was counted in it.

    :param is_ahead: whether its time is more than five minutes after its ingestion.
    """

    event_id: str
    car_chassis: str
    event_primary_timestamp: str
    telemetry_timestamp: datetime
    event_date: date
    document_shape: Shape
    payload: str
    position: int
    wrong_typed_fields: tuple[str, ...]
    out_of_range_fields: tuple[str, ...]
    unknown_fields: tuple[str, ...]
    is_ahead: bool


class _NotUsableError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        self.message = message


def accept(payload: str, position: int, ingested_at: datetime) -> BronzeRow | Rejection:
    """Accept or reject one document by docs/contract.md, section 1.

    :param payload: the document's JSON text, without surrounding white space.
    :param position: its place in the upload, from 0.
    :param ingested_at: the batch's ingestion time (UTC). A document whose time is more than 24 hours later is rejected.
    """
    try:
        document = _parse(payload)
    except _NotUsableError as rejected:
        return Rejection(position, rejected.reason, rejected.message, payload)
    return accept_value(document, payload, position, ingested_at)


def accept_value(document: object, payload: str, position: int, ingested_at: datetime) -> BronzeRow | Rejection:
    """Accept or reject a document that is already parsed. See :func:`accept`.

    :param document: the value that Python's parser returns for ``payload``.
    """
    try:
        if nests_too_deep(payload):
            raise _too_deep()
        if not isinstance(document, dict):
            advice = _ADVICE_ABOUT_ARRAYS if isinstance(document, list) else ""
            raise _NotUsableError("not_an_object", f"A document is a JSON object; this is {_kind(document)}.{advice}")
        shape: Shape = "event" if "telemetryTimestamp" in document else "vehicle"
        car_chassis = _car_chassis(document)
        written, moment = _time(document, shape, ingested_at)
    except _NotUsableError as rejected:
        return Rejection(position, rejected.reason, rejected.message, payload)
    given = text_of(document.get("event_id"))
    _, wrong_typed, out_of_range = values_of(document, shape)
    if document.get("event_id") is not None and given is None:
        wrong_typed.append("event_id")
    return BronzeRow(
        event_id=given or f"{car_chassis}_{written}",
        car_chassis=car_chassis,
        event_primary_timestamp=written,
        telemetry_timestamp=moment,
        event_date=moment.date(),
        document_shape=shape,
        payload=payload,
        position=position,
        wrong_typed_fields=tuple(wrong_typed),
        out_of_range_fields=tuple(out_of_range),
        unknown_fields=tuple(unknown_fields(document, shape)),
        is_ahead=moment > ingested_at + UNREMARKED_CLOCK_ERROR,
    )


def _parse(payload: str) -> object:
    if len(payload) > MAX_DOCUMENT_CHARACTERS:
        raise _NotUsableError("too_large", TOO_LONG)
    if nests_too_deep(payload):
        raise _too_deep()
    try:
        return json.loads(payload)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise _NotUsableError("not_json", f"The document is not JSON: {error}. {_advice(payload)}") from error


def _too_deep() -> _NotUsableError:
    return _NotUsableError(
        "nested_too_deep", f"The document has more than {MAX_NESTING} nested levels. Send it with fewer levels."
    )


def _advice(payload: str) -> str:
    if "\0" in payload[:2] and payload.count("\0") * 3 > len(payload):
        return "It looks like UTF-16 without byte order mark. Encode the upload as UTF-8."
    if "\0" in payload:
        return "It has NUL characters: the upload may not have been written completely. Send it again."
    if payload.startswith(","):
        return "A comma is outside of an array. Separate documents by line ends, or send them as elements of one array."
    if payload.startswith(("{'", "['")):
        return "JSON uses double quotation marks. Correct the producer, and send the document again."
    return "Correct the producer, and send the document again."


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "an array"}
    return names.get(type(value), "null")


def _car_chassis(document: dict[str, Any]) -> str:
    """The car's name. docs/contract.md, section 1.2."""
    chassis = document.get("carChassis")
    text = text_of(chassis)
    name = car_name(text or "")
    if not name:
        found = "is missing" if chassis is None else "is not a text" if text is None else "is blank"
        message = f"`carChassis` {found}, so the car of the event is unknown.{_advice_about_wrapper(document)}"
        raise _NotUsableError("missing_car_chassis", message)
    return name


def _advice_about_wrapper(document: dict[str, Any]) -> str:
    for name, value in document.items():
        if isinstance(value, list) and any(isinstance(one, dict) and "carChassis" in one for one in value):
            return f" The object looks like a wrapper: send the objects in {_excerpt(name)} and not the wrapper."
    return ""


def _time(document: dict[str, Any], shape: Shape, ingested_at: datetime) -> tuple[str, datetime]:
    name = "telemetryTimestamp" if shape == "event" else "event_primary_timestamp"
    written = document.get(name)
    if written is None or written == "":
        found = (
            f"`{name}` is null or empty" if name in document else f"Neither `telemetryTimestamp` nor `{name}` is given"
        )
        raise _NotUsableError(
            "missing_time", f"{found}, so the time of the event is unknown. Send it as an ISO 8601 time."
        )
    moment = parse_time(written)
    if moment is None:
        raise _NotUsableError("unparseable_time", f"`{name}` is not an ISO 8601 time: {_excerpt(written)}.")
    if moment < _EARLIEST:
        raise _NotUsableError("time_before_2000", f"`{name}` is {_excerpt(written)}; correct the car's clock.")
    if moment > ingested_at + _TOLERATED_CLOCK_ERROR:
        raise _NotUsableError(
            "time_in_future",
            f"`{name}` is {_excerpt(written)}, more than 24 hours after its ingestion at {ingested_at.isoformat()}; "
            "correct the car's clock.",
        )
    return written, moment


def _excerpt(value: object) -> str:
    try:
        written = ascii(value)
    except (RecursionError, ValueError):
        return _kind(value)
    return written if len(written) <= 80 else f"{written[:77]}..."


def parse_time(written: object) -> datetime | None:
    """Parse an ISO 8601 time. A time without an offset is UTC.

    ``T`` or a space precedes the time of day, and only seconds may have a fraction. The format is checked first,
    because ``datetime.fromisoformat`` accepts other texts too, and parses some of them wrong.

    :returns: the time in UTC; None if the text is not an ISO 8601 time. A time outside the years 1 to 9999 becomes the
        nearest time within them.
    """
    if not isinstance(written, str) or not _ISO_8601.fullmatch(written):
        return None
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        nearest = datetime.min if moment.year < 2000 else datetime.max
        return nearest.replace(tzinfo=UTC)
