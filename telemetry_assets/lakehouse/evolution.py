"""Evolution: compares an existing table with its contract, and applies additive changes of the contract in place.

Additive changes are new nullable columns, wider types, descriptions, the sort order and table properties. They change
no row, so files and snapshots stay valid. All other differences are refused, because rows could be lost or misread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.sorting import NullOrder, SortDirection
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import NestedField

from telemetry_assets.lakehouse.commits import until_committed
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)


def evolve(table: Table, contract: TableContract) -> None:
    """Apply the additive changes of a contract in one commit. If there are none, nothing is committed.

    :param table: the table, which is loaded again after the commit.
    :raises ConcurrentWriteError: if other writers changed the table during each attempt.
    """
    if not any(additive_changes(table, contract)):
        return
    until_committed(contract, lambda: _evolve(table.refresh(), contract))


def _evolve(table: Table, contract: TableContract) -> None:
    changes = list(additive_changes(table, contract))
    if not changes:
        # Another run has applied them.
        return
    try:
        _commit(table, contract)
    except CommitFailedException:
        raise
    except Exception:
        # The outcome is unknown. The table is loaded again, on a new connection to the catalog.
        if any(additive_changes(table.refresh(), contract)):
            raise
    logger.info("%s was changed to its contract: %s", contract.full_name, "; ".join(changes))


def _commit(table: Table, contract: TableContract) -> None:
    with table.transaction() as transaction:
        with transaction.update_schema() as update:
            _update_columns(update, _fields(table), contract)
        if not _is_sorted(table, contract):
            with transaction.update_sort_order() as order:
                for name in contract.sort_by:
                    order.asc(name, IdentityTransform(), NullOrder.NULLS_FIRST)
        if properties := _other_properties(table, contract):
            transaction.set_properties(properties)


def _update_columns(update: UpdateSchema, found: Mapping[str, NestedField], contract: TableContract) -> None:
    previous = ""
    for wanted in contract.schema.fields:
        field = found.get(wanted.name)
        if field is None:
            update.add_column(wanted.name, wanted.field_type, doc=wanted.doc)
            # Readers that show all columns see them in the contract's order.
            update.move_after(wanted.name, previous) if previous else update.move_first(wanted.name)
        elif field.field_type != wanted.field_type or field.doc != wanted.doc:
            update.update_column(wanted.name, wanted.field_type, doc=wanted.doc)
        previous = wanted.name


def additive_changes(table: Table, contract: TableContract) -> Iterator[str]:
    """The changes that :func:`evolve` applies to a table without :func:`differences`, one sentence part each."""
    found = _fields(table)
    for wanted in contract.schema.fields:
        field = found.get(wanted.name)
        if field is None:
            yield f"column `{wanted.name}` ({wanted.field_type}) is added"
        elif field.field_type != wanted.field_type:
            yield f"column `{wanted.name}` becomes {wanted.field_type} instead of {field.field_type}"
        elif field.doc != wanted.doc:
            yield f"column `{wanted.name}` has a new description"
    if not _is_sorted(table, contract):
        yield f"it is sorted by {', '.join(contract.sort_by) or 'nothing'}"
    for name in _other_properties(table, contract):
        yield f"the property {name} is set"


def differences(table: Table, contract: TableContract, location: str) -> Iterator[str]:
    """The differences between a table and its contract that are not additive, one sentence part each.

    If an earlier schema of the table has a missing column, another program has dropped it. It is not added again,
    because that would hide that its values are lost.

    :param location: where the table's files belong.
    """
    found = _fields(table)
    earlier = {field.name for schema in table.schemas().values() for field in schema.fields}
    for wanted in contract.schema.fields:
        field = found.pop(wanted.name, None)
        if field is None:
            if wanted.name in earlier:
                yield f"column `{wanted.name}` ({wanted.field_type}) was dropped"
            elif wanted.required:
                yield f"column `{wanted.name}` ({wanted.field_type}) is missing, and a new column must be nullable"
        elif field.field_type != wanted.field_type and not _is_wider(wanted, field):
            yield f"column `{wanted.name}` is {field.field_type}; the contract says {wanted.field_type}"
        elif field.required != wanted.required:
            nullable = {True: "may not be null", False: "may be null"}
            yield f"column `{wanted.name}` {nullable[field.required]}; the contract says it {nullable[wanted.required]}"
    for name, field in found.items():
        yield f"column `{name}` ({field.field_type}) is not in the contract"
    yield from _layout_differences(table, contract, location)


def _is_sorted(table: Table, contract: TableContract) -> bool:
    """Whether a table has the sort order of its contract."""
    names = {field.field_id: field.name for field in table.schema().fields}
    found = [
        (names.get(one.source_id), str(one.transform), one.direction, one.null_order)
        for one in table.sort_order().fields
    ]
    return found == [(name, "identity", SortDirection.ASC, NullOrder.NULLS_FIRST) for name in contract.sort_by]


def _layout_differences(table: Table, contract: TableContract, location: str) -> Iterator[str]:
    names = {field.field_id: field.name for field in table.schema().fields}
    found = [(names.get(part.source_id), str(part.transform)) for part in table.spec().fields]
    wanted = [
        (contract.column_names[part.source_id - 1], str(part.transform)) for part in contract.partition_spec.fields
    ]
    if found != wanted:
        yield f"it is partitioned by {_partitioning(found)}; the contract says {_partitioning(wanted)}"
    if table.format_version != 2:
        yield f"its format version is {table.format_version}; the contract says 2"
    if table.location().rstrip("/") != location:
        yield f"its location is {table.location()}; the contract says {location}"


def _partitioning(fields: Sequence[tuple[str | None, str]]) -> str:
    return ", ".join(f"{transform}({name})" for name, transform in fields) or "nothing"


def _fields(table: Table) -> dict[str, NestedField]:
    return {field.name: field for field in table.schema().fields}


def _is_wider(wanted: NestedField, found: NestedField) -> bool:
    """Whether each value of the found type is also one of the wanted type."""
    return (str(found.field_type), str(wanted.field_type)) in {("int", "long"), ("float", "double")}


def _other_properties(table: Table, contract: TableContract) -> dict[str, str]:
    return {name: value for name, value in contract.table_properties.items() if table.properties.get(name) != value}
