"""Rows in Arrow to and from a Spark session, as binary cells.

PySpark 3.5 has no public function that makes a data frame of an Arrow table, or an Arrow table of a data frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def to_ipc(batch: pa.RecordBatch) -> bytes:
    """Encode a batch in Arrow's IPC stream format."""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(stream.getvalue().to_pybytes())


def from_ipc(content: bytes) -> list[pa.RecordBatch]:
    """The batches of which :func:`to_ipc` returned ``content``."""
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        return list(reader)


def decoded_batches(cells: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For ``mapInArrow``: the batches in the cells of the only column."""
    for batch in cells:
        for content in batch.column(0).to_pylist():
            yield from from_ipc(content)


def encoded_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For ``mapInArrow``: one cell for each batch."""
    for batch in batches:
        yield pa.RecordBatch.from_arrays([pa.array([to_ipc(batch)], pa.binary())], ["batch"])
