"""What a remote program has made of a batch, kept in S3 for whoever commits it: accounts as JSON, files as manifests.

The data files are told as Iceberg itself tells them, in manifests; nothing that is read here is code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile, write_manifest
from pyiceberg.table import Table

from telemetry_assets.ingestion.batch_parser import BatchRows
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.ingestion.parsing.arrow_rows import BoundedCounter, Counts, UploadReport
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.tables import BRONZE, REJECTED

_ACCOUNT = "account.json"
_COUNTERS = ("rejected_by_reason", "unknown_fields", "wrong_typed_fields", "event_dates")


def keep_parsed(lakehouse: Lakehouse, place: str, entry: JournalEntry, rows: BatchRows) -> None:
    """Write what came of a batch below a place in S3, which ends in a slash; the account comes last."""
    lengths = {}
    for contract, files in ((BRONZE, rows.bronze), (REJECTED, rows.rejections)):
        table = lakehouse.table(contract)
        lengths[contract.name] = _write_files(table, f"{place}{contract.name}.avro", files)
    account = {
        "outcomes": [[item.outcome, item.problem] for item in entry.uploads],
        "uploads": [asdict(report) for report in rows.uploads],
        "accepted": rows.accepted,
        "rejected": rows.rejected,
        "counts": {name: getattr(rows.counts, name).to_json() for name in _COUNTERS},
        "lengths": lengths,
    }
    with lakehouse.table(BRONZE).io.new_output(place + _ACCOUNT).create() as file:
        file.write(json.dumps(account).encode())


def kept_parsed(lakehouse: Lakehouse, place: str, entry: JournalEntry) -> BatchRows:
    """What :func:`keep_parsed` has written; what became of each upload is noted in the journal entry."""
    with lakehouse.table(BRONZE).io.new_input(place + _ACCOUNT).open() as file:
        account: dict[str, Any] = json.loads(file.read())
    for item, (outcome, problem) in zip(entry.uploads, account["outcomes"], strict=True):
        item.outcome, item.problem = outcome, problem
    files = {
        contract.name: _read_files(
            lakehouse.table(contract).io, f"{place}{contract.name}.avro", account["lengths"][contract.name]
        )
        for contract in (BRONZE, REJECTED)
    }
    return BatchRows(
        [UploadReport(**report) for report in account["uploads"]],
        account["accepted"],
        account["rejected"],
        Counts(**{name: BoundedCounter.from_json(account["counts"][name]) for name in _COUNTERS}),
        files[BRONZE.name],
        files[REJECTED.name],
    )


def _write_files(table: Table, path: str, files: Sequence[DataFile]) -> int:
    output = table.io.new_output(path)
    # No snapshot has them yet.
    with write_manifest(2, table.spec(), table.schema(), output, 0, "null") as writer:
        for file in files:
            writer.add_entry(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=0, data_file=file))
    return len(output.to_input_file())


def _read_files(io: FileIO, path: str, length: int) -> list[DataFile]:
    manifest = ManifestFile.from_args(
        manifest_path=path, manifest_length=length, partition_spec_id=0, sequence_number=0
    )
    return [file.data_file for file in manifest.fetch_manifest_entry(io)]
