"""The command line as users and scripts call it: real processes, their output and exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry_assets_tests.harness.made_documents import event, framed


class Shell:
    """Runs the command line with a temporary landing folder and lakehouse."""

    def __init__(self, folder: Path) -> None:
        self.landing = folder / "landing"
        self.lakehouse = folder / "lakehouse"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
            "TELEMETRY_LANDING_URI": str(self.landing),
            "TELEMETRY_LAKEHOUSE_URI": str(self.lakehouse),
            "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
            "COLUMNS": "100",
        }

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "telemetry_assets", *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_help_says_what_each_command_does(shell: Shell) -> None:
    result = shell.run("--help")
    assert result.returncode == 0
    for command in ("process", "simulate", "show", "doctor"):
        assert f"  {command} " in result.stdout
        assert shell.run(command, "--help").returncode == 0


def test_simulate_process_show(shell: Shell) -> None:
    # The broken uploads of `--mess` add two cars.
    assert shell.run("simulate", "--cars", "3", "--days", "2", "--uploads", "5", "--mess").returncode == 0
    processed = shell.run("process")
    assert processed.returncode == 0, processed.stderr
    assert "accepted" in processed.stdout
    assert "gold.performance_alerts" in processed.stderr
    shown = shell.run("show", "gold.car_current_state", "--limit", "2")
    assert shown.returncode == 0
    assert shown.stdout.startswith("gold.car_current_state: 5 rows")


def test_the_same_seed_simulates_the_same_uploads(shell: Shell, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for number, folder in enumerate(folders):
        arguments = ("--mess", "--seed", "5", "--last-day", "2025-11-06", "--into", str(folder))
        assert shell.run("simulate", *arguments, PYTHONHASHSEED=str(number)).returncode == 0
    written = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} for folder in folders]
    assert written[0] == written[1] != {}


def test_rejects_are_counted_without_a_failure(shell: Shell) -> None:
    shell.landing.mkdir()
    (shell.landing / "x.json").write_bytes(framed([event(), event(car="")], "array")[1])
    processed = shell.run("process", "--json", "--insurance-as-of", "2026-01-15")
    assert processed.returncode == 0
    batch_report = json.loads(processed.stdout)
    assert (batch_report["documents"], batch_report["accepted"], batch_report["rejected"]) == (2, 1, 1)
    assert batch_report["rejected_by_reason"] == {"missing_car_chassis": 1}
    shown = shell.run("show", "car_current_state", "--car", "CAR-1", "--all-columns")
    assert "2026-01-15" in shown.stdout


def test_doctor_succeeds_for_a_new_and_a_used_deployment(shell: Shell) -> None:
    shell.landing.mkdir()
    assert "do not exist yet" in shell.run("doctor").stdout
    (shell.landing / "x.json").write_bytes(framed([event()], "array")[1])
    assert "1 wait" in shell.run("doctor").stdout
    shell.run("process")
    result = shell.run("doctor")
    assert result.returncode == 0
    assert "silver.car_telemetry: 1 row," in result.stdout
    assert result.stdout.endswith("All is well.\n")


def test_doctor_creates_nothing(shell: Shell) -> None:
    shell.landing.mkdir()
    assert shell.run("doctor").returncode == 0
    assert not shell.lakehouse.exists()
    assert list(shell.landing.iterdir()) == []


def test_doctor_reports_why_uploads_cannot_be_ingested(shell: Shell) -> None:
    result = shell.run("doctor", TELEMETRY_LANDNG_URI="elsewhere")
    assert result.returncode == 1
    assert f"{shell.landing} is not ingested: the folder does not exist" in result.stdout
    assert "did you mean TELEMETRY_LANDING_URI?" in result.stdout
    assert result.stdout.endswith("Found 2 problems; see above.\n")


@pytest.mark.long
@pytest.mark.parametrize("table", ["bronze", "silver"])
def test_the_doctor_survives_a_table_whose_metadata_is_gone(shell: Shell, table: str) -> None:
    shell.landing.mkdir()
    (shell.landing / "x.json").write_bytes(framed([event()], "array")[1])
    shell.run("process")
    shutil.rmtree(shell.lakehouse / table / "car_telemetry" / "metadata")
    result = shell.run("doctor")
    assert result.returncode == 1
    assert f"{table}.car_telemetry: its metadata cannot be read" in result.stdout
    assert "gold.performance_alerts: " in result.stdout
    for command in (["show", f"{table}.car_telemetry"], ["process"]):
        failed = shell.run(*command)
        assert (failed.returncode, "Traceback" in failed.stderr) == (1, False)


def test_missing_table_is_distinguished_from_an_empty_one(shell: Shell) -> None:
    result = shell.run("show", "gold.car_current_state")
    assert result.returncode == 1
    assert "gold.car_current_state is not in the catalog" in result.stderr
    shell.landing.mkdir()
    shell.run("process")
    assert shell.run("show", "gold.car_current_state").stdout == "gold.car_current_state: 0 rows\n"


def test_closed_output_pipe_is_no_error(shell: Shell) -> None:
    shell.landing.mkdir()
    shell.run("process")
    with subprocess.Popen(
        [sys.executable, "-m", "telemetry_assets", "doctor"],
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_overwritten_catalog_and_journal_are_named(shell: Shell) -> None:
    journal, catalog = (shell.lakehouse / name for name in ("ingestion/in_progress.json", "catalog.sqlite"))
    journal.parent.mkdir(parents=True)
    journal.write_text("{")
    assert f"{journal} is not the journal of a batch" in shell.run("process").stderr
    catalog.write_text("no database")
    assert f"The catalog {catalog} cannot be used" in shell.run("process").stderr
    result = shell.run("doctor")
    assert (result.returncode, "0 wait" in result.stdout) == (1, True)
    assert f"cannot be examined: The catalog {catalog} cannot be used" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "exit_code", "says"),
    [
        (["show", "gold.nothing"], {}, 2, "the tables are"),
        (["show", "rejected_documents", "--car", "X"], {}, 2, "no column for the car"),
        (["process", "--insurance-as-of", "tomorrow"], {}, 2, "tomorrow"),
        (["process"], {"TELEMETRY_BATCH_MAX_UPLOADS": "none"}, 1, "TELEMETRY_BATCH_MAX_UPLOADS"),
        (["process"], {"TELEMETRY_ENGINE": "steam"}, 1, "TELEMETRY_ENGINE"),
        (["process"], {"TELEMETRY_LAKEHOUSE_URI": "/proc/nowhere"}, 1, "TELEMETRY_LAKEHOUSE_URI=/proc/nowhere"),
        (["doctor"], {"TELEMETRY_LANDING_URI": "s3://bucket"}, 1, "TELEMETRY_LANDING_URI=s3://bucket"),
    ],
)
def test_errors_say_what_was_wrong_without_a_traceback(
    shell: Shell, arguments: list[str], environment: dict[str, str], exit_code: int, says: str
) -> None:
    result = shell.run(*arguments, **environment)
    assert result.returncode == exit_code, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
