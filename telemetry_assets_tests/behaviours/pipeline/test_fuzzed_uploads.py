"""Thousands of fuzzed uploads: none stops a run, and every document is in a table."""

from __future__ import annotations

import base64
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from telemetry_assets.ingestion.reconciliation import sum_counts
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets_tests.harness.contract_reading_of_uploads import documents, upload_text
from telemetry_assets_tests.harness.deployment import Deployment, Row, deployment
from telemetry_assets_tests.harness.fuzzed_uploads import FuzzedUpload, fuzzed_uploads

pytestmark = pytest.mark.long

SEED = int(os.environ.get("TELEMETRY_FUZZ_SEED", "20251104"))
LARGE_UPLOADS = 400
SMALL_UPLOADS = 1_300
RUNS = 3
LEAST_DOCUMENTS = 10_000
BETWEEN_DOCUMENTS = " \t\r\n\x1e,[]"
# The other reasons concern larger uploads, unreadable files and defects.
REASONS = {
    *("broken_gzip", "empty_upload", "not_utf8", "unsupported_ending", "missing_car_chassis", "missing_time"),
    *("nested_too_deep", "not_an_object", "not_json", "time_before_2000", "time_in_future", "unparseable_time"),
}


def test_ten_thousand_fuzzed_documents_are_processed_completely_without_a_crash(tmp_path: Path) -> None:
    uploads = list(fuzzed_uploads(SEED, large=LARGE_UPLOADS, small=SMALL_UPLOADS))
    with deployment(tmp_path) as deployed:
        # In several runs, so that later runs merge into the tables of earlier ones.
        for run in range(RUNS):
            for name, content in uploads[run::RUNS]:
                deployed.upload(name, content)
            deployed.process()
        bronze, rejected = deployed.rows(BRONZE), deployed.rows(REJECTED)
        assert_uploads_are_archived(deployed, uploads)
        assert_documents_are_counted(deployed, bronze, rejected)
        assert_each_document_stands_once_as_received(deployed, uploads, bronze, rejected)
        assert_fuzz_is_worth_its_time(bronze, rejected)
        deployed.assert_equals_the_contract()


def assert_uploads_are_archived(deployed: Deployment, uploads: list[FuzzedUpload]) -> None:
    assert not deployed.pipeline.ingestion.has_work()
    assert [path for path in deployed.landing.rglob("*") if path.is_file()] == []
    archive = deployed.settings.lakehouse_folder() / "archive"
    folders = [archive / batch_report.batch_id for batch_report in deployed.batch_reports]
    files = [(folder, path) for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) == len(uploads)
    assert {str(path.relative_to(folder)): path.read_bytes() for folder, path in files} == dict(uploads)


def assert_documents_are_counted(deployed: Deployment, bronze: list[Row], rejected: list[Row]) -> None:
    accepted = sum(batch_report.accepted for batch_report in deployed.batch_reports)
    refused = sum(batch_report.rejected for batch_report in deployed.batch_reports)
    received = sum(batch_report.documents for batch_report in deployed.batch_reports)
    assert (accepted, refused, received) == (len(bronze), len(rejected), len(bronze) + len(rejected))
    by_reason = sum_counts(batch_report.rejected_by_reason for batch_report in deployed.batch_reports)
    assert by_reason == Counter(row["reason"] for row in rejected)


def assert_each_document_stands_once_as_received(
    deployed: Deployment, uploads: list[FuzzedUpload], bronze: list[Row], rejected: list[Row]
) -> None:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in [*bronze, *rejected]:
        found[row["source_uri"]].append(row)
    for upload in uploads:
        rows = sorted(
            found.pop(f"file://{deployed.landing}/{upload.name}", []), key=lambda row: row["source_position"] or 0
        )
        payloads = [row["payload"] for row in rows]
        if [row["source_position"] for row in rows] == [None]:
            assert payloads == [text_or_base64(upload.content)], upload.name
            continue
        assert [row["source_position"] for row in rows] == list(range(len(rows))), upload.name
        text = upload_text(upload.name, upload.content, deployed.settings.upload_max_bytes)
        assert between(text, payloads).strip(BETWEEN_DOCUMENTS) == "", upload.name
        assert rows or documents(text) == [], upload.name
    assert not found


def between(text: str, payloads: list[str]) -> str:
    """The rest of an upload's text after its documents are removed, in order."""
    left, position = [], 0
    for payload in payloads:
        start = text.index(payload, position)
        left.append(text[position:start])
        position = start + len(payload)
    return "".join([*left, text[position:]])


def text_or_base64(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return base64.b64encode(content).decode()


def assert_fuzz_is_worth_its_time(bronze: list[Row], rejected: list[Row]) -> None:
    """Assert that most documents reach the tables, and that every reason of a rejection occurs."""
    assert len(bronze) + len(rejected) >= LEAST_DOCUMENTS
    assert len(bronze) >= LEAST_DOCUMENTS // 2
    assert {row["document_shape"] for row in bronze} == {"event", "vehicle"}
    assert {row["reason"] for row in rejected} == REASONS
