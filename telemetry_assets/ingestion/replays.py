"""Replays: rejected documents are parsed again, and those that are accepted now move to Bronze.

A replayed document keeps its batch and its ingestion time, as if it had been accepted then. So a later correction still
wins over it, and the documents of its batch stay conserved.

For each batch, accepted documents are first appended to Bronze, then recorded in the ledger, then deleted from the
rejected documents. If a run is killed in between, the next run finishes the replay: documents that are in both tables
are deleted from the rejected ones, even if they would be rejected now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress, groupby
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, EqualTo, GreaterThanOrEqual
from pyiceberg.table import Table

from telemetry_assets.ingestion.context import IngestionContext
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.ledger import bronze_pieces, ledger_rows, ledger_upload_of, report_of, reports_from_rows
from telemetry_assets.ingestion.parsing.arrow_rows import Origin, UploadRows, gathered, in_pieces, upload_rows
from telemetry_assets.ingestion.parsing.documents import BronzeRow, Rejection, accept
from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import append_rows, replace_rows, until_committed
from telemetry_assets.lakehouse.snapshots import RUN_ID
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract

REPLAYED_BATCH = "telemetry.replayed-batch"
"""The property of a replay's snapshots that has the id of the batch whose documents were replayed."""

_BYTES_IN_PIECE = 64 * 1024 * 1024
# Each piece rewrites all rejected documents of its batch, so pieces have many rows.
_ROWS_IN_PIECE = 100_000
Row = dict[str, Any]
_Key = tuple[str, int | None]


