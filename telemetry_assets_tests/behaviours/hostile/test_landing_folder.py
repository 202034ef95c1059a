"""Uploaders control the landing folder: nothing in it leads the pipeline outside of it, or stops the pipeline."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets_tests.harness.another_user import act, acting, open_folder, require_root
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed

SECRET = b'{"k": "correct-horse"}'
HONEST = framed([event("HONEST")], "array")[1]


@pytest.fixture
def shared() -> Iterator[Deployment]:
    """A deployment as in docs/security.md: every user may upload, and change only their own files."""
    require_root()
    with open_folder() as folder:
        (folder / "secret").mkdir(mode=0o700)
        (folder / "secret" / "key.json").write_bytes(SECRET)
        (folder / "landing").mkdir()
        (folder / "landing").chmod(0o1777)
        with deployment(folder) as one:
            yield one


def secret_of(deployed: Deployment) -> Path:
    return deployed.landing.parent / "secret"


def assert_only_the_honest_upload_was_taken(deployed: Deployment) -> None:
    assert {row["car_chassis"] for row in deployed.rows(BRONZE)} == {"HONEST"}
    assert not [row for row in deployed.rows(REJECTED) if "correct-horse" in str(row["payload"])]
    archived = [path for path in deployed.settings.lakehouse_folder().glob("archive/**/*") if path.is_file()]
    assert not [path for path in archived if SECRET in path.read_bytes()]
    assert (secret_of(deployed) / "key.json").read_bytes() == SECRET


PLANTED: dict[str, str] = {
    "a link to a file": "os.symlink(f'{secret}/key.json', f'{landing}/x.json')",
    "a link to a folder": "os.symlink(secret, f'{landing}/x')",
    "a link to the lakehouse": "os.symlink(lakehouse, f'{landing}/x')",
    "a link to what the process itself is": "os.symlink('/proc/self', f'{landing}/x')",
    "a link that leads nowhere": "os.symlink('/nowhere', f'{landing}/x.json')",
    "a link to itself": "os.symlink('x.json', f'{landing}/x.json')",
    "a pipe": "os.mkfifo(f'{landing}/x.json')",
    "released_symlink.sh": "os.mkdir(f'{landing}/.released'); os.symlink(lakehouse, f'{landing}/.released/x')",
    "a link in place of the released uploads": "os.symlink(secret, f'{landing}/.released')",
    "a link in place of the claims": "os.symlink(lakehouse, f'{landing}/.claimed')",
    "a pipe in place of the claims": "os.mkfifo(f'{landing}/.claimed')",
    "a claim that is a link": (
        "os.makedirs(f'{landing}/.claimed/batch'); os.symlink(f'{secret}/key.json', f'{landing}/.claimed/batch/x.json')"
    ),
    "both_symlinks.sh": (
        "os.mkdir(f'{landing}/.claimed'); os.mkdir(f'{landing}/.released');"
        "os.symlink(secret, f'{landing}/.claimed/x'); os.symlink(secret, f'{landing}/.released/x')"
    ),
    "a batch of a name that is none": (
        "os.makedirs(os.fsencode(landing) + b'/.claimed/\\xff\\n'); "
        "open(os.fsencode(landing) + b'/.claimed/\\xff\\n/x.json', 'w').close()"
    ),
}
PREAMBLE = "import sys\nlanding, lakehouse, secret = sys.argv[1:]\n"


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_entries_are_not_followed_and_stop_nothing(shared: Deployment, planted: str) -> None:
    lakehouse = shared.settings.lakehouse_folder()
    shared.upload("earlier.json", framed([event("HONEST", time="2025-11-01T10:00:00Z")], "array")[1])
    shared.process()
    act(PREAMBLE + PLANTED[planted], shared.landing, lakehouse, secret_of(shared))
    shared.upload("honest.json", HONEST)
    shared.process()
    assert_only_the_honest_upload_was_taken(shared)
    assert len(shared.rows(BRONZE)) == 2
    shared.assert_equals_the_contract()


def test_hard_linked_file_is_not_ingested_until_the_other_link_is_removed(deployed: Deployment) -> None:
    other = deployed.landing.parent / "other-name"
    deployed.upload("x.json", HONEST)
    other.hardlink_to(deployed.landing / "x.json")
    deployed.process()
    assert deployed.rows(BRONZE) == []
    [(place, problem)] = deployed.pipeline.landing.obstacles()
    assert place.endswith("x.json")
    assert "second name" in problem
    other.unlink()
    deployed.process()
    assert len(deployed.rows(BRONZE)) == 1


def test_a_socket_and_a_device_are_reported_and_not_opened(deployed: Deployment) -> None:
    deployed.upload("honest.json", HONEST)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(deployed.landing / "socket.json"))
        if os.geteuid() == 0:
            os.mknod(deployed.landing / "device.json", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        deployed.process()
        problems = {problem for _, problem in deployed.pipeline.landing.obstacles()}
    assert problems == {"it is neither a file nor a folder; remove it"}
    assert len(deployed.rows(BRONZE)) == 1


EXCHANGE = """
import sys
landing, secret = sys.argv[1:]
os.mkdir(f"{landing}/d"); os.mkdir(f"{landing}/.kept")
print(flush=True)
while True:
    try:
        with open(f"{landing}/d/key.json", "w") as file:
            file.write('{"k": "nothing-else"}')
        os.rename(f"{landing}/d", f"{landing}/.kept/d")
        os.symlink(secret, f"{landing}/d")
        os.unlink(f"{landing}/d")
        os.rename(f"{landing}/.kept/d", f"{landing}/d")
    except OSError:
        pass
