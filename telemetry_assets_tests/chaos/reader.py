"""A reader of Silver and Gold during runs, with its own connection, which must never see a partial change.

It checks what the product guarantees for one table at one snapshot:

- no two rows have the same key;
- the rows of Silver of one event date follow from Bronze as it was at one of its snapshots;
- the alerts of one date follow from Silver as it was at one of its snapshots;
- no error occurs except a lock timeout of the catalog or a table that does not exist yet.

Several tables are not one transaction, so there are no further checks across tables. If a snapshot of the upstream
expired before the reader saw it, the check is undecided, which the reader counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from threading import Event, Thread
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.table import Table
from sqlalchemy.exc import IntegrityError, OperationalError

from telemetry_assets.tables import ALERTS, SILVER, all_tables
from telemetry_assets_tests.harness.contract_reading import alert_rows, silver_rows

Row = dict[str, Any]
_BRONZE = "bronze.car_telemetry"
_PAUSE = 0.1
_KEYS = {one.full_name: one.key for one in all_tables() if not one.full_name.startswith("bronze.")}
_WAITS = ("database is locked", "database table is locked", "database is busy")
# PyIceberg creates the catalog's own tables if there are none, as the run does at the same time.
_NOT_YET = ("no such table", "already exists")
# The first reader rolls a hot journal back, which fails on a full or read-only disk.
_DISK = ("readonly database", "unable to open database", "disk I/O error", "disk is full")


@dataclass(frozen=True)
class _Follows:
    """A table whose rows of one date follow from its upstream at one snapshot."""

    table: str
    date_column: str
    upstream: str
    derive: Callable[[list[Row]], list[Row]]


_FOLLOWING = (
    _Follows(SILVER.full_name, "event_date", _BRONZE, silver_rows),
    _Follows(
        ALERTS.full_name, "alert_date", SILVER.full_name, lambda rows: [a for row in rows for a in alert_rows(row)]
    ),
)


@dataclass
class Reader:
    """Checks tables in a thread, from :meth:`begin` to :meth:`end`.

    :param open_catalog: opens the catalog anew, with a connection of its own.
    :param catalog_file: the file that must exist before there is anything to read.
    :param judges_states: whether rows must follow from the upstream; False if tables are changed manually.
    """

    open_catalog: Callable[[], SqlCatalog]
    catalog_file: Path
    judges_states: bool
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    may_fail: bool = False
    _catalog: SqlCatalog | None = None
    _rows: dict[tuple[str, int], list[Row]] = field(default_factory=dict)
    _sequence_numbers: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    _judged: set[tuple[str, int]] = field(default_factory=set)

    def begin(self) -> None:
        """Start checking."""
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Check once more and stop."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(_PAUSE)
            if self.catalog_file.exists():
                self._check_all()
        if self._catalog is not None:
            self._catalog.engine.dispose()
            self._catalog = None

    def _check_all(self) -> None:
        self.counts["passes"] += 1
        try:
            self._catalog = self._catalog or self.open_catalog()
            for name in _KEYS:
                self._check(self._catalog, name)
        except (OperationalError, IntegrityError) as error:
            self._note(error)
        except Exception as error:
            self.problems.append(f"the reader failed with {type(error).__name__}: {str(error)[:300]}")

    def _note(self, error: Exception) -> None:
        text = str(error)
        if any(one in text for one in _WAITS):
            self.counts["lock timeouts"] += 1
        elif not any(one in text for one in (*_NOT_YET, *(_DISK if self.may_fail else ()))):
            self.problems.append(f"the reader failed with {type(error).__name__}: {text[:300]}")

    def _check(self, catalog: Catalog, name: str) -> None:
        table = _existing(catalog, name)
        snapshot = table.current_snapshot() if table is not None else None
        if table is None or snapshot is None or (name, snapshot.snapshot_id) in self._judged:
            return
        rows = self._rows_at(table, name, snapshot.snapshot_id)
        keys = Counter(tuple(row[column] for column in _KEYS[name]) for row in rows)
        if keys.total() > len(keys):
            self.problems.append(
                f"the reader saw {keys.total() - len(keys)} rows too many of the same keys in {name} at snapshot "
                f"{snapshot.snapshot_id}, such as {keys.most_common(1)}"
            )
        self.counts["snapshots"] += 1
        self.counts["rows"] += len(rows)
        for following in _FOLLOWING:
            if following.table == name and self.judges_states:
                self._judge(following, catalog, rows, snapshot.snapshot_id)
        self._judged.add((name, snapshot.snapshot_id))

    def _judge(self, following: _Follows, catalog: Catalog, rows: list[Row], snapshot_id: int) -> None:
        """Find a state of the upstream for each date."""
        # Loaded after the table, so that its history contains the table's watermark.
        upstream = _existing(catalog, following.upstream)
        if upstream is None:
            self.counts["undecided"] += 1
            return
        open_dates = _by_date(rows, following.date_column)
        columns: Collection[str] = ()
        for state in self._states(upstream, following.upstream):
            wanted = following.derive(state)
            columns = wanted[0].keys() if wanted else columns
            due = _by_date(wanted, following.date_column)
            open_dates = {
                day: found
                for day, found in open_dates.items()
                if _shown(found, columns) != _shown(due.get(day, []), columns)
            }
            if not open_dates:
                self.counts["states"] += 1
                return
        if self._knows_all(upstream, following.upstream):
            self.problems.append(
                f"the reader saw rows of {following.table} at snapshot {snapshot_id} that follow from no one state of "
                f"{following.upstream}: {_first(open_dates)}"
            )
        else:
            self.counts["undecided"] += 1

    def _states(self, table: Table, name: str) -> Iterator[list[Row]]:
        """The rows of a table at each snapshot that exists or was read before, newest first."""
        current = table.current_snapshot()
        if current is not None:
            yield self._rows_at(table, name, current.snapshot_id)
        for snapshot in reversed(table.snapshots()):
            yield self._rows_at(table, name, snapshot.snapshot_id)
        here = {one.snapshot_id for one in table.snapshots()}
        yield from (rows for (of, one), rows in list(self._rows.items()) if of == name and one not in here)
        yield []

    def _knows_all(self, table: Table, name: str) -> bool:
        """Whether no snapshot has expired before it was read: each has the sequence number after its parent's."""
        last = max((one.sequence_number or 0 for one in table.snapshots()), default=0)
        return self._sequence_numbers[name] >= set(range(1, last + 1))

    def _rows_at(self, table: Table, name: str, snapshot_id: int) -> list[Row]:
        if (name, snapshot_id) not in self._rows:
            self._rows[name, snapshot_id] = table.scan(snapshot_id=snapshot_id).to_arrow().to_pylist()
            snapshot = table.snapshot_by_id(snapshot_id)
            self._sequence_numbers[name].add((snapshot.sequence_number if snapshot else None) or 0)
        return self._rows[name, snapshot_id]


def _existing(catalog: Catalog, name: str) -> Table | None:
    try:
        return catalog.load_table(name)
    except (NoSuchTableError, NoSuchNamespaceError):
        return None


def _by_date(rows: list[Row], column: str) -> dict[date, list[Row]]:
    dates: defaultdict[date, list[Row]] = defaultdict(list)
    for row in rows:
        dates[row[column]].append(row)
    return dates


def _shown(rows: list[Row], columns: Collection[str]) -> Counter[str]:
    return Counter(", ".join(f"{name}={row[name]}" for name in sorted(columns)) for row in rows)


def _first(dates: Mapping[date, list[Row]]) -> str:
    day = min(dates)
    return f"{day}, {len(dates[day])} rows such as {dates[day][0]}"