@dataclass(frozen=True)
class ReplayResult:
    """The counts of a replay.

    :param chosen: how many rejected documents, and uploads rejected as a whole, match the selection.
    :param accepted: how many documents moved to Bronze.
    :param still_rejected: how many documents stay rejected, by reason. The documents of an upload that was rejected as
        a whole are counted one by one.
    :param unavailable: the URIs of uploads that cannot be read from the archive, each with the error.
    """

    chosen: int = 0
    accepted: int = 0
    still_rejected: Counter[str] = field(default_factory=Counter)
    unavailable: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Replay:
    """Parses selected rejected documents again.

    :param limits: the limits of one upload; those of the settings if None.
    """

    context: IngestionContext
    limits: Limits | None = None

    def run(self, selection: ReplaySelection, run_id: str, *, dry: bool, only_begun: bool = False) -> ReplayResult:
        """Parse the selected documents and, unless ``dry``, move accepted ones to Bronze, batch by batch.

        :param only_begun: whether to replay only uploads that already have rows in Bronze, from an earlier run.
        """
        chosen, accepted = 0, 0
        still_rejected: Counter[str] = Counter()
        unavailable: list[tuple[str, str]] = []
        for batch_id in self._batches(selection):
            rows = self._chosen(batch_id, selection, only_begun)
            chosen += len(rows)
            for piece in _pieces(self._parsed(rows)):
                replayed = [one for one in piece if isinstance(one, _Replayed)]
                unavailable += [(one.source_uri, one.problem) for one in piece if isinstance(one, _Unavailable)]
                accepted += sum(one.rows.bronze.num_rows for one in replayed)
                for one in replayed:
                    still_rejected.update(one.rows.rejected["reason"].to_pylist())
                if replayed and not dry:
                    self._append(batch_id, replayed, run_id)
                    self._delete_accepted(batch_id, replayed, run_id)
        return ReplayResult(chosen, accepted, still_rejected, unavailable)

    @property
    def _lakehouse(self) -> Lakehouse:
        return self.context.lakehouse

    def _batches(self, selection: ReplaySelection) -> list[str]:
        where = (
            GreaterThanOrEqual(term="ingested_at", value=selection.since.isoformat())
            if selection.since
            else AlwaysTrue()
        )
        columns = ("batch_id", "ingested_at", "reason", "source_uri")
        table = self._lakehouse.existing(REJECTED)
        if table is None:
            return []
        rows = table.scan(where, selected_fields=columns).to_arrow()
        return sorted({row["batch_id"] for row in rows.to_pylist() if selection.matches(row)})

    def _chosen(self, batch_id: str, selection: ReplaySelection, only_begun: bool) -> list[Row]:
        rows = _of_batch(self._lakehouse, REJECTED, batch_id).to_pylist()
        chosen = [row for row in rows if selection.matches(row)]
        if not only_begun:
            return chosen
        begun = {uri for uri, _ in _keys_of_batch(self._lakehouse.table(BRONZE), batch_id)}
        return [row for row in chosen if row["source_uri"] in begun]

    def _parsed(self, chosen: Iterable[Row]) -> Iterator[_Replayed | _Unavailable]:
        """Parse the chosen rows: the documents of an upload together, uploads rejected as a whole one by one."""
        for _, of_upload in groupby(sorted(chosen, key=_upload), _upload):
            rows = list(of_upload)
            origin = _origin(rows[0])
            documents = (_parsed_again(row) for row in rows if row["source_position"] is not None)
            for piece in filter(None, in_pieces(documents)):
                keys = frozenset((origin.source_uri, one.position) for one in piece)
                yield _Replayed(keys, gathered(piece, origin), is_whole_upload=False)
            yield from (self._parsed_upload(row) for row in rows if row["source_position"] is None)

    def _parsed_upload(self, row: Row) -> _Replayed | _Unavailable:
        try:
            content = self.context.landing.read_archived(row["batch_id"], row["source_uri"])
        except OSError as error:
            return _Unavailable(row["source_uri"], error.strerror or str(error))
        rows = upload_rows(row["source_uri"], content, _origin(row), self.limits or self.context.limits)
        return _Replayed(frozenset({_key(row)}), rows, is_whole_upload=True)

    def _append(self, batch_id: str, replayed: Sequence[_Replayed], run_id: str) -> None:
        """Append the accepted documents that are not in Bronze yet and still are among the rejected documents."""
        accepted = [one for one in replayed if one.rows.bronze.num_rows]
        if not accepted:
            return

        def attempt() -> None:
            table = self._lakehouse.table(BRONZE)
            there = _keys_of_batch(table, batch_id)
            # Read after Bronze, because an audit that puts an upload back deletes its rows in the opposite order.
            rejected = _keys_of_batch(self._lakehouse.table(REJECTED), batch_id)
            new = [_not_in(one.of_rejected(one.rows.bronze, rejected), there) for one in accepted]
            if any(rows.num_rows for rows in new):
                append_rows(table, BRONZE.conform(pa.concat_tables(new)), _summary(batch_id, run_id))

        until_committed(BRONZE, attempt)

    def _delete_accepted(self, batch_id: str, replayed: Sequence[_Replayed], run_id: str) -> None:
        """Delete the documents that Bronze has from the rejected documents.

        The row of an upload that was rejected as a whole is replaced by a row for each of its documents that is
        rejected now.
        """

        def attempt() -> None:
            table = self._lakehouse.table(REJECTED)
            there = _keys_of_batch(self._lakehouse.table(BRONZE), batch_id)
            before = _of_batch(self._lakehouse, REJECTED, batch_id, table)
            still_there = _keys(before)
            kept = _not_in(before, set().union(*(one.keys for one in replayed)))
            still = (_not_in(one.of_rejected(one.rows.rejected, still_there), there) for one in replayed)
            after = pa.concat_tables([kept, *(REJECTED.conform(rows) for rows in still)])
            if after.num_rows == before.num_rows and _keys(after) == still_there:
                if not still_there and any(one.rows.bronze.num_rows for one in replayed):
                    # Another program has deleted the rows after Bronze got the documents.
                    uploads = {uri for one in replayed for uri, _ in one.keys}
                    self._record(batch_id, after, run_id, uploads)
                return
            # Update the ledger first: if the run is killed here, the rows are still selected by the next replay.
            self._record(batch_id, after, run_id)
            replace_rows(table, EqualTo(term="batch_id", value=batch_id), after, _summary(batch_id, run_id), {})

        until_committed(REJECTED, attempt)

    def _record(self, batch_id: str, rejected: pa.Table, run_id: str, uploads: Set[str] | None = None) -> None:
        """Update a batch's rows in the ledger from its rows in Bronze and the rejected documents to be written.

        :param uploads: the URIs of the uploads whose rows are updated; None for all.
        """
        of_batch = EqualTo(term="batch_id", value=batch_id)

        def attempt() -> None:
            pieces = bronze_pieces(self._lakehouse.table(BRONZE), of_batch)
            reports = reports_from_rows(pieces, rejected.to_batches())
            ledger = self._lakehouse.table(UPLOADS)
            before = UPLOADS.conform(ledger.scan(of_batch).to_arrow())
            rows = before.to_pylist()
            chosen = [uploads is None or row["source_uri"] in uploads for row in rows]
            updated = ledger_rows(
                (ledger_upload_of(row), report_of(reports, (batch_id, row["source_uri"])))
                for row in compress(rows, chosen)
            )
            after = pa.concat_tables([before.filter(pa.array([not one for one in chosen], pa.bool_())), updated])
            if not after.equals(before):
                replace_rows(ledger, of_batch, after, _summary(batch_id, run_id), {})

        until_committed(UPLOADS, attempt)


