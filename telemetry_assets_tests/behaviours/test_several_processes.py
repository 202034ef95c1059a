"""Several `process` commands at once on one lakehouse: each document once, Gold right, nobody fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from datetime import date

from telemetry_assets.fleet_simulator import Fleet, simulate, write_uploads
from telemetry_assets.lakehouse.contracts import BRONZE, REJECTED
from telemetry_assets_tests.contract_reading import Batch, Upload, read_batches
from telemetry_assets_tests.deployment import AS_OF, READINGS, Deployment, assert_same_rows

PROCESSES = 6


def test_six_processes_share_the_uploads_and_all_end_well(deployed: Deployment) -> None:
    write_uploads(simulate(Fleet(date(2025, 12, 31), uploads=40, mess=True)), deployed.landing)
    uploads = {f"file://{path}": path.read_bytes() for path in deployed.landing.rglob("*") if path.is_file()}
    environment = {
        **os.environ,
        "TELEMETRY_LANDING_URI": deployed.settings.landing_uri,
        "TELEMETRY_LAKEHOUSE_URI": deployed.settings.lakehouse_uri,
        "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
        "TELEMETRY_BATCH_MAX_UPLOADS": "6",
    }
    command = [sys.executable, "-m", "telemetry_assets", "process", "--insurance-as-of", AS_OF.isoformat()]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(PROCESSES)
    ]
    ended = [(process.communicate(timeout=120)[0], process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * PROCESSES, [told for told, code in ended if code]

    received = deployed.rows(BRONZE) + deployed.rows(REJECTED)
    times = Counter((row["source_uri"], row["source_position"]) for row in received)
    assert set(times.values()) == {1}
    batches = {(row["ingested_at"], row["batch_id"]) for row in received}
    by_batch = [
        Batch(batch_id, moment, tuple(Upload(uri, uploads[uri]) for uri in _uris(received, batch_id)))
        for moment, batch_id in sorted(batches)
    ]
    reading = read_batches(by_batch, AS_OF)
    for contract, of_contract in READINGS.items():
        assert_same_rows(contract, deployed.rows(contract), of_contract(reading))
    assert {row["source_uri"] for row in received} == set(uploads)


def _uris(rows: list[dict[str, object]], batch_id: str) -> list[str]:
    return sorted({str(row["source_uri"]) for row in rows if row["batch_id"] == batch_id})
