"""Uploads that are small when stored and expensive to process naively."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date, timedelta

from telemetry_assets_tests.harness.made_documents import event

MEBIBYTE = 1024 * 1024


def brackets() -> bytes:
    """A document of eleven million empty arrays (``brackets.json.gz`` of the cases)."""
    inner = b",".join([b"[]"] * (11 * MEBIBYTE))
    return b'{"carChassis":"A","telemetryTimestamp":"2025-11-04T14:30:00Z","a":[' + inner + b"]}"


def broken() -> bytes:
    """An array of one long document and 999 broken ones (``broken.json.gz``)."""
    return b'[{"a":"' + b"x" * (30 * MEBIBYTE) + b'"},' + b",".join([b'{"a" 1}'] * 999) + b"]"


def deep() -> bytes:
    """Sixteen million nested arrays (``deep16m.json.gz``)."""
    return b"[" * (16 * MEBIBYTE)


def long_broken_array() -> bytes:
    """An array that is invalid at its start, followed by a quarter of a gigabyte."""
    return b"[" + b"x" * (250 * MEBIBYTE)


def escaped_quotes() -> bytes:
    """Escaped quotes only, outside of any string."""
    return b'[\\"' * (8 * MEBIBYTE)


def many_event_dates() -> bytes:
    """One document per day of 3,000 days (``many_event_dates.py``)."""
    days = (date(2010, 1, 1) + timedelta(days=number) for number in range(3000))
    return b"\n".join(json.dumps(event("A", day.isoformat(), engineTempCelsius=150)).encode() for day in days)


def many_fields() -> bytes:
    """Two hundred thousand unknown fields."""
    return json.dumps({**event(), **{f"field-{number}": 1 for number in range(200_000)}}).encode()


def many_documents() -> bytes:
    """More documents than an upload may have."""
    return b"{}\n" * 1_000_001


def many_broken_documents() -> bytes:
    """An array of a million words."""
    return b"[" + b"oops," * 1_000_000 + b"1]"


def many_digits() -> bytes:
    """A number of a million digits, whose conversion takes quadratic time."""
    return b'{"carChassis":"A","telemetryTimestamp":"2025-11-04T14:30:00Z","year":' + b"9" * MEBIBYTE + b"}"


def empty_members() -> bytes:
    """Two hundred thousand empty gzip members, in compressed form."""
    return gzip.compress(b"", mtime=0) * 200_000


EXPENSIVE: dict[str, tuple[Callable[[], bytes], str]] = {
    "brackets.json": (brackets, "too_large"),
    "broken.json": (broken, "not_json"),
    "deep.json": (deep, "nested_too_deep"),
    "long_broken_array.json": (long_broken_array, "not_json"),
    "escaped_quotes.json": (escaped_quotes, "not_json"),
    "many_event_dates.jsonl": (many_event_dates, "too_many_event_dates"),
    "many_fields.json": (many_fields, "too_many_field_names"),
    "many_documents.jsonl": (many_documents, "too_many_documents"),
    "many_broken_documents.json": (many_broken_documents, "too_many_broken_documents"),
    "many_digits.json": (many_digits, "not_json"),
}
"""By name: an upload's content before compression, and the reason of its only or most frequent rejection."""
