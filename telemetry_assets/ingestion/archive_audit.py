"""The archive audit: it moves archived uploads whose rows are missing back to the landing location.

An upload is archived after its rows are committed, so normally the audit finds nothing. It finds uploads that an
earlier version archived after a failed commit, uploads whose tables were rolled back, and files that their writer
changed after ingestion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, Literal

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, In
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from telemetry_assets.ingestion.context import IngestionContext
from telemetry_assets.ingestion.landing.base import WaitingUpload, may_be_before
from telemetry_assets.ingestion.ledger import (
    LEDGER_COMPLETE,
    LedgerUpload,
    UploadKey,
    batch_time,
    bronze_pieces,
    latest_ingested_at,
    ledger_rows,
    ledger_upload,
    rejected_pieces,
    report_of,
    reports_from_rows,
)
from telemetry_assets.ingestion.parsing.arrow_rows import Origin, UploadReport, UploadRows, upload_rows
from telemetry_assets.ingestion.reconciliation import count_rows, has_recorded_rows, rejected_since
from telemetry_assets.lakehouse.batch_rows import rows_of_batches
from telemetry_assets.lakehouse.commits import (
    append_files,
    append_rows,
    delete_rows,
    set_table_properties,
    until_committed,
)
from telemetry_assets.lakehouse.snapshots import BATCH_ID, RUN_ID, changes_no_row, current_ancestors, summary_of
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_logger, plain_text

logger = plain_logger(__name__)

_NEWEST_BATCHES = 10
"""How many of the newest batches each run audits."""
_MOST_BATCHES = 100_000
"""How many batches :meth:`ArchiveAudit.since` audits at most, the newest ones."""

_BATCHES_AT_A_TIME = 200
"""PyIceberg compares at most this many values of a predicate with the bounds of files."""

_SAME_TIME = timedelta(milliseconds=1)
_COARSE_TIME = timedelta(seconds=2)
"""The resolution of times is 100 ns on most file systems and 2 s on FAT."""

Row = dict[str, Any]
_Document = tuple[int | None, str | None]
_DOCUMENT_COLUMNS = ("source_uri", "source_position", "payload")
_LEDGER_COLUMNS = ("batch_id", "source_uri", "ingested_at", "stored_bytes", "uploaded_at", "accepted", "rejected")


@dataclass(frozen=True)
class AuditFinding:
    """An archived upload on which archive, ledger and tables disagree.

    :param kind: ``lost``: its rows are missing. ``changed``: its writer changed it after it was ingested.
        ``unrecorded``: the tables have its rows, but the ledger has no row for it. ``incomplete``: some of its rows are
        missing. ``unreadable``: it has no rows and cannot be read, so it is lost or has no documents.
    """

    batch_id: str
    upload: WaitingUpload
    kind: Literal["lost", "changed", "unrecorded", "incomplete", "unreadable"]
    problem: str

    def __str__(self) -> str:
        return f"{plain_text(self.upload.uri)} of batch {self.batch_id} is {self.kind}: {self.problem}"

    @property
    def key(self) -> UploadKey:
        """The upload's key in the ledger."""
        return self.batch_id, self.upload.uri

    @property
    def is_moved_back(self) -> bool:
        """Whether the upload is moved back to the landing location, to be ingested again."""
        return self.kind in ("lost", "changed")

    @property
    def needs_decision(self) -> bool:
        """Whether a person has to decide what to do with the upload."""
        return self.kind in ("incomplete", "unreadable")


