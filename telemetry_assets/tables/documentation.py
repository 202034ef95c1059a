"""Generates ``docs/tables.md`` from the contracts: ``python -m telemetry_assets.tables.documentation``."""

from __future__ import annotations

from collections.abc import Iterator

from telemetry_assets.tables import DerivedTable, all_tables
from telemetry_assets.tables.contract import TableContract


def tables_page() -> str:
    """The content of ``docs/tables.md``, in Markdown."""
    head = (
        "# Tables\n\n`make docs` generates this page from the contracts in the code. All tables are Apache Iceberg "
        "tables of format version 2, with Parquet files and zstd compression.\n"
    )
    return "\n".join([head, *("\n".join(_section(contract)) for contract in all_tables())])


def _section(contract: TableContract) -> Iterator[str]:
    yield f"## {contract.full_name}\n"
    yield f"{contract.description}\n"
    yield f"- One row per: {', '.join(f'`{name}`' for name in contract.key)}"
    day = "the day of " if contract.partition_by_day else ""
    yield f"- Partitioned by: {f'{day}`{contract.partition}`' if contract.partition else 'nothing'}"
    if isinstance(contract, DerivedTable):
        yield f"- Computed from: `{contract.upstream.full_name}`"
    yield "\n| column | type | null | meaning |\n|---|---|---|---|"
    for column in contract.columns:
        if not column.internal:
            null = "no" if column.required else "yes"
            valid = f" Valid range: {column.valid_range}." if column.valid_range else ""
            yield f"| `{column.name}` | {column.type} | {null} | {column.description}{valid} |"
    if internal := [column.name for column in contract.columns if column.internal]:
        yield f"\nFurther columns are only for incremental refreshes: `{internal[0]}` to `{internal[-1]}`."
    yield ""


if __name__ == "__main__":
    print(tables_page(), end="")
