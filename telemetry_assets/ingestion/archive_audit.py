"""The archive against the ledger and the rows of Bronze: what is archived without its rows is taken again.

An upload is archived once its rows are committed, so nothing should be found. What can be found all the same: uploads
that an earlier edition archived although their commit had failed, tables that were rolled back, files whose writer
went on after they were taken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, Literal

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, In
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from telemetry_assets.ingestion.journal.base import Journal
from telemetry_assets.ingestion.landing.base import Landing, WaitingUpload
from telemetry_assets.ingestion.ledger import (
    LEDGER_COMPLETE,
    TakenUpload,
    UploadKey,
    bronze_pieces,
    ledger_rows,
    newest_moment,
    rejected_pieces,
    report_of,
    reports_from_rows,
    taken_upload,
)
from telemetry_assets.ingestion.parsing.arrow_rows import Origin, UploadReport, UploadRows, upload_rows
from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets.lakehouse.batch_rows import rows_added_by
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import changes_no_row
from telemetry_assets.lakehouse.commits import (
    BATCH_ID,
    append_files,
    append_rows,
    delete_rows,
    history,
    set_table_properties,
    summary_of,
    until_committed,
)
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_NEWEST_BATCHES = 10
"""So many of the newest batches are audited by each run."""

_BATCHES_AT_A_TIME = 200
"""Up to so many values PyIceberg compares with the bounds of files."""

_SAME_TIME = timedelta(milliseconds=1)
_COARSE_TIME = timedelta(seconds=2)
"""File systems keep times to 100 ns, or to 2 s."""

Row = dict[str, Any]
_Document = tuple[int | None, str | None]
_DOCUMENT_COLUMNS = ("source_uri", "source_position", "payload")
_LEDGER_COLUMNS = ("batch_id", "source_uri", "stored_bytes", "uploaded_at", "accepted", "rejected")


@dataclass(frozen=True)
class AuditFinding:
    """An archived upload that is not as ledger and rows have it.

    :param kind: ``lost``: its rows are missing. ``changed``: its writer went on after it was taken. ``unrecorded``:
        its rows are there, and the ledger does not know it. ``incomplete``: some of its rows are missing.
        ``unreadable``: no table has a row of it, and it cannot be read, so it may be lost or have no documents.
    """

    batch_id: str
    upload: WaitingUpload
    kind: Literal["lost", "changed", "unrecorded", "incomplete", "unreadable"]
    problem: str

    @property
    def key(self) -> UploadKey:
        """The upload, as the ledger names it."""
        return self.batch_id, self.upload.uri

    @property
    def is_taken_again(self) -> bool:
        """Whether the upload is put back to the landing location."""
        return self.kind in ("lost", "changed")

    @property
    def is_left(self) -> bool:
        """Whether a person has to decide what becomes of the upload."""
        return self.kind in ("incomplete", "unreadable")


@dataclass(frozen=True)
class ArchiveAudit:
    """Finds archived uploads whose rows are missing, and puts them back to the landing location."""

    landing: Landing
    lakehouse: Lakehouse
    journal: Journal
    limits: Limits

    def newest(self) -> list[AuditFinding]:
        """The findings of the newest batches. No more tables and uploads are read, however many batches there are."""
        batches = self.landing.newest_batches(_NEWEST_BATCHES, newest_moment(self.lakehouse.table(UPLOADS)))
        suspects = self._suspects(batches) if batches else []
        return self._examined(suspects)

    def everything(self) -> Iterator[AuditFinding]:
        """The findings of all batches of the archive."""
        batches = self.landing.archived_batches()
        for start in range(0, len(batches), _BATCHES_AT_A_TIME):
            yield from self._examined(batches[start : start + _BATCHES_AT_A_TIME])

    def examine(self, batch_id: str) -> list[AuditFinding]:
        """The findings of one batch."""
        return self._examined([batch_id])

    def complete_ledger(self, run_id: str) -> bool:
        """Record every upload that was taken before there was a ledger, and put back those whose rows were lost.

        Does nothing where it was done before.

        :returns: whether an upload was put back.
        """
        if LEDGER_COMPLETE in self.lakehouse.table(UPLOADS).properties:
            return False
        findings = list(self.everything())
        lost = [finding for finding in findings if finding.is_taken_again]
        unrecorded = [finding for finding in findings if finding.kind == "unrecorded"]
        recorded = self._record(unrecorded, AlwaysTrue(), run_id, lost=lost, completes=True)
        put_back = self.mend(lost, run_id)
        if recorded or lost:
            logger.warning(
                "bronze.uploads is new: %s recorded from the tables and the archive, %s put back because their rows "
                "are in no table",
                counted(recorded, "upload"),
                counted(len(lost), "upload"),
            )
        return put_back

    def mend(self, findings: Iterable[AuditFinding], run_id: str) -> bool:
        """Put uploads back with none of their rows left, or record them. Doing it again is harmless.

        Of those that a person has to decide on there is a warning.

        :returns: whether an upload was put back.
        """
        put_back = False
        unrecorded: dict[str, list[AuditFinding]] = {}
        for finding in findings:
            if finding.is_left:
                logger.warning(
                    "%s of batch %s is %s: %s", finding.upload.uri, finding.batch_id, finding.kind, finding.problem
                )
            elif finding.kind == "unrecorded":
                unrecorded.setdefault(finding.batch_id, []).append(finding)
            # A replay of the batch may have been seen half done, as its tables are read one after the other.
            elif finding in self.examine(finding.batch_id):
                self._take_again(finding, run_id)
                put_back = True
        for batch_id, some in unrecorded.items():
            current = self.examine(batch_id)
            still = [finding for finding in some if finding in current]
            self._record(still, EqualTo(term="batch_id", value=batch_id), run_id)
        return put_back

    def _take_again(self, finding: AuditFinding, run_id: str) -> None:
        # The rows go first: an upload without its rows is found by the next audit too.
        for contract in (REJECTED, BRONZE, UPLOADS):
            until_committed(contract, partial(self._delete_rows, contract, finding, run_id))
        if self.landing.put_back(finding.batch_id, finding.upload):
            logger.warning(
                "%s of batch %s is put back to the landing location, and is taken again: %s",
                finding.upload.uri,
                finding.batch_id,
                finding.problem,
            )

    def _delete_rows(self, contract: TableContract, finding: AuditFinding, run_id: str) -> None:
        of_batch = EqualTo(term="batch_id", value=finding.batch_id)
        of_upload = And(of_batch, EqualTo(term="source_uri", value=finding.upload.uri))
        table = self.lakehouse.table(contract)
        if not delete_rows(table, of_upload, _summary(run_id)) and contract is BRONZE:
            # A replay that has read the quarantine before its rows were deleted can no longer commit to Bronze.
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
        """Add rows to the ledger for archived uploads.

        :param where: which rows of the tables are looked at.
        :param lost: uploads that are not recorded, as they are put back.
        :param completes: whether the ledger has all uploads then, also those that only the tables have rows of.
        :returns: how many uploads were recorded.
        """
        taken = self._taken_uploads(unrecorded, where, lost=lost, completes=completes)
        properties = {LEDGER_COMPLETE: "true"} if completes else {}

        def attempt() -> int:
            ledger = self.lakehouse.table(UPLOADS)
            if completes and LEDGER_COMPLETE in ledger.properties:
                return 0
            known = _counted(ledger, where)
            rows = ledger_rows(one for key, one in taken.items() if key not in known)
            if rows.num_rows:
                append_rows(ledger, rows, _summary(run_id), properties)
            else:
                set_table_properties(ledger, properties)
            return int(rows.num_rows)

        return until_committed(UPLOADS, attempt)

    def _taken_uploads(
        self,
        unrecorded: Sequence[AuditFinding],
        where: BooleanExpression,
        *,
        lost: Sequence[AuditFinding],
        completes: bool,
    ) -> dict[UploadKey, tuple[TakenUpload, UploadReport]]:
        """The uploads that :meth:`_record` adds to the ledger, with what the tables say of them."""
        archived = {finding.key: finding.upload for finding in unrecorded}
        reports = reports_from_rows(
            bronze_pieces(self.lakehouse.table(BRONZE), where), rejected_pieces(self.lakehouse.table(REJECTED), where)
        )
        in_progress = self.journal.load()
        moments = {batch: moment for (batch, _), (moment, _) in reports.items()}
        return {
            key: (self._taken(key, moments.get(key[0], datetime.now(UTC)), archived.get(key)), report_of(reports, key))
            for key in sorted({*(reports if completes else ()), *archived} - {finding.key for finding in lost})
            if in_progress is None or key[0] != in_progress.batch_id
        }

    def _taken(self, key: UploadKey, moment: datetime, upload: WaitingUpload | None) -> TakenUpload:
        if upload is not None:
            return taken_upload(key[0], moment, upload, self.landing)
        return TakenUpload(*key, ingested_at=moment, archive_uri=None, stored_bytes=None, uploaded_at=None)

    def _suspects(self, batches: Sequence[str]) -> list[str]:
        """Those of some batches that have to be examined: snapshots and sizes do not show that they are whole."""
        ledger = self.lakehouse.table(UPLOADS)
        of_ledger, of_bronze, of_rejected = (
            _batch_snapshots(table) for table in (ledger, self.lakehouse.table(BRONZE), self.lakehouse.table(REJECTED))
        )
        doubtful = [
            batch
            for batch in batches
            if batch in of_ledger
            and (self.landing.archive_can_change or batch not in of_bronze or batch not in of_rejected)
        ]
        recorded: dict[str, dict[str, Row]] = {}
        for row in rows_added_by(ledger, {of_ledger[batch] for batch in doubtful}, _LEDGER_COLUMNS).to_pylist():
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
            for upload in self.landing.archived(batch_id)
        )

    def _has_its_time(self, row: Row, upload: WaitingUpload) -> bool:
        """Whether an archived upload has the time that it was taken with."""
        if not self.landing.archive_can_change or row["uploaded_at"] is None:
            return True
        apart: timedelta = abs(row["uploaded_at"] - upload.modified)
        return apart <= (_SAME_TIME if upload.modified.microsecond else _COARSE_TIME)

    def _examined(self, batches: Sequence[str]) -> list[AuditFinding]:
        if not batches:
            return []
        # In this order: what is archived when it is listed was committed before the tables are loaded, but for the
        # copies that S3 makes of the uploads of the batch in progress.
        archived = {batch: list(self.landing.archived(batch)) for batch in batches}
        in_progress = self.journal.load()
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
        bronze, rejected = self.lakehouse.table(BRONZE), self.lakehouse.table(REJECTED)
        ledger = self.lakehouse.table(UPLOADS).scan(where, selected_fields=_LEDGER_COLUMNS).to_arrow().to_pylist()
        return _Rows(
            bronze,
            rejected,
            {(row["batch_id"], row["source_uri"]): row for row in ledger},
            _counted(bronze, where),
            _counted(rejected, where),
        )

    def _judged(self, batch_id: str, upload: WaitingUpload, rows: _Rows) -> AuditFinding | None:
        found = partial(AuditFinding, batch_id, upload)
        key = batch_id, upload.uri
        accepted, rejected = rows.accepted.get(key, 0), rows.rejected.get(key, 0)
        row = rows.ledger.get(key)
        if row is None:
            # A batch is one commit to Bronze. Where it is there, an upload with rows has all of them; one without any
            # may have lost them to an audit that was cut off before it put the upload back.
            has_rows = accepted or (rejected and batch_id in rows.in_bronze)
            lacks_rows = False if has_rows else self._lacks_rows(batch_id, upload, rejected)
            if lacks_rows is None:
                return found("unreadable", "it cannot be read, and no table has a row of it")
            if lacks_rows:
                return found("lost", "neither the ledger nor Bronze has a row of it")
            return found("unrecorded", "its rows are there, and the ledger has none")
        if row["stored_bytes"] is not None and row["stored_bytes"] != upload.size:
            return found("changed", f"{row['stored_bytes']:,} bytes of it were taken, and it has {upload.size:,}")
        if (row["accepted"], row["rejected"]) != (accepted, rejected):
            problem = (
                f"{row['accepted']} of its documents were accepted and {row['rejected']} rejected, and the tables have "
                f"{accepted} and {rejected} rows of it"
            )
            lost = not accepted if row["accepted"] else not rejected
            return found("lost" if lost else "incomplete", problem)
        if not self._has_its_time(row, upload) and self._has_new_documents(batch_id, upload, rows):
            return found("changed", "it was written to after it was taken")
        return None

    def _lacks_rows(self, batch_id: str, upload: WaitingUpload, rejected: int) -> bool | None:
        """Whether an upload without a row of Bronze should have rows that it does not have; None where nobody knows."""
        if self.limits.exclude(upload.size):
            return not rejected
        expected = self._expected(batch_id, upload)
        if expected is None:
            return None if not rejected else False
        return bool(expected.bronze.num_rows) or (bool(expected.rejected.num_rows) and not rejected)

    def _has_new_documents(self, batch_id: str, upload: WaitingUpload, rows: _Rows) -> bool:
        """Whether an archived upload has documents that the tables lack. A copy of an archive has other times only."""
        expected = None if self.limits.exclude(upload.size) else self._expected(batch_id, upload)
        if expected is None:
            return False
        return not _documents(expected.bronze, expected.rejected)[upload.uri] <= rows.documents_of(batch_id)[upload.uri]

    def _expected(self, batch_id: str, upload: WaitingUpload) -> UploadRows | None:
        """The rows of an archived upload, as they would be now; None where it cannot be read."""
        try:
            content = self.landing.archived_content(batch_id, upload)
        except OSError as error:
            logger.warning("the archived %s cannot be read: %s", upload.uri, error)
            return None
        return upload_rows(upload.name, content, Origin(upload.uri, datetime.now(UTC), batch_id), self.limits)


@dataclass(frozen=True)
class _Rows:
    """What the tables have of some batches.

    :param ledger: rows of the ledger.
    :param accepted: how many rows Bronze has of each upload.
    :param rejected: how many rows the rejected documents have of each upload.
    """

    bronze: Table
    rejected_documents: Table
    ledger: Mapping[UploadKey, Row]
    accepted: Mapping[UploadKey, int]
    rejected: Mapping[UploadKey, int]

    @cached_property
    def in_bronze(self) -> set[str]:
        """The batches that Bronze has rows of."""
        return {batch for batch, _ in self.accepted}

    def documents_of(self, batch_id: str) -> Mapping[str, set[_Document]]:
        """The documents of a batch, by upload; those of the last batch are kept, as uploads come by batches."""
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
    return {"telemetry.run-id": run_id, "telemetry.step": "audit"}


def _batch_snapshots(table: Table) -> dict[str, int]:
    """The snapshots of batches whose rows are all in the table still, by batch; others may be too."""
    snapshots: dict[str, int] = {}
    for snapshot in history(table):
        summary = summary_of(snapshot)
        if batch := summary.get(BATCH_ID):
            snapshots[batch] = snapshot.snapshot_id
        elif not changes_no_row(snapshot) and snapshot.summary and snapshot.summary.operation != Operation.APPEND:
            # It may have removed rows of any batch before it.
            break
    return snapshots


def _counted(table: Table, where: BooleanExpression) -> dict[UploadKey, int]:
    counts: Counter[UploadKey] = Counter()
    for rows in table.scan(where, selected_fields=("batch_id", "source_uri")).to_arrow_batch_reader():
        counted = pa.Table.from_batches([rows]).group_by(["batch_id", "source_uri"]).aggregate([([], "count_all")])
        counts.update({(row["batch_id"], row["source_uri"]): row["count_all"] for row in counted.to_pylist()})
    return counts


def _documents(*tables: pa.Table) -> Mapping[str, set[_Document]]:
    """Documents, accepted or not, with their positions, by upload."""
    documents: defaultdict[str, set[_Document]] = defaultdict(set)
    for table in tables:
        for row in table.select(_DOCUMENT_COLUMNS).to_pylist():
            documents[row["source_uri"]].add((row["source_position"], row["payload"]))
    return documents