"""


def test_folder_that_is_repeatedly_replaced_by_a_link_is_not_followed(shared: Deployment) -> None:
    """The name is a folder when it is checked, and a link when it is opened."""
    with acting(EXCHANGE, shared.landing, secret_of(shared)) as attack:
        assert attack.stdout is not None
        attack.stdout.readline()
        landing = FolderLanding(shared.landing, shared.settings.lakehouse_folder(), 0)
        end, batches = time.monotonic() + 5, 0
        while time.monotonic() < end:
            batches += 1
            landing.begin(f"batch-{batches}")
            for upload in landing.waiting():
                landing.claim(f"batch-{batches}", upload)
    assert (secret_of(shared) / "key.json").read_bytes() == SECRET
    claimed = shared.settings.lakehouse_folder() / "ingestion" / "claimed"
    assert not [path for path in claimed.rglob("*") if path.is_file() and path.read_bytes() == SECRET]


# claim_swap.py of the cases: a batch's claim folder is replaced by a folder of links while the batch is read.
SWAP = """
import sys
landing, target = sys.argv[1:]
claims = f"{landing}/.claimed"
os.makedirs(f"{claims}/.new", exist_ok=True)
for number in range(600):
    os.symlink(f"../.old/f{number}.json", f"{claims}/.new/f{number}.json")
os.symlink(target, f"{claims}/.new/x.json")
print(flush=True)
while True:
    for batch in os.listdir(claims):
        if not batch.startswith(".") and os.path.exists(f"{claims}/{batch}/x.json"):
            os.rename(f"{claims}/{batch}", f"{claims}/.old")
            os.rename(f"{claims}/.new", f"{claims}/{batch}")
            sys.exit()
"""


@pytest.mark.long
def test_claim_cannot_be_replaced(shared: Deployment) -> None:
    with acting(SWAP, shared.landing, secret_of(shared) / "key.json") as attack:
        assert attack.stdout is not None
        attack.stdout.readline()
        for number in range(600):
            shared.upload(f"f{number}.json", HONEST)
        # The newest upload is read last.
        os.utime(shared.upload("x.json", HONEST), (4e9, 4e9))
        shared.process()
    assert_only_the_honest_upload_was_taken(shared)
    assert len(shared.rows(BRONZE)) == 601


@pytest.fixture
def apart(shared: Deployment, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A deployment whose landing folder is on another file system than the lakehouse."""
    rename, lakehouse = os.rename, shared.settings.lakehouse_folder()

    def elsewhere(source: str, target: Path, **folders: int) -> None:
        if lakehouse in Path(target).parents and lakehouse not in Path(source).parents:
            raise OSError(18, "Invalid cross-device link")
        rename(source, target, **folders)

    monkeypatch.setattr(os, "rename", elsewhere)
    return shared


def test_claims_in_the_landing_folder_are_not_accessible_to_others(apart: Deployment) -> None:
    apart.upload("honest.json", HONEST)
    apart.process()
    assert stat.S_IMODE((apart.landing / ".claimed").stat().st_mode) == 0o700
    assert_only_the_honest_upload_was_taken(apart)


@pytest.mark.parametrize("name", [".claimed", ".released", ".unarchived"])
@pytest.mark.parametrize("planted", ["os.mkdir(place)", "os.symlink(secret, place)", "os.mkfifo(place)"])
def test_entry_with_the_name_of_the_claims_folder_is_moved_aside(apart: Deployment, name: str, planted: str) -> None:
    act(f"import sys\nlanding, secret = sys.argv[1:]\nplace = landing + '/{name}'\n{planted}", apart.landing, "/etc")
    apart.upload("honest.json", HONEST)
    landing = apart.pipeline.landing
    landing.begin("batch")
    [upload] = landing.waiting()
    assert landing.claim("batch", upload)
    landing.release("batch", upload)
    assert [one.name for one in landing.waiting()] == ["honest.json"]
    apart.process()
    assert_only_the_honest_upload_was_taken(apart)


