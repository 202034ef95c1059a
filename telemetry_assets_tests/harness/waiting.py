"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(seen: Callable[[], object], seconds: float = 20) -> None:
    """Wait until ``seen`` returns something true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
