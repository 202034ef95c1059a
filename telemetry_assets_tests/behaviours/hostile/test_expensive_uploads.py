"""Time and memory of an upload are proportional to its bytes, whatever its content."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.parsing.json_scan import is_value
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import REJECTED, UPLOADS
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.expensive import EXPENSIVE, MEBIBYTE, empty_members

pytestmark = pytest.mark.long

CPU_SECONDS = 60
"""The limits of all of them together, including the start of a process and of the embedded engine."""
BYTES = 1024 * MEBIBYTE
# Started by a small process, because the parent's memory counts as the process's own.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
"""


class Cost(NamedTuple):
    cpu_seconds: float
    bytes: float


def long_name(landing: Path) -> Path:
    """A folder whose path is nearly as long as possible (``long_name_many_documents.py`` of the cases)."""
    folder = landing
    while len(str(folder)) < 3_400:
        folder = folder / ("d" * 250)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Cost]:
    """All expensive uploads, processed up to Gold in a separate process, and the cost."""
    folder = tmp_path_factory.mktemp("expensive")
    settings = Settings(
        landing_uri=str(folder / "landing"),
        lakehouse_uri=str(folder / "lakehouse"),
        upload_minimum_age_seconds=0,
    )
    landing = settings.landing_folder()
    landing.mkdir()
    for name, (content, _) in EXPENSIVE.items():
        (landing / f"{name}.gz").write_bytes(gzip.compress(content(), 1, mtime=0))
    (landing / "empty_members.json.gz").write_bytes(empty_members())
    (long_name(landing) / "x.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 900_000, 1, mtime=0))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
        "TELEMETRY_LANDING_URI": settings.landing_uri,
        "TELEMETRY_LAKEHOUSE_URI": settings.lakehouse_uri,
        "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
    }
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "telemetry_assets", "process"]
    output = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
    return settings, Cost(*map(float, output.split()))


@pytest.fixture(scope="module")
def rejected(taken: tuple[Settings, Cost]) -> dict[str, Counter[str]]:
    """The number of rejections by reason, for each upload's name."""
    with open_pipeline(taken[0]) as pipeline:
        rows = pipeline.lakehouse.table(REJECTED).scan(selected_fields=("source_uri", "reason")).to_arrow().to_pylist()
    by_name: dict[str, Counter[str]] = {}
    for row in rows:
        by_name.setdefault(row["source_uri"].rsplit("/", 1)[1].removesuffix(".gz"), Counter())[row["reason"]] += 1
    return by_name


@pytest.mark.parametrize("name", EXPENSIVE)
def test_an_expensive_upload_is_rejected_with_its_reason(rejected: dict[str, Counter[str]], name: str) -> None:
    assert rejected[name].most_common(1)[0][0] == EXPENSIVE[name][1]


def test_an_upload_of_empty_gzip_members_is_empty(rejected: dict[str, Counter[str]]) -> None:
    assert rejected["empty_members.json"] == {"empty_upload": 1}


def test_a_long_name_is_not_stored_once_for_each_of_many_documents(rejected: dict[str, Counter[str]]) -> None:
    assert rejected["x.jsonl"] == {"too_large": 1}


def test_every_document_is_accounted_for(taken: tuple[Settings, Cost]) -> None:
    with open_pipeline(taken[0]) as pipeline:
        assert all(batch.conserved for batch in pipeline.reconcile().batches)
        assert pipeline.lakehouse.table(UPLOADS).scan().count() == len(EXPENSIVE) + 2


def test_all_of_them_together_take_less_than_a_minute_and_a_gibibyte(
    taken: tuple[Settings, Cost],
) -> None:
    _, cost = taken
    assert cost.cpu_seconds < CPU_SECONDS
    assert cost.bytes < BYTES


def test_they_create_few_files(taken: tuple[Settings, Cost]) -> None:
    made = [path for path in taken[0].lakehouse_folder().rglob("*") if path.is_file() and "archive" not in path.parts]
    assert len(made) < 100


def test_replay_time_is_proportional_to_the_number_of_rejected_documents(deployed: Deployment) -> None:
    deployed.upload("many.jsonl", b"{}\n" * 5_000)
    deployed.pipeline.ingest("run")
    before = time.process_time()
    result = deployed.pipeline.ingestion.try_replay(ReplaySelection())
    assert dict(result.still_rejected) == {"missing_car_chassis": 5_000}
    assert time.process_time() - before < 5


@pytest.mark.parametrize("begins_with", ["", "\\n"])
def test_a_long_text_with_a_rare_character_is_not_decoded_to_find_its_end(begins_with: str) -> None:
    text = f'"\U0001f600{begins_with}'.encode() + b"a" * (24 * MEBIBYTE) + b'"'
    tracemalloc.start()
    try:
        assert is_value(text, 0, len(text))
        assert not is_value(text + b"x", 0, len(text) + 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(text)


def test_number_longer_than_a_document_gives_no_value() -> None:
    digits = b"1" * (9 * MEBIBYTE)
    assert not is_value(digits, 0, len(digits))