@dataclass(frozen=True)
class ArchiveAudit:
    """Compares the archive with the ledger and the tables, and repairs the differences."""

    context: IngestionContext

    def newest(self) -> list[AuditFinding]:
        """The findings of the newest batches. The cost does not depend on how many batches there are."""
        batches = self.context.landing.newest_batches(
            _NEWEST_BATCHES, latest_ingested_at(self.context.lakehouse.table(UPLOADS))
        )
        suspects = self._suspects(batches) if batches else []
        return self._examined(suspects)

    def since(self, moment: datetime) -> Iterator[AuditFinding]:
        """The findings of the batches that began at this time (UTC) or later; none before the ledger is complete."""
        ledger = self.context.lakehouse.existing(UPLOADS)
        if ledger is None or LEDGER_COMPLETE not in ledger.properties:
            return iter(())
        batches = self.context.landing.newest_batches(_MOST_BATCHES, moment)
        return self._examined_in_turn([batch for batch in batches if not may_be_before(batch, moment)])

    def everything(self) -> Iterator[AuditFinding]:
        """The findings of all archived batches."""
        return self._examined_in_turn(self.context.landing.archived_batches())

    def _examined_in_turn(self, batches: Sequence[str]) -> Iterator[AuditFinding]:
        for start in range(0, len(batches), _BATCHES_AT_A_TIME):
            yield from self._examined(batches[start : start + _BATCHES_AT_A_TIME])

    def examine(self, *batch_ids: str) -> list[AuditFinding]:
        """The findings of some batches."""
        return self._examined(batch_ids)

    def complete_ledger(self, run_id: str) -> bool:
        """Fill the ledger with the uploads that were ingested before it existed, and move uploads without rows back.

        Does nothing if the ledger is already complete.

        :returns: whether an upload was moved back.
        """
        if LEDGER_COMPLETE in self.context.lakehouse.table(UPLOADS).properties:
            return False
        findings = list(self.everything())
        lost = [finding for finding in findings if finding.is_moved_back]
        unrecorded = [finding for finding in findings if finding.kind == "unrecorded"]
        recorded = self._record(unrecorded, AlwaysTrue(), run_id, lost=lost, completes=True)
        moved_back = self.repair(lost, run_id)
        if recorded or lost:
            logger.warning(
                "bronze.uploads is new: %s recorded from the tables and the archive, %s moved back because their rows "
                "are in no table",
                counted(recorded, "upload"),
                counted(len(lost), "upload"),
            )
        return moved_back

    def repair(self, findings: Iterable[AuditFinding], run_id: str) -> bool:
        """Repair findings: delete the rows of an upload and move it back, or add it to the ledger. Idempotent.

        Findings that need a person's decision are logged as warnings.

        :returns: whether an upload was moved back.
        """
        moved_back = False
        unrecorded: dict[str, list[AuditFinding]] = {}
        for finding in findings:
            if finding.needs_decision:
                logger.warning("%s", finding)
            elif finding.kind == "unrecorded":
                unrecorded.setdefault(finding.batch_id, []).append(finding)
            # Examined again, because a replay may have changed the batch between the reads of two tables.
            elif finding in self.examine(finding.batch_id):
                self._move_back(finding, run_id)
                moved_back = True
        for batch_id, some in unrecorded.items():
            current = self.examine(batch_id)
            still = [finding for finding in some if finding in current]
            self._record(still, EqualTo(term="batch_id", value=batch_id), run_id)
        return moved_back

    def _move_back(self, finding: AuditFinding, run_id: str) -> None:
        # Delete the rows first: if the run is killed here, the next audit finds the upload again.
        for contract in (REJECTED, BRONZE, UPLOADS):
            until_committed(contract, partial(self._delete_rows, contract, finding, run_id))
        if self.context.landing.move_back(finding.batch_id, finding.upload):
            logger.warning(
                "%s of batch %s is moved back to the landing location, to be ingested again: %s",
                finding.upload.uri,
                finding.batch_id,
                finding.problem,
            )

    def _delete_rows(self, contract: TableContract, finding: AuditFinding, run_id: str) -> None:
        of_batch = EqualTo(term="batch_id", value=finding.batch_id)
        of_upload = And(of_batch, EqualTo(term="source_uri", value=finding.upload.uri))
        table = self.context.lakehouse.table(contract)
        if not delete_rows(table, of_upload, _summary(run_id)) and contract is BRONZE:
            # After this empty commit, a replay that has read the deleted rows can no longer commit to Bronze.
            append_files(table, (), _summary(run_id))

    def _record(
        self,
        unrecorded: Sequence[AuditFinding],
        where: BooleanExpression,
        run_id: str,
        *,
        lost: Sequence[AuditFinding] = (),
        completes: bool = False,
    ) -> int:
        """Add archived uploads to the ledger.

        :param where: selects the rows of the tables that are read.
        :param lost: uploads that are moved back, and therefore not added.
        :param completes: whether to also add uploads that only the tables have, and to mark the ledger as complete.
        :returns: how many uploads were added.
        """
        uploads = self._ledger_uploads(unrecorded, where, lost=lost, completes=completes)
        properties = {LEDGER_COMPLETE: "true"} if completes else {}

        def attempt() -> int:
            ledger = self.context.lakehouse.table(UPLOADS)
            if completes and LEDGER_COMPLETE in ledger.properties:
                return 0
            known = _count_uploads(ledger, where)
            rows = ledger_rows(one for key, one in uploads.items() if key not in known)
            if rows.num_rows:
                append_rows(ledger, rows, _summary(run_id), properties)
            else:
                set_table_properties(ledger, properties)
            return int(rows.num_rows)

        return until_committed(UPLOADS, attempt)

    def _ledger_uploads(
        self,
        unrecorded: Sequence[AuditFinding],
        where: BooleanExpression,
        *,
        lost: Sequence[AuditFinding],
        completes: bool,
    ) -> dict[UploadKey, tuple[LedgerUpload, UploadReport]]:
        """The uploads that :meth:`_record` adds to the ledger, with their reports from the tables."""
        archived = {finding.key: finding.upload for finding in unrecorded}
        reports = reports_from_rows(
            bronze_pieces(self.context.lakehouse.table(BRONZE), where),
            rejected_pieces(self.context.lakehouse.table(REJECTED), where),
        )
        in_progress = self.context.journal.load()
        moments = {batch: moment for (batch, _), (moment, _) in reports.items()}
        return {
            key: (
                self._ledger_upload(key, moments.get(key[0], datetime.now(UTC)), archived.get(key)),
                report_of(reports, key),
            )
            for key in sorted({*(reports if completes else ()), *archived} - {finding.key for finding in lost})
            if in_progress is None or key[0] != in_progress.batch_id
        }

    def _ledger_upload(self, key: UploadKey, moment: datetime, upload: WaitingUpload | None) -> LedgerUpload:
        if upload is not None:
            return ledger_upload(key[0], moment, upload, self.context.landing)
        return LedgerUpload(*key, ingested_at=moment, archive_uri=None, stored_bytes=None, uploaded_at=None)

    def _suspects(self, batches: Sequence[str]) -> list[str]:
        """The batches to examine, because snapshots and file sizes do not prove that they are complete."""
        ledger = self.context.lakehouse.table(UPLOADS)
        of_ledger, of_bronze, of_rejected = (
            _batch_snapshots(table)
            for table in (ledger, self.context.lakehouse.table(BRONZE), self.context.lakehouse.table(REJECTED))
        )
        doubtful = [
            batch
            for batch in batches
            if batch in of_ledger
            and (self.context.landing.archive_can_change or batch not in of_bronze or batch not in of_rejected)
        ]
        recorded: dict[str, dict[str, Row]] = {}
        if doubtful:
            since = min(filter(None, (batch_time(of_ledger[batch]) for batch in doubtful)))
            for row in rows_of_batches(ledger, set(doubtful), since, _LEDGER_COLUMNS).to_pylist():
                recorded.setdefault(row["batch_id"], {})[row["source_uri"]] = row
        return [
            batch
            for batch in batches
            if batch not in of_ledger
            or (batch in doubtful and not self._is_whole(batch, recorded.get(batch, {}), of_bronze, of_rejected))
        ]

    def _is_whole(
        self,
        batch_id: str,
        ledger: Mapping[str, Row],
        of_bronze: Collection[str],
        of_rejected: Collection[str],
    ) -> bool:
        for column, of_table in (("accepted", of_bronze), ("rejected", of_rejected)):
            if batch_id not in of_table and any(row[column] for row in ledger.values()):
                return False
        return all(
            upload.uri in ledger
            and ledger[upload.uri]["stored_bytes"] == upload.size
            and self._has_its_time(ledger[upload.uri], upload)
            for upload in self.context.landing.archived(batch_id)
        )

    def _has_its_time(self, row: Row, upload: WaitingUpload) -> bool:
        """Whether an archived upload still has the modification time that it was ingested with."""
        if not self.context.landing.archive_can_change or row["uploaded_at"] is None:
            return True
        apart: timedelta = abs(row["uploaded_at"] - upload.modified)
        return apart <= (_SAME_TIME if upload.modified.microsecond else _COARSE_TIME)

    def _examined(self, batches: Sequence[str]) -> list[AuditFinding]:
        if not batches:
            return []
        # List the archive before the tables are loaded. An upload is archived after its rows are committed, so the
        # tables then have the rows of every listed upload. In S3, the archive also has copies of the uploads of the
        # batch in progress.
        archived = {batch: list(self.context.landing.archived(batch)) for batch in batches}
        in_progress = self.context.journal.load()
        rows = self._rows_of(set(batches))
        findings = (
            self._judged(batch, upload, rows)
            for batch, uploads in archived.items()
            if in_progress is None or batch != in_progress.batch_id
            for upload in uploads
        )
        return [finding for finding in findings if finding is not None]

    def _rows_of(self, batches: set[str]) -> _Rows:
        where = In(term="batch_id", literals=batches)
        bronze, rejected = self.context.lakehouse.table(BRONZE), self.context.lakehouse.table(REJECTED)
        ledger = (
            self.context.lakehouse.table(UPLOADS).scan(where, selected_fields=_LEDGER_COLUMNS).to_arrow().to_pylist()
        )
        return _Rows(
            bronze,
            rejected,
            {(row["batch_id"], row["source_uri"]): row for row in ledger},
            _count_uploads(bronze, where),
            _count_uploads(rejected, where),
        )

    def _judged(self, batch_id: str, upload: WaitingUpload, rows: _Rows) -> AuditFinding | None:
        found = partial(AuditFinding, batch_id, upload)
        key = batch_id, upload.uri
        accepted, rejected = rows.accepted.get(key, 0), rows.rejected.get(key, 0)
        row = rows.ledger.get(key)
        if row is None:
            # A batch is one commit to Bronze, so an upload that has rows there has all of them. An upload without rows
            # may have lost them to an audit that was killed before it put the upload back.
            has_rows = accepted or (rejected and batch_id in rows.in_bronze)
            lacks_rows = False if has_rows else self._lacks_rows(batch_id, upload, rejected)
            if lacks_rows is None:
                return found("unreadable", "it cannot be read, and no table has rows for it")
            if lacks_rows:
                return found("lost", "neither the ledger nor Bronze has rows for it")
            return found("unrecorded", "the tables have its rows, but the ledger has no row for it")
        if row["stored_bytes"] is not None and row["stored_bytes"] != upload.size:
            before = f"it had {row['stored_bytes']:,} bytes when it was ingested"
            return found("changed", f"{before}, and has {upload.size:,} now")
        if not has_recorded_rows(row, accepted, rejected, rows.rejected_since):
            problem = (
                f"the ledger has {row['accepted']} accepted and {row['rejected']} rejected documents for it, but the "
                f"tables have {accepted} and {rejected} rows"
            )
            lost = not accepted if row["accepted"] else not rejected
            return found("lost" if lost else "incomplete", problem)
        if not self._has_its_time(row, upload) and self._has_new_documents(row, upload, rows):
            return found("changed", "its content changed after it was ingested")
        return None

    def _lacks_rows(self, batch_id: str, upload: WaitingUpload, rejected: int) -> bool | None:
        """Whether an upload without rows in Bronze lacks rows that it should have; None if it cannot be read."""
        if self.context.limits.exclude(upload.size):
            return not rejected
        expected = self._expected(batch_id, upload)
        if expected is None:
            return None if not rejected else False
        return bool(expected.bronze.num_rows) or (bool(expected.rejected.num_rows) and not rejected)

    def _has_new_documents(self, row: Row, upload: WaitingUpload, rows: _Rows) -> bool:
        """Whether an archived upload has documents that the tables lack. Copying an archive changes only times.

        :param row: its row of the ledger.
        """
        batch_id = row["batch_id"]
        expected = None if self.context.limits.exclude(upload.size) else self._expected(batch_id, upload)
        if expected is None:
            return False
        of_upload = [expected.bronze]
        if rows.rejected_since is None or row["ingested_at"] >= rows.rejected_since:
            of_upload.append(expected.rejected)
        return not _documents(*of_upload)[upload.uri] <= rows.documents_of(batch_id)[upload.uri]

    def _expected(self, batch_id: str, upload: WaitingUpload) -> UploadRows | None:
        """Parse an archived upload; None if it cannot be read."""
        try:
            content = self.context.landing.archived_content(batch_id, upload)
        except OSError as error:
            logger.warning("the archived %s cannot be read: %s", upload.uri, error)
            return None
        return upload_rows(upload.name, content, Origin(upload.uri, datetime.now(UTC), batch_id), self.context.limits)


