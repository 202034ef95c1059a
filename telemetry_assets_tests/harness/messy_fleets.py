"""Schedules of messy fleets, determined by a seed: what real devices send, in any order, split and repeated.

Odometers have glitches, readings are sentinels, devices number their messages alike, and a VIN has several spellings.
Events are late, corrected or ahead of the clock. Uploads have every framing, and broken documents in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from telemetry_assets_tests.harness.made_documents import FRAMINGS, Document, event, framed, vehicle

_START = datetime(2025, 10, 28, 6, tzinfo=UTC)
_SPELLINGS = ("9BWZZZ377VT004251", "9bwzzz377vt004251", " 9BWZZZ377VT004251", "9bwZZZ377vt004251\n")
_CARS: tuple[tuple[str, ...], ...] = (_SPELLINGS, ("CAR-A",), ("CAR-B", "CAR-B "), ("car-b",), ("CAR-C",))
_SENTINELS = (0, -1, 215, 255, 16_777_215, 65_535, -40, 100_000.5, None, "n/a", "0", float("nan"))
_BROKEN: tuple[Document | list[int] | int, ...] = ({}, {"carChassis": "  "}, [1], 7, event(time="yesterday"))

Run = list[tuple[str, bytes]]
"""The names and contents of the uploads that arrive before a run."""


def messy_schedule(seed: int) -> list[Run]:
    """The uploads before each of some runs."""
    random = Random(seed)
    documents = [document for car in random.sample(_CARS, random.randint(2, 5)) for document in _journey(random, car)]
    documents += [_corrected(random, one) for one in random.sample(documents, len(documents) // 6)]
    if random.random() < 0.7:
        # Otherwise the uploads are in the order of the events of each car.
        random.shuffle(documents)
    runs: list[Run] = [[] for _ in range(random.randint(1, 4))]
    for number, some in enumerate(_in_parts(random, documents)):
        runs[min(number * len(runs) // 8, len(runs) - 1)].append(_upload(random, number, some))
    runs[-1] += [(f"again-{number}.jsonl", content) for number, (_, content) in enumerate(random.sample(runs[0], 1))]
    return [run for run in runs if run]


def _journey(random: Random, spellings: tuple[str, ...]) -> Iterator[Document]:
    """The events of a car over some weeks."""
    moment, km, liters = _START + timedelta(hours=random.randint(0, 300)), random.uniform(1, 99_950), 40.0
    gas_type = random.choice(("Flex", "Electric", "ELECTRIC", None))
    for number in range(random.randint(3, 12)):
        moment += timedelta(hours=random.choice((0, 0.5, 1, 6, 30, 200, 700)), seconds=random.randint(0, 2))
        km += random.choice((0, 0.5, 12.25, 60, 290, 900))
        liters = liters - random.choice((0, 1.5, 4)) if liters > 5 else 45.0
        written = (
            moment if random.random() < 0.97 else datetime.now(UTC) + timedelta(minutes=random.choice((1, 10, 600)))
        )
        time = written.strftime("%Y-%m-%dT%H:%M:%SZ")
        given = {"event_id": str(number)} if random.random() < 0.8 else {}
        yield _document(random, random.choice(spellings), time, km, liters, gas_type, given)


def _document(
    random: Random, car: str, time: str, km: float, liters: float, gas_type: str | None, given: dict[str, Any]
) -> Document:
    def reading(value: float) -> Any:
        return random.choice(_SENTINELS) if random.random() < 0.2 else random.choice((value, str(value)))

    temperature, pressure = random.uniform(60, 130), random.uniform(5, 60)
    if random.random() < 0.5:
        readings = {"engineTempCelsius": reading(temperature), "oilPressurePsi": reading(pressure)}
        odometer = {"currentMileageKm": reading(km), "fuelAvailableLiters": reading(liters)}
        return event(car, time, year=reading(2020), model="Uno", **readings, **odometer, **given)
    trip = {"tripMileage": reading(12.5), "tripFuelLiters": reading(1.25), "tripMaxSpeedKm": reading(141)}
    return vehicle(
        car,
        time,
        static={"Model": "Gol", "year": reading(2019), "gasType": gas_type},
        insurance={"provider": "SafeAuto", "validUntil": random.choice(("2026-01-14", "2026-04-16", None, 7))},
        snapshot={
            "currentMileage": reading(km),
            "fuelAvailableLiters": reading(liters),
            "oilTempCelsius": reading(temperature),
        },
        trip=trip if random.random() < 0.4 else {},
        **given,
    )


def _corrected(random: Random, document: Document) -> Document:
    """The event again, with another reading; one without an id keeps its id by its time."""
    corrected = {**document, "model": "corrected"}
    if "metrics" in corrected:
        corrected["metrics"] = {**corrected["metrics"], "currentMileageKm": random.uniform(1, 99_950)}
    return corrected


def _in_parts(random: Random, documents: list[Document]) -> Iterator[list[Document]]:
    parts = random.randint(3, 8)
    cuts = sorted(random.randrange(len(documents) + 1) for _ in range(parts - 1))
    for start, end in zip([0, *cuts], [*cuts, len(documents)], strict=True):
        yield documents[start:end]


def _upload(random: Random, number: int, documents: list[Document]) -> tuple[str, bytes]:
    mixed: list[Any] = list(documents)
    for _ in range(random.choice((0, 0, 1, 2))):
        mixed.insert(random.randrange(len(mixed) + 1), random.choice(_BROKEN))
    framing = random.choice(FRAMINGS)
    ending, content = framed(mixed, framing)
    if framing == "lines" and random.random() < 0.5:
        lines = content.split(b"\n")
        place = random.randrange(len(lines))
        lines[place] = lines[place][: random.randrange(len(lines[place]) + 1)]
        content = b"\n".join(lines)
    return f"{random.randrange(1_000)}-{number}{ending}", content
