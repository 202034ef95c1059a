"""Payloads of Bronze rows, read in batches: the same values as those of each document alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry_assets.tables import payloads as payloads_module
from telemetry_assets.tables.document_shapes import FIELDS, VALUE_COLUMNS, Shape, values_of
from telemetry_assets.tables.payloads import VALUE_SCHEMA, payload_columns
from telemetry_assets_tests.harness.made_documents import DOCUMENTS, event, vehicle

SHAPES = get_args(Shape)

_STRANGE_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["-0", "-0.0", "1e400", "2E3", "2026-01-14", "20260114", "2026-W03-4", " 7 ", "NaN", "\0"]),
    st.lists(st.integers(), max_size=1),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)


def _nested(path: Sequence[str], inner: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(path):
        inner = {name: inner}
    return inner


def _strange_objects(shape: Shape) -> st.SearchStrategy[str]:
    """Documents with one object that has fields of the shape, and any values."""
    return st.one_of([_strange_object(path, [field.name for field in fields]) for path, fields in FIELDS[shape]])


def _strange_object(path: Sequence[str], names: Sequence[str]) -> st.SearchStrategy[str]:
    fields = st.dictionaries(st.sampled_from([*names, "unknown"]), _STRANGE_VALUES)
    return fields.map(lambda inner: json.dumps(_nested(path, inner)))


def _payloads(shape: Shape) -> st.SearchStrategy[str]:
    plain = st.builds(json.dumps, DOCUMENTS)
    texts = st.sampled_from(
        [
            *("", "null", "[]", "7", "{", "{}\n", '{"year":\n 2024}', "{} {}", '{"year": 1, "year": 2}'),
            *('{"year": "\\ud800"}', '{"metrics": {}, "metrics": {"oilPressurePsi": -0}}', "}", "{}, {}"),
            *('{"metrics": {"oilPressurePsi": -0}}', '{"metrics": {"oilPressurePsi": -0.0}}', ' {"year": 1}'),
            *('{"model": "\t"}', '{"year": 1} {"year": 2}', '{"year": 1}{}', '{"year": 1}, "model": "x"'),
            '{"model": "a\\u0000\\n"}',
            '{"y\\u0065ar": 2020, "model": "\\u00e3"}',
            '{"metrics": {"oilPressurePsi": 123456789012345678901234567890, "engineTempCelsius": 1e400}}',
            '{"metrics": {"oilPressurePsi": 0.1000000000000000055511151231257827, "engineTempCelsius": -0.0}}',
            '{"metrics": {"oilPressurePsi": NaN, "engineTempCelsius": -Infinity}}',
        ]
    )
    return st.one_of(plain, _strange_objects(shape), texts)


_DOCUMENTS_OF_SHAPES = st.sampled_from(SHAPES).flatmap(lambda shape: st.tuples(_payloads(shape), st.just(shape)))


def of_each(payload: str, shape: Shape) -> dict[str, Any]:
    """The values of one document, read by Python."""
    try:
        document = json.loads(payload)
    except ValueError:
        document = None
    values = values_of(document if isinstance(document, dict) else {}, shape).values
    return dict(zip(VALUE_COLUMNS, values, strict=True))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_DOCUMENTS_OF_SHAPES, max_size=12), st.sampled_from([1, 256]))
def test_a_batch_has_the_values_of_each_of_its_documents(documents: list[tuple[str, Shape]], by_python: int) -> None:
    payloads, shapes = zip(*documents, strict=True) if documents else ((), ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads_module, "_READ_BY_PYTHON", by_python)
        read = payload_columns(pa.array(payloads, pa.string()), pa.array(shapes, pa.string()))
    assert read.schema == VALUE_SCHEMA
    expected = [of_each(payload, shape) for payload, shape in documents]
    # The text of a number shows the sign of a zero too.
    with_types = pa.Table.from_pylist(expected, VALUE_SCHEMA)
    assert list(map(repr, read.to_pylist())) == list(map(repr, with_types.to_pylist()))


@pytest.mark.parametrize(("refused", "value", "most"), [("95", 95, 1), (-0.0, -0.0, 256)])
def test_one_document_that_arrow_refuses_does_not_send_the_others_to_python(
    monkeypatch: pytest.MonkeyPatch, refused: object, value: float, most: int
) -> None:
    by_python: list[int] = []
    original = payloads_module._read_by_python

    def counted(payloads: pa.Array, shape: Shape) -> pa.Table:
        by_python.append(len(payloads))
        return original(payloads, shape)

    monkeypatch.setattr(payloads_module, "_read_by_python", counted)
    documents = [event(engineTempCelsius=number) for number in range(5_000)]
    documents[1_234]["metrics"]["engineTempCelsius"] = refused
    texts = pa.array([json.dumps(document) for document in documents])
    values = payload_columns(texts, pa.array(["event"] * 5_000))["engine_temp_celsius"]
    assert values[1_234].as_py() == value
    assert values[1_235].as_py() is None, "it is out of range"
    assert values[150].as_py() == 150
    assert 0 < sum(by_python) <= most


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_texts_of_other_arrow_types_are_read(kind: pa.DataType) -> None:
    payloads = pa.array([json.dumps(event(year=2024)), json.dumps(event(year="2023"))])
    assert payload_columns(payloads.cast(kind), pa.array(["event"] * 2).cast(kind))["year"].to_pylist() == [2024, 2023]


def test_large_batches_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads_module, "_BYTES_READ_AT_ONCE", 100)
    payloads = pa.array([json.dumps(event(year=2000 + number)) for number in range(20)])
    read = payload_columns(payloads, pa.array(["event"] * 20))
    assert read["year"].to_pylist() == list(range(2000, 2020))


def test_rows_of_both_shapes_keep_their_order() -> None:
    documents = [
        event(year=2000 + number) if number % 3 else vehicle(static={"year": 2000 + number}) for number in range(20)
    ]
    shapes = ["event" if number % 3 else "vehicle" for number in range(20)]
    read = payload_columns(pa.array(map(json.dumps, documents)), pa.array(shapes))
    assert read["year"].to_pylist() == [2000 + number for number in range(20)]


def test_a_row_of_an_unknown_shape_has_no_values() -> None:
    read = payload_columns(pa.array(['{"year": 2024}'] * 3), pa.array(["event", "other", None]))
    assert read["year"].to_pylist() == [2024, None, None]
