"""Documents for tests: short constructors, and hypothesis strategies for messy fleets."""

from __future__ import annotations

import gzip
import json
from typing import Any

from hypothesis import strategies as st

Document = dict[str, Any]


def event(car: str = "CAR-1", time: str = "2025-11-04T10:00:00Z", **fields: Any) -> Document:
    """An event-shaped document; fields of `metrics` by their own names, others as they are."""
    metric_names = ("currentMileageKm", "fuelAvailableLiters", "engineTempCelsius", "oilPressurePsi")
    metrics = {name: fields.pop(name) for name in metric_names if name in fields}
    return {"carChassis": car, "telemetryTimestamp": time, "metrics": metrics, **fields}


def vehicle(car: str = "CAR-1", time: str = "2025-11-04T10:00:00Z", **parts: dict[str, Any] | str) -> Document:
    """A vehicle-shaped document; ``static``, ``insurance``, ``snapshot``, ``trip`` are its `data` objects."""
    places = {
        "static": ("vehicle_static_info",),
        "insurance": ("vehicle_dynamic_state", "insurance_info"),
        "snapshot": ("trip_data", "vehicle_telemetry_snapshot"),
        "trip": ("trip_data", "trip_summary"),
    }
    document: Document = {"carChassis": car, "event_primary_timestamp": time}
    for name, part in parts.items():
        if name not in places:
            document[name] = part
            continue
        holder = document
        for key in places[name]:
            holder = holder.setdefault(key, {})
        holder["data"] = part
    return document


def framed(documents: list[Document], framing: str) -> tuple[str, bytes]:
    """An upload's file extension and bytes."""
    texts = [json.dumps(document) for document in documents]
    if framing == "array":
        return ".json", f"[{', '.join(texts)}]".encode()
    if framing == "lines in json":
        return ".json", "\n".join(texts).encode()
    if framing == "gzip":
        return ".jsonl.gz", gzip.compress("\r\n".join(texts).encode(), mtime=0)
    if framing == "joined":
        return ".json", "".join(texts).encode()
    if framing == "record separators":
        return ".ndjson.gz", "".join(f"\x1e{text}\n" for text in texts).encode()
    if framing == "pretty-printed":
        return ".JSONL", "\n".join(json.dumps(document, indent=2) for document in documents).encode("utf-16")
    if framing == "gzip named json":
        return ".json", gzip.compress(b"[\n" + ",\n".join(texts).encode() + b"\n]", mtime=0)
    if framing == "byte order mark":
        return ".ndjson", b"\xef\xbb\xbf" + "\n\n".join(texts).encode()
    return ".jsonl", "\n".join(texts).encode()


FRAMINGS = (
    *("array", "lines", "lines in json", "gzip", "byte order mark"),
    *("joined", "record separators", "pretty-printed", "gzip named json"),
)

_TIMES = st.sampled_from(
    [
        f"2025-{month}-{day}T{time}"
        for month, day in (("10", "31"), ("11", "01"), ("11", "30"), ("12", "01"), ("12", "02"))
        for time in ("00:00:00Z", "12:00:00.5Z", "23:30:00-03:00", "23:59:59")
    ]
)
_CARS = st.sampled_from(["CAR-A", "CAR-B", " CAR-A\n", "9BWZZZ377VT004251", "9bwzzz377vt004251 "])
_NUMBERS = st.one_of(
    st.integers(-5, 200),
    st.sampled_from([4.5, 9.75, 19.5, 100.5, 115.5, 141, 99_999.5, 100_001, "92.5", "1e2", " 7 "]),
    # Sentinels.
    st.sampled_from([0, -1, 215, 255, 65_535, 16_777_215, "0", -40]),
    st.sampled_from([None, "hot", float("nan"), True, [1], {"value": 1}]),
)
_TEXTS = st.sampled_from(["Hyundai", "Toyota", "São Paulo", "", None, 5])
_GAS_TYPES = st.sampled_from(["Flex", "Electric", "ELECTRIC", None])
_DATES = st.sampled_from(["2026-01-14", "2026-01-15", "2026-04-15", "2026-04-16", "2020-02-30", None, 7])
_YEARS = st.sampled_from([2024, "2023", 2022.0, 2021.5, "n/a", None])
_IDS = st.fixed_dictionaries({}, optional={"event_id": st.sampled_from(["evt-1", "evt-2", "evt-3", "", 7])})


def _optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_EVENTS = st.builds(
    lambda car, time, given, ids: event(car, time, **given, **ids),
    _CARS,
    _TIMES,
    _optional(
        manufacturer=_TEXTS,
        model=_TEXTS,
        year=_YEARS,
        currentMileageKm=_NUMBERS,
        fuelAvailableLiters=_NUMBERS,
        engineTempCelsius=_NUMBERS,
        oilPressurePsi=_NUMBERS,
    ),
    _IDS,
)
_VEHICLES = st.builds(
    lambda car, time, parts, ids: vehicle(car, time, **parts, **ids),
    _CARS,
    _TIMES,
    _optional(
        static=_optional(Manufacturer=_TEXTS, Model=_TEXTS, year=_YEARS, gasType=_GAS_TYPES),
        insurance=_optional(provider=_TEXTS, validUntil=_DATES),
        snapshot=_optional(
            currentMileage=_NUMBERS, fuelAvailableLiters=_NUMBERS, oilTempCelsius=_NUMBERS, engineTempCelsius=_NUMBERS
        ),
        trip=_optional(tripMileage=_NUMBERS, tripFuelLiters=_NUMBERS, tripMaxSpeedKm=_NUMBERS),
    ),
    _IDS,
)
_REJECTED = st.sampled_from(
    [
        event(car=""),
        event(time="yesterday"),
        event(time="1970-01-01T00:00:00Z"),
        event(time="2099-01-01T00:00:00Z"),
        {"carChassis": "CAR-A"},
    ]
)
DOCUMENTS = st.one_of(_EVENTS, _VEHICLES, _REJECTED)
UPLOADS = st.tuples(st.lists(DOCUMENTS, min_size=1, max_size=6), st.sampled_from(FRAMINGS))
"""The documents of an upload, and its framing."""

RUNS = st.lists(st.lists(UPLOADS, min_size=1, max_size=3), min_size=1, max_size=4)
"""The uploads before each run. Identifiers and times are few, so that there are many corrections and repeats."""