@dataclass(frozen=True)
class _Rows:
    """The rows that the tables have of some batches.

    :param ledger: the rows of the ledger, by upload.
    :param accepted: the number of rows of Bronze, by upload.
    :param rejected: the number of rows of the rejected documents, by upload.
    """

    bronze: Table
    rejected_documents: Table
    ledger: Mapping[UploadKey, Row]
    accepted: Mapping[UploadKey, int]
    rejected: Mapping[UploadKey, int]

    @cached_property
    def rejected_since(self) -> datetime | None:
        """See :func:`rejected_since`."""
        return rejected_since(self.rejected_documents)

    @cached_property
    def in_bronze(self) -> set[str]:
        """The ids of the batches that Bronze has rows of."""
        return {batch for batch, _ in self.accepted}

    def documents_of(self, batch_id: str) -> Mapping[str, set[_Document]]:
        """The documents of a batch, by upload. Only the last batch is cached: uploads are examined batch by batch."""
        if batch_id not in self._documents:
            of_batch = EqualTo(term="batch_id", value=batch_id)
            scans = (
                table.scan(of_batch, selected_fields=_DOCUMENT_COLUMNS)
                for table in (self.bronze, self.rejected_documents)
            )
            self._documents.clear()
            self._documents[batch_id] = _documents(*(scan.to_arrow() for scan in scans))
        return self._documents[batch_id]

    @cached_property
    def _documents(self) -> dict[str, Mapping[str, set[_Document]]]:
        return {}


