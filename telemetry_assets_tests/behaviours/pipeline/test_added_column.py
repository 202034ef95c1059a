"""The guide "Add a column" in CONTRIBUTING.md, applied to a copy of the project over an existing lakehouse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from telemetry_assets_tests.harness.made_documents import event, framed, vehicle
from telemetry_assets_tests.harness.on_engines import SMALL_SPARK

ROOT = Path(__file__).resolve().parents[3]
COLUMN = "coolant_level_percent"


class Project:
    """A copy of the project, and the folders of its deployment."""

    def __init__(self, folder: Path) -> None:
        self.code, self.landing, self.lakehouse = folder / "code", folder / "landing", folder / "lakehouse"
        shutil.copytree(ROOT / "telemetry_assets", self.code / "telemetry_assets")
        (self.code / "jars").symlink_to(ROOT / "jars")
        self.landing.mkdir()

    def apply_the_guide(self) -> None:
        """Apply the diff of the guide. A hunk is found by its text, because the guide has no line numbers."""
        guide = re.search(r"## Add a column\n(.*?)\n## ", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
        assert guide is not None
        [diff] = re.findall(r"```diff\n(.*?)```", guide[1], re.DOTALL)
        for path, hunks in re.findall(r"\+\+\+ b/(\S+)\n(.*?)(?=   --- a/|\Z)", diff, re.DOTALL):
            for hunk in hunks.split("   @@\n")[1:]:
                self._apply(self.code / path, [line.removeprefix("   ") for line in hunk.rstrip().splitlines()])

    def _apply(self, file: Path, hunk: list[str]) -> None:
        before = "\n".join(line[1:] for line in hunk if line[0] == " ")
        after = "\n".join(line[1:] for line in hunk)
        text = file.read_text()
        assert text.count(before) == 1, before
        file.write_text(text.replace(before, after))

    def upload(self, name: str, *documents: dict[str, Any]) -> None:
        (self.landing / name).write_bytes(framed(list(documents), "lines")[1])

    def run(self, program: str, engine: str) -> str:
        """Run Python code with the copy's modules, and return its output."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
            "PYTHONPATH": str(self.code),
            "TELEMETRY_LANDING_URI": str(self.landing),
            "TELEMETRY_LAKEHOUSE_URI": str(self.lakehouse),
            "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
            "TELEMETRY_ENGINE": engine,
            "TELEMETRY_SPARK_CONFIGURATION": json.dumps(SMALL_SPARK),
        }
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=self.code, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def process(self, engine: str) -> str:
        return self.run(PROCESS, engine)

    def silver(self) -> dict[str, dict[str, Any]]:
        """Silver by event id, as a reader without this project's code sees it."""
        catalog = SqlCatalog("telemetry", uri=f"sqlite:///{self.lakehouse}/catalog.sqlite")
        rows = catalog.load_table("silver.car_telemetry").scan().to_arrow().to_pylist()
        return {row["event_id"]: row for row in rows}


PROCESS = """
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
with open_pipeline(load_settings()) as pipeline:
    for refresh in pipeline.process("run").refreshes:
        print(refresh.contract.full_name, len(refresh.event_dates), refresh.rebuild_reason)
"""
REBUILD = """
from datetime import date
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import SILVER
with open_pipeline(load_settings()) as pipeline:
    pipeline.refresh(SILVER, "backfill", frozenset({date(2025, 11, 4)}))
"""
READ_WITH_SPARK = """
import json
from telemetry_assets.engines.spark.session import open_session
spark = open_session(load_settings())
rows = spark.sql("SELECT event_id, coolant_level_percent FROM telemetry.silver.car_telemetry ORDER BY event_id")
print(json.dumps([list(row) for row in rows.collect()]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A deployment of unchanged code with an upload that already has the field."""
    made = Project(tmp_path)
    snapshot = {"coolantLevelPercent": 75, "oilTempCelsius": 90}
    made.upload(
        "1.jsonl",
        event(event_id="old-event", metrics={"coolantLevelPercent": 80, "currentMileageKm": 100}),
        vehicle(event_id="old-vehicle", snapshot=snapshot),
        event(event_id="old-without", time="2025-11-05T10:00:00Z", currentMileageKm=120),
    )
    made.process("embedded")
    assert COLUMN not in made.silver()["old-event"]
    return made


def test_added_column_is_null_in_old_rows_and_a_rebuild_fills_them(project: Project) -> None:
    before = project.silver()
    project.apply_the_guide()
    project.upload("2.jsonl", event(event_id="new", metrics={"coolantLevelPercent": "55.5"}))
    assert project.process("embedded").splitlines()[0].split() == ["silver.car_telemetry", "1"]
    rows = project.silver()
    assert {name: row.pop(COLUMN) for name, row in rows.items()} == {
        **dict.fromkeys(("old-event", "old-vehicle", "old-without")),
        "new": 55.5,
    }
    assert {name: row for name, row in rows.items() if name != "new"} == before
    project.run(REBUILD, "embedded")
    assert {name: row[COLUMN] for name, row in project.silver().items()} == {
        "old-event": 80.0,
        "old-vehicle": 75.0,
        "old-without": None,
        "new": 55.5,
    }


@pytest.mark.long
def test_spark_adds_fills_and_reads_the_column(project: Project) -> None:
    from telemetry_assets_tests.harness.java import need_java

    need_java()
    project.apply_the_guide()
    project.upload("2.jsonl", event(event_id="new", metrics={"coolantLevelPercent": "55.5"}))
    project.process("spark")
    assert [row[COLUMN] for name, row in sorted(project.silver().items())] == [55.5, None, None, None]
    [shown] = project.run(REBUILD + READ_WITH_SPARK, "spark").splitlines()[-1:]
    assert json.loads(shown) == [["new", 55.5], ["old-event", 80.0], ["old-vehicle", 75.0], ["old-without", None]]


def test_raised_edition_of_the_transform_fills_them_with_the_next_run(project: Project) -> None:
    project.apply_the_guide()
    file = project.code / "telemetry_assets/tables/silver_car_telemetry.py"
    edition = re.search(r"transform_edition=(\d+)", file.read_text())
    assert edition is not None
    file.write_text(file.read_text().replace(edition[0], f"transform_edition={int(edition[1]) + 1}"))
    first = project.process("embedded").splitlines()[0]
    assert first.startswith(f"silver.car_telemetry 2 edition {edition[1]} of its transform has computed it")
    assert {name: row[COLUMN] for name, row in project.silver().items()} == {
        "old-event": 80.0,
        "old-vehicle": 75.0,
        "old-without": None,
    }
