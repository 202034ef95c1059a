"""For any bytes, an upload's rows and rejections equal those of the independent implementation of the contract."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets_tests.harness.contract_reading import Batch, Upload, read_batches
from telemetry_assets_tests.harness.fuzzed_uploads import fuzzed_uploads
from telemetry_assets_tests.harness.made_documents import UPLOADS, framed
from telemetry_assets_tests.harness.parsed_uploads import INGESTED_AT, LIMIT, Parsed, parsed

pytestmark = pytest.mark.long

SEED = int(os.environ.get("TELEMETRY_FUZZ_SEED", "20261129"))

_HOSTILE_DOCUMENTS = st.one_of(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None))),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["carChassis", "telemetryTimestamp", "event_id", "metrics", "year", "x"]), inner
            ),
        ),
        max_leaves=8,
    ),
)
_BYTES = st.one_of(
    st.binary(max_size=200),
    st.tuples(st.lists(_HOSTILE_DOCUMENTS.map(json.dumps), max_size=4), st.sampled_from(["\n", "", "\x1e", ", "])).map(
        lambda joined: joined[1].join(joined[0]).encode()
    ),
    st.lists(_HOSTILE_DOCUMENTS, max_size=4).map(lambda documents: json.dumps(documents).encode()),
    st.tuples(UPLOADS, st.integers(0, 400)).map(lambda cut: framed(*cut[0])[1][: cut[1]]),
)
_NAMES = st.sampled_from(["x.json", "x.jsonl", "x.NDJSON", "x.json.gz", "x.jsonl.gz", "x.txt"])
_COLUMNS = ("event_id", "car_chassis", "telemetry_timestamp", "event_date", "document_shape", "payload")


@settings(max_examples=2_000, deadline=None)
@given(name=_NAMES, content=_BYTES, compressed=st.booleans())
def test_any_bytes_give_the_rows_and_rejections_of_the_contract(name: str, content: bytes, compressed: bool) -> None:
    assert_as_contracted(name, gzip.compress(content) if compressed else content)


@pytest.mark.timeout(900)
def test_ten_thousand_uploads_in_mixed_framings_give_the_rows_and_rejections_of_the_contract() -> None:
    found = [assert_as_contracted(*upload) for upload in fuzzed_uploads(SEED, large=500, small=9_500)]
    accepted, rejected = (sum(map(len, rows)) for rows in zip(*found, strict=True))
    # The fuzz is worth its time only if many documents are accepted and many are not.
    assert accepted > 15_000
    assert rejected > 5_000


def assert_as_contracted(name: str, content: bytes) -> Parsed:
    batch = Batch("batch", INGESTED_AT, (Upload(name, content),))
    reading = read_batches([batch], INGESTED_AT.date(), LIMIT)
    found = parsed(name, content, Limits(LIMIT, 1_000_000))
    assert [(row.position, *(getattr(row, column) for column in _COLUMNS)) for row in found.rows] == [
        (row["source_position"], *(row[column] for column in _COLUMNS)) for row in reading.bronze
    ], name
    assert sorted((one.position or 0, one.reason) for one in found.rejections) == sorted(
        (row["source_position"] or 0, row["reason"]) for row in reading.rejected
    ), name
    [upload] = reading.uploads
    for counted in ("wrong_typed_fields", "out_of_range_fields"):
        assert Counter(path for row in found.rows for path in getattr(row, counted)) == upload[counted], name
    assert sum(row.is_ahead for row in found.rows) == reading.times_ahead, name
    assert all(one.reason in get_args(Reason) and one.message for one in found.rejections)
    return found
