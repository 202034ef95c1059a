"""Limits that every connection to AWS uses. Settings use them as bounds too, so this module imports nothing."""

from __future__ import annotations

from typing import Any

MOST_THREADS = 32
"""Concurrent requests of one process, which is also the size of a client's connection pool."""

RETRIES: dict[str, Any] = {"mode": "standard", "total_max_attempts": 5}
"""The SDK's standard retry mode: exponential backoff with jitter, and a quota that stops retries during an outage."""

CONNECT_SECONDS = 10
READ_SECONDS = 60
