"""The uploads of the stories about killed runs."""

from __future__ import annotations

import gzip
import json

from telemetry_assets_tests.harness.killed_process import Sent
from telemetry_assets_tests.harness.made_documents import Document, event, vehicle


def lines(*documents: object) -> bytes:
    return b"\n".join(json.dumps(document).encode() for document in documents)


def third_event(time: str, **metrics: float) -> Document:
    return event("CAR-A", f"2025-06-03T{time}Z", event_id="evt-3", fuelAvailableLiters=8, **metrics)


READINGS = lines(
    event("CAR-A", "2025-06-03T09:00:00Z", event_id="evt-1", currentMileageKm=8_500, fuelAvailableLiters=30),
    event("CAR-A", "2025-06-03T12:00:00Z", event_id="evt-2", currentMileageKm=8_550, fuelAvailableLiters=25),
    third_event("14:00:00", currentMileageKm=8_600, engineTempCelsius=118),
)
TRIP = vehicle(
    "CAR-B",
    "2025-06-03T11:00:00Z",
    static={"Manufacturer": "Hyundai", "Model": "HB20", "year": 2024, "gasType": "Flex"},
    insurance={"provider": "SafeAuto", "validUntil": "2025-06-01"},
    snapshot={"currentMileage": 100_500, "fuelAvailableLiters": 30.5, "oilTempCelsius": 112},
    trip={"tripMileage": 31.5, "tripFuelLiters": 3.2, "tripMaxSpeedKm": 145},
)
ONE = event("CAR-C", "2025-05-20T08:00:00Z", event_id="evt-9", currentMileageKm=100)
FIRST = Sent(
    (
        ("north/readings.ndjson", READINGS + b'\n{"carChassis": "CAR-A", "telem'),
        ("trips.json", json.dumps([TRIP, {"carChassis": "CAR-B"}]).encode()),
        ("one.json", lines(ONE)),
        (
            "late.jsonl.gz",
            gzip.compress(lines(event("CAR-A", "2025-05-31T23:00:00Z", currentMileageKm=8_400)), mtime=0),
        ),
        ("notes.csv", b"car;km\nCAR-A;8600\n"),
    )
)
# A correction makes the event that gave CAR-A its state and an alert hours older: both must change.
CORRECTION = Sent(
    (
        ("correction.json", lines(third_event("08:00:00", engineTempCelsius=90))),
        ("more.ndjson", lines(event("CAR-C", "2025-05-21T08:00:00Z", currentMileageKm=180), "not an object")),
    )
)
REPETITION = Sent((("again.ndjson", READINGS),))
ONLY_REJECTS = Sent((("broken.json", b"{"),))
REPLACEMENT = Sent((("one.json", lines({**ONE, "metrics": {"currentMileageKm": 120}}, event("CAR-C"))),))
FIRST_WITH_REPLACEMENT = Sent(tuple({**dict(FIRST.uploads), **dict(REPLACEMENT.uploads)}.items()))
# Small when stored, so that only its rows show that it does not fit in one batch with another upload.
LARGE_IN_ROWS = Sent(
    tuple(
        (f"{name}.jsonl.gz", gzip.compress(lines(*([event(name, note="x" * 1_000)] * 10)), mtime=0))
        for name in ("first", "second", "third")
    )
)
LARGE_REPLACEMENT = Sent((("second.jsonl.gz", gzip.compress(lines(event("second", currentMileageKm=7)), mtime=0)),))
