"""Every write that PyIceberg makes, and what to do when a commit's outcome is unknown.

PyIceberg rebases an append or an overwrite by itself when somebody else commits in between. For a
read-modify-write that loses or doubles rows, so rebasing is off here: a commit succeeds on exactly
the table that was read, or raises ``CommitFailedException`` and is redone from the read.
"""

from __future__ import annotations

import random
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.table import StagedTable, Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetPropertiesUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.typedef import Identifier
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, stop_after_attempt

from telemetry_assets.errors import ConcurrentWriteError
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_ATTEMPTS = 8
COMMIT_ID = "telemetry.commit-id"
"""In the summary of each snapshot: the commit that made it, perhaps together with another snapshot."""
BATCH_ID = "telemetry.batch-id"
_SET_IN = "telemetry.properties-set-in"
_NO_SNAPSHOT = "none"

Result = TypeVar("Result")


def until_committed(contract: TableContract, attempt: Callable[[], Result]) -> Result:
    """Run ``attempt``, which reads the table and commits, and repeat it while other writers commit in between.

    :raises ConcurrentWriteError: if every attempt lost to another writer.
    """

    def log(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.info("%s changed during a commit (%s); reading it again", contract.full_name, error)

    conflict = retry_if_exception_type(CommitFailedException)
    try:
        return Retrying(retry=conflict, stop=stop_after_attempt(_ATTEMPTS), wait=_wait, before_sleep=log)(attempt)
    except RetryError as error:
        raise ConcurrentWriteError(contract.full_name, _ATTEMPTS) from error.last_attempt.exception()


def _wait(state: RetryCallState) -> float:
    """The seconds until the next attempt."""
    return random.uniform(0.05, 0.2) * 2.0 ** min(state.attempt_number - 1, 4)


def append_files(table: Table, files: Sequence[DataFile], summary: Mapping[str, str]) -> None:
    """Append data files that no table has yet, as one snapshot.

    :param table: as it was loaded before it was found out that it lacks their rows.
    :raises CommitFailedException: where the table has changed since; read again, then try again.
    """

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        with transaction.update_snapshot(properties).fast_append() as append:
            for file in files:
                append.append_data_file(file)

    _commit(table, change, summary)


def append_rows(
    table: Table, rows: pa.Table, summary: Mapping[str, str], table_properties: Mapping[str, str] | None = None
) -> None:
    """Append rows, as one snapshot, and set table properties, in one commit.

    :param table: as it was loaded before it was found out which rows it lacks.
    :raises CommitFailedException: where the table has changed since; read again, then try again.
    """

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        transaction.append(rows, properties)
        if table_properties:
            transaction.set_properties(dict(table_properties))

    _commit(table, change, summary)


def history(table: Table) -> Iterator[Snapshot]:
    """The current snapshot and its ancestors, the newest first.

    PyIceberg's own ``ancestors_of`` searches all snapshots for each ancestor.
    """
    by_id = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        snapshot = by_id.get(snapshot.parent_snapshot_id) if snapshot.parent_snapshot_id is not None else None


def summary_of(snapshot: Snapshot) -> dict[str, str]:
    """The snapshot's own properties."""
    return dict(snapshot.summary.additional_properties) if snapshot.summary else {}


def replace_rows(
    table: Table,
    where: BooleanExpression,
    rows: pa.Table,
    summary: Mapping[str, str],
    table_properties: Mapping[str, str],
) -> None:
    """Put ``rows`` in the place of all rows ``where`` holds for, and set table properties, in one commit.

    :param table: as it was loaded before its rows, or those of its upstream, were read.
    :raises CommitFailedException: where the table has changed since; read again, then try again.
    """

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Delete operation did not match any records")
            transaction.overwrite(rows, where, properties)
        if table_properties:
            snapshot = transaction.table_metadata.current_snapshot()
            transaction.set_properties({**table_properties, **_set_in(snapshot)})

    _commit(table, change, summary)


def delete_rows(table: Table, where: BooleanExpression, summary: Mapping[str, str]) -> bool:
    """Delete all rows ``where`` holds for, as one snapshot; none where there is no such row.

    :param table: freshly loaded.
    :returns: whether there was such a row.
    :raises CommitFailedException: where the table has changed since; load it again, then try again.
    """
    if not table.scan(where, limit=1).count():
        return False
    _commit(table, lambda transaction, properties: transaction.delete(where, properties), summary)
    return True


def set_table_properties(table: Table, table_properties: Mapping[str, str]) -> None:
    """Set table properties where they differ, without a snapshot.

    :param table: as it was loaded before what the properties say was found out.
    :raises CommitFailedException: where the table has another current snapshot since.
    """
    snapshot = table.current_snapshot()
    wanted = {**table_properties, **_set_in(snapshot)} if table_properties else {}
    if all(table.properties.get(name) == value for name, value in wanted.items()):
        return
    table.catalog.commit_table(
        table,
        (
            AssertTableUUID(uuid=table.metadata.table_uuid),
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=snapshot.snapshot_id if snapshot else None),
        ),
        (SetPropertiesUpdate(updates=wanted),),
    )


