"""Full, read-only and limited file systems: nothing is lost or duplicated, and the next run completes the batch."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy.exc import OperationalError

from telemetry_assets.cli.main import main
from telemetry_assets.errors import TelemetryAssetsError
from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.forked import ForkedProgram
from telemetry_assets_tests.harness.killed_process import die_at
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.mounted import (
    filled,
    leave_mounts_to_others,
    make_ext4,
    mount_image,
    mount_tmpfs,
    remount,
)
from telemetry_assets_tests.harness.places import BATCH

GOES_ON = "the batch waits, and the next run continues it."
NO_SPACE = r"There is no space left on the file system of {} \([\d,]+ MB free of [\d,]+ MB\)\. Free some space; "
# The message if SQLite does not report why it cannot open its file.
OF_THE_CATALOG = "The catalog .* cannot be used. .*unable to open database file"
KILOBYTE = 1024


def upload_of(name: str, size: int = 0) -> bytes:
    """One document with a field that cannot be compressed."""
    return framed([event(name, padding=random.Random(name).randbytes(size // 2).hex())], "array")[1]


def in_own_process(story: Callable[..., None], *arguments: object) -> None:
    exit_code, output = ForkedProgram(story, *arguments, environment=_environment()).wait(120)
    assert exit_code == 0, output


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")}


def problem_of(action: Callable[[], object]) -> str:
    """The message of an action's storage error; empty if the action succeeds."""
    try:
        action()
    except (TelemetryAssetsError, OperationalError) as error:
        return str(error)
    return ""


def ingest(deployed: Deployment) -> None:
    """Run up to Bronze, without an engine, whose start takes most of a run's time."""
    deployed.pipeline.ingest("test-run")


def assert_ends_well(
    deployed: Deployment, uploads: int, next_run: Callable[[Deployment], object] = Deployment.process
) -> None:
    """Assert that the next run completes the work, and that every document is in the tables once."""
    next_run(deployed)
    if next_run is Deployment.process:
        deployed.recall_batches()
        deployed.assert_equals_the_contract()
    assert len(deployed.rows(BRONZE)) == uploads
    assert deployed.rows(REJECTED) == []
    assert [path for path in deployed.landing.rglob("*") if path.is_file()] == []
    assert deployed.pipeline.ingestion.journal.load() is None


def full_and_freed(folder: Path, apart: bool, lefts: Sequence[int]) -> None:
    leave_mounts_to_others()
    full = mount_tmpfs(folder / "lakehouse" if apart else folder, "24m")
    with deployment(folder) as deployed:
        deployed.upload("first.json", upload_of("CAR-1"))
        deployed.process()
        deployed.upload("second.json", upload_of("CAR-2", 100 * KILOBYTE))
        problems = []
        for left in lefts:
            with filled(full, left * KILOBYTE):
                problems.append(problem_of(deployed.process))
        assert problems[-1] == "", problems
        wanted = NO_SPACE.format(re.escape(str(deployed.settings.lakehouse_folder()))) + re.escape(GOES_ON)
        stopped = [problem for problem in problems if problem]
        assert [one for one in stopped if not re.fullmatch(wanted, one) and not re.search(OF_THE_CATALOG, one)] == []
        assert sum(bool(re.fullmatch(wanted, one)) for one in stopped) > 2
        assert_ends_well(deployed, 2)


@pytest.mark.parametrize(
    ("apart", "lefts"),
    [(False, (0, 8, 16, 24, 32, 48, 64, 96, 160, 200, 240, 600)), (True, (0, 60, 120, 180, 40, 600))],
    ids=["one file system", "the lakehouse on its own"],
)
def test_full_file_system_at_any_step_of_a_run(tmp_path: Path, apart: bool, lefts: Sequence[int]) -> None:
    in_own_process(full_and_freed, tmp_path, apart, lefts)


def landing_read_only_at(folder: Path, step: str) -> None:
    leave_mounts_to_others()
    landing = mount_tmpfs(folder / "landing", "4m")
    original = getattr(FolderLanding, step)

    def then_read_only(*arguments: Any) -> Any:
        remount(landing, "ro")
        return original(*arguments)

    with deployment(folder, read_threads=1) as deployed:
        for name in ("CAR-1", "CAR-2"):
            deployed.upload(f"{name}.json", upload_of(name))
        setattr(FolderLanding, step, then_read_only)
        problem = problem_of(lambda: ingest(deployed))
        setattr(FolderLanding, step, original)
        assert f"The file system of {landing} is read-only. Mount it read-write" in problem
        assert GOES_ON in problem
        remount(landing, "rw")
        assert_ends_well(deployed, 2, ingest)


@pytest.mark.parametrize("step", ["claim", "archive"])
def test_landing_location_becomes_read_only_during_a_run(tmp_path: Path, step: str) -> None:
    in_own_process(landing_read_only_at, tmp_path, step)


