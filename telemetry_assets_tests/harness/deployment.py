"""A complete deployment, in folders or in S3, and the expected rows of its tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from telemetry_assets.aws.locations import S3Location
from telemetry_assets.ingestion.reconciliation import BatchReport, batch_report_from_tables
from telemetry_assets.pipeline import Pipeline, ProcessResult, open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import (
    ALERTS,
    BRONZE,
    CURRENT_STATE,
    FUEL_EFFICIENCY,
    REJECTED,
    SILVER,
    UPLOADS,
)
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.contract_reading import Batch, Reading, Upload, read_batches

AS_OF = date(2026, 1, 15)
BUCKET = "cars"
IN_S3: dict[str, Any] = {
    "landing_uri": f"s3://{BUCKET}/landing",
    "lakehouse_uri": f"s3://{BUCKET}/lakehouse",
    "catalog": "glue",
}
SAMPLES = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "samples"

Row = dict[str, Any]
READINGS: dict[TableContract, Callable[[Reading], list[dict[str, object]]]] = {
    BRONZE: lambda reading: reading.bronze,
    REJECTED: lambda reading: reading.rejected,
    SILVER: lambda reading: reading.silver,
    CURRENT_STATE: lambda reading: reading.car_current_state,
    FUEL_EFFICIENCY: lambda reading: reading.fuel_efficiency_monthly,
    ALERTS: lambda reading: reading.performance_alerts,
}


@dataclass
class Deployment:
    """A landing folder, a lakehouse and their pipeline."""

    settings: Settings
    pipeline: Pipeline
    batch_reports: list[BatchReport] = field(default_factory=list)

    @property
    def landing(self) -> Path:
        return self.settings.landing_folder()

    def upload(self, name: str, content: bytes | str) -> Path:
        path = self.landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def process(self) -> ProcessResult:
        processed = self.pipeline.process("test-run", AS_OF)
        self.batch_reports += processed.batch_reports
        return processed

    def recall_batches(self) -> None:
        """Load all batches from the ledger, because an interrupted run has not returned its batches."""
        self.batch_reports = [one for one in map(self._batch_report, self.batch_ids()) if one is not None]

    def batch_ids(self) -> list[str]:
        ledger = self.pipeline.lakehouse.table(UPLOADS).scan(selected_fields=("batch_id",)).to_arrow()
        return sorted(set(ledger["batch_id"].to_pylist()))

    def _batch_report(self, batch_id: str) -> BatchReport | None:
        return batch_report_from_tables(self.pipeline.lakehouse, batch_id)

    def rows(self, contract: TableContract) -> list[Row]:
        rows: list[Row] = self.pipeline.lakehouse.table(contract).scan().to_arrow().to_pylist()
        return rows

    def expected(self) -> Reading:
        """The expected rows of all tables, computed from the archived uploads of every batch so far."""
        return read_batches([self._batch(one) for one in self.batch_reports], AS_OF, self.settings.upload_max_bytes)

    def _batch(self, batch_report: BatchReport) -> Batch:
        return Batch(batch_report.batch_id, batch_report.ingested_at, tuple(self.archived(batch_report.batch_id)))

    def archived(self, batch_id: str) -> list[Upload]:
        """The archived uploads of a batch."""
        folder = self.settings.lakehouse_folder() / "archive" / batch_id
        return [
            Upload(f"file://{self.landing / path.relative_to(folder)}", path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]

    def assert_equals_the_contract(self) -> None:
        reading = self.expected()
        for contract, of_contract in READINGS.items():
            assert_same_rows(contract, self.rows(contract), of_contract(reading))
        assert_same_rows(UPLOADS, [_ledger_row(row) for row in self.rows(UPLOADS)], reading.uploads)
        assert sum(sum(one.ahead_of_clock.values()) for one in self.batch_reports) == reading.times_ahead


def _ledger_row(row: Row) -> Row:
    counts = ("unknown_fields", "wrong_typed_fields", "out_of_range_fields")
    return {**row, **{name: json.loads(row[name]) for name in counts}}


@dataclass
class DeploymentInS3(Deployment):
    """Landing and lakehouse prefixes in one bucket, the Glue Data Catalog and their pipeline."""

    client: Any = None

    def upload(self, name: str, content: bytes | str) -> Path:
        body = content if isinstance(content, bytes) else content.encode()
        location = self.settings.landing_in_s3()
        self.client.put_object(Bucket=location.bucket, Key=f"{location.prefix}{name}", Body=body)
        return Path(name)

    def archived(self, batch_id: str) -> list[Upload]:
        location, landing = self.settings.lakehouse_in_s3().below("archive", batch_id), self.settings.landing_in_s3()
        return [
            Upload(landing.uri(key.removeprefix(location.prefix)), self.content(key, location.bucket))
            for key in keys(self.client, location)
        ]

    def content(self, key: str, bucket: str | None = None) -> bytes:
        """The content of an object in ``bucket``, or in the landing location's bucket."""
        place = bucket or self.settings.landing_in_s3().bucket
        body: bytes = self.client.get_object(Bucket=place, Key=key)["Body"].read()
        return body


def keys(client: Any, location: S3Location) -> list[str]:
    """All keys below a location."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=location.prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def assert_same_rows(contract: TableContract, found: list[Row], wanted: list[dict[str, object]]) -> None:
    """Compare the rows regardless of order, in the columns of the expected rows."""
    columns = list(wanted[0]) if wanted else list(contract.key)

    def sortable(row: Mapping[str, object]) -> list[tuple[bool, str]]:
        return [(row[name] is None, str(row[name])) for name in (*contract.key, *columns) if name in columns]

    shown = sorted(({name: row[name] for name in columns} for row in found), key=sortable)
    assert shown == sorted(wanted, key=sortable), contract.full_name


@contextmanager
def deployment(folder: Path, **settings: Any) -> Iterator[Deployment]:
    """A deployment in a folder, without a minimum age of uploads."""
    places = {"landing_uri": str(folder / "landing"), "lakehouse_uri": str(folder / "lakehouse")}
    chosen = Settings(**{"upload_minimum_age_seconds": 0, **places, **settings})
    with open_pipeline(chosen) as pipeline:
        yield Deployment(chosen, pipeline)


@contextmanager
def deployment_in_s3(aws: AwsServices, *, versioned: bool = True, **settings: Any) -> Iterator[DeploymentInS3]:
    """A deployment in an empty account, whose endpoint is in the environment."""
    aws.make_bucket(BUCKET, versioned=versioned)
    chosen = Settings(**{**IN_S3, **settings})
    with open_pipeline(chosen) as pipeline:
        yield DeploymentInS3(chosen, pipeline, client=aws.client("s3"))
