"""The payloads of Bronze rows as typed columns, a batch at a time.

Arrow reads a batch of documents several times as fast as Python reads them one by one. But it refuses the whole batch
if one of its documents has a value that needs the rules of docs/contract.md, section 1.4, such as a number in a text.
Python then reads the documents that seem to have such a value. If Arrow refuses others, the batch is divided until they
are in small parts, which Python reads too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from telemetry_assets.tables.document_shapes import FIELDS, VALUE_COLUMNS, Field, Shape, date_of, values_of
from telemetry_assets.tables.silver_car_telemetry import SILVER

_READ_BY_PYTHON = 256
"""A part of a batch with at most this number of documents is not divided."""
_BYTES_READ_AT_ONCE = 64 * 1024 * 1024

VALUE_SCHEMA = pa.schema([SILVER.arrow_schema.field(name) for name in VALUE_COLUMNS])
"""The Silver columns whose values come from a payload."""


class _NeedsPythonError(Exception):
    """Arrow read the documents, but not as Python would."""


def payload_columns(payloads: pa.Array, shapes: pa.Array) -> pa.Table:
    """The typed values of payloads, with the schema :data:`VALUE_SCHEMA`.

    If the shape of a payload is unknown, or it is not a JSON object, all its values are null. Ingestion does not write
    such rows. Of other texts that are not valid JSON, Arrow may read some values.

    :param payloads: JSON documents.
    :param shapes: the shape of each document.
    """
    # Spark and Sail have several types of texts.
    payloads, shapes = payloads.cast(pa.string()), shapes.cast(pa.string())
    of_shapes = {shape: pc.fill_null(pc.equal(shapes, shape), False) for shape in get_args(Shape)}
    places = [pc.indices_nonzero(of_shape) for of_shape in of_shapes.values()]
    parts = [_columns(payloads.take(place), shape) for place, shape in zip(places, of_shapes, strict=True)]
    others = pc.indices_nonzero(pc.invert(pc.is_in(shapes, pa.array(list(of_shapes)))))
    return _in_order([*parts, pa.table(_nulls(len(others)), schema=VALUE_SCHEMA)], [*places, others])


def _in_order(parts: Iterable[pa.Table], places: Sequence[pa.Array]) -> pa.Table:
    """The rows of some tables, each at its place."""
    return pa.concat_tables(parts).take(pc.sort_indices(pa.concat_arrays(places)))


def _nulls(rows: int) -> dict[str, pa.Array]:
    return {column.name: pa.nulls(rows, column.type) for column in VALUE_SCHEMA}


def _columns(payloads: pa.Array, shape: Shape) -> pa.Table:
    """The typed values of documents of one shape."""
    if not len(payloads):
        return VALUE_SCHEMA.empty_table()
    if payloads.nbytes <= _BYTES_READ_AT_ONCE or len(payloads) == 1:
        try:
            return _read_by_arrow(payloads, shape)
        except (pa.ArrowInvalid, _NeedsPythonError):
            if len(payloads) <= _READ_BY_PYTHON:
                return _read_by_python(payloads, shape)
        seems_refused = pc.match_substring_regex(payloads, _REFUSED[shape])
        if pc.any(seems_refused).as_py():
            places = [pc.indices_nonzero(seems_refused), pc.indices_nonzero(pc.invert(seems_refused))]
            refused, others = (payloads.take(place) for place in places)
            return _in_order([_read_by_python(refused, shape), _columns(others, shape)], places)
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
    return pa.table({**_nulls(len(payloads)), **columns}, schema=VALUE_SCHEMA)


def _converted(values: pa.Array, field: Field) -> pa.Array:
    """The values of a field with the type of its column. A value that the contract does not accept is null."""
    wanted = VALUE_SCHEMA.field(field.index).type
    if pa.types.is_date(wanted):
        texts = values.dictionary_encode()
        return pa.array([date_of(text) for text in texts.dictionary.to_pylist()], wanted).take(texts.indices)
    if pa.types.is_string(wanted):
        return values
    if _has_negative_zero(values):
        # In JSON, -0 is a whole number, whose sign Python drops. Arrow keeps it.
        raise _NeedsPythonError
    valid = pc.is_finite(values)
    if pa.types.is_integer(wanted):
        valid = pc.and_(valid, pc.equal(values, pc.trunc(values)))
    if field.valid_range is not None:
        valid = pc.and_(valid, field.valid_range.contains_each(values))
    return pc.if_else(valid, values, None).cast(wanted)


def _has_negative_zero(values: pa.Array) -> bool:
    numbers = values.to_numpy(zero_copy_only=False)
    return bool(np.any(np.signbit(numbers) & (numbers == 0)))


def _schema(shape: Shape) -> pa.Schema:
    """The fields of a shape as Arrow reads them: numbers as doubles, and all else as texts."""
    tree: dict[str, Any] = {}
    for path, fields in FIELDS[shape]:
        holder = tree
        for name in path:
            holder = holder.setdefault(name, {})
        for field in fields:
            holder[field.name] = pa.float64() if _is_number(field) else pa.string()
    return pa.schema(_struct(tree))


def _struct(tree: Mapping[str, Any]) -> pa.DataType:
    return pa.struct(
        [pa.field(name, _struct(inner) if isinstance(inner, Mapping) else inner) for name, inner in tree.items()]
    )


def _is_number(field: Field) -> bool:
    column_type = VALUE_SCHEMA.field(field.index).type
    return bool(pa.types.is_floating(column_type) or pa.types.is_integer(column_type))


def _refused(shape: Shape) -> str:
    """A regular expression of fields and objects whose value does not begin as one of their type, or null, does."""
    fields = [field for _, fields in FIELDS[shape] for field in fields]
    numbers = {field.name for field in fields if _is_number(field)}
    texts = {field.name for field in fields} - numbers
    objects = {name for path, _ in FIELDS[shape] for name in path}
    beginnings = ((numbers, "-0-9"), (texts, '"'), (objects, "{"))
    return "|".join(
        rf'"(?:{"|".join(map(re.escape, sorted(names)))})"\s*:\s*[^{begin}n\s]' for names, begin in beginnings if names
    )


_REFUSED: dict[Shape, str] = {shape: _refused(shape) for shape in get_args(Shape)}
_SCHEMAS: dict[Shape, pa.Schema] = {shape: _schema(shape) for shape in get_args(Shape)}