@dataclass(frozen=True)
class _Replayed:
    """Rejected documents of one upload, or an upload that was rejected as a whole, parsed again.

    :param keys: the keys of their rows in the rejected documents.
    :param rows: their rows after parsing.
    """

    keys: frozenset[_Key]
    rows: UploadRows
    is_whole_upload: bool

    def of_rejected(self, rows: pa.Table, rejected: set[_Key]) -> pa.Table:
        """The rows among ``rows`` whose documents are in ``rejected``."""
        if self.is_whole_upload:
            return rows if self.keys <= rejected else rows.slice(0, 0)
        return _in(rows, rejected)


@dataclass(frozen=True)
class _Unavailable:
    source_uri: str
    problem: str


def _pieces(parsed: Iterable[_Replayed | _Unavailable]) -> Iterator[list[_Replayed | _Unavailable]]:
    """Lists of bounded size in memory: an upload can be much larger than its row of the rejected documents."""
    piece: list[_Replayed | _Unavailable] = []
    size, rows = 0, 0
    for one in parsed:
        piece.append(one)
        if isinstance(one, _Replayed):
            size, rows = size + one.rows.size, rows + len(one.keys)
        if size > _BYTES_IN_PIECE or rows >= _ROWS_IN_PIECE:
            yield piece
            piece, size, rows = [], 0, 0
    if piece:
        yield piece


def _upload(row: Row) -> tuple[str, datetime]:
    return row["source_uri"], row["ingested_at"]


def _origin(row: Row) -> Origin:
    return Origin(row["source_uri"], row["ingested_at"], row["batch_id"])


def _parsed_again(row: Row) -> BronzeRow | Rejection:
    if row["payload"] is None:
        return Rejection(row["source_position"], row["reason"], row["message"], None)
    return accept(row["payload"], row["source_position"], row["ingested_at"])


def _summary(batch_id: str, run_id: str) -> dict[str, str]:
    return {RUN_ID: run_id, "telemetry.step": "replay-rejected", REPLAYED_BATCH: batch_id}


def _of_batch(lakehouse: Lakehouse, contract: TableContract, batch_id: str, table: Table | None = None) -> pa.Table:
    scan = (table or lakehouse.table(contract)).scan(EqualTo(term="batch_id", value=batch_id))
    return contract.conform(scan.to_arrow())


def _keys_of_batch(table: Table, batch_id: str) -> set[_Key]:
    columns = ("source_uri", "source_position")
    return _keys(table.scan(EqualTo(term="batch_id", value=batch_id), selected_fields=columns).to_arrow())


def _key(row: Row) -> _Key:
    return row["source_uri"], row["source_position"]


def _key_list(rows: pa.Table) -> list[_Key]:
    return list(zip(rows["source_uri"].to_pylist(), rows["source_position"].to_pylist(), strict=True))


def _keys(rows: pa.Table) -> set[_Key]:
    return set(_key_list(rows))


def _in(rows: pa.Table, keys: Set[_Key]) -> pa.Table:
    return rows.filter(pa.array([key in keys for key in _key_list(rows)], pa.bool_()))


def _not_in(rows: pa.Table, keys: Set[_Key]) -> pa.Table:
    return rows.filter(pa.array([key not in keys for key in _key_list(rows)], pa.bool_()))