def _summary(run_id: str) -> dict[str, str]:
    return {RUN_ID: run_id, "telemetry.step": "audit"}


def _batch_snapshots(table: Table) -> dict[str, Snapshot]:
    """The snapshots of batches, by batch id, if the table certainly still has every row of the batch."""
    snapshots: dict[str, Snapshot] = {}
    for snapshot in current_ancestors(table):
        summary = summary_of(snapshot)
        if batch := summary.get(BATCH_ID):
            snapshots[batch] = snapshot
        elif not changes_no_row(snapshot) and snapshot.summary and snapshot.summary.operation != Operation.APPEND:
            # This snapshot may have removed rows of any earlier batch.
            break
    return snapshots


def _count_uploads(table: Table, where: BooleanExpression) -> Mapping[UploadKey, int]:
    return {(batch, uri): count for (batch, uri), count in count_rows(table, where, ("batch_id", "source_uri")).items()}


def _documents(*tables: pa.Table) -> Mapping[str, set[_Document]]:
    """The accepted and rejected documents of each upload, with their positions."""
    documents: defaultdict[str, set[_Document]] = defaultdict(set)
    for table in tables:
        for row in table.select(_DOCUMENT_COLUMNS).to_pylist():
            documents[row["source_uri"]].add((row["source_position"], row["payload"]))
    return documents