def lakehouse_read_only_between(folder: Path) -> None:
    leave_mounts_to_others()
    lakehouse = mount_tmpfs(folder / "lakehouse", "24m")

    def run(wanted: str) -> None:
        with deployment(folder) as deployed:
            assert re.search(wanted, problem_of(lambda: ingest(deployed)) or "no problem")

    (folder / "landing").mkdir()
    for name, mode, wanted in (("1", "rw", "no problem"), ("2", "ro", "is read-only|readonly"), ("3", "rw", "no")):
        (folder / "landing" / f"{name}.json").write_bytes(upload_of(name))
        remount(lakehouse, mode)
        # A separate run, because an open catalog keeps its file system writable.
        process = get_context("fork").Process(target=run, args=(wanted,))
        process.start()
        process.join()
        assert process.exitcode == 0
    with deployment(folder) as deployed:
        assert_ends_well(deployed, 3, ingest)


def test_lakehouse_is_read_only_for_a_time(tmp_path: Path) -> None:
    in_own_process(lakehouse_read_only_between, tmp_path)


@contextmanager
def files_left(spare: int) -> Iterator[None]:
    """Limit the files that this process may open, for the duration of the context."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    taken = []
    try:
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for file in taken:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def few_open_files(folder: Path) -> None:
    read = FolderLanding.read

    def read_without_files(landing: FolderLanding, batch_id: str, upload: WaitingUpload) -> bytes:
        with files_left(0):
            return read(landing, batch_id, upload)

    with deployment(folder, read_threads=1) as deployed:
        deployed.upload("first.json", upload_of("CAR-1"))
        ingest(deployed)
        deployed.upload("x.json", upload_of("CAR-2"))
        problems = []
        for spare in (0, 1):
            with files_left(spare):
                problems.append(problem_of(lambda: ingest(deployed)))
        FolderLanding.read = read_without_files  # type: ignore[method-assign,assignment]
        problems.append(problem_of(lambda: ingest(deployed)))
        FolderLanding.read = read  # type: ignore[method-assign]
        wanted = r"This process has reached its limit of open files \([\d,]+\)\. Raise .*" + re.escape(GOES_ON)
        assert [one for one in problems if not re.fullmatch(wanted, one)] == [], problems
        assert_ends_well(deployed, 2, ingest)


def test_too_many_open_files_at_any_step_of_a_run(tmp_path: Path) -> None:
    in_own_process(few_open_files, tmp_path)


def no_link(*paths: Any, **_: Any) -> None:
    raise OSError(errno.EOPNOTSUPP, "Operation not supported", str(paths[0]), None, str(paths[1]))


def killed_without_hard_links(folder: Path, point: str) -> None:
    os.link = no_link
    if point:
        die_at(point)
    with deployment(folder) as deployed:
        if point:
            ingest(deployed)
        assert_ends_well(deployed, 1, ingest)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_run_killed_on_a_file_system_without_hard_links(tmp_path: Path, moment: str) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "x.json").write_bytes(upload_of("CAR-NL"))
    point = f"{moment} renaming to in_progress.json"
    exit_code, output = ForkedProgram(killed_without_hard_links, tmp_path, point, environment=_environment()).wait()
    assert exit_code == -9, output
    assert not list((tmp_path / "lakehouse").glob("archive/*/x.json"))
    in_own_process(killed_without_hard_links, tmp_path, "")


def power_loss_after_the_archive(folder: Path) -> None:
    leave_mounts_to_others()
    image, lost = folder / "disk", folder / "disk-after-power-loss"
    make_ext4(image, 16 * KILOBYTE * KILOBYTE)
    landing = FolderLanding(folder / "landing", folder / "lakehouse", 0)
    landing.begin(BATCH)
    mount_image(image, landing.archive_folder)
    (landing.folder / "deep").mkdir(parents=True)
    (landing.folder / "deep" / "x.json").write_bytes(b"content")
    [upload] = landing.waiting()
    assert landing.claim(BATCH, upload)
    landing.archive(BATCH, upload)
    assert list(landing.claimed()) == []
    # The content of the disk at this time, without what is only in memory.
    shutil.copyfile(image, lost)
    after = FolderLanding(landing.folder, folder / "after", 0)
    mount_image(lost, after.archive_folder)
    assert after.read_archived(BATCH, upload.uri) == b"content"


def test_power_failure_does_not_lose_an_upload_copied_to_another_file_system(tmp_path: Path) -> None:
    in_own_process(power_loss_after_the_archive, tmp_path)


def test_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_link)
    for name in ("landing", "lakehouse"):
        monkeypatch.setenv(f"TELEMETRY_{name.upper()}_URI", str(tmp_path / name))
    monkeypatch.setenv("TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS", "0")
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.json").write_bytes(upload_of("CAR-NL"))
    done = CliRunner().invoke(main, ["process", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["accepted"] == 1
    looked = CliRunner().invoke(main, ["doctor"])
    assert "no hard links in" in looked.output
    assert "locks are used instead" in looked.output
    assert looked.output.endswith("All is well.\n")
