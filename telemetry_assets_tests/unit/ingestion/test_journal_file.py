"""The journal in a file, on file systems with missing features."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.ingestion.journal.file import JournalFile


def refusing(number: int) -> Callable[..., None]:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refused


def journal_entry(batch_id: str) -> JournalEntry:
    return JournalEntry(batch_id, datetime(2026, 3, 1, tzinfo=UTC))


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS, errno.EMLINK])
def test_without_hard_links_one_of_many_creates_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", refusing(number))
    store = JournalFile(tmp_path / "ingestion" / "in_progress.json")
    with ThreadPoolExecutor(16) as threads:
        created = list(threads.map(lambda batch: store.create(journal_entry(str(batch))), range(64)))
    current = store.load()
    assert current is not None
    assert [str(batch) for batch, entry in enumerate(created) if entry is not None] == [current.batch_id]
    assert store.replace(current) is not None
    store.remove(current)
    assert store.create(journal_entry("next")) is not None
    assert sorted(path.name for path in store.path.parent.iterdir()) == [".in_progress.json.lock", "in_progress.json"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_other_errors_of_link_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "link", refusing(number))
    store = JournalFile(tmp_path / "in_progress.json")
    with pytest.raises(OSError, match=os.strerror(number)):
        store.create(journal_entry("one"))
    assert list(tmp_path.iterdir()) == []


def test_missing_locks_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JournalFile(tmp_path / "in_progress.json")
    created = store.create(journal_entry("one"))
    assert created is not None
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOSYS))
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        store.replace(created)
