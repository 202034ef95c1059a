"""The findings of ``telemetry-assets doctor`` about the pipeline's file systems."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion.storage_checks import StorageFinding, examine_storage
from telemetry_assets.settings import Settings
from telemetry_assets_tests.harness.forked import ForkedProgram
from telemetry_assets_tests.harness.mounted import filled, leave_mounts_to_others, mount_tmpfs, remount


def examined(folder: Path) -> list[StorageFinding]:
    settings = Settings(landing_uri=str(folder / "landing"), lakehouse_uri=str(folder / "lakehouse"))
    return list(examine_storage(settings))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in ("landing/.claimed", "lakehouse/ingestion"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_usual_file_system_has_no_findings_and_no_leftover_files(place: Path) -> None:
    before = sorted(place.rglob("*"))
    assert examined(place) == []
    assert sorted(place.rglob("*")) == before


def test_it_makes_no_folder(tmp_path: Path) -> None:
    assert examined(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def refusing(number: int) -> Callable[..., None]:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize(
    ("owner", "function", "replaced", "text", "needs_action"),
    [
        (os, "link", refusing(errno.EPERM), "no hard links in .*ingestion; locks are used instead", False),
        (os, "fsync", refusing(errno.EIO), "cannot be synced to the disk .* I/O error", True),
        (fcntl, "flock", refusing(errno.ENOSYS), r"cannot be locked: .* does not support locks", True),
        (fcntl, "flock", lambda *_: None, "locks have no effect in .*ingestion", True),
        (
            Path,
            "rename",
            refusing(errno.EACCES),
            r"cannot be renamed from .*landing to .*ingestion, which .*: Permission denied",
            True,
        ),
        (Path, "mkdir", refusing(errno.EACCES), "cannot be created in .*ingestion: Permission denied; give this", True),
        (time, "time", lambda: 0.0, "the clocks of .* differ by .* s; ingestion uses", False),
        (resource, "getrlimit", lambda _: (100, 100), "may open only 100 files, and a run may need 256", True),
    ],
)
def test_what_is_missing_is_named(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    function: str,
    replaced: Callable[..., Any],
    text: str,
    needs_action: bool,
) -> None:
    before = sorted(place.rglob("*"))
    monkeypatch.setattr(owner, function, replaced)
    found = examined(place)
    monkeypatch.undo()
    [named] = [one for one in found if re.search(text, one.text)]
    assert named.needs_action is needs_action
    assert sorted(place.rglob("*")) == before


def on_other_file_systems(place: Path) -> None:
    leave_mounts_to_others()
    landing = mount_tmpfs(place / "landing", "100m")
    (landing / ".claimed").mkdir()
    with filled(landing, 1_000_000):
        full = [one.text for one in examined(place) if one.needs_action]
    apart = [one.text for one in examined(place) if not one.needs_action]
    remount(landing, "ro")
    read_only = [one.text for one in examined(place) if one.needs_action]
    assert full == [f"1 MB free of 105 MB on the file system of {landing}; make room"]
    assert apart == [
        f"{place / 'lakehouse' / 'archive'} is on another file system than {landing}; uploads are copied there"
    ]
    [text] = read_only
    assert text.startswith(f"a file cannot be created in {landing}: The file system of {landing} is read-only.")


def test_a_full_one_and_a_read_only_one(place: Path) -> None:
    exit_code, output = ForkedProgram(on_other_file_systems, place, environment=dict(os.environ)).wait()
    assert exit_code == 0, output
