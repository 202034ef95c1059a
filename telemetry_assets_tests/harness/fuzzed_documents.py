"""Realistic documents of both shapes, changed in ways that a broken or hostile producer may cause."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from datetime import date
from random import Random
from typing import Any

from telemetry_assets.simulator.fleet import Fleet, simulate
from telemetry_assets_tests.harness.made_documents import Document, event, vehicle

# These texts become unquoted words, so that documents contain what Python's encoder never writes.
_BARE = "bare word "
_BARE_WORDS = (
    *("NaN", "Infinity", "-Infinity", "null", "1e400", "-1e400", "1E+2", "1e-400", "-0", "-0.0", "9" * 400),
    # Python reads integers of at most 4,300 digits.
    *("9" * 4_300, "-" + "9" * 4_300, "9" * 4_301, "9" * 5_000, "-" + "9" * 5_000, "9" * 5_000 + ".5"),
    *('"\\ud800"', '"\\uDFFF\\uD800"', '"\\ud83d\\ude97"', '"\\u0000"', '"\\/"', "1.7976931348623159e308"),
    *(
        "007",
        "+5",
        ".5",
        "5.",
        "0x1F",
        "1_000",
        "nan",
        "True",
        '"\t"',
        '"\\x41"',
        '"\\u00"',
        '"open',
        "1 /* one */",
        "[1,]",
    ),
)
_NUMBERS = (
    *(0, -1, -0.0, 4.99, 5, 10, 99.5, 100, 115.5, 140.5, 100_000, 100_001.5, 2**31, -(2**31), 2024.0, 2024.5, 5e-324),
    *(0.001, 16_777_215, 215, 1_885, 1_886, 2_100, 2_101, 2_000_000, 2_000_000.5, 1_000, 1_000.5, 200, 200.5, 250.5),
    *(-50, -50.5, 10_000, 10_000.5, 500.5, 100_000.5, -0.5),
    *(1e300, -1e300, 1.7e308, -1.7e308, 10**30, -(10**400), float("nan"), float("inf"), float("-inf")),
)
_SUMMED_FIELDS = {"currentMileageKm", "currentMileage", "fuelAvailableLiters", "tripMileage", "tripFuelLiters"}
_TEXTS = (
    *("", " ", "hot", "n/a", "92.5", " 92.5\t", "\u00a092.5", "92,5", "9_2", "0x10", "1e2", "1e400", "-1e999", ".5"),
    *("+7", "5.", "NaN", "Infinity", "-inf", "\u0669\u0662", "\uff19\uff12", "2024", "2024.0", "2024.5", "4e9", "true"),
    *("2026-01-14", "2026-01-15", "2026-04-15", "2026-04-16", "0001-01-01", "9999-12-31", "20260115", "2026-W03-4"),
    *("2026-02-30", "2026-01-15T00:00:00Z", "\uff12026-01-15", "Electric", "ELECTRIC", "ELECTR\u0130C", " electric"),
    *("\x00", "a\x00b", "\x7f", "\x85", "\u2028\u2029", "\ufeff", "\u200b", "\U0001f697", "e\u0301", "\u202ecar", "\\"),
    *("\ud800", "\udfff\ud800", '"', "a/b", "'; drop table", "x" * 3_000, "\u00e9" * 500, "\x0b\x0c\x1c", "\uffff"),
)
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [1], [[]], {"value": 1}, {"": {}}, ["hot", None])
_TIMES: tuple[Any, ...] = (
    *("2025-11-04", "20251104T101112Z", "2025-11-04 10:11:12", "2025-11-04T10:11:12,5-03:00", "2025-W45-2"),
    *("2025-W45-2T10:00Z", "2025-11-04T24:00:00Z", "2025-11-04T10", "2025-11-04T10:11", "2025-11-04T10:11:12+0300"),
    *("2025-11-04T10:11:12+03", "2025-11-04T10:11:12+03:00:30", "2025-11-04T10:11:12-00:00", "20251104"),
    *("2025-11-04T10:11:12+23:59", "2025-11-04T10:11:12+24:00", "2025-11-04t10:11:12z", "2025-11-04T10:11:12.1234567Z"),
    *("2000-01-01T00:00:00Z", "1999-12-31T23:59:59.999999Z", "2000-01-01T00:59:59+01:00", "1999-12-31T23:59:59-01:00"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0000-01-01", "10000-01-01", "-2025-11-04", "2099"),
    *("2025-02-29", "2024-02-29T12:00:00Z", "2025-13-01", "2025-11-04T10:60:00Z", "2025-11-04T23:59:60Z", "2025-11"),
    *(" 2025-11-04T10:11:12Z", "2025-11-04T10:11:12Z\n", "2025-11-04T10:11:12 Z", "2025-11-04T10:11:12.Z", "2025-308"),
    *("2025-11-04T10.5", "2025-11-04T10:30.5Z", "2025-11-04T1030.5", "2025-11-04T101112.5Z", "2025-11-04_10:11:12"),
    *("2025-11-04T10:11:12\u221203:00", "\uff12025-11-04T10:11:12Z", "2025-11-04\u202810:11:12", "2025-11-04T10:11Z\0"),
    *("2025-11-04T10:11:12Z[UTC]", "2025/11/04", "04.11.2025", "1762251072", "now", "null", "", " ", "T", "\ud800"),
    *(1762251072, 1762251072.5, 1762251072000, -1, 0, True, None, [], {}, ["2025-11-04T10:11:12Z"], 10**400),
)
_CHASSIS: tuple[Any, ...] = (
    *("9BWZZZ377VT004251", "9bwzzz377vt004251", " 9BWZZZ377VT004251\n", "9bwZZZ377vt004251\t", "9BWZZZ377VT00425I"),
    *("", " ", "\t", "\x00", "\ufeff", "\u2028", "\x85", "\ud800", "CAR-\udcff", "\U0001f697", "CAR_2025", "x" * 5_000),
    *("CAR-1", "car-1", "CAR-1 ", "CA\u0301R", "C\u00c1R", "'--", "%s", "../..", "NULL", "nan", "1", "\\N", "a|b"),
    *(None, 0, 1, 12.5, True, [], ["CAR-1"], {}, {"id": "CAR-1"}),
)
_NAMES = (
    *("dashcam", "CarChassis", "carchassis", "carChassis ", "", " ", "a.b", "\x00", "\u2028", "x" * 200, "$ref", "\\"),
    *("__proto__", "\U0001f697", "telemetryTimestamp", "event_primary_timestamp", "event_id", "metrics", "trip_data"),
)
# Characters that much software treats as white space, but JSON does not.
WHITE_SPACE = tuple("\u00a0\u2028\u2029\x85\x0b\x0c\x1c\x1e\ufeff\u3000\u200b\r\t")
_STRUCTURE: tuple[str, ...] = (
    *'{}[]",:\\',
    "\\u",
    "//",
    "null",
    "\x00",
    "\n",
    '"',
    "},{",
    "}{",
    "{}",
    "[]",
    ",,",
    "NaN",
    "'",
)


def realistic_documents(seed: int) -> list[Document]:
    """Documents of few cars on few days, so that events follow, repeat and correct each other in few partitions."""
    fleet = Fleet(date(2025, 11, 4), cars=8, days=7, uploads=600, documents=600, seed=seed)
    simulated = [json.loads(upload.content) for upload in simulate(fleet)]
    trip = {"tripMileage": 12.5, "tripFuelLiters": 1.5, "tripMaxSpeedKm": 145, "tripTimeMinutes": 20}
    made = [
        event(event_id="evt-1", currentMileageKm=8531, fuelAvailableLiters=4.5, engineTempCelsius=120),
        vehicle(event_id="evt-1", insurance={"provider": "SafeAuto", "validUntil": "2026-01-14"}, trip=trip),
    ]
    return simulated + made * 20


def fuzzed_text(random: Random, documents: list[Document]) -> str:
    """The JSON text of one of the documents, perhaps damaged."""
    document: Any = deepcopy(random.choice(documents))
    for _ in range(random.choice((0, 0, 1, 1, 1, 2, 3))):
        random.choice(_CHANGES)(random, document)
    if random.random() < 0.02:
        document = random.choice((*_NUMBERS, *_TEXTS, *_OTHERS))
    separators = random.choice(((",", ":"), (", ", ": "), (" , ", " : ")))
    text = json.dumps(document, ensure_ascii=random.random() < 0.5, separators=separators)
    # Raw lone surrogates would cause the rejection of the whole upload; other invalid UTF-8 is added elsewhere.
    text = re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
    text = re.sub(f'"{_BARE}([0-9]+)"', lambda found: _BARE_WORDS[int(found[1]) % len(_BARE_WORDS)], text)
    if random.random() < 0.01:
        text = _with_a_deep_value(random, text)
    return random.choice(_CHANGES_OF_TEXT)(random, text) if random.random() < 0.15 else text


def _with_a_deep_value(random: Random, text: str) -> str:
    """The text inside a nesting around or above the accepted depth, often as a value of the text itself."""
    depth = random.choice((870, 890, 891, 892, 893, 894, 895, 896, 897, 898, 899, 900, 901, 999, 1_001, 1_500, 5_000))
    opened, closed = random.choice((("[", "]"), ('{"a":', "}")))
    deep = f"{opened * depth}{text}{closed * depth}"
    return f'{text[:-1]}, "deep": {deep}}}' if random.random() < 0.8 else deep


def _any_value(random: Random) -> Any:
    bare = f"{_BARE}{random.randrange(len(_BARE_WORDS))}"
    return deepcopy(random.choice((*(random.choice(kind) for kind in (_NUMBERS, _TEXTS, _OTHERS) * 2), bare)))


def _any_holder(random: Random, document: Document) -> Document:
    """The document or an object in it; each level is equally likely."""
    holder = document
    while inner := [value for value in holder.values() if isinstance(value, dict) and value]:
        if random.random() < 0.25:
            break
        holder = random.choice(inner)
    return holder


def _set_a_field(random: Random, document: Document) -> None:
    holder = _any_holder(random, document)
    # The documents' own keys and times are less likely, because a rejected document is not read further.
    names = list(holder) if holder is not document or random.random() < 0.2 else ["year", "event_id", "metrics"]
    if names:
        holder[random.choice(names)] = _any_value(random)


def _nudge_a_number(random: Random, document: Document) -> None:
    holder = _any_holder(random, document)
    for name in [name for name, value in holder.items() if isinstance(value, int | float)][:2]:
        holder[name] = random.choice((*_NUMBERS[:12], str(holder[name]), holder[name]))


def _drop_a_field(random: Random, document: Document) -> None:
    holder = _any_holder(random, document)
    if holder:
        holder.pop(random.choice(list(holder)))


def _add_a_field(random: Random, document: Document) -> None:
    _any_holder(random, document).setdefault(random.choice(_NAMES), _any_value(random))


def _give_it_an_id(random: Random, document: Document) -> None:
    document["event_id"] = random.choice(("evt-1", "evt-2", "EVT-1", "", "evt-1 ", "evt|1", random.choice(_TEXTS)))


def _time_name(random: Random, document: Document) -> str:
    names = ("telemetryTimestamp", "event_primary_timestamp")
    here = [name for name in names if name in document]
    return here[0] if here and random.random() < 0.9 else random.choice(names)


def _set_the_time(random: Random, document: Document) -> None:
    document[_time_name(random, document)] = random.choice(_TIMES)


def _misspell_the_time(random: Random, document: Document) -> None:
    name = _time_name(random, document)
    written = document.get(name)
    if isinstance(written, str) and written:
        document[name] = _with_one_changed(random, written, "0123456789TZW:+-., ")


def _set_the_chassis(random: Random, document: Document) -> None:
    document["carChassis"] = random.choice(_CHASSIS)


def _go_beyond_doubles(random: Random, document: Document) -> None:
    """Readings whose sums and differences overflow, of a separate car, so that other cars' sums stay finite."""
    document["carChassis"] = random.choice(("CAR-HUGE-1", "CAR-HUGE-2"))
    holders = [document]
    for holder in holders:
        holders += [value for value in holder.values() if isinstance(value, dict)]
        for name in sorted(_SUMMED_FIELDS & holder.keys()):
            holder[name] = random.choice((1.7e308, 1.7e308, -1.7e308, 12.5))


