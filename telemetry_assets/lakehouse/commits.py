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
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import BooleanExpression
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, stop_after_attempt

from telemetry_assets.errors import ConcurrentWriteError
from telemetry_assets.lakehouse.snapshots import (
    COMMIT_ID,
    NO_SNAPSHOT,
    Position,
    ancestors,
    changes_no_row,
    current_ancestors,
    files_added_after,
    ids_of,
    summary_of,
)
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_ATTEMPTS = 8
_SET_IN = "telemetry.properties-set-in"
_SET_AT = "telemetry.properties-set-at"

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

    commit(table, change, summary)


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

    commit(table, change, summary)


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

    commit(table, change, summary)


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

    commit(table, change, summary)


def delete_rows(
    table: Table,
    where: BooleanExpression,
    summary: Mapping[str, str],
    table_properties: Mapping[str, str] | None = None,
) -> bool:
    """Delete all rows that match ``where`` as one snapshot, and set table properties in the same commit.

    If no row matches, nothing is committed.

    :returns: whether a row matched.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """
    if not table.scan(where, limit=1).count():
        return False

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        transaction.delete(where, properties)
        if table_properties:
            transaction.set_properties(dict(table_properties))

    commit(table, change, summary)
    return True


def set_table_properties(table: Table, table_properties: Mapping[str, str]) -> None:
    """Set table properties without a snapshot. If they already have these values, nothing is committed.

    :param table: the table as it was loaded before the values of the properties were determined.
    :raises CommitFailedException: if the table's current snapshot or one of the properties has changed since it was
        loaded.
    """
    snapshot = table.current_snapshot()
    wanted = {**table_properties, **_set_at(table.metadata, table.io)} if table_properties else {}
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


def change_snapshots(table: Table, removed: frozenset[int], tags: Mapping[str, int], old_tags: frozenset[str]) -> None:
    """Remove snapshots and tags from a table's metadata, and create tags, in one commit. No file is deleted.

    :param table: the table as it was loaded before the snapshots were chosen.
    :param removed: the ids of the snapshots to remove.
    :param tags: the tags to create, with the ids of their snapshots.
    :param old_tags: the tags to remove.
    :raises CommitFailedException: if a branch or a tag has changed since the table was loaded, or another writer has
        removed one of the snapshots.
    """
    refs = {name: ref.snapshot_id for name, ref in table.metadata.refs.items() if name != MAIN_BRANCH}
    needed = removed | frozenset(tags.values())
    requirement = _AssertSnapshots(
        uuid=table.metadata.table_uuid, head=table.metadata.current_snapshot_id, needed=needed, refs=refs
    )
    updates: list[TableUpdate] = [
        SetSnapshotRefUpdate(
            ref_name=name,
            type=SnapshotRefType.TAG,
            snapshot_id=snapshot_id,
            max_ref_age_ms=None,
            max_snapshot_age_ms=None,
            min_snapshots_to_keep=None,
        )
        for name, snapshot_id in tags.items()
    ]
    updates += [RemoveSnapshotRefUpdate(ref_name=name) for name in old_tags]
    updates += [RemoveSnapshotsUpdate(snapshot_ids=sorted(removed))] if removed else []
    table.catalog.commit_table(table, (requirement,), tuple(updates))


def was_rolled_back(table: Table) -> bool:
    """Whether the table was rolled back to a snapshot before its properties were set.

    A rollback does not change properties, so they may then describe rows that the table no longer has. One of the
    properties is the id of the snapshot with which they were set. If that snapshot has expired, and rows of it may be
    missing, the table counts as rolled back.
    """
    set_in = table.properties.get(_SET_IN, NO_SNAPSHOT)
    if set_in == NO_SNAPSHOT or any(set_in in ids_of(snapshot) for snapshot in current_ancestors(table)):
        return False
    return _files_since_properties(table) is None


def has_same_rows(table: Table) -> bool:
    """Whether no row of a table has changed since its properties were set. Manifests are read as for a rollback.

    :returns: False if its properties were never set.
    """
    set_in = table.properties.get(_SET_IN)
    if set_in == NO_SNAPSHOT:
        return table.current_snapshot() is None
    if any(set_in == str(snapshot.snapshot_id) for snapshot in current_ancestors(table)):
        return all(map(changes_no_row, snapshots_since_properties(table)))
    return _files_since_properties(table) == []


