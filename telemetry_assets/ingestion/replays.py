"""Rejected documents, put back through ingestion: those that are accepted now leave the quarantine for Bronze.

A replayed document keeps its batch and its moment, as if it had been accepted then: a correction that came later still
wins over it, and documents received = accepted + rejected holds for its batch as before.

For each batch the documents are appended to Bronze first, then recorded in the ledger, then taken out of the rejected
documents. What is in both,
after a kill in between, leaves the quarantine when the replay is done again, whatever is judged then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, EqualTo, GreaterThanOrEqual
from pyiceberg.table import Table

from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.ingestion.ledger import bronze_pieces, ledger_rows, report_of, reports_from_rows, taken_upload_of
from telemetry_assets.ingestion.parsing.arrow_rows import Origin, UploadRows, gathered, in_pieces, upload_rows
from telemetry_assets.ingestion.parsing.documents import BronzeRow, Rejection, accept
from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import append_rows, replace_rows, until_committed
from telemetry_assets.lakehouse.encoded_rows import decoded_rows
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract

REPLAYED_BATCH = "telemetry.replayed-batch"
"""In the summary of a snapshot that a replay makes: the batch that its documents belong to."""

_BYTES_IN_PIECE = 64 * 1024 * 1024
# Each piece writes all of its batch's rejected documents anew.
_ROWS_IN_PIECE = 100_000
Row = dict[str, Any]
_Key = tuple[str, int | None]


@dataclass
class ReplayResult:
    """What became of the chosen rows.

    :param chosen: rejected documents, and rejected uploads, that the selection names.
    :param accepted: documents that went to Bronze.
    :param still_rejected: documents that stay rejected, by reason; an upload's documents count one by one.
    :param unavailable: uploads that are rejected as a whole and cannot be read from the archive, each with the reason.
    """

    chosen: int = 0
    accepted: int = 0
    still_rejected: Counter[str] = field(default_factory=Counter)
    unavailable: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Replay:
    """Judges chosen rejected documents anew."""

    landing: Landing
    lakehouse: Lakehouse
    limits: Limits

    def run(self, selection: ReplaySelection, run_id: str, *, dry: bool, only_begun: bool = False) -> ReplayResult:
        """Judge what the selection names; unless it is a dry run, move what is accepted to Bronze, batch by batch.

        :param only_begun: whether to end only what an earlier run has put into Bronze already.
        """
        result = ReplayResult()
        for batch_id in self._batches(selection):
            chosen = self._chosen(batch_id, selection)
            if only_begun:
                begun = {uri for uri, _ in _keys_of_batch(self.lakehouse.table(BRONZE), batch_id)}
                chosen = [row for row in chosen if row["source_uri"] in begun]
            for judged in self._pieces(chosen, result):
                if not dry:
                    self._append(batch_id, judged, run_id)
                    self._take_out(batch_id, judged, run_id)
        return result

    def _batches(self, selection: ReplaySelection) -> list[str]:
        where = (
            GreaterThanOrEqual(term="ingested_at", value=selection.since.isoformat())
            if selection.since
            else AlwaysTrue()
        )
        columns = ("batch_id", "ingested_at", "reason", "source_uri")
        table = self.lakehouse.existing(REJECTED)
        if table is None:
            return []
        rows = table.scan(where, selected_fields=columns).to_arrow()
        return sorted({row["batch_id"] for row in rows.to_pylist() if selection.names(row)})

    def _chosen(self, batch_id: str, selection: ReplaySelection) -> list[Row]:
        rows = _of_batch(self.lakehouse, REJECTED, batch_id)
        return [row for row in rows.to_pylist() if selection.names(row)]

    def _pieces(self, chosen: Iterable[Row], result: ReplayResult) -> Iterator[list[_Judged]]:
        """What the chosen rows are now, in pieces of bounded size: an upload may be far more than its rejection."""
        piece: list[_Judged] = []
        size, rows = 0, 0
        for judged in self._judged(chosen, result):
            result.accepted += judged.rows.bronze.num_rows
            result.still_rejected.update(judged.rows.rejected["reason"].to_pylist())
            piece.append(judged)
            size, rows = size + judged.rows.size, rows + len(judged.keys)
            if size > _BYTES_IN_PIECE or rows >= _ROWS_IN_PIECE:
                yield piece
                piece, size, rows = [], 0, 0
        if piece:
            yield piece

    def _judged(self, chosen: Iterable[Row], result: ReplayResult) -> Iterator[_Judged]:
        """What the chosen rows are now: a whole upload by itself, documents together with others of their upload."""
        for _, of_upload in groupby(sorted(chosen, key=_upload), _upload):
            rows = list(of_upload)
            origin = _origin(rows[0])
            result.chosen += len(rows)
            documents = (_judged_anew(row) for row in rows if row["source_position"] is not None)
            for piece in filter(None, in_pieces(documents)):
                keys = frozenset((origin.source_uri, one.position) for one in piece)
                yield _Judged(keys, gathered(piece, origin), is_whole_upload=False)
            for row in rows:
                if row["source_position"] is None and (judged := self._rows_of_archived(row, result)) is not None:
                    yield _Judged(frozenset({_key(row)}), judged, is_whole_upload=True)

    def _rows_of_archived(self, row: Row, result: ReplayResult) -> UploadRows | None:
        try:
            content = self.landing.read_archived(row["batch_id"], row["source_uri"])
        except OSError as error:
            result.unavailable.append((row["source_uri"], error.strerror or str(error)))
            return None
        return upload_rows(row["source_uri"], content, _origin(row), self.limits)

    def _append(self, batch_id: str, judged: Sequence[_Judged], run_id: str) -> None:
        accepted = [one for one in judged if one.rows.bronze.num_rows]
        if not accepted:
            return

        def attempt() -> None:
            table = self.lakehouse.table(BRONZE)
            there = _keys_of_batch(table, batch_id)
            # Loaded after Bronze: an audit that takes an upload again deletes its rows in the other order.
            rejected = _keys_of_batch(self.lakehouse.table(REJECTED), batch_id)
            new = [_not_in(one.of_rejected(one.rows.bronze, rejected), there) for one in accepted]
            if any(rows.num_rows for rows in new):
                append_rows(table, decoded_rows(BRONZE, pa.concat_tables(new)), _summary(batch_id, run_id))

        until_committed(BRONZE, attempt)

    def _take_out(self, batch_id: str, judged: Sequence[_Judged], run_id: str) -> None:
        """Leave in the quarantine what Bronze does not have; an upload that is documents now, as those it rejects."""

        def attempt() -> None:
            table = self.lakehouse.table(REJECTED)
            there = _keys_of_batch(self.lakehouse.table(BRONZE), batch_id)
            before = _of_batch(self.lakehouse, REJECTED, batch_id, table)
            still_there = _keys(before)
            kept = _not_in(before, set().union(*(one.keys for one in judged)))
            still = (_not_in(one.of_rejected(one.rows.rejected, still_there), there) for one in judged)
            after = pa.concat_tables([kept, *(decoded_rows(REJECTED, rows) for rows in still)])
            if after.num_rows == before.num_rows and _keys(after) == still_there:
                return
            # The ledger first: as long as a chosen row is in the quarantine, a replay that was cut off is done again.
            self._record(batch_id, after, run_id)
            replace_rows(table, EqualTo(term="batch_id", value=batch_id), after, _summary(batch_id, run_id), {})

        until_committed(REJECTED, attempt)

    def _record(self, batch_id: str, rejected: pa.Table, run_id: str) -> None:
        """Let the ledger say what Bronze has of a batch's uploads, and what is about to be rejected of them."""
        of_batch = EqualTo(term="batch_id", value=batch_id)

        def attempt() -> None:
            pieces = bronze_pieces(self.lakehouse.table(BRONZE), of_batch)
            reports = reports_from_rows(pieces, rejected.to_batches())
            ledger = self.lakehouse.table(UPLOADS)
            before = ledger.scan(of_batch).to_arrow().select(list(UPLOADS.column_names)).cast(UPLOADS.arrow_schema)
            after = ledger_rows(
                (taken_upload_of(row), report_of(reports, (batch_id, row["source_uri"]))) for row in before.to_pylist()
            )
            if not after.equals(before):
                replace_rows(ledger, of_batch, after, _summary(batch_id, run_id), {})

        until_committed(UPLOADS, attempt)


