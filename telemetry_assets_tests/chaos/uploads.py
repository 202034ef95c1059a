"""The uploads of a small fleet: repeated, corrected, late and moved events, and hostile bytes."""

from __future__ import annotations

import gzip
from datetime import date, timedelta
from random import Random

from telemetry_assets_tests.chaos.steps import Put, PutHalf
from telemetry_assets_tests.harness.made_documents import Document, event, framed, vehicle

DAYS = tuple(date(2025, 10, 30) + timedelta(days=n) for n in (0, 1, 2, 3, 32, 33))
_CLOCKS = ("00:00:00Z", "12:00:00.5Z", "23:30:00-03:00", "23:59:59")
_CARS = ("CAR-A", "CAR-B", "CAR-C")
_IDS = ("evt-1", "evt-2", "evt-3", "evt-4")
# One framing per name, so that uploads often replace each other.
NAMES = (
    ("a.json", "array"),
    ("north/b.jsonl", "lines"),
    ("c.json", "lines in json"),
    ("d.jsonl.gz", "gzip"),
    ("south/e.ndjson", "byte order mark"),
    ("a.json.jsonl", "lines"),
)


def _chosen_fields(random: Random, fields: dict[str, tuple[object, ...]]) -> Document:
    return {name: random.choice(values) for name, values in fields.items() if random.random() < 0.6}


def _time(random: Random) -> str:
    return f"{random.choice(DAYS).isoformat()}T{random.choice(_CLOCKS)}"


def _event(random: Random) -> Document:
    fields: dict[str, tuple[object, ...]] = {
        "manufacturer": ("Hyundai", "Toyota", 5),
        "model": ("HB20", "Corolla"),
        "year": (2024, "2023", "n/a"),
        "currentMileageKm": (8500, 8600.5, 100_001, "92.5"),
        "fuelAvailableLiters": (4.5, 9.75, 30, "hot"),
        "engineTempCelsius": (90, 100.5, 116),
        "oilPressurePsi": (9, 15.5, 40),
    }
    return event(random.choice(_CARS), _time(random), **_chosen_fields(random, fields))


def _vehicle(random: Random) -> Document:
    parts: dict[str, dict[str, tuple[object, ...]]] = {
        "static": {"Manufacturer": ("Hyundai", "Toyota"), "gasType": ("Flex", "Electric"), "year": (2022, None)},
        "insurance": {"provider": ("SafeAuto", "Other"), "validUntil": ("2026-01-14", "2026-04-15", "2026-04-16")},
        "snapshot": {"currentMileage": (8550, 8700), "fuelAvailableLiters": (3, 25.5), "oilTempCelsius": (111, 126)},
        "trip": {"tripMileage": (31.5, 10, -1), "tripFuelLiters": (3.2, 1), "tripMaxSpeedKm": (100, 120, 145)},
    }
    chosen = {name: _chosen_fields(random, fields) for name, fields in parts.items() if random.random() < 0.7}
    return vehicle(random.choice(_CARS), _time(random), **chosen)


def _document(random: Random) -> Document:
    if random.random() < 0.1:
        return random.choice(
            [event(car=""), event(time="yesterday"), event(time="1970-01-01T00:00:00Z"), {"carChassis": "CAR-A"}]
        )
    document = (_event if random.random() < 0.5 else _vehicle)(random)
    # Without an id, an event is identified by its car and time, of which there are few too.
    return {**document, "event_id": random.choice(_IDS)} if random.random() < 0.6 else document


def _hostile(random: Random, name: str, number: int) -> tuple[bytes, str]:
    text = f'{{"carChassis": "CAR-A", "sent": {number}'.encode()
    content, words = random.choice(
        [(text, "broken JSON"), (b"", "empty"), (b"\xff\xfe" + text, "not UTF-8"), (b"[1, null, " + text, "broken")]
    )
    if name.endswith(".gz") and random.random() < 0.5:
        return gzip.compress(content, mtime=0)[: random.choice((5, 1000))], f"{words}, compressed and perhaps cut off"
    return content, words


def drawn_upload(random: Random, number: int) -> Put:
    """An upload with the number in its content, so that no two non-empty uploads are equal."""
    name, framing = random.choice(NAMES)
    if random.random() < 0.12:
        content, words = _hostile(random, name, number)
        return Put(name, content, 1, words)
    documents = [{**_document(random), "sent": number} for _ in range(random.choice((1, 1, 1, 2, 3, 4, 6)))]
    if framing == "gzip":
        _, content = framed(documents, "lines")
        content = gzip.compress(content, mtime=0)
    else:
        _, content = framed(documents, framing)
    return Put(name, content, len(documents), f"{len(documents)} documents, number {number}")


def drawn_half(random: Random, number: int) -> PutHalf:
    """A partial upload, whose writer has not finished when it gets its final name."""
    name, framing = random.choice([one for one in NAMES if one[1] in ("array", "lines")])
    documents = [{**_document(random), "sent": number} for _ in range(random.choice((2, 3, 5)))]
    _, content = framed(documents, framing)
    cut = random.randint(1, len(content) - 1)
    return PutHalf(name, content, cut, f"{len(documents)} documents, number {number}")