def _files_since_properties(table: Table) -> list[DataFile] | None:
    """The data files that were added since a table's properties were set; None if it is unknown, or rows are gone."""
    set_at = Position.from_json(table.properties.get(_SET_AT, ""), table.properties.get(_SET_IN, NO_SNAPSHOT))
    return files_added_after(table, set_at) if set_at is not None else None


def properties_snapshot(table: Table) -> int | None:
    """The id of the snapshot with which the table's properties were set; None if the table had none."""
    set_in = table.properties.get(_SET_IN, NO_SNAPSHOT)
    return None if set_in == NO_SNAPSHOT else int(set_in)


def snapshots_since_properties(table: Table) -> Iterator[Snapshot]:
    """The snapshots after the one with which the table's properties were set, newest first.

    They are all ancestors if the properties were never set.
    """
    set_in = table.properties.get(_SET_IN, NO_SNAPSHOT)
    return takewhile(lambda snapshot: str(snapshot.snapshot_id) != set_in, current_ancestors(table))


def has_commit(table: Table, commit_id: str) -> bool:
    """Whether a commit created one of the table's snapshots, even if the response to the commit was lost.

    Snapshots that a rollback removed from the current state count too.
    """
    return any(summary_of(snapshot).get(COMMIT_ID) == commit_id for snapshot in table.snapshots())


def is_current_commit(table: Table, commit_id: str) -> bool:
    """Whether a commit created the current snapshot or one of its ancestors, so it was not rolled back."""
    return any(summary_of(snapshot).get(COMMIT_ID) == commit_id for snapshot in current_ancestors(table))


def _set_at(metadata: TableMetadata, io: FileIO) -> dict[str, str]:
    snapshot, position = metadata.current_snapshot(), Position.of(metadata, io)
    return {
        _SET_IN: str(snapshot.snapshot_id) if snapshot else NO_SNAPSHOT,
        _SET_AT: position.to_json() if position else "",
    }


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


class _AssertSnapshots(AssertTableUUID):
    """The table must be the same, with the same branches and tags. The branch ``main`` may have newer snapshots.

    :param head: the id of the current snapshot when the table was loaded. It must be an ancestor of the current one, so
        that the table was not rolled back, perhaps to a removed snapshot.
    :param needed: the ids of snapshots that must exist.
    :param refs: the snapshots of all branches and tags except ``main``, by name.
    """

    head: int | None
    needed: frozenset[int]
    refs: dict[str, int]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]
        """See :meth:`AssertTableUUID.validate`."""
        super().validate(base_metadata)
        if base_metadata is None:
            return
        refs = {name: ref.snapshot_id for name, ref in base_metadata.refs.items() if name != MAIN_BRANCH}
        if refs != self.refs or (self.head and self.head not in {one.snapshot_id for one in ancestors(base_metadata)}):
            raise CommitFailedException("another writer has changed a branch or a tag")
        if not self.needed <= {one.snapshot_id for one in base_metadata.snapshots}:
            raise CommitFailedException("another writer has removed one of the snapshots")


def _as_read(table: Table, names: Iterable[str]) -> _AssertProperties:
    return _AssertProperties(
        uuid=table.metadata.table_uuid, values={name: table.properties.get(name) for name in names}
    )


def _set_properties(transaction: Transaction, table: Table, table_properties: Mapping[str, str]) -> None:
    """Set table properties together with the transaction's snapshot, unless another writer has changed them."""
    if table_properties:
        # PyIceberg has no public method that adds a requirement.
        transaction._apply((), (_as_read(table, table_properties),))
        transaction.set_properties({**table_properties, **_set_at(transaction.table_metadata, table.io)})


def commit(table: Table, change: Callable[[Transaction, dict[str, str]], object], summary: Mapping[str, str]) -> None:
    """Commit a change of a table.

    :param change: makes the change in a transaction, with the properties for the summaries of its snapshots.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """
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
