"""Commits with PyIceberg: appends, replacements, deletions, table properties, and commits with an unknown outcome.

If another writer commits after the read, PyIceberg retries an append or an overwrite on the new snapshot. For a
read-modify-write, this loses or duplicates rows. So these functions turn retries off: a commit succeeds only on the
table as it was read, and otherwise raises ``CommitFailedException``. The caller then repeats the read and the commit
with :func:`until_committed`.
"""

from __future__ import annotations

import random
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
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
RUN_ID = "telemetry.run-id"
"""The property in a snapshot's summary with the id of the run that committed it."""
CHANGED_ROWS = "telemetry.changed-rows"
"""The property in a snapshot's summary with the number of rows that it added, replaced or removed.

Its files may have more rows, which have only moved."""
COMMIT_ID = "telemetry.commit-id"
"""The property in a snapshot's summary with the id of its commit. An overwrite may commit two snapshots."""
BATCH_ID = "telemetry.batch-id"
"""The property in a snapshot's summary with the id of the ingestion batch that it appended."""
REMOVED_BATCH_ID = "telemetry.removed-batch-id"
"""The property in a snapshot's summary with the id of a batch whose rows it removed. They are appended again."""
_SET_IN = "telemetry.properties-set-in"
_NO_SNAPSHOT = "none"

Result = TypeVar("Result")


def until_committed(contract: TableContract, attempt: Callable[[], Result]) -> Result:
    """Run ``attempt``, which reads the table and commits; repeat it if another writer commits in between.

    :raises ConcurrentWriteError: if another writer committed during each of 8 attempts.
    """

    def log(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.info("another writer changed %s during a commit (%s); trying again", contract.full_name, error)

    conflict = retry_if_exception_type(CommitFailedException)
    try:
        return Retrying(retry=conflict, stop=stop_after_attempt(_ATTEMPTS), wait=_wait, before_sleep=log)(attempt)
    except RetryError as error:
        raise ConcurrentWriteError(contract.full_name, _ATTEMPTS) from error.last_attempt.exception()


def _wait(state: RetryCallState) -> float:
    """The seconds until the next attempt."""
    return random.uniform(0.05, 0.2) * 2.0 ** min(state.attempt_number - 1, 4)


def append_files(table: Table, files: Sequence[DataFile], summary: Mapping[str, str]) -> None:
    """Append data files as one snapshot.

    :param table: the table as it was loaded before the caller checked that the rows are missing.
    :param files: data files that belong to no table.
    :param summary: properties for the snapshot's summary.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        with transaction.update_snapshot(properties).fast_append() as append:
            for file in files:
                append.append_data_file(file)

    _commit(table, change, summary)


def append_rows(
    table: Table, rows: pa.Table, summary: Mapping[str, str], table_properties: Mapping[str, str] | None = None
) -> None:
    """Append rows as one snapshot, and set table properties in the same commit.

    :param table: the table as it was loaded before the caller checked which rows are missing.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        transaction.append(rows, properties)
        if table_properties:
            transaction.set_properties(dict(table_properties))

    _commit(table, change, summary)


def current_ancestors(table: Table) -> Iterator[Snapshot]:
    """The current snapshot and its ancestors, newest first.

    PyIceberg's ``ancestors_of`` searches all snapshots for each ancestor.
    """
    by_id = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    snapshot = table.current_snapshot()
    while snapshot is not None:
        yield snapshot
        snapshot = by_id.get(snapshot.parent_snapshot_id) if snapshot.parent_snapshot_id is not None else None


def summary_of(snapshot: Snapshot) -> dict[str, str]:
    """The properties in a snapshot's summary."""
    return dict(snapshot.summary.additional_properties) if snapshot.summary else {}


def replace_rows(
    table: Table,
    where: BooleanExpression,
    rows: pa.Table,
    summary: Mapping[str, str],
    table_properties: Mapping[str, str],
) -> None:
    """Replace all rows that match ``where`` with ``rows``, and set table properties in the same commit.

    :param table: the table as it was loaded before its rows, or those of its upstream, were read.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Delete operation did not match any records")
            transaction.overwrite(rows, where, properties)
        _set_properties(transaction, table, table_properties)

    _commit(table, change, summary)


def replace_files(
    table: Table,
    added: Sequence[DataFile],
    removed: Sequence[DataFile],
    summary: Mapping[str, str],
    table_properties: Mapping[str, str],
) -> None:
    """Replace data files with others in one snapshot, and set table properties in the same commit.

    :param table: the table as it was loaded before its rows, or those of its upstream, were read.
    :param added: data files that belong to no table.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        update = transaction.update_snapshot(properties)
        with update.overwrite() if removed else update.fast_append() as files:
            for file in added:
                files.append_data_file(file)
            for file in removed:
                files.delete_data_file(file)
        _set_properties(transaction, table, table_properties)

    _commit(table, change, summary)


def delete_rows(table: Table, where: BooleanExpression, summary: Mapping[str, str]) -> bool:
    """Delete all rows that match ``where`` as one snapshot. If no row matches, nothing is committed.

    :returns: whether a row matched.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """
    if not table.scan(where, limit=1).count():
        return False
    _commit(table, lambda transaction, properties: transaction.delete(where, properties), summary)
    return True


def set_table_properties(table: Table, table_properties: Mapping[str, str]) -> None:
    """Set table properties without a snapshot. If they already have these values, nothing is committed.

    :param table: the table as it was loaded before the values of the properties were determined.
    :raises CommitFailedException: if the table's current snapshot or one of the properties has changed since it was
        loaded.
    """
    snapshot = table.current_snapshot()
    wanted = {**table_properties, **_set_in(snapshot)} if table_properties else {}
    if all(table.properties.get(name) == value for name, value in wanted.items()):
        return
    table.catalog.commit_table(
        table,
        (
            AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=snapshot.snapshot_id if snapshot else None),
            _as_read(table, table_properties),
        ),
        (SetPropertiesUpdate(updates=wanted),),
    )