def test_no_claim_is_made_in_a_landing_folder_where_others_could_replace_it(apart: Deployment) -> None:
    apart.upload("honest.json", HONEST)
    apart.landing.chmod(0o777)
    # The upload waits, and the error says how to continue.
    with pytest.raises(Exception, match="belongs to another user, or others may write to it"):
        apart.process()
    assert (apart.landing / "honest.json").read_bytes() == HONEST


def test_upload_is_never_listed_below_another_users_folder(shared: Deployment) -> None:
    """If each uploader has a folder of their own, an upload's URI identifies its uploader."""
    shared.upload("victim/honest.json", HONEST)
    (shared.landing / "victim").chmod(0o755)
    planted = """
for place in (".released/z", ".claimed/y"):
    os.makedirs(f"{landing}/{place}/victim")
    open(f"{landing}/{place}/victim/forged.json", "w").write('[{"carChassis": "FORGED"}]')
"""
    act(PREAMBLE + planted, shared.landing, "", "")
    shared.process()
    assert {row["source_uri"] for row in shared.rows(UPLOADS)} == {f"file://{shared.landing}/victim/honest.json"}
    problems = [problem for place, problem in shared.pipeline.landing.obstacles() if place.endswith("ed")]
    assert problems == ["it does not belong to this pipeline, so nothing in it is ingested; remove it"] * 2


def test_a_file_and_a_folder_of_one_name_are_two_batches(deployed: Deployment) -> None:
    """A folder of uploads has the name of an earlier released upload."""
    released = deployed.settings.lakehouse_folder() / "ingestion" / "released" / "batch"
    released.mkdir(parents=True)
    (released / "v.json").write_bytes(HONEST)
    for number in range(3):
        deployed.upload(f"v.json/{number}.json", HONEST)
    deployed.process()
    assert deployed.rows(REJECTED) == []
    assert len(deployed.rows(BRONZE)) == 4
    assert len({row["batch_id"] for row in deployed.rows(UPLOADS)}) == 2
    deployed.assert_equals_the_contract()


def test_depth_of_folders_is_bounded(deployed: Deployment) -> None:
    deployed.upload("/".join(["d"] * 501) + "/x.json", HONEST)
    deployed.upload("honest.json", HONEST)
    deployed.process()
    assert len(deployed.rows(BRONZE)) == 1
    [(_, problem)] = deployed.pipeline.landing.obstacles()
    assert problem == "it is more than 500 folders deep; move it to a higher folder"


def test_a_batch_has_no_more_event_dates_than_an_upload_may_have(tmp_path: Path) -> None:
    with deployment(tmp_path, upload_max_event_dates=3) as few:
        for first in (1, 3, 5):
            days = [event("CAR", f"2025-11-0{day}T08:00:00Z") for day in (first, first + 1)]
            few.upload(f"{first}.json", framed(days, "array")[1])
        few.process()
        assert len(few.batch_reports) == 3
        assert len(few.rows(BRONZE)) == 6


def test_claims_of_the_first_version_are_continued(deployed: Deployment) -> None:
    """An interrupted batch: one upload is claimed in the landing folder, another is released there."""
    for place in (".claimed", ".released"):
        folder = deployed.landing / place / "20250101T000000-0123456789abcdef" / "deep"
        folder.mkdir(parents=True)
        (folder / f"{place[1:]}.json").write_bytes(framed([event(place)], "array")[1])
    deployed.process()
    deployed.process()
    assert {row["car_chassis"] for row in deployed.rows(BRONZE)} == {".claimed", ".released"}
    uris = {row["source_uri"] for row in deployed.rows(UPLOADS)}
    assert uris == {f"file://{deployed.landing}/deep/{name}.json" for name in ("claimed", "released")}
    assert not [path for path in deployed.landing.rglob("*") if path.is_file()]


def test_claim_that_cannot_be_released_is_an_error_instead_of_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = FolderLanding(tmp_path / "landing", tmp_path / "lakehouse", 0)
    landing.folder.mkdir()
    landing.begin("batch")
    (landing.folder / "x.json").write_bytes(HONEST)
    [upload] = landing.waiting()
    assert isinstance(upload, WaitingUpload)
    assert landing.claim("batch", upload)
    # A rename of a file onto itself does nothing either.
    monkeypatch.setattr(Path, "rename", lambda *_: None)
    with pytest.raises(OSError, match="its claim folder keeps changing"):
        landing.release("batch", upload)
