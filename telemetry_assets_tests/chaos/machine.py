"""A worker's machine as seen by its runs: wall clock, hard links, and SQLite's lock timeout."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

BUSY_SECONDS = 0.6
"""SQLite's lock timeout where the product sets none, in seconds. SQLite's own default of 5 s would only make schedules
slower."""

_PATCHED = ("telemetry_assets.", "pyiceberg.table.update")


class _AnyDatetime(type):
    """Lets ``isinstance`` accept any datetime as an instance of the shifted class."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _ShiftedClock(datetime, metaclass=_AnyDatetime):
    """``datetime`` on a machine whose wall clock is wrong."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain datetime, for comparisons
        return datetime.now(tz) + timedelta(seconds=MACHINE.clock_seconds)


class Machine:
    """The differences of a worker's machine from the real one. Each worker has one.

    Python reads a shifted wall clock: ``time.time`` everywhere, and ``datetime.now`` in the product and in PyIceberg's
    commits. File systems, SQLite and the engine use the true clock, as with a file server whose clock differs.
    Monotonic clocks do not change.
    """

    def __init__(self) -> None:
        self.clock_seconds = 0.0
        self.hard_links = True

    def install(self) -> None:
        """Patch the functions through which the product uses the machine."""
        true_time, true_link = time.time, os.link
        true_connect: Any = sqlite3.dbapi2.connect

        def link(src: Any, dst: Any, *arguments: Any, **named: Any) -> None:
            if not self.hard_links:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(src), None, str(dst))
            true_link(src, dst, *arguments, **named)

        def connect(*arguments: Any, **named: Any) -> Any:
            # The timeout is the second argument.
            waits = {} if len(arguments) > 1 else {"timeout": BUSY_SECONDS}
            return true_connect(*arguments, **{**waits, **named})

        time.time = lambda: true_time() + self.clock_seconds
        os.link = link
        setattr(sqlite3.dbapi2, connect.__name__, connect)
        for name, module in list(sys.modules.items()):
            if name.startswith(_PATCHED) and getattr(module, "datetime", None) is datetime:
                setattr(module, datetime.__name__, _ShiftedClock)


MACHINE = Machine()
