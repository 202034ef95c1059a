"""Maintenance of tables by another tool, with plain PyIceberg and without the product's code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchNamespaceError, NoSuchTableError
from pyiceberg.table import Table
from sqlalchemy.exc import SQLAlchemyError

from telemetry_assets_tests.chaos.steps import AT_REST_ONLY, Maintain

MARK = {"telemetry.maintenance": "compaction"}
_APPLIED = "telemetry.applied."
_FEW = 3
_NAMESPACES = ("bronze", "silver", "gold")


def maintain(open_catalog: Callable[[], Catalog], step: Maintain, *, at_rest: bool) -> list[tuple[str, str]]:
    """Maintain tables; return each table with its outcome.

    Conflicts with a writer, lock timeouts and full disks are expected outcomes.
    """
    if step.kind in AT_REST_ONLY and not at_rest:
        return [(step.table, "left out, as a run is active")]
    try:
        catalog = open_catalog()
    except SQLAlchemyError as error:
        return [(step.table, f"failed: {type(error).__name__}")]
    return [(name, _outcome(catalog, name, step.kind)) for name in _names(catalog, step.table)]


def did_happen(outcome: str) -> bool:
    """Whether the maintenance changed a table."""
    return outcome.startswith("done")


def _outcome(catalog: Catalog, name: str, kind: str) -> str:
    try:
        return _KINDS[kind](catalog, catalog.load_table(name))
    except (NoSuchTableError, NoSuchNamespaceError):
        return "there is no such table"
    except CommitFailedException:
        return "lost its race with a writer"
    except (SQLAlchemyError, OSError) as error:
        return f"failed: {type(error).__name__}"


def _names(catalog: Catalog, table: str) -> list[str]:
    if table != "everything":
        return [table]
    try:
        return [".".join(one) for space in _NAMESPACES for one in catalog.list_tables(space)]
    except (NoSuchNamespaceError, SQLAlchemyError):
        return []


def _compact(summary: dict[str, str]) -> Callable[[Catalog, Table], str]:
    def compact(_: Catalog, table: Table) -> str:
        if table.current_snapshot() is None:
            return "there are no rows"
        rows = table.scan().to_arrow()
        # PyIceberg would rebase the rewrite on another writer's commit without reading that commit's rows.
        properties = {**table.metadata.properties, "commit.retry.num-retries": "0"}
        table.metadata = table.metadata.model_copy(update={"properties": properties})
        table.overwrite(rows, snapshot_properties=summary)
        return f"done, {rows.num_rows} rows"

    return compact


def _keep(count: int) -> Callable[[Catalog, Table], str]:
    def expire(_: Catalog, table: Table) -> str:
        kept = {one.snapshot_id for one in sorted(table.snapshots(), key=lambda one: one.sequence_number or 0)[-count:]}
        return _expired(table, [one.snapshot_id for one in table.snapshots() if one.snapshot_id not in kept])

    return expire


def _expire_marks(catalog: Catalog, upstream: Table) -> str:
    """Expire the snapshots that are watermarks of the tables derived from this one."""
    name = ".".join(upstream.name())
    marks = {catalog.load_table(one).properties.get(_APPLIED + name) for one in _names(catalog, "everything")}
    return _expired(upstream, [one.snapshot_id for one in upstream.snapshots() if str(one.snapshot_id) in marks])


def _expired(table: Table, ids: list[int]) -> str:
    # The current snapshot is that of the branch `main`.
    referenced = {ref.snapshot_id for ref in table.metadata.refs.values()}
    ids = [one for one in ids if one not in referenced]
    if not ids:
        return "there is nothing to expire"
    table.maintenance.expire_snapshots().by_ids(ids).commit()
    return f"done, {len(ids)} snapshots"


def _remove_orphans(_: Catalog, table: Table) -> str:
    named = {_path(one) for one in _named(table)}
    return _removed(one for one in _files(table, "") if one not in named and not one.name.endswith(".metadata.json"))


def _remove_old_metadata(_: Catalog, table: Table) -> str:
    named = {table.metadata_location, *(one.metadata_file for one in table.metadata.metadata_log)}
    kept = {_path(one) for one in named}
    return _removed(one for one in _files(table, "metadata") if one.name.endswith(".json") and one not in kept)


def _named(table: Table) -> Iterator[str]:
    """The files that a table's snapshots reference."""
    for snapshot in table.snapshots():
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            yield manifest.manifest_path
            yield from (entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))


def _files(table: Table, below: str) -> list[Path]:
    return [one for one in (_path(table.location()) / below).rglob("*") if one.is_file()]


def _path(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def _removed(files: Iterator[Path]) -> str:
    count = 0
    for file in files:
        file.unlink()
        count += 1
    return f"done, {count} files" if count else "there is nothing to remove"


_KINDS: dict[str, Callable[[Catalog, Table], str]] = {
    "marked compaction": _compact(MARK),
    "unmarked compaction": _compact({}),
    "expiry to one snapshot": _keep(1),
    "expiry to a few snapshots": _keep(_FEW),
    "expiry of a mark": _expire_marks,
    "removal of orphans": _remove_orphans,
    "removal of old metadata": _remove_old_metadata,
}
