"""The machine of a worker, as its runs find it: its wall clock, its hard links, how long SQLite waits for a lock."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

BUSY_SECONDS = 0.6
"""How long the product waits for a lock of SQLite, where it does not say so itself. SQLite's own default is 5 s; how
long it is changes nothing but the time that a schedule takes."""

_PATCHED = ("telemetry_assets.", "pyiceberg.table.update")


class _AnyDatetime(type):
    """Lets ``isinstance`` take the shifted class for the one that it stands for."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _ShiftedClock(datetime, metaclass=_AnyDatetime):
    """``datetime`` on a machine whose wall clock is wrong."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # a plain moment, as others compare
        return datetime.now(tz) + timedelta(seconds=MACHINE.clock_seconds)


class Machine:
    """What differs from this machine. There is one in each worker.

    The wall clock is shifted in what Python reads: ``time.time`` everywhere, and ``datetime.now`` in the product and in
    PyIceberg's commits. File systems, SQLite and the engine go by the true one, as with a file server whose clock
    differs. Monotonic clocks do not change.
    """

    def __init__(self) -> None:
        self.clock_seconds = 0.0
        self.hard_links = True

    def install(self) -> None:
        """Stand between the product and the machine."""
        true_time, true_link = time.time, os.link
        true_connect: Any = sqlite3.dbapi2.connect

        def link(src: Any, dst: Any, *arguments: Any, **named: Any) -> None:
            if not self.hard_links:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(src), None, str(dst))
            true_link(src, dst, *arguments, **named)

        def connect(*arguments: Any, **named: Any) -> Any:
            # The time-out is the second argument.
            waits = {} if len(arguments) > 1 else {"timeout": BUSY_SECONDS}
            return true_connect(*arguments, **{**waits, **named})

        time.time = lambda: true_time() + self.clock_seconds
        os.link = link
        setattr(sqlite3.dbapi2, connect.__name__, connect)
        for name, module in list(sys.modules.items()):
            if name.startswith(_PATCHED) and getattr(module, "datetime", None) is datetime:
                setattr(module, datetime.__name__, _ShiftedClock)


MACHINE = Machine()