def was_rolled_back(table: Table) -> bool:
    """Whether the table was rolled back to a snapshot before its properties were set.

    A rollback does not change properties, so they may then describe rows that the table no longer has. One of the
    properties is the id of the snapshot with which they were set.
    """
    set_in = table.properties.get(_SET_IN, _NO_SNAPSHOT)
    return set_in != _NO_SNAPSHOT and all(str(snapshot.snapshot_id) != set_in for snapshot in current_ancestors(table))


def snapshots_since_properties(table: Table) -> Iterator[Snapshot]:
    """The snapshots after the one with which the table's properties were set, newest first.

    They are all ancestors if the properties were never set.
    """
    set_in = table.properties.get(_SET_IN, _NO_SNAPSHOT)
    return takewhile(lambda snapshot: str(snapshot.snapshot_id) != set_in, current_ancestors(table))


def has_commit(table: Table, commit_id: str) -> bool:
    """Whether a commit created one of the table's snapshots, even if the response to the commit was lost.

    Snapshots that a rollback removed from the current state count too.
    """
    return any(summary_of(snapshot).get(COMMIT_ID) == commit_id for snapshot in table.snapshots())


def is_current_commit(table: Table, commit_id: str) -> bool:
    """Whether a commit created the current snapshot or one of its ancestors, so it was not rolled back."""
    return any(summary_of(snapshot).get(COMMIT_ID) == commit_id for snapshot in current_ancestors(table))


def _set_in(snapshot: Snapshot | None) -> dict[str, str]:
    return {_SET_IN: str(snapshot.snapshot_id) if snapshot else _NO_SNAPSHOT}


class _AssertProperties(AssertTableUUID):
    """The table must be the same, and some of its properties must have the values that were read.

    A commit that only sets properties creates no snapshot, so :class:`AssertRefSnapshotId` does not notice it. Catalogs
    that PyIceberg updates itself, such as SQL and Glue, evaluate requirements in this process. It derives from a
    requirement of Iceberg, because others have no place in PyIceberg's types.
    """

    values: dict[str, str | None]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]
        """See :meth:`AssertTableUUID.validate`."""
        super().validate(base_metadata)
        for name, value in self.values.items():
            if base_metadata is None or base_metadata.properties.get(name) != value:
                raise CommitFailedException(f"another writer has changed the table property {name}")


def _as_read(table: Table, names: Iterable[str]) -> _AssertProperties:
    return _AssertProperties(
        uuid=table.metadata.table_uuid, values={name: table.properties.get(name) for name in names}
    )


def _set_properties(transaction: Transaction, table: Table, table_properties: Mapping[str, str]) -> None:
    """Set table properties together with the transaction's snapshot, unless another writer has changed them."""
    if table_properties:
        # PyIceberg has no public method that adds a requirement.
        transaction._apply((), (_as_read(table, table_properties),))
        snapshot = transaction.table_metadata.current_snapshot()
        transaction.set_properties({**table_properties, **_set_in(snapshot)})


def _commit(table: Table, change: Callable[[Transaction, dict[str, str]], object], summary: Mapping[str, str]) -> None:
    commit_id = uuid.uuid4().hex
    table.metadata = _metadata_for_commit(table.metadata)
    transaction = table.transaction()
    change(transaction, {**summary, COMMIT_ID: commit_id})
    try:
        transaction.commit_transaction()
    except CommitFailedException:
        raise
    except Exception as error:
        # The outcome is unknown. The table is loaded again, on a new connection to the catalog.
        if not has_commit(table.refresh(), commit_id):
            raise
        logger.warning("a commit is in the table although its response was an error: %s", error)


def _metadata_for_commit(metadata: TableMetadata) -> TableMetadata:
    """The metadata that a commit is based on: PyIceberg's retries are off, and it has only the current snapshot.

    PyIceberg copies the metadata about a hundred times per commit, so commits would become slower with each snapshot.
    The change is only in memory: if the property was stored in the table, it would turn off the retries of all writers.
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
    """A base class of catalogs that makes the timestamps of a table's commits increase, even if the clock is set back.

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
        # The updates do not add a snapshot, e.g. they set properties.
        if staged.metadata.last_updated_ms < latest:
            staged.metadata = staged.metadata.model_copy(update={"last_updated_ms": latest})
        return staged


def _not_before(update: TableUpdate, timestamp_ms: int) -> TableUpdate:
    if not isinstance(update, AddSnapshotUpdate) or update.snapshot.timestamp_ms >= timestamp_ms:
        return update
    return update.model_copy(update={"snapshot": update.snapshot.model_copy(update={"timestamp_ms": timestamp_ms})})
