"""Arrow rows with dictionary-encoded columns, in which a text that occurs in many rows is stored once.

Each row of Bronze contains the URI of its upload, which may be thousands of characters long.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_assets.tables.contract import TableContract


def decoded_rows(contract: TableContract, rows: pa.Table) -> pa.Table:
    """Rows in the Arrow schema of their table, with dictionary-encoded columns decoded."""
    return rows.select(list(contract.column_names)).cast(contract.arrow_schema)


def decoded_bytes(rows: pa.Table) -> int:
    """The memory that the result of :func:`decoded_rows` needs, in bytes."""
    return int(rows.nbytes) + sum(
        _bytes_of_texts(chunk)
        for column in rows.columns
        if pa.types.is_dictionary(column.type)
        for chunk in column.chunks
        if len(chunk)
    )


def _bytes_of_texts(encoded: pa.DictionaryArray) -> int:
    return int(pc.sum(pc.binary_length(encoded.dictionary).take(encoded.indices)).as_py() or 0)