def _nest_deep(random: Random, document: Document) -> None:
    inner: Any = random.choice((1, {}, []))
    for _ in range(random.choice((5, 100, 250))):
        inner = [inner] if random.random() < 0.5 else {"a": inner}
    document[random.choice(("deep", "metrics", "year"))] = inner


_CHANGES: tuple[Callable[[Random, Document], None], ...] = (
    *(_set_a_field, _set_a_field, _set_a_field, _nudge_a_number, _nudge_a_number, _drop_a_field, _add_a_field),
    *(_give_it_an_id, _set_the_time, _misspell_the_time, _set_the_chassis),
    lambda random, document: _go_beyond_doubles(random, document) if random.random() < 0.15 else None,
    lambda random, document: _nest_deep(random, document) if random.random() < 0.15 else None,
)


def _with_one_changed(random: Random, text: str, characters: str) -> str:
    place = random.randrange(len(text))
    taken = random.randrange(2)
    put: str = random.choice([*characters, ""])
    return text[:place] + put + text[place + taken :]


def _key_places(text: str) -> list[int]:
    return [found.start() for found in re.finditer(r'"\w+": ?', text)]


def _repeat_a_key(random: Random, text: str) -> str:
    places = _key_places(text)
    if not places:
        return text
    place = random.choice(places)
    name = text[place : text.index('"', place + 1) + 1]
    value = random.choice(("null", "{}", "[]", '"hot"', "92.5", '""', '"2025-11-03T10:00:00Z"', '{"data":{"year":1}}'))
    end = text.rindex("}") if "}" in text else len(text)
    first, last = f"{text[:place]}{name}: {value}, {text[place:]}", f"{text[:end]}, {name}: {value}{text[end:]}"
    return random.choice((first, last))


