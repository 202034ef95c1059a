"""A batch that a remote program has parsed, stored in S3 for the run that commits it.

The counts and outcomes are stored as JSON and the data files as Iceberg manifests, so loading them executes no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from pydantic import BaseModel
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile, write_manifest
from pyiceberg.table import Table

from telemetry_assets.ingestion.batch_parser import ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry, Outcome
from telemetry_assets.ingestion.parsing.arrow_rows import BoundedCounter, Counts, UploadReport
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.tables import BRONZE, REJECTED

_SUMMARY = "summary.json"
_COUNTERS = tuple(one.name for one in fields(Counts))


class _Summary(BaseModel):
    """A parsed batch without its rows.

    :param outcomes: the outcome of each upload of the journal entry and its problem, in the entry's order.
    :param lengths: by table, the bytes of the manifest that lists its data files.
    """

    outcomes: list[tuple[Outcome, str]]
    reports: list[UploadReport]
    accepted: int
    rejected: int
    counts: dict[str, dict[str, Any]]
    lengths: dict[str, int]


def save_parsed(lakehouse: Lakehouse, place: str, parsed: ParsedBatch) -> None:
    """Store a parsed batch whose rows are in data files.

    :param place: the URI of a prefix in S3, with a slash at its end.
    """
    lengths = {}
    for contract, files in ((BRONZE, parsed.bronze), (REJECTED, parsed.rejections)):
        table = lakehouse.table(contract)
        lengths[contract.name] = _write_manifest(table, f"{place}{contract.name}.avro", files)
    summary = _Summary(
        outcomes=[(item.outcome, item.problem) for item in parsed.uploads],
        reports=list(parsed.reports),
        accepted=parsed.accepted,
        rejected=parsed.rejected,
        counts={name: getattr(parsed.counts, name).to_json() for name in _COUNTERS},
        lengths=lengths,
    )
    # Written last: if it exists, the manifests exist too.
    with lakehouse.table(BRONZE).io.new_output(place + _SUMMARY).create() as file:
        file.write(summary.model_dump_json().encode())


def load_parsed(lakehouse: Lakehouse, place: str, entry: JournalEntry) -> ParsedBatch:
    """Load what :func:`save_parsed` has stored.

    :param entry: the journal entry that was parsed.
    """
    with lakehouse.table(BRONZE).io.new_input(place + _SUMMARY).open() as file:
        summary = _Summary.model_validate_json(file.read())
    bronze, rejections = (
        _read_manifest(lakehouse.table(contract).io, f"{place}{contract.name}.avro", summary.lengths[contract.name])
        for contract in (BRONZE, REJECTED)
    )
    return ParsedBatch(
        uploads=tuple(
            replace(item, outcome=outcome, problem=problem)
            for item, (outcome, problem) in zip(entry.uploads, summary.outcomes, strict=True)
        ),
        reports=summary.reports,
        accepted=summary.accepted,
        rejected=summary.rejected,
        counts=Counts(**{name: BoundedCounter.from_json(summary.counts[name]) for name in _COUNTERS}),
        bronze=bronze,
        rejections=rejections,
    )


def _write_manifest(table: Table, path: str, files: Sequence[DataFile]) -> int:
    output = table.io.new_output(path)
    # The snapshot id is a placeholder, because no snapshot has the files yet.
    with write_manifest(2, table.spec(), table.schema(), output, 0, "null") as writer:
        for file in files:
            writer.add_entry(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=0, data_file=file))
    return len(output.to_input_file())


def _read_manifest(io: FileIO, path: str, length: int) -> list[DataFile]:
    manifest = ManifestFile.from_args(
        manifest_path=path, manifest_length=length, partition_spec_id=0, sequence_number=0
    )
    return [file.data_file for file in manifest.fetch_manifest_entry(io)]
