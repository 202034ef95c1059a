"""Terminals show documents and uploads' names as plain text, and neither can add a line to a report."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry_assets.errors import UnclaimableUploadsError
from telemetry_assets.text.plain import plain_text
from telemetry_assets_tests.harness.made_documents import event
from telemetry_assets_tests.harness.texts import FORGED_LINE, FORGING_NAME, TERMINAL, markdown

pytestmark = pytest.mark.long


class Terminal:
    """Runs commands in a pseudo-terminal, with a landing folder and a lakehouse."""

    def __init__(self, folder: Path) -> None:
        self.landing = folder / "landing"
        self.landing.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
            "TELEMETRY_LANDING_URI": str(self.landing),
            "TELEMETRY_LAKEHOUSE_URI": str(folder / "lakehouse"),
            "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
        }

    def shown(self, *arguments: str) -> str:
        """The output of a command to its terminal, stdout and stderr."""
        reading, writing = pty.openpty()
        command = [sys.executable, "-m", "telemetry_assets", *arguments]
        with subprocess.Popen(command, env=self.environment, stdout=writing, stderr=writing, stdin=writing):
            os.close(writing)
            sent = b""
            while True:
                try:
                    some = os.read(reading, 65536)
                except OSError:
                    # Linux raises this if the other end is closed.
                    break
                if not some:
                    break
                sent += some
        os.close(reading)
        return sent.decode().replace("\r\n", "\n")


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A terminal after the processing of hostile uploads, one of which cannot be ingested."""
    terminal = Terminal(tmp_path_factory.mktemp("terminal"))
    (terminal.landing / "x.json").write_bytes(TERMINAL)
    (terminal.landing / FORGING_NAME).write_bytes(TERMINAL)
    (terminal.landing / "markdown.jsonl").write_bytes(markdown("127.0.0.1:8009"))
    (terminal.landing / "long.json").write_text(json.dumps(event("L" * 5_000)))
    (terminal.landing / f"link {FORGING_NAME}").symlink_to("x.json")
    return terminal


def assert_is_text(shown: str) -> None:
    assert shown
    assert [one for one in shown if not one.isprintable() and one != "\n"] == []
    # `doctor` prints this line without indentation itself, but only if it finds no problem.
    assert FORGED_LINE not in shown.split("\n")


def test_processing_shows_names_of_fields_as_text(terminal: Terminal) -> None:
    shown = terminal.shown("process")
    assert plain_text(FORGING_NAME) in shown
    assert r"\x1b]0;field\x07" in shown
    assert_is_text(shown)


@pytest.mark.parametrize("table", ["gold.car_current_state", "gold.performance_alerts", "bronze.rejected_documents"])
@pytest.mark.parametrize("options", [(), ("--all-columns",)])
def test_a_table_is_shown_as_text(terminal: Terminal, table: str, options: tuple[str, ...]) -> None:
    shown = terminal.shown("show", table, *options)
    assert "pwned" in shown or table == "bronze.rejected_documents"
    assert "L" * 5_000 in shown or not (options and table == "gold.car_current_state")
    assert_is_text(shown)


def test_a_table_shows_the_beginning_of_long_texts(terminal: Terminal) -> None:
    assert "L" * 200 not in terminal.shown("show", "gold.car_current_state")


@pytest.mark.parametrize("command", [("doctor",), ("reconcile", "--by-upload"), ("reconcile", "--by-upload", "--json")])
def test_a_report_shows_names_of_uploads_as_text(terminal: Terminal, command: tuple[str, ...]) -> None:
    shown = terminal.shown(*command)
    assert "\\u202e" in shown
    assert_is_text(shown)


def test_an_error_shows_names_of_uploads_as_text() -> None:
    assert_is_text(str(UnclaimableUploadsError([(FORGING_NAME, f"Permission denied\n{FORGED_LINE}")])))