def _add_odd_white_space(random: Random, text: str) -> str:
    places = [found.start() for found in re.finditer(r'[{}\[\]:,"]', text)] or [0]
    place = random.choice((0, len(text), random.choice(places), random.randrange(len(text) + 1)))
    return text[:place] + random.choice(WHITE_SPACE) + text[place:]


def _insert_structure(random: Random, text: str) -> str:
    place = random.randrange(len(text) + 1)
    return text[:place] + random.choice(_STRUCTURE) + text[place:]


def _remove_some(random: Random, text: str) -> str:
    place = random.randrange(len(text) + 1)
    return text[:place] + text[place + random.choice((1, 1, 2, 20)) :]


def _bracket(random: Random, text: str) -> str:
    depth = random.choice((1, 1, 2, 50))
    opened, closed = random.choice((("[", "]"), ('{"a":', "}")))
    return opened * depth + text + closed * random.choice((depth, depth, depth - 1, 0))


def _spread_over_lines(random: Random, text: str) -> str:
    return text.replace(", ", random.choice((",\n", ",\r\n", ",\r", ",\n\n  ")))


_CHANGES_OF_TEXT: tuple[Callable[[Random, str], str], ...] = (
    *(_repeat_a_key, _repeat_a_key, _add_odd_white_space, _insert_structure, _remove_some),
    lambda random, text: text[: random.randrange(len(text) + 1)],
    lambda random, text: _with_one_changed(random, text, '{}[]",:\\0') if text else text,
    lambda random, text: _bracket(random, text) if random.random() < 0.3 else text,
    lambda random, text: _spread_over_lines(random, text) if random.random() < 0.2 else text,
    lambda random, text: text.replace('"', "'") if random.random() < 0.2 else text,
)
