"""The number of modules that the processing of one upload from the landing folder to Gold uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from telemetry_assets_tests.harness.made_documents import event, framed

MOST_MODULES = 64

_TRACED = """
import sys, threading
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings

called = set()

def note(frame, happened, _):
    if happened == "call" and frame.f_code.co_name != "<module>":
        called.add(frame.f_globals.get("__name__", ""))

threading.setprofile(note)
sys.setprofile(note)
with open_pipeline(load_settings()) as pipeline:
    [batch] = pipeline.process("a run").batch_reports
assert batch.accepted == 1
sys.setprofile(None)
print("\\n".join(sorted(name for name in called if name.startswith("telemetry_assets."))))
"""


def test_processing_an_upload_uses_a_bounded_number_of_modules(tmp_path: Path) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "x.json").write_bytes(framed([event(engineTempCelsius=120)], "array")[1])
    environment = {
        "TELEMETRY_LANDING_URI": str(tmp_path / "landing"),
        "TELEMETRY_LAKEHOUSE_URI": str(tmp_path / "lakehouse"),
        "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
        "PYTHONPATH": ":".join(sys.path),
    }
    command = [sys.executable, "-c", _TRACED]
    traced = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert traced.returncode == 0, traced.stderr
    modules = traced.stdout.split()
    assert {"telemetry_assets.pipeline", "telemetry_assets.transforms.gold_performance_alerts"} <= set(modules)
    assert len(modules) <= MOST_MODULES, modules