def holds_what_properties_say(table: Table) -> bool:
    """Whether what the table's properties say about its rows still holds: it was not rolled back since.

    Properties do not roll back with a table, so they name the snapshot that they were set in.
    """
    set_in = table.properties.get(_SET_IN, _NO_SNAPSHOT)
    return set_in == _NO_SNAPSHOT or any(str(snapshot.snapshot_id) == set_in for snapshot in history(table))


def has_commit(table: Table, commit_id: str) -> bool:
    """Whether a commit is among the table's snapshots, whatever was answered to it."""
    return any(summary_of(snapshot).get(COMMIT_ID) == commit_id for snapshot in table.snapshots())


def holds_commit(table: Table, commit_id: str) -> bool:
    """Whether a commit is in the table as it is now: it was made, and not rolled back since."""
    return any(summary_of(snapshot).get(COMMIT_ID) == commit_id for snapshot in history(table))


def _set_in(snapshot: Snapshot | None) -> dict[str, str]:
    return {_SET_IN: str(snapshot.snapshot_id) if snapshot else _NO_SNAPSHOT}


def _commit(table: Table, change: Callable[[Transaction, dict[str, str]], object], summary: Mapping[str, str]) -> None:
    commit_id = uuid.uuid4().hex
    table.metadata = _for_one_commit(table.metadata)
    transaction = table.transaction()
    change(transaction, {**summary, COMMIT_ID: commit_id})
    try:
        transaction.commit_transaction()
    except CommitFailedException:
        raise
    except Exception as error:
        # What this process believes of a commit in doubt is worth nothing: the table is loaded as another one sees it.
        if not has_commit(table.refresh(), commit_id):
            raise
        logger.warning("a commit answered with an error and is in the table all the same: %s", error)


def _for_one_commit(metadata: TableMetadata) -> TableMetadata:
    """The metadata as a commit is made from it: never rebased, and without the table's history.

    In memory only. Written into the table, the property would take the retries from every other writer too; and
    PyIceberg copies the metadata some hundred times for each commit, which made a table slower with every snapshot.
    """
    current = metadata.current_snapshot()
    return metadata.model_copy(
        update={
            "properties": {**metadata.properties, "commit.retry.num-retries": "0"},
            "snapshots": [current] if current else [],
            "snapshot_log": [],
            "metadata_log": [],
        }
    )


class OrderedCommits(MetastoreCatalog):
    """A base class of catalogs that makes the timestamps of a table's commits increase, whatever the clock says.

    Iceberg's Java library, and with it Spark, Trino and Athena, does not open a table whose snapshots are out of order
    by more than a minute (``TableMetadata``: "Expected sorted snapshot log entries"). PyIceberg writes the time of the
    machine's clock. A catalog class must inherit from this class first.
    """

    def _update_and_stage_table(
        self,
        current_table: Table | None,
        table_identifier: Identifier,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> StagedTable:
        if current_table is None:
            return super()._update_and_stage_table(current_table, table_identifier, requirements, updates)
        latest = current_table.metadata.last_updated_ms
        in_order = tuple(_not_before(update, latest) for update in updates)
        staged = super()._update_and_stage_table(current_table, table_identifier, requirements, in_order)
        # Of updates without a snapshot.
        if staged.metadata.last_updated_ms < latest:
            staged.metadata = staged.metadata.model_copy(update={"last_updated_ms": latest})
        return staged


def _not_before(update: TableUpdate, moment: int) -> TableUpdate:
    if not isinstance(update, AddSnapshotUpdate) or update.snapshot.timestamp_ms >= moment:
        return update
    return update.model_copy(update={"snapshot": update.snapshot.model_copy(update={"timestamp_ms": moment})})
