"""Rows in which a text that many of them have is stored once (dictionary-encoded), and rows as tables have them.

An upload's URI is in each of its rows, and may be as long as a path of the file system.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_assets.tables.contract import TableContract


def decoded_rows(contract: TableContract, rows: pa.Table) -> pa.Table:
    """Rows in the schema of their table: each with all its texts, where these were dictionary-encoded."""
    return rows.select(list(contract.column_names)).cast(contract.arrow_schema)


def decoded_bytes(rows: pa.Table) -> int:
    """How many bytes of memory :func:`decoded_rows` takes."""
    return int(rows.nbytes) + sum(
        _bytes_of_texts(chunk)
        for column in rows.columns
        if pa.types.is_dictionary(column.type)
        for chunk in column.chunks
        if len(chunk)
    )


def _bytes_of_texts(encoded: pa.DictionaryArray) -> int:
    return int(pc.sum(pc.binary_length(encoded.dictionary).take(encoded.indices)).as_py() or 0)
