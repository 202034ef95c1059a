"""A random search for the most expensive ten kilobytes: mutates documents and keeps the slowest."""

from __future__ import annotations

import gzip
import random
import time
from datetime import UTC, datetime

import pytest

from telemetry_assets.ingestion.parsing.arrow_rows import Origin, upload_rows
from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets_tests.harness.expensive import MEBIBYTE

SIZE = 10_000
ROUNDS_SECONDS = 240
# Limits of CPU time per byte after decompression, and per upload.
SECONDS_PER_BYTE, SECONDS = 2e-6, 0.5
_TOKENS = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\\",
        b'\\"',
        b"\n",
        b" ",
        b"[]",
        b"{}",
        b'""',
        b'{"a":',
        b"[[[[",
        b"]]]]",
    ),
    *(
        b"1",
        b"9" * 50,
        b"1e309",
        b"null",
        b"NaN",
        b"-",
        b"\\ud800",
        b"\xf0\x9f\x98\x80",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r\n",
    ),
    *(b'{"carChassis":"A","telemetryTimestamp":"2025-11-04T14:30:00Z"}', b'"metrics":{', b'"event_id":"'),
]
_NAMES = ("x.json", "x.jsonl", "x.json.gz", "x.jsonl.gz")


def cost(name: str, content: bytes) -> tuple[float, int]:
    """The CPU seconds of an upload, and its bytes after decompression."""
    stored = gzip.compress(content, 1) if name.endswith(".gz") else content
    origin = Origin("file:///x", datetime(2026, 1, 1, tzinfo=UTC), "batch")
    begin = time.process_time()
    upload_rows(name, stored, origin, Limits(256 * MEBIBYTE, 1_000_000))
    return time.process_time() - begin, len(content)


def changed(content: bytes, chance: random.Random) -> bytes:
    """Mutated content: a piece is repeated, replaced, removed or inserted."""
    position = chance.randrange(len(content) + 1)
    piece = content[position : position + chance.choice([1, 2, 8, 64, 512])]
    new = chance.choice(
        [piece * chance.choice([2, 10, 100]), chance.choice(_TOKENS) * chance.choice([1, 10, 1000]), b""]
    )
    return (content[:position] + new + content[position + len(piece) * chance.choice([0, 1]) :])[: SIZE * 30]


@pytest.mark.exhaustive
@pytest.mark.timeout(ROUNDS_SECONDS * 2)
def test_no_upload_that_is_found_costs_more_than_its_bytes() -> None:
    chance = random.Random(18)
    best = [(0.0, name, b"".join(chance.choices(_TOKENS, k=200))) for name in _NAMES for _ in range(4)]
    end = time.monotonic() + ROUNDS_SECONDS
    while time.monotonic() < end:
        _, name, content = chance.choice(best)
        candidate = changed(content, chance)
        seconds, size = cost(name, candidate)
        assert seconds < SECONDS + SECONDS_PER_BYTE * size, (seconds, name, candidate[:2_000])
        best.append((seconds / (size + 1_000), name, candidate))
        best = sorted(best, key=lambda one: one[0], reverse=True)[:40]
