"""Simulates a fleet that uploads telemetry: realistic documents in both shapes, reproducible by a seed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from random import Random
from typing import Any, NamedTuple

Document = dict[str, Any]

_MODELS = (
    ("Hyundai", "HB20 Sedan", "Flex", 50.0),
    ("Honda", "Civic Touring", "Gasoline", 47.0),
    ("Toyota", "Corolla XEi", "Hybrid", 43.0),
    ("Chevrolet", "Onix Plus LTZ", "Flex", 44.0),
    ("Nissan", "Kicks SV", "Gasoline", 41.0),
    ("Nissan", "Leaf", "Electric", 0.0),
    ("Fiat", "Strada", "Diesel", 55.0),
)
_INSURERS = ("SafeAuto", "Porto Seguro", "Allianz", "Azul Seguros", "Liberty Seguros")
_DOCUMENTS_PER_CAR_AND_DAY = 4
_NEWEST_EVENT_SHAPE_YEAR = 2022


@dataclass(frozen=True)
class Fleet:
    """The parameters of a simulation. The same parameters give the same bytes.

    :param last_day: the last day (UTC) on which the cars drive.
    :param days: the number of days on which they drive.
    :param uploads: the number of uploads that the documents are distributed over, in chronological order.
    :param mess: whether to add late, repeated, corrected, broken and drifting documents.
    :param documents: the number of documents, without those that ``mess`` adds; None for four per car and day.
    """

    last_day: date
    cars: int = 20
    days: int = 7
    uploads: int = 40
    seed: int = 1
    mess: bool = False
    documents: int | None = None


class SimulatedUpload(NamedTuple):
    """An upload: its name relative to the landing location, and its bytes."""

    name: str
    content: bytes


@dataclass
class _Car:
    chassis: str
    manufacturer: str
    model: str
    year: int
    gas_type: str
    tank_liters: float
    liters_per_km: float
    insurer: str
    insured_until: date
    odometer_km: float
    fuel_liters: float
    runs_hot: bool


def simulate(fleet: Fleet) -> Iterator[SimulatedUpload]:
    """Generate the fleet's uploads, in chronological order."""
    random = Random(fleet.seed)
    cars = [_car(random, number, fleet.last_day) for number in range(fleet.cars)]
    total = fleet.documents or fleet.cars * fleet.days * _DOCUMENTS_PER_CAR_AND_DAY
    start = datetime.combine(fleet.last_day - timedelta(days=fleet.days - 1), time(), UTC)
    pace = timedelta(days=fleet.days) / total
    late: list[Document] = []
    count = min(fleet.uploads, total)
    for number in range(count):
        places = range(total * number // count, total * (number + 1) // count)
        documents = [_drive(random, cars[place % len(cars)], start + pace * place, place) for place in places]
        if fleet.mess and documents:
            documents = _disturbed(random, documents, late, is_last=number == count - 1)
        day = (start + pace * places.start).date()
        yield _upload(random, f"{day}/upload-{number:05d}", documents)
    if fleet.mess:
        yield from _broken_uploads(fleet.last_day)


def _car(random: Random, number: int, last_day: date) -> _Car:
    manufacturer, model, gas_type, tank = _MODELS[number % len(_MODELS)]
    return _Car(
        chassis=f"9B{random.randrange(16**9):09X}{number:06d}",
        manufacturer=manufacturer,
        model=model,
        # Electric cars must be new cars. Only new cars send the vehicle shape, and only that shape has the gas type.
        year=2018 + random.randrange(8) if tank else 2024,
        gas_type=gas_type,
        tank_liters=tank,
        liters_per_km=random.uniform(0.06, 0.11) if tank else 0.0,
        insurer=_INSURERS[random.randrange(len(_INSURERS))],
        insured_until=last_day + timedelta(days=(-40, 30, 80, 200, 330)[number % 5] + random.randrange(9)),
        odometer_km=random.choice((900.0, 14_000.0, 52_000.0, 99_900.0)) + random.randrange(500),
        fuel_liters=tank * random.uniform(0.2, 1.0),
        runs_hot=number % 6 == 1,
    )


def _drive(random: Random, car: _Car, moment: datetime, place: int) -> Document:
    """The document of a trip that ends at ``moment``; the trip changes the car's odometer and fuel."""
    km = round(random.uniform(2, 60), 1)
    used = round(km * car.liters_per_km, 2)
    if car.fuel_liters - used < (0.5 if random.random() < 0.2 else 6):
        car.fuel_liters = car.tank_liters
    car.fuel_liters = max(car.fuel_liters - used, 0.0)
    car.odometer_km += km
    heat = 18 if car.runs_hot and random.random() < 0.4 else 0
    reading = {
        "odometer": round(car.odometer_km, 1),
        "fuel": round(car.fuel_liters, 1),
        "engine": round(random.gauss(91, 3) + heat, 1),
        "oil": round(random.gauss(100, 4) + heat, 1),
        "pressure": round(random.gauss(42, 4) if random.random() > 0.03 else random.uniform(5, 19), 1),
        "speed": round(random.gauss(88, 14) + (40 if random.random() < 0.05 else 0)),
        "km": km,
        "used": used,
        "minutes": round(km * random.uniform(1.0, 1.8)),
    }
    written = moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")
    if car.year <= _NEWEST_EVENT_SHAPE_YEAR:
        return _event(car, written, reading)
    return _vehicle(random, car, written, reading, f"evt-{place:08d}-{random.randrange(16**8):08x}")


def _event(car: _Car, written: str, reading: dict[str, float]) -> Document:
    return {
        "carChassis": car.chassis,
        "manufacturer": car.manufacturer,
        "model": car.model,
        "year": car.year,
        "metrics": {
            "currentMileageKm": reading["odometer"],
            "fuelAvailableLiters": reading["fuel"],
            "engineTempCelsius": reading["engine"],
            "oilPressurePsi": reading["pressure"],
        },
        "telemetryTimestamp": written,
    }


def _static(car: _Car) -> Document:
    return {
        "Model": car.model,
        "year": car.year,
        "Manufacturer": car.manufacturer,
        "gasType": car.gas_type,
        "fuelCapacityLiters": car.tank_liters,
    }


def _vehicle(random: Random, car: _Car, written: str, reading: dict[str, float], event_id: str) -> Document:
    def extracted(system: str, data: Document) -> Document:
        return {"extraction_timestamp": written, "source_system": system, "data": data}

    tires = ("front_left", "front_right", "rear_left", "rear_right")
    insurance = {"provider": car.insurer, "policy_number": "INS-1", "validUntil": car.insured_until.isoformat()}
    snapshot = {
        "currentMileage": reading["odometer"],
        "fuelAvailableLiters": reading["fuel"],
        "engineTempCelsius": reading["engine"],
        "oilTempCelsius": reading["oil"],
        "batteryChargePerc": random.randrange(30, 101),
        "tire_pressures_psi": {name: round(random.gauss(32.5, 1), 1) for name in tires},
    }
    trip = {
        "tripEndTimestamp": written,
        "tripMileage": reading["km"],
        "tripTimeMinutes": reading["minutes"],
        "tripFuelLiters": reading["used"],
        "tripMaxSpeedKm": reading["speed"],
    }
    rental = {
        "agreement_id": f"RENT-{random.randrange(10**6):06d}",
        "customer_id": f"CUST-{random.randrange(10**4):04d}",
    }
    return {
        "event_id": event_id,
        "event_primary_timestamp": written,
        "processing_timestamp": written,
        "carChassis": car.chassis,
        "vehicle_static_info": extracted("fleet_db", _static(car)),
        "vehicle_dynamic_state": {"insurance_info": extracted("insurance_api", insurance)},
        "current_rental_agreement": extracted("rental_ops_db", rental),
        "trip_data": {
            "trip_summary": extracted("trip_computer", trip),
            "vehicle_telemetry_snapshot": extracted("can_bus_poller", snapshot),
        },
    }


def _upload(random: Random, name: str, documents: list[Document]) -> SimulatedUpload:
    texts = [json.dumps(document) for document in documents]
    framing = random.randrange(5) if len(texts) != 1 else 5
    lines = "\n".join(texts).encode()
    # Different uploads have different names, so that none replaces a waiting one.
    name = f"{name}-{sha256(lines).hexdigest()[:8]}"
    if framing == 0:
        return SimulatedUpload(f"{name}.json", f"[{','.join(texts)}]".encode())
    if framing == 1:
        return SimulatedUpload(f"{name}.jsonl.gz", gzip.compress(lines, mtime=0))
    if framing == 2:
        return SimulatedUpload(f"{name}.json.gz", gzip.compress(f"[{','.join(texts)}]".encode(), mtime=0))
    endings = {3: "jsonl", 4: "ndjson", 5: "json"}
    return SimulatedUpload(f"{name}.{endings[framing]}", lines)


def _disturbed(random: Random, documents: list[Document], late: list[Document], *, is_last: bool) -> list[Document]:
    """The documents, of which some are late, repeated, corrected, drifting or unusable.

    Late documents are collected in ``late``, and are added to the last upload.
    """
    if is_last:
        return [*documents, *late]
    held = random.randrange(len(documents)) if len(documents) > 1 and random.random() < 0.3 else None
    if held is not None:
        late.append(documents[held])
    kept = [document for place, document in enumerate(documents) if place != held]
    if random.random() < 0.3:
        late.append(random.choice(kept))
    if random.random() < 0.3:
        late.append(_corrected(random, random.choice(kept)))
    return [*kept, *_spoiled(random, random.choice(kept))]


def _spoiled(random: Random, victim: Document) -> list[Document]:
    """Change a document so that it stays usable, or return an unusable copy of it."""
    kind = random.randrange(9)
    moment = _time_field(victim)
    if kind == 0:
        return [{**victim, "carChassis": ""}]
    if kind == 1:
        return [{**victim, moment: random.choice(("yesterday", "1970-01-01T00:00:00Z", "2099-01-01"))}]
    if kind == 2:
        victim["dashcam"] = {"firmware": "2.1"}
    elif kind in (3, 4, 5):
        _holder(victim)["engineTempCelsius"] = ("hot", "92.5", float("nan"))[kind - 3]
    elif kind == 6:
        victim[moment] = victim[moment].replace("Z", "")
    elif kind == 7:
        elsewhere = datetime.fromisoformat(victim[moment]) - timedelta(hours=3)
        victim[moment] = f"{elsewhere.replace(tzinfo=None).isoformat()}.250-03:00"
    return []


def _corrected(random: Random, document: Document) -> Document:
    """The same event with another reading, without a reading, or at a later second of its minute."""
    corrected: Document = json.loads(json.dumps(document))
    kind = random.randrange(3)
    if kind == 2 and "event_id" in corrected:
        corrected[_time_field(corrected)] = corrected[_time_field(corrected)][:17] + "59Z"
    else:
        _holder(corrected)["engineTempCelsius"] = None if kind else 120.5
    return corrected


def _time_field(document: Document) -> str:
    return "telemetryTimestamp" if "telemetryTimestamp" in document else "event_primary_timestamp"


def _holder(document: Document) -> Document:
    holder: Document = document.get("metrics") or document["trip_data"]["vehicle_telemetry_snapshot"]["data"]
    return holder


def _broken_uploads(day: date) -> Iterator[SimulatedUpload]:
    def text(chassis: str) -> str:
        return json.dumps({"carChassis": chassis, "telemetryTimestamp": f"{day}T12:00:00Z", "metrics": {}})

    good, other = text("9BROKEN000000001"), text("9BROKEN000000002")
    yield SimulatedUpload(f"{day}/broken-line.jsonl", f'{good}\n{{"carChassis": "9BRO\n{other}\n'.encode())
    yield SimulatedUpload(f"{day}/truncated-array.json", f"[{good}, {other[:40]}".encode())
    yield SimulatedUpload(f"{day}/windows.json", b"\xef\xbb\xbf" + f"{good}\r\n\r\n{other}\r\n".encode())
    yield SimulatedUpload(f"{day}/empty.json", b"")
    yield SimulatedUpload(f"{day}/latin-1.json", good.replace("9BROKEN", "9BRÖKEN").encode("latin-1"))
    yield SimulatedUpload(f"{day}/cut-off.json.gz", gzip.compress(good.encode(), mtime=0)[:-6])
    yield SimulatedUpload(f"{day}/table.csv", b"chassis,time\n9BROKEN,12:00\n")