@dataclass(frozen=True)
class _Judged:
    """Rejected documents of an upload, or a whole upload, and what they are now.

    :param keys: of the rejections.
    """

    keys: frozenset[_Key]
    rows: UploadRows
    is_whole_upload: bool

    def of_rejected(self, rows: pa.Table, rejected: set[_Key]) -> pa.Table:
        """Those of ``rows`` whose rejection is among ``rejected``, where a whole upload has one for all of them."""
        if self.is_whole_upload:
            return rows if self.keys <= rejected else rows.slice(0, 0)
        return _in(rows, rejected)


def _upload(row: Row) -> tuple[str, datetime]:
    return row["source_uri"], row["ingested_at"]


def _origin(row: Row) -> Origin:
    return Origin(row["source_uri"], row["ingested_at"], row["batch_id"])


def _judged_anew(row: Row) -> BronzeRow | Rejection:
    if row["payload"] is None:
        return Rejection(row["source_position"], row["reason"], row["message"], None)
    return accept(row["payload"], row["source_position"], row["ingested_at"])


def _summary(batch_id: str, run_id: str) -> dict[str, str]:
    return {"telemetry.run-id": run_id, "telemetry.step": "replay-rejected", REPLAYED_BATCH: batch_id}


def _of_batch(lakehouse: Lakehouse, contract: TableContract, batch_id: str, table: Table | None = None) -> pa.Table:
    scan = (table or lakehouse.table(contract)).scan(EqualTo(term="batch_id", value=batch_id))
    return scan.to_arrow().select(list(contract.column_names)).cast(contract.arrow_schema)


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
