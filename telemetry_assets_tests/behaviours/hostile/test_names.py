"""Files of any name and type: each is ingested or reported, and none stops the pipeline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.landing.base import is_finished
from telemetry_assets.ingestion.landing.files import file_uri, path_of
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed

CONTENT = framed([event()], "array")[1]

_NAME_BYTES = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.text(min_size=1, max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            *(
                b"-rf",
                b"--help",
                b"-",
                b"~",
                b"$(touch x)",
                b"`id`",
                b"a;b",
                b"a|b",
                b"*",
                b"?",
                b"%s%n",
                b"{}",
                b"a'b\"c",
            ),
            *(
                b"new\nline",
                b"car\rriage",
                b"tab\t",
                b"\x1b[2J",
                b"\xe2\x80\xae",
                b"\xff\xfe",
                b"\xed\xa0\x80",
                b" ",
                b"  x ",
            ),
            *(b"CON", b"nul", b"x.JSON", b"X", b"x", "e\u0301".encode(), "\u00e9".encode(), b"....", b"a" * 240),
        ]
    ),
).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
_NAMES = st.lists(
    st.tuples(
        st.lists(_NAME_BYTES, min_size=1, max_size=3),
        st.sampled_from([b".json", b".jsonl", b".json.gz", b".txt", b""]),
        st.sampled_from(["file", "file", "file", "link", "pipe", "folder", "link to a folder"]),
    ),
    min_size=1,
    max_size=8,
)


def put(landing: Path, parts: list[bytes], ending: bytes, kind: str) -> bool:
    """Create an entry unless the name is invalid or exists; return whether it is a file."""
    path = Path(os.fsdecode(b"/".join([os.fsencode(landing), *parts])[:3_000] + ending))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            return False
        if kind == "file":
            path.write_bytes(CONTENT)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(landing.parent if kind == "link to a folder" else "/etc/passwd")
    except OSError:
        return False
    return kind == "file"


def take_all(deployed: Deployment) -> None:
    deployed.process()
    left = [path for path in deployed.landing.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in left if is_finished(os.fspath(path.relative_to(deployed.landing)))] == []
    taken = {row["source_uri"] for row in deployed.rows(UPLOADS)}
    assert {row["source_uri"] for table in (BRONZE, REJECTED) for row in deployed.rows(table)} == taken
    archived = [path for path in deployed.settings.lakehouse_folder().glob("archive/**/*") if not path.is_dir()]
    assert not [path for path in archived if path.is_symlink()]
    assert all(path.read_bytes() == CONTENT for path in archived)
    assert len(archived) == deployed.pipeline.lakehouse.table(UPLOADS).scan().count()


# Bytes that occur in escapes are drawn more often.
_PATHS = st.lists(
    st.sampled_from([b"\\", b"x", b"f", b"5c", b"ff", b"\xff", b"\xc3", b"\xa9", b"X", b"\\x", b"\\xff", b"\\x5c"]),
    max_size=8,
).map(lambda parts: os.fsdecode(b"/" + b"".join(parts)))


@settings(max_examples=200, deadline=None)
@given(path=_PATHS, other=_PATHS)
def test_names_and_uris_map_one_to_one(path: str, other: str) -> None:
    assert path_of(file_uri(path)) == path
    assert (file_uri(path) == file_uri(other)) == (path == other)
    assert file_uri(path).encode().decode() == file_uri(path)


def test_upload_whose_name_is_not_text_can_be_read_by_its_uri(deployed: Deployment) -> None:
    """Another upload has its escaped name as its real name."""
    names = (b"M\xfcller.json.gz", b"M\\xfcller.json.gz")
    for name in names:
        deployed.upload(os.fsdecode(name), b"\x1f\x8b" + name)
    deployed.process()
    rejected = {row["source_uri"]: row["batch_id"] for row in deployed.rows(REJECTED)}
    landing = deployed.pipeline.landing
    assert {landing.read_archived(batch, uri)[2:] for uri, batch in rejected.items()} == set(names)
    assert deployed.pipeline.replay_rejected(ReplaySelection(), "again").unavailable == []


@pytest.mark.long
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=_NAMES)
def test_every_entry_is_ingested_or_reported(tmp_path_factory: pytest.TempPathFactory, names: object) -> None:
    _take(tmp_path_factory.mktemp("names"), names)


@pytest.mark.exhaustive
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=_NAMES)
def test_every_entry_is_ingested_or_reported_many_times(
    tmp_path_factory: pytest.TempPathFactory, names: object
) -> None:
    _take(tmp_path_factory.mktemp("names"), names)


def _take(folder: Path, names: object) -> None:
    with deployment(folder) as deployed:
        deployed.landing.mkdir(exist_ok=True)
        for parts, ending, kind in names:  # type: ignore[attr-defined]
            put(deployed.landing, parts, ending, kind)
        take_all(deployed)
        take_all(deployed)
