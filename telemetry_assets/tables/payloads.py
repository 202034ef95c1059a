"""The payloads of Bronze rows as typed columns, a batch at a time.

Arrow reads a batch of documents ten times as fast as Python reads them one by one. But it refuses the whole batch if
one of its documents has a value that needs the rules of docs/contract.md, section 1.4, such as a number in a text. Such
a batch is divided until the documents that Arrow refuses are in small parts, and Python reads these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from telemetry_assets.tables.contract import Range
from telemetry_assets.tables.document_shapes import FIELDS, VALUE_COLUMNS, Field, Shape, date_of, values_of
from telemetry_assets.tables.silver_car_telemetry import SILVER

_READ_BY_PYTHON = 32
"""A part of a batch with at most this number of documents is not divided."""

VALUE_SCHEMA = pa.schema([SILVER.arrow_schema.field(name) for name in VALUE_COLUMNS])


class _NeedsPythonError(Exception):
    """Arrow read the documents, but not as Python would."""


def payload_columns(payloads: pa.Array, shapes: pa.Array) -> pa.Table:
    """The typed values of payloads, with the schema :data:`VALUE_SCHEMA`.

    If a payload cannot be parsed or its shape is unknown, all its values are null. Ingestion does not write such rows.

    :param payloads: JSON documents.
    :param shapes: the shape of each document.
    """
    places, parts = [], []
    for shape in get_args(Shape):
        of_shape = pc.indices_nonzero(pc.fill_null(pc.equal(shapes, shape), False))
        places.append(of_shape)
        parts.append(_columns(payloads.take(of_shape), shape))
    other = pc.indices_nonzero(pc.invert(pc.is_in(shapes, pa.array(get_args(Shape)))))
    places.append(other)
    parts.append(
        pa.Table.from_batches(
            [
                pa.RecordBatch.from_arrays(
                    [pa.nulls(len(other), column.type) for column in VALUE_SCHEMA], schema=VALUE_SCHEMA
                )
            ]
        )
    )
    return pa.concat_tables(parts).take(pc.sort_indices(pa.concat_arrays(places)))


def _columns(payloads: pa.Array, shape: Shape) -> pa.Table:
    if not len(payloads):
        return VALUE_SCHEMA.empty_table()
    try:
        return _read_by_arrow(payloads, shape)
    except (pa.ArrowInvalid, _NeedsPythonError):
        if len(payloads) <= _READ_BY_PYTHON:
            return _read_by_python(payloads, shape)
    half = len(payloads) // 2
    return pa.concat_tables([_columns(payloads[:half], shape), _columns(payloads[half:], shape)])


def _read_by_python(payloads: pa.Array, shape: Shape) -> pa.Table:
    rows = [_values(payload, shape) for payload in payloads.to_pylist()]
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(values, column.type) for values, column in zip(columns, VALUE_SCHEMA, strict=True)],
        schema=VALUE_SCHEMA,
    )


def _values(payload: str, shape: Shape) -> list[Any]:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        document = None
    return values_of(document if isinstance(document, dict) else {}, shape).values


def _read_by_arrow(payloads: pa.Array, shape: Shape) -> pa.Table:
    """The typed values of documents of one shape.

    :raises pyarrow.ArrowInvalid: if a document is not valid JSON, or a value has not the type of its column.
    :raises _NeedsPythonError: if a payload is not exactly one object without white space around it, or has a negative
        zero.
    """
    is_object = pc.and_(pc.starts_with(payloads, "{"), pc.ends_with(payloads, "}"))
    if not pc.all(is_object).as_py():
        raise _NeedsPythonError
    _, _, content = pc.binary_join_element_wise(payloads, "\n", "").buffers()
    read = pyarrow.json.read_json(
        pa.BufferReader(content),
        pyarrow.json.ReadOptions(use_threads=False, block_size=content.size),
        pyarrow.json.ParseOptions(explicit_schema=_SCHEMAS[shape], unexpected_field_behavior="ignore"),
    )
    # Each payload has one object at least, so if the numbers are equal, each has exactly one.
    if read.num_rows != len(payloads):
        raise _NeedsPythonError
    documents = pa.concat_arrays(read.to_struct_array().chunks)
    columns = {
        VALUE_COLUMNS[field.index]: _converted(pc.struct_field(documents, [*path, field.name]), field)
        for path, fields in FIELDS[shape]
        for field in fields
    }
    missing = {column.name: pa.nulls(len(payloads), column.type) for column in VALUE_SCHEMA}
    return pa.table({**missing, **columns}, schema=VALUE_SCHEMA)


def _converted(values: pa.Array, field: Field) -> pa.Array:
    """The values of a field with the type of its column. A value that the contract does not accept is null."""
    wanted = VALUE_SCHEMA.field(field.index).type
    if pa.types.is_date(wanted):
        texts = values.dictionary_encode()
        return pa.array([date_of(text) for text in texts.dictionary.to_pylist()], wanted).take(texts.indices)
    if not pa.types.is_floating(values.type):
        return values
    if _has_negative_zero(values):
        # In JSON, -0 is a whole number, whose sign Python drops. Arrow keeps it.
        raise _NeedsPythonError
    valid = pc.is_finite(values)
    if pa.types.is_integer(wanted):
        valid = pc.and_(valid, pc.equal(values, pc.trunc(values)))
    if field.valid_range is not None:
        valid = pc.and_(valid, _contained(values, field.valid_range))
    return pc.if_else(valid, values, None).cast(wanted)


def _has_negative_zero(values: pa.Array) -> bool:
    numbers = values.to_numpy(zero_copy_only=False)
    return bool(np.any(np.signbit(numbers) & (numbers == 0)))


def _contained(values: pa.Array, valid: Range) -> pa.Array:
    above = pc.greater if valid.is_open else pc.greater_equal
    return pc.and_(above(values, valid.least), pc.less_equal(values, valid.greatest))


def _schema(shape: Shape) -> pa.Schema:
    """The fields of a shape as Arrow reads them: numbers as doubles, and all else as texts."""
    tree: dict[str, Any] = {}
    for path, fields in FIELDS[shape]:
        holder = tree
        for name in path:
            holder = holder.setdefault(name, {})
        for field in fields:
            column = VALUE_SCHEMA.field(field.index)
            is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
            holder[field.name] = pa.float64() if is_number else pa.string()
    return pa.schema(_struct(tree))


def _struct(tree: Mapping[str, Any]) -> pa.DataType:
    return pa.struct(
        [pa.field(name, _struct(inner) if isinstance(inner, Mapping) else inner) for name, inner in tree.items()]
    )


_SCHEMAS: dict[Shape, pa.Schema] = {shape: _schema(shape) for shape in get_args(Shape)}
