"""For any bytes, an upload's rows and rejections equal those of the independent implementation of the contract."""

from __future__ import annotations

import gzip
import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets_tests.harness.contract_reading import Batch, Upload, read_batches
from telemetry_assets_tests.harness.made_documents import UPLOADS, framed
from telemetry_assets_tests.harness.parsed_uploads import INGESTED_AT, LIMIT, parsed

pytestmark = pytest.mark.long

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
    st.lists(_HOSTILE_DOCUMENTS.map(json.dumps), max_size=4).map(lambda texts: "\n".join(texts).encode()),
    st.lists(_HOSTILE_DOCUMENTS, max_size=4).map(lambda documents: json.dumps(documents).encode()),
    st.tuples(UPLOADS, st.integers(0, 400)).map(lambda cut: framed(*cut[0])[1][: cut[1]]),
)
_NAMES = st.sampled_from(["x.json", "x.jsonl", "x.ndjson", "x.json.gz", "x.jsonl.gz", "x.txt"])


@settings(max_examples=2_000, deadline=None)
@given(name=_NAMES, content=_BYTES, compressed=st.booleans())
def test_any_bytes_give_the_rows_and_rejections_of_the_contract(name: str, content: bytes, compressed: bool) -> None:
    if compressed and name.endswith(".gz"):
        content = gzip.compress(content)
    batch = Batch("batch", INGESTED_AT, (Upload(name, content),))
    reading = read_batches([batch], INGESTED_AT.date(), LIMIT)
    found = parsed(name, content)
    assert [(row.position, row.event_id, row.telemetry_timestamp, row.payload) for row in found.rows] == [
        (row["source_position"], row["event_id"], row["telemetry_timestamp"], row["payload"]) for row in reading.bronze
    ]
    assert sorted((one.position or 0, one.reason) for one in found.rejections) == sorted(
        (row["source_position"] or 0, row["reason"]) for row in reading.rejected
    )
    assert all(one.reason in get_args(Reason) and one.message for one in found.rejections)
